"""Masks that other tools write: inverted, or of another size than their photo."""

from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from carmask.cli import main
from carmask.data.cache import CacheKey
from carmask.data.cache_build import open_cache
from carmask.data.check import check_dataset
from carmask.data.pairs import describe_inverted, find_pairs, load_soft_mask
from carmask.evaluation.evaluate import MaskSizeError, load_truth
from carmask.imaging.decode import decode_mask
from carmask.imaging.geometry import Geometry
from tiny_runs import TINY, tiny_settings, train

SIZE_HW = (60, 90)
Writer = Callable[[NDArray[np.bool_], Path], None]


def car_HW(number: int = 0) -> NDArray[np.bool_]:
    mask_HW = np.zeros(SIZE_HW, bool)
    mask_HW[20:45, 20 : 60 + number] = True
    return mask_HW


def green_and_black(mask_HW: NDArray[np.bool_], path: Path) -> None:
    image = Image.fromarray(mask_HW.astype(np.uint8)).convert("P")
    image.putpalette([48, 112, 32, 0, 0, 0])
    image.save(path)


def white_ground(mask_HW: NDArray[np.bool_], path: Path) -> None:
    Image.fromarray(np.where(mask_HW, np.uint8(0), np.uint8(255))).save(path)


def one_ground(mask_HW: NDArray[np.bool_], path: Path) -> None:
    Image.fromarray(1 - mask_HW.astype(np.uint8)).save(path)


def soft_white_ground(mask_HW: NDArray[np.bool_], path: Path) -> None:
    large = Image.fromarray(np.where(mask_HW, np.uint8(0), np.uint8(255))).resize((360, 240), Image.Resampling.NEAREST)
    large.resize((90, 60), Image.Resampling.BICUBIC).save(path)


def jpeg_white_ground(mask_HW: NDArray[np.bool_], path: Path) -> None:
    Image.fromarray(np.where(mask_HW, np.uint8(0), np.uint8(255))).save(path, "JPEG", quality=60)


def as_usual(mask_HW: NDArray[np.bool_], path: Path) -> None:
    Image.fromarray(mask_HW).save(path)


INVERTED = [green_and_black, white_ground, one_ground, soft_white_ground, jpeg_white_ground]


def write(root: Path, *writers: Writer, photo_HW: tuple[int, int] = SIZE_HW) -> Path:
    for folder in ("images", "masks"):
        (root / folder).mkdir(parents=True, exist_ok=True)
    for number, writer in enumerate(writers):
        noise_HWC = np.random.default_rng(number).integers(0, 255, (*photo_HW, 3), dtype=np.uint8)
        Image.fromarray(noise_HWC).save(root / f"images/{number}.png")
        writer(car_HW(number), root / f"masks/{number}.png")
    return root


@pytest.mark.parametrize("writer", INVERTED)
def test_inverted_masks_are_said_with_the_value_that_mends_them(tmp_path: Path, writer: Writer) -> None:
    write(tmp_path, *[writer] * 4)
    assert [problem.kind for problem in check_dataset(find_pairs(tmp_path)).problems] == ["inverted masks"]
    background = decode_mask(tmp_path / "masks/0.png").inverted
    assert background is not None
    mended = check_dataset(find_pairs(tmp_path, foreground=background))
    assert not mended.problems
    for number in range(4):
        mask_HW = decode_mask(tmp_path / f"masks/{number}.png", foreground=background).mask_HW
        assert np.count_nonzero(mask_HW != car_HW(number)) <= (0 if writer is not jpeg_white_ground else 20)


def test_a_few_close_ups_are_not_taken_for_inverted(tmp_path: Path) -> None:
    write(tmp_path, white_ground, white_ground, as_usual, as_usual)
    assert not check_dataset(find_pairs(tmp_path)).problems


def test_zero_is_still_a_class_where_there_are_several(tmp_path: Path) -> None:
    values_HW = np.random.default_rng(0).integers(0, 200, SIZE_HW, dtype=np.uint8)
    Image.fromarray(values_HW).save(tmp_path / "classes.png")
    np.testing.assert_array_equal(decode_mask(tmp_path / "classes.png", foreground=0).mask_HW, values_HW == 0)


