"""The same bytes by many machines, on a real Ray cluster of one-core nodes that is started here."""

import csv
import gzip
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from zipfile import ZipFile

import pytest

from bright_photos import contents, files, save
from carmask.imaging.masks import Regions
from carmask.pipeline.cluster.networks import Networks
from carmask.pipeline.cluster.order import ClusterError, Machine, Scene
from carmask.pipeline.outputs import Plan, make_plan
from carmask.pipeline.sinks import Sink
from carmask.pipeline.summary import RunObserver, RunSummary, collect_outcomes
from carmask.runtime.options import RunOptions
from carstudio import render_dataset

pytestmark = pytest.mark.skipif(find_spec("ray") is None, reason="Ray is not installed: pip install 'carmask[cluster]'")

NODES = 2
PHOTOS = 72
SIZE_HW = (160, 240)
BROKEN = "2/broken.jpg"


class Cluster:
    """Nodes without and with one core, on this machine; this process has joined them."""

    def __init__(self, ray: Any, nodes: Any) -> None:
        self.ray = ray
        self.nodes = nodes
        self.address: str = nodes.address

    def lose_one_node(self) -> None:
        """As when the plug is pulled: Ray's own processes, and with them its workers, which may outlive them."""
        node = next(iter(self.nodes.worker_nodes))
        mark = f"RAY_RAYLET_PID={node.all_processes['raylet'][0].process.pid}\0".encode()
        self.nodes.remove_node(node, allow_graceful=False)
        for environment in Path("/proc").glob("[0-9]*/environ"):
            with suppress(OSError):
                if mark in environment.read_bytes():
                    os.kill(int(environment.parent.name), signal.SIGKILL)

    def predict(self, source: Path, destination: Path) -> RunSummary:
        return self.follow(make_plan([source], destination))

    def follow(self, plan: Plan, *, observer: RunObserver | None = None, batch_size: int = 4) -> RunSummary:
        from carmask.pipeline.cluster.team import Team

        scene = Scene(Networks.read(()), Regions(), str(Path.cwd()), plan.jobs.photos.root)
        team = Team.gather(self.ray, scene)
        with plan.open_sink(team.recipe, overwrite=False) as sink:
            outcomes = team.predict(sink, batch_size=batch_size)
            return collect_outcomes(outcomes, plan, sink, observer)


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    from carmask.pipeline.cluster.connection import folder_for_ray, import_ray, joined

    with folder_for_ray() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_TMPDIR", folder)
        patch.setenv("HOME", folder)
        import_ray()
        from ray.cluster_utils import Cluster as Nodes

        # A lost node is noticed in seconds, not in half a minute.
        notice = {"health_check_period_ms": 500, "health_check_failure_threshold": 4}
        head = {"num_cpus": 0, "include_dashboard": False, "_system_config": notice}
        nodes = Nodes(initialize_head=True, head_node_args=head)
        try:
            for _ in range(NODES):
                nodes.add_node(num_cpus=1)
            with joined(nodes.address) as ray:
                yield Cluster(ray, nodes)
        finally:
            nodes.shutdown()


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Many links to a few rendered photos, in three folders; two of one stem, a name that is no text, no picture."""
    rendered = tmp_path_factory.mktemp("rendered") / "set"
    render_dataset(rendered, cars=1, views=3, size_HW=SIZE_HW)
    few = sorted((rendered / "train").glob("*.jpg"))
    root = tmp_path_factory.mktemp("many") / "photos"
    for number in range(PHOTOS):
        link = root / str(number % 3) / f"{number:03}.jpg"
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(few[number % len(few)])
    save(root / "0" / "000.png")
    (root / BROKEN).write_bytes(b"no picture")
    (root / os.fsdecode(b"1/\xff.jpg")).symlink_to(few[0])
    return root


def carmask(*arguments: object, **options: Any) -> "subprocess.Popen[str]":
    command = [sys.executable, "-m", "carmask", *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **options)


def finish(process: "subprocess.Popen[str]", status: int) -> tuple[str, str]:
    out, errors = process.communicate(timeout=240)
    assert process.returncode == status, errors
    return out, errors


@pytest.fixture(scope="module")
def whole(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What one machine makes of the photos."""
    folder = tmp_path_factory.mktemp("whole")
    for destination in ("masks", "table.csv.gz"):
        out, _ = finish(carmask("predict", photos, folder / destination), 2)
        assert f"{PHOTOS + 2} of {PHOTOS + 3} photos written" in out
    return folder


