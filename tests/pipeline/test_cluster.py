"""The same bytes by many machines, on a real Ray cluster of one-core nodes that is started here.

Most by `small`, the network that takes the least time.
"""

import csv
import gzip
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import replace
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from queue import Empty, Queue
from types import SimpleNamespace
from typing import Any
from zipfile import ZipFile

import pytest
from PIL import Image
from ray_nodes import SMALL, Joined, Nodes, make_plan, running_nodes

from bright_photos import Command, contents, files, save
from carmask.cli import main
from carmask.pipeline.cluster import connection
from carmask.pipeline.cluster.job import ClusterError, ClusterJob, MachineReport, report_machine
from carmask.pipeline.urls import parse_path
from carmask.runtime.options import RunOptions
from carstudio import render_dataset
from s3_server import BUCKET, environment_of, serving, stored

pytestmark = pytest.mark.skipif(find_spec("ray") is None, reason="Ray is not installed: pip install 'carmask[cluster]'")

NODES = 2
PHOTOS = 36
SIZE_HW = (160, 240)
# For a cluster that the command starts, however many cores there are.
ONE_WORKER = {"RAY_OVERRIDE_RESOURCES": '{"CPU": 1}', "RAY_worker_niceness": "0"}
BROKEN = "2/broken.jpg"


@pytest.fixture(scope="module")
def store() -> Iterator[bool]:
    """An S3 server that all processes find; False where there is none."""
    if find_spec("s3fs") is None or find_spec("moto") is None:
        yield False
        return
    with serving() as address, pytest.MonkeyPatch.context() as patch:
        for name, value in environment_of(address).items():
            patch.setenv(name, value)
        yield True


@pytest.fixture(scope="module")
def cluster(store: bool) -> Iterator[Nodes]:  # noqa: ARG001 - which it has to find
    with running_nodes(NODES) as nodes:
        yield nodes


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
    """What one machine makes of the photos: a table and the masks in `small`, and `masks` by the default network."""
    folder = tmp_path_factory.mktemp("whole")
    for destination, options in (("small", ("--model", *SMALL)), ("table.csv.gz", ("--model", *SMALL)), ("masks", ())):
        with pytest.raises(SystemExit) as ended:
            main(["predict", str(photos), str(folder / destination), *options])
        assert ended.value.code == 2
    return folder


