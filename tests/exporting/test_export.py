"""The command as a user types it: what is written, what is said, and when nothing is."""

import copy
import json
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from onnx import ModelProto
from PIL import Image

from bright_network import bright_is_vehicle
from carmask.cli import main
from carmask.data.pairs import find_pairs
from carmask.data.split import Split, make_split
from carmask.exporting.export import export
from carmask.exporting.graph import build_graph
from carmask.exporting.parity import DropError, Int8Comparison, ParityError, check_int8, check_masks
from carmask.exporting.photos import ExportError, PhotoOptions, chosen_photos
from carmask.models.card import EngineParity, read_card
from carmask.models.network import Network
from carmask.runtime.locate import locate
from carmask.segmenter import Segmenter
from carmask.training.config import TrainSettings
from carmask.training.run_folder import RunFolder


def carmask(*arguments: str | Path) -> int:
    """Type a command, in this process: PyTorch takes its time to start."""
    with pytest.raises(SystemExit) as end:
        main([*map(str, arguments)])
    assert isinstance(end.value.code, int)
    return end.value.code


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Photos of which the bright network finds the masks: ten, two of a group, bright rectangles on dark ground."""
    root = tmp_path_factory.mktemp("bright-photos")
    for folder in ("images", "masks"):
        (root / folder).mkdir()
    for number in range(10):
        rng = np.random.default_rng(number)
        top, left = rng.integers(5, 30, 2)
        mask_HW = np.zeros((80, 120), bool)
        mask_HW[top : top + 35, left : left + 60] = True
        image_HW = np.where(mask_HW, 200, 50) + rng.normal(0, 8, mask_HW.shape)
        name = f"{number // 2}-{number % 2}.png"
        Image.fromarray(image_HW.clip(0, 255).astype(np.uint8)).convert("RGB").save(root / "images" / name)
        Image.fromarray(mask_HW).save(root / "masks" / name)
    return root


@pytest.fixture
def run(tmp_path: Path, photos: Path) -> Path:
    return make_run(tmp_path, photos)


def make_run(folder: Path, photos: Path) -> Path:
    """The folder of a run on these photos, as training leaves it, whose best network is the bright one."""
    settings = TrainSettings.model_validate(
        {"data": photos, "runs": folder, "name": "run", "dataset": {"group_pattern": r"^\d"}}
    )
    run = RunFolder.new(settings)
    with run.creating(settings) as made:
        group_of = find_pairs(photos, group_pattern=r"^\d").group_of
        make_split(group_of, dict.fromkeys(group_of, 0.2)).save(made.split)
        network = Network.load(bright_is_vehicle(folder / "bright"))
        earlier = {"data": photos.name, "groups_held_out": ["4"]}
        network.note_training({"data": photos.name, "held_out_dice": 0.98, "held_out_photos": 2})
        network.note_training({"groups_held_out": ["4"], "started_from": earlier})
        made.save_weights(network, "best")
    return run.path


@dataclass(frozen=True)
class Typed:
    """A run that was exported by a command in a process of its own, and what that said."""

    run: Path
    said: str


@pytest.fixture(scope="module")
def typed(tmp_path_factory: pytest.TempPathFactory, photos: Path) -> Typed:
    run = make_run(tmp_path_factory.mktemp("typed"), photos)
    command = [sys.executable, "-m", "carmask", "export", str(run), "--int8"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return Typed(run, done.stdout)


@pytest.fixture(scope="module")
def bright_graph(tmp_path_factory: pytest.TempPathFactory) -> ModelProto:
    return build_graph(Network.load(bright_is_vehicle(tmp_path_factory.mktemp("bright-graph"))))


@pytest.fixture
def graph_is_there(bright_graph: ModelProto, monkeypatch: pytest.MonkeyPatch) -> None:
    """PyTorch takes seconds for a graph, and that of the bright network is always the same."""
    monkeypatch.setattr("carmask.exporting.export.build_graph", lambda _network: copy.deepcopy(bright_graph))


def test_a_run_becomes_two_files_that_find_what_it_finds(typed: Typed, photos: Path) -> None:
    run, said = typed.run, typed.said
    assert f"2 held-out photos of {photos.name}" in said
    for wanted in ("openvino", "onnxruntime", "float32", "int8", "64 x 90, 33 x 45, 21 x 31 px", "batches of 1 and 4"):
        assert wanted in said
    assert sorted(path.name for path in run.glob("*.onnx")) == ["bright-int8.onnx", "bright.onnx"]
    for name in ("bright", "bright-int8"):
        assert f"{run / name}.onnx" in said
        segment = Segmenter.load(run / f"{name}.onnx")
        for pair in find_pairs(photos).pairs[:3]:
            truth = np.asarray(Image.open(photos / "masks" / pair.image.name)) > 0
            found = segment(pair.image).mask
            assert 2 * (found & truth).sum() / (found.sum() + truth.sum()) > 0.95


def test_the_card_says_what_is_known(typed: Typed, photos: Path) -> None:
    float_card, int8_card = (read_card(typed.run / f"{name}.onnx") for name in ("bright", "bright-int8"))
    assert (float_card.name, int8_card.name) == ("bright", "bright-int8")
    assert (float_card.precision, int8_card.precision) == ("float32", "int8")
    assert (float_card.weights, int8_card.weights) == ("float16", "int8")
    for card in (float_card, int8_card):
        assert len(card.train_groups) == 4
        assert len(card.held_out_groups) == 1
        assert {*card.train_groups, *card.held_out_groups} == set("01234")
        assert card.training["held_out_dice"] == 0.98
        assert card.measured.compared_on == f"2 held-out photos of {photos.name}"
        assert {one.engine for one in card.measured.engines} == {"openvino", "onnxruntime"}
        assert all(0.9 < one.dice <= 1 for one in card.measured.engines)
    parity = float_card.measured.parity
    assert parity["batches"] == [1, 4]
    assert parity["sizes_HW"] == [[64, 90], [33, 45], [21, 31]]
    assert all(value < 1e-3 for value in parity["largest_difference"].values())
    assert int8_card.measured.calibrated_on == f"8 photos of {photos.name}"
    assert all(abs(drop) <= 5e-4 for drop in int8_card.measured.dice_drop.values())


def test_another_export_gives_the_same_bytes(typed: Typed, tmp_path: Path) -> None:
    files = export(typed.run, out=tmp_path, int8=True)
    assert [file.path.name for file in files] == ["bright.onnx", "bright-int8.onnx"]
    for file in files:
        assert file.size_bytes == file.path.stat().st_size
        assert read_card(file.path) == file.card
        assert file.path.read_bytes() == (typed.run / file.path.name).read_bytes()


def test_a_run_on_a_label_file_is_compared_on_its_photos(photos: Path, tmp_path: Path) -> None:
    shutil.copytree(photos / "images", tmp_path / "labeled" / "images")
    names = sorted(path.name for path in photos.glob("images/*"))
    outline = [30, 30, 90, 30, 90, 60, 30, 60]
    labels = {
        "images": [{"id": id_, "file_name": name, "height": 80, "width": 120} for id_, name in enumerate(names)],
        "annotations": [{"image_id": id_, "category_id": 1, "segmentation": [outline]} for id_ in range(len(names))],
        "categories": [{"id": 1, "name": "car"}],
    }
    file = tmp_path / "labeled" / "cars.json"
    file.write_text(json.dumps(labels))
    with chosen_photos(make_run(tmp_path, file), PhotoOptions(), channels=1) as chosen:
        assert {pair.image.parent for pair in chosen.compared} == {tmp_path / "labeled" / "images"}


def test_a_model_is_never_replaced_by_its_own_export(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copy(locate("small", "torch"), "small.onnx")
    with pytest.raises(ExportError, match="--out"):
        export("small.onnx")


@pytest.mark.usefixtures("graph_is_there")
def test_int8_that_loses_dice_is_refused_and_nothing_is_written(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Ranges taken from black pictures cut off all that is bright."""
    black = tmp_path / "black"
    black.mkdir()
    for number in range(3):
        Image.new("RGB", (90, 64), (number, 0, 0)).save(black / f"{number}.png")
    before = sorted(run.rglob("*"))
    assert carmask("export", run, "--int8", "--calibration", black) == 1
    said = capsys.readouterr()
    assert "--allow-drop" in said.err
    assert "int8 Dice" in said.out
    assert sorted(run.rglob("*")) == before
    given = tmp_path / "given.onnx"
    assert carmask("export", run, "--int8", "--calibration", black, "--allow-drop", "--out", given) == 0
    card = read_card(tmp_path / "given-int8.onnx")
    assert max(card.measured.dice_drop.values()) > 5e-4
    assert card.measured.calibrated_on == "3 photos of black"
    assert read_card(given).name == "bright"