def test_a_table_and_its_failures_are_those_of_one_machine(
    cluster: Cluster, photos: Path, whole: Path, tmp_path: Path
) -> None:
    summary = cluster.predict(photos, tmp_path / "table.csv.gz")
    assert (summary.done, summary.failed) == (PHOTOS + 2, 1)
    found, wanted = contents(tmp_path), contents(whole)
    assert found == {name: data for name, data in wanted.items() if not name.startswith("masks/")}


@pytest.mark.skipif(os.name != "posix", reason="needs SIGKILL")
def test_a_killed_command_and_a_lost_node_leave_no_trace(
    cluster: Cluster, photos: Path, whole: Path, tmp_path: Path
) -> None:
    destination = tmp_path / "masks"
    process = carmask("predict", photos, destination, "--cluster", cluster.address)
    while process.poll() is None and len(files(destination)) < PHOTOS // 4:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert process.returncode == -signal.SIGKILL, "it ended before it was killed"
    made = {name for name in files(destination) if name.endswith(".png")}
    assert len(made) < PHOTOS
    written_ns = {name: (destination / name).stat().st_mtime_ns for name in made}

    plan = make_plan([photos], destination)
    left: list[int] = []

    class LosesOneNode:
        def started(self, sink: Sink) -> None:
            pass

        def photo_done(self, *_: object) -> None:
            if not left:
                cluster.lose_one_node()
                left.append(PHOTOS + 2 - len([name for name in files(destination) if name.endswith(".png")]))

    summary = cluster.follow(plan, observer=LosesOneNode())
    assert left[0] > 0, "all was done before the node was lost"
    assert summary.done_before >= len(made)
    assert summary.done_before + summary.done == PHOTOS + 2
    assert {name: (destination / name).stat().st_mtime_ns for name in made} == written_ns
    wanted = {name[len("masks/") :]: data for name, data in contents(whole).items() if name.startswith("masks/")}
    assert contents(destination) == wanted
    cluster.nodes.add_node(num_cpus=1)


def test_from_an_archive_and_a_parquet_table_to_parquet(
    cluster: Cluster, photos: Path, whole: Path, tmp_path: Path
) -> None:
    import pyarrow as pa
    from pyarrow import parquet

    archive = tmp_path / "photos.zip"
    names = [f"{number % 3}/{number:03}.jpg" for number in range(9)]
    with ZipFile(archive, "w") as stream:
        for name in (*names, BROKEN):
            stream.write(photos / name, name)
    paths = [f"zip://{name}::{archive}" for name in (*names, BROKEN, "gone.jpg")]
    parquet.write_table(pa.table({"id": range(len(paths)), "path": paths}), tmp_path / "list.parquet")
    summary = cluster.predict(tmp_path / "list.parquet", tmp_path / "out.parquet")
    assert (summary.done, summary.failed) == (9, 2)

    rows = parquet.read_table(tmp_path / "out.parquet").to_pylist()
    assert [row["path"] for row in rows] == paths
    with gzip.open(whole / "table.csv.gz", "rt", errors="surrogateescape") as stream:
        runs = dict(csv.reader(stream))
    for row, name in zip(rows, names, strict=False):
        assert row["rle"] == runs[Path(name).name]
        assert (row["height"], row["width"]) == SIZE_HW
        assert 0 < row["seconds"] < 60
        assert row["error"] is None
    broken, gone = rows[9:]
    assert (broken["rle"], gone["rle"], broken["seconds"]) == (None, None, None)
    assert broken["error"].startswith(f"{paths[9]}: ")
    assert "there is no such file" in gone["error"]


