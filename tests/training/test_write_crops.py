from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from bright_network import bright_is_vehicle
from carmask.cli.crops import crops as crops_command
from carmask.data.pairs import find_pairs
from carmask.data.split import Split, SplitError
from carmask.errors import CarmaskError
from carmask.imaging.color import display_p3, to_srgb
from carmask.imaging.decode import decode_photo
from carmask.segmenter import Segmenter
from carmask.training.config import TrainSettings
from carmask.training.config_sections import DataSettings, NetworkSettings, TrainingHardwareSettings
from carmask.training.crops import write_crops
from carmask.training.train import train


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Photos with a bright rectangle; in the last one a part of the mask is unknown (128)."""
    root = tmp_path_factory.mktemp("photos")
    (root / "images").mkdir()
    (root / "masks").mkdir()
    rng = np.random.default_rng(0)
    for number in range(3):
        mask_HW = np.zeros((300, 400), np.uint8)
        mask_HW[80:220, 100 : 300 - 20 * number] = 255
        image_HWC = np.where(mask_HW[..., None] > 0, 215, 40).astype(np.uint8) + rng.integers(
            0, 20, (300, 400, 3), np.uint8
        )
        if number == 2:
            mask_HW[:, 200:] = 128
        Image.fromarray(image_HWC).save(root / "images" / f"{number}.png")
        Image.fromarray(mask_HW).save(root / "masks" / f"{number}.png")
    return root


def test_crops_show_the_outline_with_what_the_network_found_and_the_truth(photos: Path, tmp_path: Path) -> None:
    segmenter = Segmenter.load(bright_is_vehicle(tmp_path / "net", channels=3))
    pairs = find_pairs(photos, ignore=128).pairs
    counts = list(write_crops(pairs, segmenter, tmp_path / "crops", per_photo=6))
    again = list(write_crops(pairs, segmenter, tmp_path / "again", per_photo=6))
    assert counts == again
    assert max(counts) == 6
    crops = find_pairs(tmp_path / "crops", group_pattern="(.*)-").pairs
    assert len(crops) == sum(counts)
    assert {pair.group for pair in crops} == {"0", "1", "2"}
    for pair in crops:
        crop_HWC = decode_photo(pair.image, channels=4).image_HWC
        assert isinstance(pair.mask, Path)
        mask_HW = np.array(Image.open(pair.mask))
        assert crop_HWC.shape == (64, 64, 4)
        assert set(np.unique(mask_HW)) <= {0, 255}
        # Reduced photos have a soft edge.
        is_bright_HW = crop_HWC[..., :3].mean(axis=2) > 137
        assert np.mean(is_bright_HW != (mask_HW == 255)) < 0.05
        assert 0 < crop_HWC[..., 3].mean() < 255
        for file in (pair.image, pair.mask):
            assert file.read_bytes() == (tmp_path / "again" / file.relative_to(tmp_path / "crops")).read_bytes()


def save_pair(root: Path, image_HWC: NDArray[np.uint8], mask_HW: NDArray[np.uint8], **options: Any) -> Path:
    for folder, pixels, given in (("images", image_HWC, options), ("masks", mask_HW, {})):
        (root / folder).mkdir(parents=True)
        Image.fromarray(pixels).save(root / folder / "0.png", **given)
    return root


@pytest.fixture
def square() -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """A photo of a bright reddish square, and its mask."""
    mask_HW = np.zeros((200, 300), np.uint8)
    mask_HW[60:140, 100:200] = 255
    return np.where(mask_HW[..., None] > 0, (255, 200, 150), (60, 20, 20)).astype(np.uint8), mask_HW


def test_crops_away_from_unknown_pixels_are_kept(
    square: tuple[NDArray[np.uint8], NDArray[np.uint8]], tmp_path: Path
) -> None:
    """Also where the photo is reduced, as with half of the seeds."""
    segmenter = Segmenter.load(bright_is_vehicle(tmp_path / "net", channels=3))
    image_HWC, mask_HW = square
    unknown_HW = mask_HW.copy()
    unknown_HW[:2, :2] = 128
    counts = []
    for name, values_HW in (("all", mask_HW), ("some", unknown_HW)):
        (pair,) = find_pairs(save_pair(tmp_path / name, image_HWC, values_HW), ignore=128).pairs
        found = [list(write_crops([pair], segmenter, tmp_path / f"{name}-{seed}", seed=seed)) for seed in range(4)]
        counts.append(found)
    assert counts[0] == counts[1]


def test_crops_have_the_colors_that_the_refiner_will_see(
    square: tuple[NDArray[np.uint8], NDArray[np.uint8]], tmp_path: Path
) -> None:
    segmenter = Segmenter.load(bright_is_vehicle(tmp_path / "net", channels=3))
    image_HWC, mask_HW = square
    save_pair(tmp_path / "p3", image_HWC, mask_HW, icc_profile=display_p3())
    save_pair(tmp_path / "srgb", to_srgb(image_HWC, display_p3()), mask_HW)
    for name in ("p3", "srgb"):
        assert list(write_crops(find_pairs(tmp_path / name).pairs, segmenter, tmp_path / f"{name}-crops")) > [0]
    for path in (tmp_path / "p3-crops" / "images").iterdir():
        seen_HWC, right_HWC = (
            np.array(Image.open(tmp_path / f"{name}-crops" / "images" / path.name))[..., :3].astype(int)
            for name in ("p3", "srgb")
        )
        # Unconverted they differ by more than 1 level.
        assert np.abs(seen_HWC - right_HWC).mean() < 0.5


def test_a_split_of_other_photos_is_refused(photos: Path, tmp_path: Path) -> None:
    split = tmp_path / "split.json"
    Split(seed=0, train=("4",), validation=("5",), group_of={"4": "4", "5": "5"}).save(split)
    with pytest.raises(SplitError):
        crops_command(photos, tmp_path / "crops", split=split)


def test_crops_are_not_mixed_with_others(photos: Path, tmp_path: Path) -> None:
    segmenter = Segmenter.load(bright_is_vehicle(tmp_path / "net", channels=3))
    first, second, _ = find_pairs(photos).pairs
    crops = tmp_path / "crops"
    assert list(write_crops([first], segmenter, crops, per_photo=2)) == [2]
    before = {path: path.read_bytes() for path in crops.rglob("*.png")}
    for pair, out in ((second, crops), (first, crops), (first, photos)):
        with pytest.raises(CarmaskError):
            list(write_crops([pair], segmenter, out, per_photo=1))
    assert {path: path.read_bytes() for path in crops.rglob("*.png")} == before
    assert len(list(photos.rglob("*.png"))) == 6


def test_a_mask_of_another_size_is_refused(square: tuple[NDArray[np.uint8], NDArray[np.uint8]], tmp_path: Path) -> None:
    segmenter = Segmenter.load(bright_is_vehicle(tmp_path / "net", channels=3))
    pairs = find_pairs(save_pair(tmp_path / "turned", square[0], square[1].T)).pairs
    with pytest.raises(CarmaskError, match=r"0\.png"):
        list(write_crops(pairs, segmenter, tmp_path / "crops"))


def test_a_network_can_be_trained_on_crops(photos: Path, tmp_path: Path) -> None:
    network = bright_is_vehicle(tmp_path / "net", channels=3)
    crops = tmp_path / "crops"
    assert crops_command(photos, crops, model=str(network), per_photo=8, ignore=128) == 0
    settings = TrainSettings(
        data=crops,
        preset="sharp",
        name="r",
        runs=tmp_path / "runs",
        epochs=1,
        batch_size=4,
        tensorboard=False,
        network=NetworkSettings(widths=(4, 8)),
        dataset=DataSettings(group_pattern="(.*)-", folds=3, cache=tmp_path / "cache"),
        hardware=TrainingHardwareSettings(device="cpu", precision="float32"),
    )
    train(settings)
    sharp = Segmenter.load([network, tmp_path / "runs" / "r"])
    assert sharp.refiner is not None
    alone = Segmenter([sharp.refiner])
    assert alone(crops / "images" / "0-0.png").probability.shape == (64, 64)
    assert sharp(photos / "images" / "0.png").probability.shape == (300, 400)
