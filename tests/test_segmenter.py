import io
import json
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from bright_network import bright_is_vehicle
from carmask.errors import CarmaskError
from carmask.imaging.crops import cut_inputs, outline_cells, paste_crops
from carmask.imaging.decode import UnreadableImage
from carmask.imaging.geometry import Geometry
from carmask.models.card import ModelCard
from carmask.models.config import UNetConfig
from carmask.models.network import Network, WeightsError
from carmask.runtime.options import RunOptions
from carmask.segmenter import Segmenter

CPU = RunOptions(device="cpu", precision="float32")


@pytest.fixture(scope="module")
def bright(tmp_path_factory: pytest.TempPathFactory) -> Segmenter:
    return Segmenter.load(bright_is_vehicle(tmp_path_factory.mktemp("bright")), CPU)


@pytest.fixture(scope="module")
def random_net(tmp_path_factory: pytest.TempPathFactory) -> Segmenter:
    """A small net with BatchNorm and random weights, on RGB."""
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("random")
    unet = UNetConfig(in_channels=3, widths=(4, 6, 8), stem=2, head_kernel=3)
    geometry = Geometry(height_px=50, width_px=70, keep_aspect=True)
    Network(ModelCard(name="random", unet=unet, geometry=geometry, threshold=0.4)).save_pretrained(folder)
    return Segmenter.load(folder, RunOptions(device="cpu", precision="float32", threads=1))


def encoded(image_HWC: NDArray[np.uint8], kind: str = "PNG", **options: object) -> bytes:
    file = io.BytesIO()
    Image.fromarray(image_HWC).save(file, kind, **options)
    return file.getvalue()


def rectangle(size_HW: tuple[int, int], box_px: tuple[int, int, int, int]) -> NDArray[np.uint8]:
    image_HWC = np.full((*size_HW, 3), 40, np.uint8)
    top, left, bottom, right = box_px
    image_HWC[top:bottom, left:right] = 215
    return image_HWC


@pytest.mark.parametrize("keep_aspect", [False, True])
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("size_HW", [(640, 900), (300, 800), (40, 30)])
def test_a_bright_rectangle_is_found_where_it_is(
    tmp_path: Path, size_HW: tuple[int, int], channels: int, keep_aspect: bool
) -> None:
    folder = bright_is_vehicle(tmp_path, channels=channels, keep_aspect=keep_aspect)
    segmenter = Segmenter.load(folder, CPU)
    box_px = tuple(round(share * side) for share, side in zip((0.2, 0.3, 0.7, 0.8), size_HW * 2, strict=True))
    result = segmenter(encoded(rectangle(size_HW, box_px)))
    assert result.probability.shape == size_HW
    assert result.probability.dtype == np.float32
    assert result.mask.dtype == np.bool_
    truth_HW = rectangle(size_HW, box_px)[:, :, 0] > 100
    overlap, union = (result.mask & truth_HW).sum(), (result.mask | truth_HW).sum()
    # How much of the photo one pixel of the network covers. Half of one would be the usual mistake.
    pixel_px = max(size_HW[0] / 64, size_HW[1] / 90, 1)
    assert overlap / union > 0.97
    assert result.box_px is not None
    assert np.abs(np.subtract(result.box_px, box_px)).max() <= 0.5 + 0.15 * pixel_px
    center, wanted = ([np.mean(axis) for axis in np.nonzero(mask)] for mask in (result.mask, truth_HW))
    assert np.abs(np.subtract(center, wanted)).max() < 0.15 * pixel_px
    assert result.coverage == pytest.approx(result.mask.sum() / result.mask.size)


def test_the_threshold_travels_with_the_weights(tmp_path: Path) -> None:
    image = encoded(np.full((20, 30, 3), 130, np.uint8))
    for threshold, wanted in ((0.5, True), (0.9, False)):
        folder = bright_is_vehicle(tmp_path / str(threshold), threshold=threshold)
        segmenter = Segmenter.load(folder, CPU)
        result = segmenter(image)
        assert segmenter.threshold == result.threshold == threshold
        assert 0.5 < result.probability.max() < 0.9
        assert result.mask.all() == wanted
        assert result.mask.any() == wanted