def test_what_a_cluster_cannot_do_is_said(cluster: Cluster, photos: Path, tmp_path: Path) -> None:
    scene = Scene(Networks.read((), RunOptions(threads=2)), Regions(), str(tmp_path), photos)
    from carmask.pipeline.cluster.team import Team

    with pytest.raises(ClusterError, match=r"none of its machines has 2 cores .*--threads"):
        Team.gather(cluster.ray, scene)
    with pytest.raises(ClusterError, match="none of its machines has a GPU"):
        Team.gather(cluster.ray, replace(scene, networks=Networks.read((), RunOptions(device="cuda"))))
    away = tmp_path / "not shared"
    with pytest.raises(ClusterError, match="not shared: is not there; photos lie in a folder that all machines share"):
        Team.gather(cluster.ray, replace(scene, networks=Networks.read(()), root=away))
    networks = Networks.read((), RunOptions(engine="onnxruntime", precision="bf16"))
    with pytest.raises(ClusterError, match="onnxruntime does not compute in bf16"):
        Team.gather(cluster.ray, replace(scene, networks=networks))


def test_machines_that_differ_are_told_apart() -> None:
    recipe = {"carmask": "1.0", "engine": "openvino", "precision": "bf16"}
    Machine("a", dict(recipe), "").require(recipe)
    with pytest.raises(ClusterError, match=r"b: would make other results .*precision: bf16 there, float32 now"):
        Machine("b", {**recipe, "precision": "float32"}, "").require(recipe)
    with pytest.raises(ClusterError, match=r"c: no such engine"):
        Machine("c", {}, "", "no such engine").require(recipe)


@pytest.mark.parametrize(
    ("address", "part"),
    [("127.0.0.1:1", "does not answer"), ("127.0.0.1", "host:port"), ("ray://127.0.0.1:10001", "host:port")],
)
def test_a_cluster_that_is_not_there_is_named(photos: Path, tmp_path: Path, address: str, part: str) -> None:
    _, errors = finish(carmask("predict", photos, tmp_path / "out", "--cluster", address), 1)
    assert errors.startswith(f"error: --cluster {address}: ")
    assert part in errors
    assert not (tmp_path / "out").exists()


def test_one_photo_needs_no_cluster(photos: Path, tmp_path: Path) -> None:
    _, errors = finish(carmask("predict", photos / "0" / "000.jpg", tmp_path / "out.png", "--cluster", "auto"), 1)
    assert errors == "error: --cluster: is for many photos; leave it out for one\n"


def test_one_machine_is_a_cluster_too(photos: Path, whole: Path, tmp_path: Path) -> None:
    """Relative paths, the command as it is typed; nothing of Ray is seen, and nothing of it is left."""
    (tmp_path / "few.txt").write_text(f"{photos}/0/000.jpg\n{photos}/{BROKEN}\n{photos}/1/001.jpg\n")
    environment = {**os.environ, "HOME": str(tmp_path / "home"), "RAY_TMPDIR": str(tmp_path)}
    process = carmask("predict", "few.txt", "out", "--cluster", "auto", cwd=tmp_path, env=environment)
    out, errors = finish(process, 2)
    assert errors == ""
    assert [line.partition(" (")[0] for line in out.splitlines()[-2:]] == [
        "2 of 3 photos written to out",
        "1 failure, listed in out/failures.csv",
    ]
    wanted = contents(whole)
    assert contents(tmp_path / "out")["0/000.png"] == wanted["masks/0/000.jpg.png"]
    assert not list(Path("/tmp").glob(f"carmask-ray-*/session_*_{process.pid}"))  # noqa: S108
    assert not (tmp_path / "home").exists(), "Ray has left its token there"