def test_photos_are_held_out_ones_and_ranges_come_from_the_others(run: Path, photos: Path) -> None:
    split = Split.load(run / "split.json")
    with chosen_photos(run, PhotoOptions(), channels=1) as chosen:
        assert {pair.id for pair in chosen.compared} == set(split.validation)
        assert {path.stem for path in chosen.calibration} == set(split.train)
        samples = list(chosen.samples())
        assert [photo.size_HW for photo, _, _ in samples] == [(80, 120), (79, 119)]
        for (photo, truth_HW, _), pair in zip(samples, chosen.compared, strict=True):
            truth = np.asarray(Image.open(photos / "masks" / pair.image.name)) > 0
            height, width = photo.size_HW
            np.testing.assert_array_equal(truth_HW, truth[:height, :width])
            assert photo.image_HWC.shape == (height, width, 1)


@pytest.mark.usefixtures("graph_is_there")
def test_photos_are_those_of_all_data_sets_of_the_run(tmp_path: Path, photos: Path) -> None:
    """Two data sets, the masks of one with unknown pixels and another foreground, and photos without a vehicle."""
    for name in ("parts", "nothing"):
        shutil.copytree(photos, tmp_path / "data" / name)
    shutil.rmtree(tmp_path / "data/nothing/masks")
    for path in (tmp_path / "data/parts/masks").iterdir():
        mask_HW = np.asarray(Image.open(path))
        classes_HW = np.where(mask_HW, np.uint8(7), np.uint8(3))
        classes_HW[:4] = 93
        Image.fromarray(classes_HW).save(path)
    datasets = {
        "street": {"path": str(photos)},
        "parts": {"path": "parts", "foreground": 7, "ignore": 93, "weight": 2},
        "nothing": {"path": "nothing", "empty": True},
        "gone": {"path": "gone"},
    }
    settings = TrainSettings.model_validate(
        {"data": tmp_path / "data", "runs": tmp_path, "name": "run", "datasets": datasets}
    )
    run = RunFolder.new(settings)
    ids = [f"{name}/{pair.id}" for name in ("street", "parts", "nothing") for pair in find_pairs(photos).pairs]
    with run.creating(settings) as made:
        held_out = tuple(id_ for id_ in ids if id_.endswith("1"))
        train = tuple(id_ for id_ in ids if id_.endswith("0"))
        Split(seed=0, train=train, validation=held_out, group_of={id_: id_ for id_ in ids}).save(made.split)
        made.save_weights(Network.load(bright_is_vehicle(tmp_path / "bright")), "best")
    with chosen_photos(run.path, PhotoOptions(), channels=1) as chosen:
        assert {pair.id for pair in chosen.compared} == {id_ for id_ in held_out if not id_.startswith("nothing")}
        assert len(chosen.calibration) == len(train)
        for (photo, truth_HW, known_HW), pair in zip(chosen.samples(), chosen.compared, strict=True):
            height, width = photo.size_HW
            whole_HW = np.asarray(Image.open(photos / "masks" / pair.image.name))[:height, :width]
            if pair.id.startswith("parts"):
                assert known_HW is not None
                assert not known_HW[:4].any()
                assert known_HW[4:].all()
                np.testing.assert_array_equal(truth_HW[4:], whole_HW[4:])
            else:
                assert known_HW is None
                np.testing.assert_array_equal(truth_HW, whole_HW)
    (written,) = export(run.path)
    assert written.card.measured.pytorch_dice is not None
    assert written.card.measured.pytorch_dice > 0.99