def test_a_worker_says_what_it_left_out_of_a_photo(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from carmask.pipeline.cluster.workers import PhotoWorker, _from_table, _to_table

    monkeypatch.setenv("CARMASK_MAX_PIXELS", "100000000")  # is put back afterwards
    frame = Image.new("L", (30, 20))
    frame.save(tmp_path / "a.gif", save_all=True, append_images=[Image.new("L", (30, 20), 255)])
    frame.save(tmp_path / "b.gif")
    jobs = list(make_plan(tmp_path, tmp_path / "out.csv").jobs)
    job = ClusterJob.plan([str(model)], tmp_path)
    monkeypatch.setitem(sys.modules, "ray", SimpleNamespace(get=lambda value: value))
    worker = PhotoWorker(job, lambda: nullcontext(lambda *_: None), report_machine(job).provenance, 2, 1)
    (outcomes,) = _from_table(worker(_to_table([jobs])))
    assert ["first" in outcome.job.remark for outcome in outcomes] == [True, False]


def test_a_table_and_its_failures_are_those_of_one_machine(
    cluster: Nodes, photos: Path, whole: Path, tmp_path: Path
) -> None:
    summary, _ = cluster.predict(photos, tmp_path / "table.csv.gz")
    assert (summary.done, summary.failed) == (PHOTOS + 2, 1)
    found, wanted = contents(tmp_path), contents(whole)
    assert found == {name: data for name, data in wanted.items() if not name.startswith(("masks/", "small/"))}


@pytest.mark.skipif(os.name != "posix", reason="needs SIGKILL")
def test_a_store_holds_the_same_after_a_worker_was_killed(
    cluster: Nodes, store: bool, photos: Path, whole: Path
) -> None:
    if not store:
        pytest.skip("needs s3fs and moto")
    url = f"s3://{BUCKET}/masks"
    summary, _ = cluster.predict(photos, parse_path(url), at_first=Joined.lose_one_worker)
    found, wanted = stored(url), contents(whole / "small")
    # A store takes no name that is not text.
    assert (summary.done, summary.failed) == (PHOTOS + 1, 2)
    assert found.keys() == {name for name in wanted if name.isprintable()}
    assert all(found[name] == wanted[name] for name in found if name.endswith(".png"))
    again, _ = cluster.predict(photos, parse_path(url))
    assert again.done_before == PHOTOS + 1


def test_from_an_archive_and_a_parquet_table_to_parquet(
    cluster: Nodes, photos: Path, whole: Path, tmp_path: Path
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
    summary, _ = cluster.predict(tmp_path / "list.parquet", tmp_path / "out.parquet")
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
    assert gone["error"].startswith(f"{paths[10]}: ")


@pytest.mark.parametrize(
    ("options", "named"),
    [
        (RunOptions(threads=2), "--threads"),
        (RunOptions(device="cuda"), "GPU"),
        (RunOptions(engine="onnxruntime", precision="bf16"), "bf16"),
    ],
)
def test_what_no_machine_can_run_is_refused(cluster: Nodes, photos: Path, options: RunOptions, named: str) -> None:
    with pytest.raises(ClusterError, match=named):
        cluster.ask(Joined.start_workers, ClusterJob.plan(SMALL, photos, options=options))


def test_photos_that_a_machine_does_not_see_are_refused(cluster: Nodes, tmp_path: Path) -> None:
    with pytest.raises(ClusterError, match="not shared"):
        cluster.ask(Joined.start_workers, ClusterJob.plan(SMALL, tmp_path / "not shared"))
    job = replace(ClusterJob.plan(SMALL, Path("photos")), folder=str(tmp_path / "no such folder"))
    with pytest.raises(ClusterError, match="no such folder"):
        cluster.ask(Joined.start_workers, job)


def lose_one_node(destination: Path, joined: Joined) -> int:
    """Return how many masks were not there yet."""
    joined.lose_one_node()
    return PHOTOS + 2 - len([name for name in files(destination) if name.endswith(".png")])


@pytest.mark.skipif(os.name != "posix", reason="needs SIGKILL")
def test_a_killed_command_and_a_lost_node_leave_no_trace(
    cluster: Nodes, photos: Path, whole: Path, tmp_path: Path
) -> None:
    """The last one with this cluster, which has a node less afterwards. A network that takes its time can be killed."""
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

    summary, left = cluster.predict(photos, destination, (), partial(lose_one_node, destination))
    assert left > 0, "all was done before the node was lost"
    assert summary.done_before >= len(made)
    assert summary.done_before + summary.done == PHOTOS + 2
    assert {name: (destination / name).stat().st_mtime_ns for name in made} == written_ns
    wanted = {name[len("masks/") :]: data for name, data in contents(whole).items() if name.startswith("masks/")}
    assert contents(destination) == wanted


def test_machines_with_other_results_are_refused() -> None:
    provenance = {"carmask": "1.0", "engine": "openvino", "precision": "bf16"}
    MachineReport("a", dict(provenance), "").require(provenance)
    with pytest.raises(ClusterError, match=r"machine-b: .*precision"):
        MachineReport("machine-b", {**provenance, "precision": "float32"}, "").require(provenance)
    with pytest.raises(ClusterError, match=r"machine-c: no such engine"):
        MachineReport("machine-c", {}, "", "no such engine").require(provenance)


JOIN = """
import logging, os, signal, sys
from contextlib import suppress

import ray.data  # sets variables, and the level of its logger
from carmask.pipeline.cluster.connection import connect


def state():
    return dict(os.environ), sys.stderr, os.fstat(2).st_ino, logging.getLogger("ray.data").level, signal.getsignal(15)


before = state()
with suppress(ZeroDivisionError), connect({address!r}, print):
    1 / 0
print([one == other for one, other in zip(state(), before, strict=True)])
"""


def test_a_process_is_left_as_it_was(cluster: Nodes) -> None:
    """Environment, standard error, loggers and what SIGTERM does, also after an error.

    Ray would leave PYTHONBREAKPOINT, and its own handler of SIGTERM.
    """
    command = [sys.executable, "-c", JOIN.format(address=cluster.address)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=240)
    assert done.stdout == "[True, True, True, True, True]\n"


@pytest.mark.parametrize("address", ["127.0.0.1:1", "127.0.0.1", "ray://127.0.0.1:10001", ""])
def test_a_cluster_that_does_not_exist_is_named(
    photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], address: str
) -> None:
    Command("predict", capsys).assert_refused(photos, tmp_path / "out", "--cluster", address, naming=(address,))
    assert not (tmp_path / "out").exists()


def test_a_head_node_that_no_longer_answers_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "_HEAD_TIMEOUT_S", 0.1)
    monkeypatch.setattr(connection, "_HEAD_CHECK_S", 0.02)
    said: Queue[str] = Queue()
    with socket.create_server(("127.0.0.1", 0)) as head:
        address = f"127.0.0.1:{head.getsockname()[1]}"
        ray = SimpleNamespace(get_runtime_context=lambda: SimpleNamespace(gcs_address=address))
        with connection.watch_head(ray, said.put):
            with pytest.raises(Empty):
                said.get(timeout=0.3)
            head.close()
            assert address in said.get(timeout=60)


