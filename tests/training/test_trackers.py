import csv
import io
import json
import os
import re
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from carmask.errors import CarmaskError
from carmask.models.card import ModelCard
from carmask.models.network import Network
from carmask.training import recording
from carmask.training.recording import Trackers
from carmask.training.run import RunFolder
from carmask.training.settings import TrackerName, TrainSettings
from carmask.training.trackers import TRACKERS, Beginning, TrackerError, check_trackers
from tiny_runs import SMALL, train

TRACKED = Path(__file__).with_name("tracked.py")


def board(folder: Path) -> EventAccumulator:
    """What TensorBoard's own reader finds in a run's folder."""
    events = EventAccumulator(str(folder / "tensorboard"), size_guidance={"scalars": 0, "images": 0, "tensors": 0})
    return events.Reload()


def settings(*trackers: str) -> TrainSettings:
    return TrainSettings.model_validate({"data": "photos", "trackers": trackers, "optimizer": {"lr": 0.002}})


def recorded_by(tracker: str, folder: Path, **environment: str) -> str:
    """Have `tracked.py` record a run by a tracker, as a user would who set these; the id by which it went on."""
    (folder / "run").mkdir()
    subprocess.run(
        [sys.executable, str(TRACKED), "run", tracker],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), **environment},
        check=True,
        capture_output=True,
        timeout=300,
    )
    ids = json.loads((folder / "run" / "trackers.json").read_text())
    assert ids.keys() == {tracker}
    return str(ids[tracker])


def test_tensorboard_reads_what_the_run_s_folder_says(finished: tuple[RunFolder, str]) -> None:
    run, _ = finished
    events = board(run.path)
    with run.metrics.open(newline="") as file:
        rows = list(csv.DictReader(file))
    for tag, column in (("held_out/dice", "dice"), ("held_out/dice_worst", "dice_worst"), ("loss/epoch", "train_loss")):
        expected = [(int(row["step"]), pytest.approx(float(row[column]), abs=1e-6)) for row in rows]
        assert [(event.step, event.value) for event in events.Scalars(tag)] == expected
    assert [event.step for event in events.Scalars("loss/train")] == [1, 4, 8, 11, 12]
    pictures = events.Images("held_out/samples")
    assert [picture.step for picture in pictures] == [4, 8, 12]
    for picture, name in zip(pictures, ("epoch_001", "epoch_002", "epoch_003"), strict=True):
        shown = Image.open(io.BytesIO(picture.encoded_image_string))
        assert np.array_equal(np.asarray(shown), np.asarray(Image.open(run.samples / f"{name}.png")))
    table = events.Tensors("settings/text_summary")[0].tensor_proto.string_val[0].decode()
    assert "| optimizer.lr | 0.001 |" in table
    # TensorBoard goes on by the step alone.
    assert not (run.path / "trackers.json").exists()


def test_tensorboard_forgets_what_came_after_the_checkpoint(tmp_path: Path) -> None:
    trackers = Trackers(settings("tensorboard"))
    for begins, ends, value in ((0, 6, 1.0), (4, 8, 2.0)):
        with trackers.recording(tmp_path, begins, pytest.fail):
            for step in range(begins + 1, ends + 1):
                trackers.scalars(step, {"loss/train": value})
    values = {event.step: event.value for event in board(tmp_path).Scalars("loss/train")}
    assert values == {1: 1, 2: 1, 3: 1, 4: 1, 5: 2, 6: 2, 7: 2, 8: 2}
    assert len(board(tmp_path).Scalars("loss/train")) == 8