def test_the_card_names_the_held_out_groups_once(typed: Typed, photos: Path) -> None:
    card = read_card(typed.run / "bright-int8.onnx")
    split = Split.load(typed.run / "split.json")
    assert set(card.held_out_groups) == {split.group_of[id_] for id_ in split.validation}
    assert card.training["started_from"] == {"data": photos.name}
    assert "groups_held_out" not in card.training


@pytest.mark.usefixtures("graph_is_there")
def test_weights_alone_are_compared_on_photos_that_are_named(tmp_path: Path, photos: Path) -> None:
    weights = bright_is_vehicle(tmp_path / "weights")
    with chosen_photos(weights, PhotoOptions(photos, photos=3), channels=1) as chosen:
        assert len(chosen.compared) == 3
        assert len(chosen.calibration) == 7
        assert {pair.image for pair in chosen.compared}.isdisjoint(chosen.calibration)
        assert "not known" in chosen.remarks[0]
    (written,) = export(weights, photos=PhotoOptions(photos, photos=3))
    assert written.path == weights / "bright.onnx"
    assert written.card.train_groups == ()


@pytest.mark.usefixtures("graph_is_there")
def test_without_any_photos_some_are_rendered(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("carmask.exporting.photos._RENDERED_VIEWS", 1)
    moved = tmp_path / "moved"
    shutil.copytree(run, moved)
    settings = TrainSettings.from_yaml(run / "config.yaml").model_copy(update={"data": tmp_path / "gone"})
    (moved / "config.yaml").write_text(settings.to_yaml())
    assert carmask("export", moved, "--photos", "2") == 0
    said = capsys.readouterr()
    assert "2 rendered example photos" in said.out
    assert f"not in {tmp_path / 'gone'}" in said.err
    assert (moved / "bright.onnx").is_file()


def test_what_cannot_be_done_is_said_before_anything_is_written(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "empty").mkdir()
    for arguments, named in (
        ([tmp_path / "empty"], "config.json"),
        ([tmp_path / "gone"], "gone"),
        ([run, "--out", tmp_path / "model.pt"], "model.pt"),
        ([run, "--name", "a/b"], "--name"),
        ([run, "--photos", "0"], "photo"),
        ([run, "--data", tmp_path / "empty"], "empty: "),
        ([run, "--int8", "--calibration", tmp_path / "empty"], "empty: "),
    ):
        assert carmask("export", *arguments) == 1
        assert named in capsys.readouterr().err
    assert not list(tmp_path.rglob("*.onnx"))


def test_limits() -> None:
    def figures(dice: float, precision: str = "float32", same_mask: float = 1.0) -> EngineParity:
        return EngineParity(
            engine="engine",
            precision=precision,
            dice=dice,
            same_mask=same_mask,
            largest_difference=0.0,
            mean_difference=0.0,
        )

    nan = float("nan")
    right = [(0.9901,), (0.9899,), (0.9919, "bf16"), (0.99, "float32", 0.9991), (0.99, "bf16", 0.9951)]
    check_masks([figures(*one) for one in right], 0.99)
    wrong = [(0.9903,), (0.9897,), (0.9921, "bf16"), (nan,)]
    # As good as PyTorch's against the truth, and still other masks.
    others = [(0.99, "float32", 0.9989), (0.99, "bf16", 0.9949), (0.99, "float32", nan)]
    for one in (*wrong, *others):
        with pytest.raises(ParityError):
            check_masks([figures(0.99), figures(*one)], 0.99)
    for dice, same_mask in ((0.9896, 1.0), (0.9999, 1.0), (0.99, 0.981)):
        check_int8([Int8Comparison(figures(0.99), figures(dice, "int8", same_mask), 1.0, 1.0)])
    for dice, same_mask in ((0.9894, 1.0), (nan, 1.0), (0.99, 0.979), (0.99, nan)):
        with pytest.raises(DropError):
            check_int8([Int8Comparison(figures(0.99), figures(dice, "int8", same_mask), 1.0, 1.0)])
