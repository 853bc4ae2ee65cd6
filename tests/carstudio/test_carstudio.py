"""The rendered example data: Carvana's layout, exact and repeatable masks, cars that no threshold can cut out."""

import csv
import hashlib
import json
import os
import shutil
from functools import cache, partial
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image, ImageDraw

from carmask.data.pairs import find_pairs
from carmask.imaging.rle import decode_carvana
from carstudio import StudioError, render_dataset
from carstudio.body import Surface, build_shape
from carstudio.design import BODY_TYPES, design_car
from carstudio.raster import PinholeCamera, sample_car
from carstudio.render import Session, open_session, placement, take_photo

SIZE_HW = (160, 240)
CARS, VIEWS = 5, 8


@pytest.fixture(scope="module")
def studio(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("studio") / "set"
    render_dataset(root, cars=CARS, views=VIEWS, size_HW=SIZE_HW, seed=3)
    return root


@cache
def session_of(number: int) -> Session:
    """The session of a car of seed 0, 320 x 480 px."""
    return open_session(0, number, (320, 480))


@cache
def mask_of(number: int, view: int) -> np.ndarray:
    """Of one of 16 views; not to be changed."""
    return take_photo(session_of(number), view, 16)[1]


def read_masks(root: Path) -> dict[str, np.ndarray]:
    return {
        path.name.removesuffix("_mask.gif"): np.asarray(Image.open(path)) for path in root.glob("train_masks/*.gif")
    }


def digests(root: Path) -> dict[str, str]:
    files = (path for path in root.rglob("*") if path.is_file())
    return {str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def test_the_layout_is_the_challenges(studio: Path) -> None:
    dataset = find_pairs(studio)
    assert dataset.layout == "carvana"
    assert dataset.problems == ()
    assert len(dataset.pairs) == CARS * VIEWS
    assert len({pair.group for pair in dataset.pairs}) == CARS
    assert {pair.view for pair in dataset.pairs} == {f"{view:02d}" for view in range(1, VIEWS + 1)}
    for pair in dataset.pairs:
        assert len(pair.group) == 12
        assert int(pair.group, 16) >= 0


def test_files_have_the_challenges_formats(studio: Path) -> None:
    for path in studio.glob("train/*.jpg"):
        with Image.open(path) as photo:
            assert (photo.format, photo.mode, photo.size) == ("JPEG", "RGB", SIZE_HW[::-1])
    for path in studio.glob("train_masks/*.gif"):
        with Image.open(path) as mask:
            assert (mask.format, mask.mode, mask.size) == ("GIF", "P", SIZE_HW[::-1])
            assert mask.getpalette()[:6] == [0, 0, 0, 255, 255, 255]
            assert set(np.unique(np.asarray(mask))) == {0, 1}


def test_run_lengths_are_the_masks(studio: Path) -> None:
    masks = read_masks(studio)
    with (studio / "train_masks.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["img"] for row in rows] == sorted(f"{name}.jpg" for name in masks)
    for row in rows:
        np.testing.assert_array_equal(
            decode_carvana(row["rle_mask"], SIZE_HW), masks[row["img"].removesuffix(".jpg")] == 1
        )


def test_metadata_describes_every_car(studio: Path) -> None:
    with (studio / "metadata.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == ["id", "year", "make", "model", "trim1", "trim2"]
    assert {row["id"] for row in rows} == {name[:12] for name in read_masks(studio)}
    assert all(value for row in rows for value in row.values())


def test_a_picture_depends_on_seed_car_and_view_alone(studio: Path, tmp_path: Path) -> None:
    render_dataset(tmp_path / "fewer", cars=2, views=VIEWS, size_HW=SIZE_HW, seed=3)
    many, few = digests(studio), digests(tmp_path / "fewer")
    shared = [name for name in few if name.startswith("train") and not name.endswith(".csv")]
    assert len(shared) == 2 * 2 * VIEWS
    assert {name: many[name] for name in shared} == {name: few[name] for name in shared}


def test_processes_and_an_interruption_change_nothing(tmp_path: Path) -> None:
    request = {"cars": 2, "views": 5, "size_HW": (64, 96), "seed": 1}
    render_dataset(tmp_path / "one", **request)

    def interrupt(done: int, _total: int) -> None:
        if done >= 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        render_dataset(tmp_path / "two", progress=interrupt, **request)
    assert not (tmp_path / "two").exists()
    made = render_dataset(tmp_path / "two", workers=2, **request)
    assert made.rendered == 10 - 4
    assert digests(tmp_path / "one") == digests(tmp_path / "two")
    assert not (tmp_path / "two.partial").exists()


def test_a_process_that_ends_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("carstudio.write._use_one_thread", partial(os._exit, 9))
    with pytest.raises(StudioError, match="workers"):
        render_dataset(tmp_path / "set", cars=2, views=1, size_HW=(40, 60), workers=2)


def test_another_seed_gives_other_pictures(studio: Path, tmp_path: Path) -> None:
    render_dataset(tmp_path / "other", cars=1, views=1, size_HW=SIZE_HW, seed=4)
    assert not set(digests(tmp_path / "other").values()) & set(digests(studio).values())


def test_a_complete_set_is_left_alone_and_a_missing_file_comes_back(studio: Path) -> None:
    before = digests(studio)
    calls = []
    again = render_dataset(
        studio, cars=CARS, views=VIEWS, size_HW=SIZE_HW, seed=3, progress=lambda *call: calls.append(call)
    )
    assert (again.rendered, again.photos, calls) == (0, CARS * VIEWS, [])
    next(studio.glob("train/*.jpg")).unlink()
    assert render_dataset(studio, cars=CARS, views=VIEWS, size_HW=SIZE_HW, seed=3).rendered == 1
    assert digests(studio) == before


def test_a_folder_with_something_else_is_refused(studio: Path, tmp_path: Path) -> None:
    (tmp_path / "precious.txt").write_text("mine")
    with pytest.raises(StudioError):
        render_dataset(tmp_path, cars=1, views=1, size_HW=SIZE_HW)
    assert [path.name for path in tmp_path.iterdir()] == ["precious.txt"]
    with pytest.raises(StudioError):
        render_dataset(studio, cars=CARS, views=VIEWS, size_HW=SIZE_HW, seed=9)
    with pytest.raises(StudioError, match=r"precious\.txt"):
        render_dataset(tmp_path / "precious.txt", cars=1, views=1, size_HW=SIZE_HW)
    assert json.loads((studio / "studio.json").read_text())["seed"] == 3


@pytest.mark.parametrize(
    "wrong", [{"cars": 0}, {"views": 0}, {"views": 100}, {"size_HW": (8, 4000)}, {"seed": -1}, {"workers": 0}], ids=str
)
def test_impossible_numbers_are_refused_before_any_work(tmp_path: Path, wrong: dict) -> None:
    with pytest.raises(StudioError):
        render_dataset(tmp_path / "set", **wrong)
    assert list(tmp_path.iterdir()) == []


def test_an_empty_folder_is_filled_and_an_interrupted_move_is_gone_on_with(tmp_path: Path) -> None:
    request = {"cars": 1, "views": 2, "size_HW": (40, 60)}
    render_dataset(tmp_path / "new", **request)
    empty = tmp_path / "empty"
    empty.mkdir()
    link = tmp_path / "link"
    link.symlink_to(empty)
    same = empty.stat().st_ino
    made = render_dataset(link, **request)
    assert (made.rendered, empty.stat().st_ino, link.is_symlink()) == (2, same, True)
    assert digests(empty) == digests(tmp_path / "new")
    assert {path.name for path in tmp_path.iterdir()} == {"new", "empty", "link"}
    # As an interruption after the first file leaves it.
    for name in ("train", "train_masks"):
        shutil.rmtree(empty / name)
    for table in empty.glob("*.csv"):
        table.unlink()
    assert render_dataset(empty, **request).rendered == 2
    assert digests(empty) == digests(tmp_path / "new")


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "loop").symlink_to("loop")
    for name in ("file/set", "loop", "x" * 300):
        with pytest.raises(StudioError, match=name):
            render_dataset(tmp_path / name, cars=1, views=1, size_HW=(40, 60))
    assert {path.name for path in tmp_path.iterdir()} == {"file", "loop"}


@pytest.mark.parametrize("seed", range(4))
def test_the_first_five_cars_show_every_body_type(seed: int) -> None:
    assert {design_car(seed, number).body_type for number in range(5)} == set(BODY_TYPES)
    assert len({design_car(seed, number).paint for number in range(12)}) == 12


def test_cars_fill_a_sensible_share_and_stay_inside(studio: Path) -> None:
    for name, mask in read_masks(studio).items():
        assert 0.08 < mask.mean() < 0.45, name
        assert not mask[0].any(), name
        assert not mask[-1].any(), name
        assert not mask[:, [0, -1]].any(), name


def test_a_mask_is_one_piece_without_pinholes() -> None:
    """Through a wheel arch or a pickup's bed one does not see the room; single pixels at edges are forgiven."""
    for number in range(5):
        session = session_of(number)
        open_underneath = session.car.style.spoiler or session.car.style.roof_rails
        for view in (2, 5, 7, 9, 13):
            mask = mask_of(number, view)
            count, _, stats, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8), connectivity=8)
            assert sorted(stats[1:count, cv2.CC_STAT_AREA])[-1] > 0.999 * mask.sum()
            count, _, stats, _ = cv2.connectedComponentsWithStats((~mask).astype(np.uint8), connectivity=4)
            holes = sorted(stats[1:count, cv2.CC_STAT_AREA])[:-1]
            assert open_underneath or max(holes, default=0) <= 4


def test_one_body_and_daylight_below_it() -> None:
    """Seen from the side: sills end above the floor, so between the wheels the lowest car pixels lie higher."""
    for number in range(5):
        session = session_of(number)
        mask = mask_of(number, 5)
        front, rear = (session.car.x(station) for station in session.car.plan.axles)
        to_world = placement(session.car, 5, 16)
        points = np.array([[front, session.car.wheel_y, 0], [(front + rear) / 2, session.car.wheel_y, 0]])
        pixel, _ = session.camera.project(points @ to_world[:, :3].T + to_world[:, 3])
        lowest = [int(np.flatnonzero(mask[:, round(column)])[-1]) for column in pixel[:, 0]]
        assert lowest[0] == pytest.approx(pixel[0, 1], abs=3)
        assert lowest[1] < lowest[0] - 5


def test_opposite_views_mirror_each_other() -> None:
    """View v and view 18 - v of 16 show the two equal halves of a car; position and heading differ by a little."""
    session = open_session(5, 0, (320, 480))
    for view in (2, 4, 7):
        _, left = take_photo(session, view, 16)
        _, right = take_photo(session, 18 - view, 16)
        moved = right[:, ::-1]
        best = max(
            2 * np.sum(left & np.roll(moved, shift, axis=1)) / (left.sum() + moved.sum()) for shift in range(-40, 41, 2)
        )
        assert best > 0.95


@pytest.mark.parametrize("number", range(5))
def test_masks_follow_the_geometry(number: int) -> None:
    """The mask against all faces, hidden ones too, filled one by one by another library."""
    session = session_of(number)
    for view in (2, 5, 9):
        mask = mask_of(number, view)
        to_world = placement(session.car, view, 16)
        camera = session.camera.scaled(4)
        canvas = Image.new("1", (480 * 4, 320 * 4))
        draw = ImageDraw.Draw(canvas)
        for part in session.shape.parts:
            pixel, _ = camera.project(part.mesh.vertices_V3 @ to_world[:, :3].T + to_world[:, 3])
            for quad in pixel[part.mesh.quads_Q4]:
                draw.polygon([tuple(corner) for corner in quad], fill=1)
        filled = np.asarray(canvas).reshape(320, 4, 480, 4).mean(axis=(1, 3)) >= 0.5
        # OpenCV also fills samples that an edge just crosses: never more than one pixel too many.
        grown = cv2.dilate(filled.astype(np.uint8), np.ones((3, 3), np.uint8)) > 0
        assert not np.any(mask & ~grown)
        assert 2 * np.sum(mask & filled) / (mask.sum() + filled.sum()) > 0.98


def test_wheels_stand_on_the_floor() -> None:
    car = design_car(0, 3)
    camera = PinholeCamera(5.6, 1.9, 0.2, 0.0, 800.0, (640, 960))
    to_world = placement(car, 5, 16)
    samples = sample_car(build_shape(car), to_world, camera)
    assert samples is not None
    wheels = samples.index_N[samples.surface_N == Surface.WHEEL]
    lowest = wheels.max() // samples.window_HW[1] + samples.corner[0]
    contact = [[car.x(station), car.wheel_y + y, 0] for station in car.plan.axles for y in (-0.06, 0.06)]
    pixel, _ = camera.project(np.array(contact) @ to_world[:, :3].T + to_world[:, 3])
    assert lowest == pytest.approx(pixel[:, 1].max(), abs=1.5)


def test_no_threshold_on_brightness_cuts_the_cars_out(studio: Path) -> None:
    """The best single gray level, in either sense, over the set: mean Dice per photo."""
    grays, truths = [], []
    for name, mask in read_masks(studio).items():
        grays.append(np.asarray(Image.open(studio / "train" / f"{name}.jpg").convert("L")).astype(np.int64))
        truths.append(mask == 1)
    best = 0.0
    for level in range(0, 256, 5):
        for dark_is_car in (True, False):
            scores = []
            for gray, truth in zip(grays, truths, strict=True):
                mask = (gray < level) == dark_is_car
                scores.append(2 * np.sum(mask & truth) / (mask.sum() + truth.sum()))
            best = max(best, float(np.mean(scores)))
    assert 0.2 < best < 0.75


def test_every_photo_shows_a_difference_between_car_and_room(studio: Path) -> None:
    """Color or brightness changes somewhere along the outline: the mask lies on the car and not beside it."""
    for name, mask in read_masks(studio).items():
        photo = np.asarray(Image.open(studio / "train" / f"{name}.jpg")).astype(np.float64)
        truth = mask == 1
        here = _edge_strength(photo, truth)
        beside = max(_edge_strength(photo, np.roll(truth, shift, axis=axis)) for shift in (-8, 8) for axis in (0, 1))
        assert here > 1.25 * beside, name


def _edge_strength(photo_HWC: np.ndarray, truth_HW: np.ndarray) -> float:
    """Mean step in color across the mask's vertical and horizontal edges."""
    across = np.abs(np.diff(photo_HWC, axis=1)).sum(axis=2)[truth_HW[:, 1:] != truth_HW[:, :-1]]
    down = np.abs(np.diff(photo_HWC, axis=0)).sum(axis=2)[truth_HW[1:] != truth_HW[:-1]]
    return float(np.concatenate([across, down]).mean())