def test_a_turned_photo_is_cut_out_as_it_is_shown(bright: Segmenter) -> None:
    shown_HWC = rectangle((90, 60), (10, 5, 60, 50))
    stored_HWC = np.ascontiguousarray(np.rot90(shown_HWC))
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned clockwise by a quarter
    turned = bright(encoded(stored_HWC, "JPEG", quality=95, exif=exif))
    straight = bright(encoded(shown_HWC, "JPEG", quality=95))
    assert turned.mask.shape == (90, 60)
    assert (turned.mask != straight.mask).mean() < 0.002


@pytest.mark.parametrize("size_HW", [(1280, 1918), (200, 280)])
def test_a_jpeg_gives_what_the_same_png_gives(bright: Segmenter, size_HW: tuple[int, int]) -> None:
    """JPEGs are decoded reduced, but never below the network's size; it must not show."""
    height, width = size_HW
    image_HWC = rectangle(size_HW, (height // 4 + 3, width // 5 + 3, height * 3 // 4 + 3, width * 4 // 5 + 3))
    from_jpeg, from_png = bright(encoded(image_HWC, "JPEG", quality=95)), bright(encoded(image_HWC))
    assert from_jpeg.probability.shape == size_HW
    assert np.abs(from_jpeg.probability - from_png.probability).mean() < 0.004
    assert (from_jpeg.mask != from_png.mask).mean() < 0.001


@settings(max_examples=25)
@given(st.integers(1, 300), st.integers(1, 300), st.integers(0, 100))
def test_every_photo_gets_a_probability_of_its_own_size(
    random_net: Segmenter, height: int, width: int, seed: int
) -> None:
    image_HWC = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    result = random_net(encoded(image_HWC))
    assert result.probability.shape == (height, width)
    assert result.probability.min() >= 0
    assert result.probability.max() <= 1


def test_photos_of_one_batch_do_not_mix(random_net: Segmenter, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    sizes = [(30, 50), (200, 120), (51, 51), (7, 300)]
    sources = [encoded(rng.integers(0, 256, (*size_HW, 3), dtype=np.uint8)) for size_HW in sizes]
    together = random_net.predict_photos([random_net.decode(source) for source in sources])
    assert [probability_HW.shape for probability_HW in together] == sizes
    for place, (source, probability_HW) in enumerate(zip(sources, together, strict=True)):
        path = tmp_path / f"{place}.png"
        path.write_bytes(source)
        np.testing.assert_allclose(random_net(path).probability, probability_HW, atol=1e-5)
    assert together[0].std() > 0
    assert random_net.predict_photos([]) == []


def test_flipping_averages_with_the_mirror_image(random_net: Segmenter) -> None:
    image_HWC = np.random.default_rng(1).integers(0, 256, (90, 61, 3), dtype=np.uint8)
    flipping = Segmenter(random_net.members, tta="flip")
    straight, mirrored = random_net(image_HWC).probability, random_net(image_HWC[:, ::-1]).probability
    # The canvas may hold the photo one pixel off its middle, and so may the mirrored canvas.
    difference = np.abs(flipping(image_HWC).probability - (straight + mirrored[:, ::-1]) / 2)
    assert difference.mean() < 0.1 * np.abs(straight - mirrored[:, ::-1]).mean()
    symmetric_HWC = np.concatenate([image_HWC, image_HWC[:, ::-1]], axis=1)
    found_HW = flipping(symmetric_HWC).probability
    np.testing.assert_allclose(found_HW, found_HW[:, ::-1], atol=1e-5)
    assert np.abs(found_HW - random_net(symmetric_HWC).probability).max() > 1e-3


def test_several_networks_are_averaged(random_net: Segmenter, tmp_path: Path) -> None:
    """One sees gray photos and the other colors, at other sizes."""
    gray = Segmenter.load(bright_is_vehicle(tmp_path / "a", channels=1, threshold=0.8), RunOptions(device="cpu"))
    both = Segmenter([*random_net.members, *gray.members])
    assert (both.name, both.threshold) == ("random+bright", pytest.approx(0.6))
    assert [member["name"] for member in both.describe()["members"]] == ["random", "bright"]
    rng = np.random.default_rng(2)
    images = [rng.integers(0, 256, (*size_HW, 3), dtype=np.uint8) for size_HW in ((40, 60), (130, 50))]
    found = both.predict_photos([both.decode(image) for image in images])
    for image_HWC, found_HW in zip(images, found, strict=True):
        wanted_HW = (random_net(image_HWC).probability + gray(image_HWC).probability) / 2
        np.testing.assert_allclose(found_HW, wanted_HW, atol=0.01)


@pytest.mark.parametrize("size_HW", [(640, 900), (301, 803), (2100, 2300)])
def test_a_network_for_crops_moves_the_outline_to_the_pixel(tmp_path: Path, size_HW: tuple[int, int]) -> None:
    coarse = bright_is_vehicle(tmp_path / "coarse", channels=3)
    refiner = bright_is_vehicle(tmp_path / "refiner", refines=str(coarse))
    box_px = tuple(round(share * side) for share, side in zip((0.2, 0.3, 0.7, 0.8), size_HW * 2, strict=True))
    image_HWC = rectangle(size_HW, box_px)
    truth_HW = image_HWC[..., 0] > 100
    alone, sharp = Segmenter.load(coarse, CPU), Segmenter.load(refiner, CPU)
    errors = [np.count_nonzero(segmenter(image_HWC).mask != truth_HW) for segmenter in (alone, sharp)]
    assert errors[0] > 0
    # Larger photos are refined at a reduced size.
    assert errors[1] == 0 if max(size_HW) <= 2048 else errors[1] < errors[0] / 4
    assert sharp.describe()["members"][1]["input"]["channels"] == 4
    together = Segmenter.load([coarse, refiner], CPU)
    np.testing.assert_array_equal(together(image_HWC).probability, sharp(image_HWC).probability)
    # As the scheduler calls it, and in another process.
    again = pickle.loads(pickle.dumps(sharp.fit(sharp.decode(encoded(image_HWC)))))  # noqa: S301
    (raw,) = sharp.infer([again], pad_to=4)
    np.testing.assert_allclose(sharp.restore(again, raw), sharp(image_HWC).probability, atol=1e-5)
    nothing_HWC = np.zeros((90, 70, 3), np.uint8)
    np.testing.assert_array_equal(sharp(nothing_HWC).probability, alone(nothing_HWC).probability)


def test_flipping_mirrors_the_crops_too(tmp_path: Path) -> None:
    torch.manual_seed(0)
    unet = UNetConfig(in_channels=4, widths=(4, 6), norm="none")
    coarse = bright_is_vehicle(tmp_path / "coarse", channels=3)
    card = ModelCard(name="random", unet=unet, geometry=Geometry(height_px=64, width_px=64), refines=str(coarse))
    Network(card).save_pretrained(tmp_path / "refiner")
    image_HWC = rectangle((200, 300), (60, 80, 140, 220))
    sharp = Segmenter.load(tmp_path / "refiner", CPU, tta="flip")
    assert sharp.refiner is not None
    coarse_HW = Segmenter(sharp.members, tta="flip")(image_HWC).probability
    cells = outline_cells(coarse_HW, 64)
    crops = cut_inputs(image_HWC, coarse_HW, cells, 64)
    seen, mirrored = (sharp.refiner.engine.run(one) for one in (crops, np.ascontiguousarray(crops[:, :, ::-1])))
    wanted_HW = paste_crops(coarse_HW, cells, (seen + mirrored[:, :, ::-1]) / 2, 64)
    np.testing.assert_allclose(sharp(image_HWC).probability, wanted_HW, atol=1e-5)
    assert np.abs(seen - mirrored[:, :, ::-1]).max() > 1e-3


def test_only_one_network_refines(tmp_path: Path) -> None:
    refiners = [bright_is_vehicle(tmp_path / name, refines="general") for name in "ab"]
    with pytest.raises(CarmaskError):
        Segmenter.load(refiners, CPU)


def test_tiles_see_what_the_whole_view_is_too_coarse_for(tmp_path: Path) -> None:
    folder = bright_is_vehicle(tmp_path)
    # Stripes one pixel of the network's wide, as it sees them in the tiles, and that the whole view blurs.
    rows = np.arange(192) // 2 % 2 == 0
    image_HWC = np.where(rows[:, None, None], np.uint8(230), np.uint8(20)).repeat(270, axis=1).repeat(3, axis=2)
    whole, tiled = (Segmenter.load(folder, CPU, tile=tile) for tile in (False, True))
    truth_HW = image_HWC[..., 0] > 100
    assert len(tiled.fit(tiled.decode(image_HWC)).views) == 5
    found, tiles_found = whole(image_HWC), tiled(image_HWC)
    assert np.ptp(tiles_found.probability) > 1.5 * np.ptp(found.probability)
    assert (tiles_found.mask == truth_HW).mean() >= (found.mask == truth_HW).mean()
    even = tiled(np.full((192, 270, 3), 200, np.uint8)).probability
    assert np.ptp(even) < 1e-5, "no seams where there is nothing to see"


def test_a_decoded_picture_gives_what_its_file_gives(random_net: Segmenter) -> None:
    rng = np.random.default_rng(3)
    rgb_HWC = rng.integers(0, 256, (45, 70, 3), dtype=np.uint8)
    exif = Image.Exif()
    exif[0x0112] = 6
    for image, save in (
        (Image.fromarray(rgb_HWC), {}),
        (Image.fromarray(rgb_HWC[..., 0]), {}),
        (Image.fromarray(rng.integers(0, 256, (45, 70, 4), dtype=np.uint8)), {}),
        (Image.fromarray(rgb_HWC).convert("P"), {}),
        (Image.fromarray(rgb_HWC), {"exif": exif}),
    ):
        file = io.BytesIO()
        image.save(file, "PNG", **save)
        wanted = random_net(file.getvalue()).probability
        np.testing.assert_array_equal(random_net(Image.open(file)).probability, wanted)
        if image.mode != "P" and not save:
            np.testing.assert_array_equal(random_net(np.asarray(image)).probability, wanted)
    assert wanted.shape == (70, 45), "turned as its EXIF says"
    with pytest.raises(UnreadableImage, match="float64"):
        random_net(np.zeros((4, 4, 3)))  # type: ignore[arg-type]
    with pytest.raises(UnreadableImage, match="channels"):
        random_net(np.zeros((4, 4, 2), np.uint8))


@pytest.mark.parametrize("network", ["packaged", "weights"])
def test_a_padded_batch_gives_the_same_bits_whatever_is_in_it(network: str, random_net: Segmenter) -> None:
    """As a resumed run needs it, in the precision that is fastest here."""
    segmenter = Segmenter.load() if network == "packaged" else random_net
    rng = np.random.default_rng(4)
    coarse = rng.integers(0, 256, (6, 4, 6, 3), dtype=np.uint8)
    photos = [segmenter.decode(np.asarray(Image.fromarray(one).resize((96, 64)))) for one in coarse]
    fitted = [segmenter.fit(photo) for photo in photos]
    together = [raw[0] for raw in segmenter.infer(fitted[:4], pad_to=4) + segmenter.infer(fitted[4:], pad_to=4)]
    for order in ([5], [3, 0], [4, 2, 1], [5, 4, 3, 2]):
        found = segmenter.infer([fitted[index] for index in order], pad_to=4)
        for index, raw in zip(order, found, strict=True):
            np.testing.assert_array_equal(raw[0], together[index])
    assert np.ptp(together[0]) > 0


def test_the_threshold_can_be_chosen(bright: Segmenter) -> None:
    for threshold in (0.1, 0.9):
        chosen = Segmenter(bright.members, threshold=threshold)
        assert chosen.threshold == chosen(np.zeros((5, 5), np.uint8)).threshold == threshold
    with pytest.raises(CarmaskError, match="between 0 and 1"):
        Segmenter(bright.members, threshold=1.0)
    with pytest.raises(CarmaskError, match="empty list"):
        Segmenter.load([])


def test_it_says_what_it_is(random_net: Segmenter) -> None:
    told = json.loads(json.dumps(random_net.describe()))
    assert told == {
        "name": "random",
        "input": {"height_px": 50, "width_px": 70, "keep_aspect": True, "channels": 3},
        "threshold": 0.4,
        "engine": "torch",
        "device": "cpu",
        "precision": "float32",
        "threads": torch.get_num_threads(),
        "tta": "none",
        "tile": False,
    }


def test_bad_files_and_folders_are_named(bright: Segmenter, tmp_path: Path) -> None:
    (tmp_path / "car.jpg").write_bytes(b"not a picture")
    with pytest.raises(UnreadableImage, match=r"car\.jpg"):
        bright(tmp_path / "car.jpg")
    with pytest.raises(UnreadableImage):
        bright(b"")
    with pytest.raises(CarmaskError, match="nowhere"):
        Segmenter.load(tmp_path / "nowhere")
    with pytest.raises(WeightsError, match="no config"):
        Segmenter.load(tmp_path)