LOSE_HEAD = """
import os, time
from carmask.pipeline.cluster import connection

connection._HEAD_TIMEOUT_S, connection._HEAD_CHECK_S = 0.1, 0.02
with connection.connect("auto", lambda message: os._exit(9)) as ray:
    node = ray._private.worker._global_node
    print(node.get_temp_dir_path(), flush=True)
    node.all_processes["gcs_server"][0].process.kill()
    time.sleep(240)
"""


def test_a_cluster_of_the_command_s_own_that_loses_its_head_leaves_no_files(tmp_path: Path) -> None:
    environment = {**os.environ, "RAY_TMPDIR": str(tmp_path), **ONE_WORKER}
    command = [sys.executable, "-c", LOSE_HEAD]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=240, env=environment)
    assert done.returncode == 9, done.stderr
    folder = Path(done.stdout.strip())
    assert folder.is_absolute()
    assert not folder.exists()


def test_a_cluster_that_does_not_start_is_said(photos: Path, tmp_path: Path) -> None:
    """Ray refuses to start with so little memory."""
    # With a folder of its own it does not find the cluster of another test.
    environment = {**os.environ, "RAY_DEFAULT_OBJECT_STORE_MAX_MEMORY_BYTES": "1000", "RAY_TMPDIR": str(tmp_path)}
    process = carmask("predict", str(photos), "out", "--cluster", "auto", cwd=tmp_path, env=environment)
    _, errors = finish(process, 1)
    assert "--cluster auto" in errors
    assert "78643200" in errors
    assert "Traceback" not in errors
    assert not (tmp_path / "out").exists()


def test_one_photo_needs_no_cluster(photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    one = photos / "0" / "000.jpg"
    Command("predict", capsys).assert_refused(one, tmp_path / "out.png", "--cluster", "auto", naming=("--cluster",))


def test_one_machine_is_a_cluster_too(
    photos: Path, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Relative paths, the command as typed; Ray prints nothing and leaves nothing behind. The review is the same."""
    (tmp_path / "few.txt").write_text(f"{photos}/0/000.jpg\n{photos}/{BROKEN}\n{photos}/1/001.jpg\n")
    environment = {**os.environ, "HOME": str(tmp_path / "home"), "RAY_TMPDIR": str(tmp_path), **ONE_WORKER}
    command = "predict", "few.txt", "out", "--review", "2", "--model", *SMALL
    process = carmask(*command, "--cluster", "auto", cwd=tmp_path, env=environment)
    out, errors = finish(process, 2)
    assert errors == ""
    assert "out/failures.csv" in out
    assert files(tmp_path / "out") == {"0/000.png", "1/001.png", "failures.csv", "review.html"}
    wanted = contents(whole)
    assert contents(tmp_path / "out")["0/000.png"] == wanted["small/0/000.jpg.png"]
    assert not list(Path("/tmp").glob(f"carmask-ray-*/session_*_{process.pid}"))  # noqa: S108
    assert not (tmp_path / "home").exists(), "Ray has left its token there"
    by_cluster = (tmp_path / "out" / "review.html").read_bytes()
    shutil.rmtree(tmp_path / "out")
    monkeypatch.chdir(tmp_path)
    assert Command("predict", capsys)(*command[1:]) == 2
    assert (tmp_path / "out" / "review.html").read_bytes() == by_cluster