def test_the_warning_counts_masks() -> None:
    assert describe_inverted({}, 0) is None
    assert describe_inverted({"a": 0}, 2) is None
    assert "--foreground 1" in (describe_inverted({"a": 1, "b": 1}, 3) or "")


def test_training_and_evaluation_warn_of_inverted_masks(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    data = write(tmp_path / "data", *[green_and_black] * 6)
    settings = tiny_settings(TINY, data=data, cache=tmp_path / "cache", runs=tmp_path / "runs", name="run")
    assert "--dataset.foreground 1" in train(settings)[1]
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit):
        main(["evaluate", str(data), "--model", str(tmp_path / "runs/run"), "--worst", "0"])
    assert "--foreground 1" in capsys.readouterr().err


@given(
    photo_HW=st.tuples(st.integers(20, 400), st.integers(20, 400)),
    divisor=st.sampled_from([1, 2, 3, 4]),
    off_HW=st.tuples(st.integers(0, 1), st.integers(0, 1)),
)
def test_masks_of_the_same_proportions_fit_their_photo(
    tmp_path_factory: pytest.TempPathFactory,
    photo_HW: tuple[int, int],
    divisor: int,
    off_HW: tuple[int, int],
) -> None:
    """Against resizing by Pillow, which averages by area and interpolates between areas, too."""
    root = tmp_path_factory.mktemp("data")
    (root / "images").mkdir()
    (root / "masks").mkdir()
    height, width = (max(2, side // divisor - off) for side, off in zip(photo_HW, off_HW, strict=True))
    if divisor > 1:
        height, width = photo_HW[0] // divisor, photo_HW[1] // divisor
    mask_HW = np.zeros((height, width), np.uint8)
    mask_HW[height // 4 : height // 4 * 3, width // 4 : width // 4 * 3] = 255
    Image.fromarray(mask_HW).save(root / "masks/a.png")
    Image.new("RGB", photo_HW[::-1]).save(root / "images/a.png")
    reading = load_truth(find_pairs(root).pairs[0], photo_HW)
    assert reading.soft_HW.shape == photo_HW
    assert ("scaled" in reading.rule) == (photo_HW != (height, width))
    wanted_HW = np.asarray(Image.fromarray(mask_HW).resize(photo_HW[::-1], Image.Resampling.BILINEAR))
    assert np.mean((reading.soft_HW >= 128) != (wanted_HW >= 128)) < 0.05


@pytest.mark.parametrize("mask_HW", [(90, 60), (60, 80), (30, 40), (10, 90)])
def test_masks_of_other_proportions_are_still_refused(tmp_path: Path, mask_HW: tuple[int, int]) -> None:
    write(tmp_path, lambda _, path: Image.new("1", mask_HW[::-1], 1).save(path))
    assert "size mismatch" in [problem.kind for problem in check_dataset(find_pairs(tmp_path)).problems]
    with pytest.raises(MaskSizeError):
        load_truth(find_pairs(tmp_path).pairs[0], SIZE_HW)


def test_unknown_pixels_are_scaled_with_their_mask(tmp_path: Path) -> None:
    def half(mask_HW: NDArray[np.bool_], path: Path) -> None:
        values_HW = mask_HW[::2, ::2].astype(np.uint8)
        values_HW[:10] = 255
        Image.fromarray(values_HW).save(path)

    write(tmp_path, half)
    reading = load_soft_mask(find_pairs(tmp_path, ignore=255).pairs[0], photo_HW=SIZE_HW)
    assert reading.known_HW is not None
    assert reading.known_HW.shape == SIZE_HW
    assert not reading.known_HW[:20].any()
    assert reading.known_HW[22:].all()
    assert np.mean(reading.mask_HW[24:] != car_HW()[24:]) < 0.02


def test_a_mask_of_which_scaling_leaves_nothing_known_is_reported(tmp_path: Path) -> None:
    def one_known_pixel(_mask_HW: NDArray[np.bool_], path: Path) -> None:
        values_HW = np.full((2 * SIZE_HW[0], 2 * SIZE_HW[1]), 255, np.uint8)
        values_HW[41, 41] = 1
        Image.fromarray(values_HW).save(path)

    write(tmp_path, one_known_pixel)
    dataset = find_pairs(tmp_path, ignore=255)
    kinds = {problem.subject.split()[0]: problem.kind for problem in check_dataset(dataset).problems}
    assert [kinds[pair.id] for pair in dataset.pairs] == ["unreadable"] * len(dataset.pairs)


def test_training_uses_scaled_masks(tmp_path: Path) -> None:
    def one_pixel_less(mask_HW: NDArray[np.bool_], path: Path) -> None:
        Image.fromarray(mask_HW[:, :-1]).save(path)

    def half(mask_HW: NDArray[np.bool_], path: Path) -> None:
        Image.fromarray(mask_HW[::2, ::2]).save(path)

    root = write(tmp_path / "data", one_pixel_less, half, as_usual, one_pixel_less, half, as_usual)
    cache = open_cache(
        find_pairs(root).pairs, CacheKey(geometry=Geometry(height_px=60, width_px=90), channels=3), tmp_path
    )
    assert not cache.failures
    for number in range(6):
        assert np.mean((cache.masks_NHW[cache.row_of[str(number)]] >= 128) != car_HW(number)) < 0.02
    settings = tiny_settings(TINY, data=root, cache=tmp_path / "cache", runs=tmp_path / "runs")
    assert "scaled" in train(settings)[1]


def voc_classes(mask_HW: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """Class numbers of a car, 7, with a border of 255 of four pixels inside and outside."""
    classes_HW = np.where(mask_HW, np.uint8(7), np.uint8(0))
    near = cv2.dilate(mask_HW.astype(np.uint8), np.ones((9, 9))) - cv2.erode(mask_HW.astype(np.uint8), np.ones((9, 9)))
    classes_HW[near > 0] = 255
    return classes_HW


def voc_palette(mask_HW: NDArray[np.bool_], path: Path) -> None:
    image = Image.fromarray(voc_classes(mask_HW)).convert("P")
    image.putpalette([*[0] * 21, 128, 128, 128, *[0] * 741, 224, 224, 192])
    image.save(path)


def voc_gray(mask_HW: NDArray[np.bool_], path: Path) -> None:
    Image.fromarray(voc_classes(mask_HW)).save(path)


def voc_colors(mask_HW: NDArray[np.bool_], path: Path) -> None:
    colors = np.zeros((256, 3), np.uint8)
    colors[7], colors[255] = (128, 0, 128), (224, 224, 192)
    Image.fromarray(colors[voc_classes(mask_HW)]).save(path)


@pytest.mark.parametrize(
    ("writer", "values"), [(voc_palette, (7, 255)), (voc_gray, (7, 255)), (voc_colors, (128, 224))]
)
def test_the_border_of_voc(tmp_path: Path, writer: Writer, values: tuple[int, int]) -> None:
    write(tmp_path, writer, writer)
    found = check_dataset(find_pairs(tmp_path)).problems
    assert [problem.kind for problem in found] == ["odd mask values"] * 2
    foreground, ignore = values
    if ignore == 255:
        assert "--ignore 255" in found[0].detail
    report = check_dataset(find_pairs(tmp_path, foreground=foreground, ignore=ignore))
    assert not report.problems
    assert report.unknown_of.keys() == {"0", "1"}
    truth = load_truth(find_pairs(tmp_path, foreground=foreground, ignore=ignore).pairs[0], SIZE_HW)
    assert truth.known_HW is not None
    np.testing.assert_array_equal(truth.known_HW, voc_classes(car_HW()) != 255)
    np.testing.assert_array_equal(truth.mask_HW, voc_classes(car_HW()) == 7)
