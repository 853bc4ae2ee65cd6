from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from bright_network import bright_is_vehicle
from carmask.cli.crops import crops as crops_command
from carmask.data.pairs import find_pairs
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