def test_what_was_told_is_on_the_disk_before_the_run_ends(tmp_path: Path) -> None:
    script = (
        "import os, sys, time; from pathlib import Path; from carmask.training.recording import Trackers;"
        "from carmask.training.settings import TrainSettings as S; t = Trackers(S(data='photos'));\n"
        "with t.recording(Path(sys.argv[1]), 0, print):\n"
        "    t.scalars(1, {'lr': 0.5}); print('told', flush=True); time.sleep(300)"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    with subprocess.Popen([sys.executable, "-c", script, tmp_path], stdout=subprocess.PIPE, env=environment) as process:
        assert process.stdout is not None
        assert process.stdout.readline().strip() == b"told"
        until_s = time.monotonic() + 60
        while "lr" not in board(tmp_path).Tags()["scalars"] and time.monotonic() < until_s:
            time.sleep(0.05)
        process.kill()
    assert [event.value for event in board(tmp_path).Scalars("lr")] == [0.5]


def test_only_what_is_named_is_imported() -> None:
    script = (
        "import sys; from carmask.training import start; from carmask.training.trackers import check_trackers;"
        "check_trackers(()); print(*{'tensorboard', 'wandb', 'mlflow', 'trackio'} & set(sys.modules), sep=',');"
        "check_trackers(('tensorboard',)); print(*{'tensorboard', 'wandb', 'mlflow', 'trackio'} & set(sys.modules))"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run([sys.executable, "-c", script], env=environment, check=True, capture_output=True, text=True)
    assert done.stdout.splitlines() == ["", "tensorboard"]


@pytest.mark.parametrize("tracker", ["wandb", "mlflow", "trackio"])
def test_a_missing_package_is_said_before_anything_is_done(
    make: Any, monkeypatch: pytest.MonkeyPatch, tracker: str
) -> None:
    monkeypatch.setitem(sys.modules, tracker, None)  # so Python knows a package that cannot be imported
    given = make(SMALL, trackers=["tensorboard", tracker])
    with pytest.raises(CarmaskError, match=rf"'{tracker}' needs the package {tracker}.*`pip install --upgrade") as told:
        train(given)
    assert len(str(told.value).splitlines()) == 1
    assert not given.runs.exists()


def test_a_package_that_does_not_fit_the_others_is_missing_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    broken = tmp_path / "trackio"
    broken.mkdir()
    (broken / "__init__.py").write_text("raise AttributeError('`np.float_` was removed in the NumPy 2.0 release')")
    monkeypatch.syspath_prepend(tmp_path)
    for name in [name for name in sys.modules if name.split(".")[0] == "trackio"]:
        monkeypatch.delitem(sys.modules, name)
    with pytest.raises(TrackerError, match=r"np\.float_.*pip install --upgrade trackio"):
        check_trackers(["trackio"])


@pytest.mark.skipif(find_spec("wandb") is not None, reason="wandb is installed, and goes before a folder of that name")
def test_the_folder_that_wandb_leaves_is_not_taken_for_the_package(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "wandb").mkdir()
    monkeypatch.syspath_prepend(tmp_path)
    try:
        with pytest.raises(TrackerError, match="pip install --upgrade wandb"):
            check_trackers(["wandb"])
    finally:
        sys.modules.pop("wandb", None)


def test_a_tracker_that_cannot_begin_stops_a_run_only_before_its_first_step(tmp_path: Path) -> None:
    (tmp_path / "tensorboard").write_text("a file where TensorBoard wants a folder")
    trackers = Trackers(settings("tensorboard"))
    said: list[str] = []
    with (
        pytest.raises(TrackerError, match=r"'tensorboard' cannot begin \(.*File exists.*--resume") as told,
        trackers.recording(tmp_path, 0, said.append),
    ):
        pytest.fail("it has begun")
    assert str(tmp_path) in str(told.value)
    assert not said
    with trackers.recording(tmp_path, 4, said.append):
        trackers.scalars(5, {"lr": 0.1})
    assert len(said) == 1
    assert "tensorboard has failed" in said[0]


# TensorBoard writes in a thread, which dies of it too.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_disk_that_is_full_is_said_once(tmp_path: Path) -> None:
    resource = pytest.importorskip("resource", reason="Windows knows no limit to a file's size")
    trackers = Trackers(settings("tensorboard"))
    said: list[str] = []
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    noise_HWC = np.random.default_rng(0).integers(0, 256, (200, 200, 3)).astype(np.uint8)
    with trackers.recording(tmp_path, 0, said.append):
        trackers.scalars(1, {"lr": 0.1})
        # Files may not grow beyond this: writing fails as on a full disk.
        resource.setrlimit(resource.RLIMIT_FSIZE, (16 * 1024, before[1]))
        try:
            for step in range(2, 8):
                trackers.picture(step, "noise", noise_HWC)
            _wait_for(said)
            for thread in threading.enumerate():
                if type(thread).__name__ == "_AsyncWriterThread":
                    thread.join()
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)
        trackers.scalars(9, {"lr": 0.2})
    assert len(said) == 1
    assert re.search(r"tensorboard has failed \(.*File too large.*training goes on", said[0])
    assert [event.step for event in board(tmp_path).Scalars("lr")] == [1]


def _wait_for(said: list[str]) -> None:
    until_s = time.monotonic() + 120
    while not said and time.monotonic() < until_s:
        time.sleep(0.05)


class Unreachable:
    """A tracker whose server answers once."""

    told = 0

    def begin(self, run: Beginning) -> str:
        return f"{run.name} as known to the server"

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        assert values
        self.told += 1
        if self.told > 1:
            raise ConnectionError(f"no route to host at step {step}\n{'and so on ' * 20}")

    def picture(self, step: int, name: str, image_HWC: NDArray[np.uint8]) -> None:
        raise AssertionError(f"told of {name} {image_HWC.shape} at step {step} although it has failed")

    def end(self, *, failed: bool) -> None:
        raise AssertionError(f"told of the end ({failed}) although it has failed")


def test_training_goes_on_without_a_tracker_that_fails(
    finished: tuple[RunFolder, str], make: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(TRACKERS, "wandb", Unreachable)
    run, said = train(make(SMALL, name="tracked", trackers=["wandb", "tensorboard"]))
    lines = [line for line in said.splitlines() if line.startswith("tracker")]
    assert len(lines) == 1
    assert re.search(r"wandb has failed \(ConnectionError: no route to host at step 4 (and so on )+\.\.\.\)", lines[0])
    assert json.loads((run.path / "trackers.json").read_text()) == {"wandb": "tracked as known to the server"}
    assert [event.step for event in board(run.path).Scalars("held_out/dice")] == [4, 8, 12]
    ours, theirs = (
        (folder / "weights" / "last" / "model.safetensors").read_bytes() for folder in (run.path, finished[0].path)
    )
    assert ours == theirs


class Stuck(Unreachable):
    """A tracker whose server takes what it is told, and never answers."""

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        assert (step, values) == (1, {"lr": 0.5})
        threading.Event().wait()


def test_a_run_ends_without_a_tracker_that_never_answers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(TRACKERS, "wandb", Stuck)
    monkeypatch.setattr(recording, "LAST_WAIT_S", 0.2)
    trackers = Trackers(settings("wandb", "tensorboard"))
    said: list[str] = []
    with trackers.recording(tmp_path, 0, said.append):
        trackers.scalars(1, {"lr": 0.5})
        trackers.scalars(2, {"lr": 0.25})
    assert len(said) == 1
    assert "wandb has not taken all that it was told after 0 s" in said[0]
    assert [event.value for event in board(tmp_path).Scalars("lr")] == [0.5, 0.25]
    # Nor is Python's own end held up.
    assert all(thread.daemon for thread in threading.enumerate() if thread.name == "wandb")


@pytest.mark.parametrize(("one_class", "masks"), [("background", "empty"), ("vehicle", "full")])
def test_masks_of_one_class_are_warned_of_once(make: Any, tmp_path: Path, one_class: str, masks: str) -> None:
    given = make(SMALL, epochs=2, epoch_samples=4, optimizer={"name": "sgd", "lr": 1e-12}, init=tmp_path / "biased")
    network = Network(ModelCard.from_preset("small"))
    with torch.no_grad():
        network.unet.head.bias.fill_(-60.0 if one_class == "background" else 60.0)
    network.save_pretrained(tmp_path / "biased")
    _, said = train(given)
    warnings = [line for line in said.splitlines() if line.startswith("warning")]
    assert len(warnings) == 1
    for part in (
        f"masks are {masks}",
        f"every pixel {one_class}",
        "--optimizer.lr",
        "--overfit-batch",
        "carmask check",
    ):
        assert part in warnings[0]


def test_a_network_that_finds_both_classes_is_not_warned_of(finished: tuple[RunFolder, str]) -> None:
    assert "warning" not in finished[1]


@pytest.mark.parametrize(
    ("package", "switch", "off"),
    [
        ("wandb", "WANDB_ERROR_REPORTING", "false"),
        ("mlflow", "MLFLOW_DISABLE_TELEMETRY", "true"),
        ("trackio", "GRADIO_ANALYTICS_ENABLED", "False"),
    ],
)
def test_no_maker_is_reported_to(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, package: TrackerName, switch: str, off: str
) -> None:
    """A stand-in for the package, which tells what it could read when it was imported."""
    (tmp_path / f"{package}.py").write_text(f"import os\n\ntold_at_import = os.environ.get({switch!r})\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    # Both are put back when the test ends.
    monkeypatch.setitem(sys.modules, package, ModuleType(package))
    monkeypatch.setenv(switch, "as the user wants")
    for told in ("as the user wants", off):
        del sys.modules[package]
        check_trackers([package])
        assert sys.modules[package].told_at_import == told
        del os.environ[switch]


def test_wandb_goes_on_in_the_same_run(tmp_path: Path) -> None:
    pytest.importorskip("wandb", reason="wandb is not installed, and is no one's dependency")
    id_ = recorded_by("wandb", tmp_path, WANDB_MODE="offline", WANDB_SILENT="true")
    files = sorted(tmp_path.glob(f"wandb/offline-run-*-{id_}/run-{id_}.wandb"))
    assert len(files) == 2
    for file, steps in zip(files, ([1, 2, 3, 4, 5, 6], [5, 6, 7, 8]), strict=True):
        records = list(_wandb_records(file))
        begun = next(record.run for record in records if record.WhichOneof("record_type") == "run")
        assert (begun.run_id, begun.display_name, begun.project) == (id_, "run", "carmask")
        config = {item.key: json.loads(item.value_json) for item in begun.config.update}
        assert (config["optimizer.lr"], config["network.widths"]) == (0.002, [4, 8])
        told: dict[int, dict[str, Any]] = {}
        for record in records:
            if record.WhichOneof("record_type") == "history":
                values = {"/".join(item.nested_key) or item.key: item.value_json for item in record.history.item}
                told[record.history.step.num] = {name: json.loads(value) for name, value in values.items()}
        assert {step: values["loss/train"] for step, values in told.items()} == {step: 1 / step for step in steps}
        picture = file.parent / "files" / told[steps[-1]]["held_out/samples/path"]
        assert np.array_equal(np.asarray(Image.open(picture)), np.full((20, 30, 3), steps[-1], np.uint8))
        assert next(record.exit.exit_code for record in records if record.WhichOneof("record_type") == "exit") == 0


def _wandb_records(path: Path) -> Iterator[Any]:
    """A `.wandb` file: seven bytes, then LevelDB's log format with a protobuf message in each record."""
    from wandb.proto.wandb_internal_pb2 import Record

    data, place, whole = path.read_bytes(), 7, b""
    while place + 7 <= len(data):
        if 32768 - place % 32768 < 7:
            place += 32768 - place % 32768
            continue
        length, kind = int.from_bytes(data[place + 4 : place + 6], "little"), data[place + 6]
        whole += data[place + 7 : place + 7 + length]
        place += 7 + length
        if kind in (1, 4):
            record = Record()
            record.ParseFromString(whole)
            yield record
            whole = b""


def test_mlflow_goes_on_in_the_same_run(tmp_path: Path) -> None:
    mlflow = pytest.importorskip("mlflow", reason="MLflow is not installed, and is no one's dependency")
    place = f"sqlite:///{tmp_path}/mlflow.db"
    id_ = recorded_by("mlflow", tmp_path, MLFLOW_TRACKING_URI=place)
    client = mlflow.MlflowClient(tracking_uri=place)
    experiment = client.get_experiment_by_name("carmask")
    assert [run.info.run_id for run in client.search_runs([experiment.experiment_id])] == [id_]
    run = client.get_run(id_)
    assert (run.info.run_name, run.info.status) == ("run", "FINISHED")
    assert (run.data.params["optimizer.lr"], run.data.params["network.widths"]) == ("0.002", "[4, 8]")
    told = {metric.step: metric.value for metric in client.get_metric_history(id_, "loss/train")}
    assert told == {step: pytest.approx(1 / step) for step in range(1, 9)}
    pictures = [Path(file.path).name for file in client.list_artifacts(id_, "images") if file.path.endswith(".png")]
    assert sorted(re.findall(r"step\+(\d+)", " ".join(pictures))) == ["6", "8"]


def test_an_mlflow_server_that_is_gone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mlflow = pytest.importorskip("mlflow", reason="MLflow is not installed, and is no one's dependency")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    before = mlflow.get_tracking_uri()
    mlflow.set_tracking_uri("http://127.0.0.1:9")
    try:
        trackers = Trackers(settings("mlflow"))
        with pytest.raises(TrackerError, match="'mlflow' cannot begin"), trackers.recording(tmp_path, 0, pytest.fail):
            pytest.fail("it has begun")
        said: list[str] = []
        (tmp_path / "trackers.json").write_text('{"mlflow": "0123456789abcdef0123456789abcdef"}')
        with trackers.recording(tmp_path, 4, said.append):
            trackers.scalars(5, {"lr": 0.1})
        assert len(said) == 1
    finally:
        mlflow.set_tracking_uri(before)


def test_trackio_goes_on_in_the_same_run(tmp_path: Path) -> None:
    pytest.importorskip("trackio", reason="trackio is not installed, and is no one's dependency")
    id_ = recorded_by("trackio", tmp_path, TRACKIO_DIR=str(tmp_path / "trackio"))
    with sqlite3.connect(tmp_path / "trackio" / "carmask.db") as database:
        rows = database.execute("SELECT run_name, run_id, step, metrics FROM metrics").fetchall()
        (config,) = database.execute("SELECT config FROM configs").fetchone()
    assert len({(name, number) for name, number, *_ in rows}) == 1
    assert rows[0][0] == id_
    assert id_.startswith("run-")
    told = [(step, json.loads(metrics)) for *_, step, metrics in rows]
    losses = {step: values["loss/train"] for step, values in told if "loss/train" in values}
    assert losses == {step: 1 / step for step in range(1, 9)}
    pictures = [values["held_out/samples"]["file_path"] for _, values in told if "held_out/samples" in values]
    for path, value in zip(pictures, (6, 8), strict=True):
        shown_HWC = np.asarray(Image.open(tmp_path / "trackio" / "media" / path).convert("RGB"))
        assert np.array_equal(shown_HWC, np.full((20, 30, 3), value, np.uint8))
    assert json.loads(config)["network.widths"] == [4, 8]
