import io
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image, ImageCms

from bright_network import bright_is_vehicle
from carmask.errors import CarmaskError
from carmask.imaging.decode import UnreadableImage
from carmask.imaging.geometry import Geometry
from carmask.models.config import UNetConfig
from carmask.models.network import Network, NetworkConfig, WeightsError
from carmask.runtime.hardware import Hardware, HardwareSettings, set_up
from carmask.runtime.torch_engine import TorchEngine
from carmask.segmenter import Result, Segmenter


@pytest.fixture(scope="module")
def bright(tmp_path_factory: pytest.TempPathFactory) -> Segmenter:
    return Segmenter.load(bright_is_vehicle(tmp_path_factory.mktemp("bright")), device="cpu", precision="float32")


@pytest.fixture(scope="module")
def random_net(tmp_path_factory: pytest.TempPathFactory) -> Segmenter:
    """A small net with BatchNorm and random weights, on RGB."""
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("random")
    unet = UNetConfig(in_channels=3, widths=(4, 6, 8), stem=2, head_kernel=3)
    geometry = Geometry(height_px=50, width_px=70, keep_aspect=True)
    Network(NetworkConfig(name="random", unet=unet, geometry=geometry, threshold=0.4)).save_pretrained(folder)
    return Segmenter.load(folder, device="cpu", precision="float32", threads=1)


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
    segmenter = Segmenter.load(folder, device="cpu", precision="float32")
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
    centre, wanted = ([np.mean(axis) for axis in np.nonzero(mask)] for mask in (result.mask, truth_HW))
    assert np.abs(np.subtract(centre, wanted)).max() < 0.15 * pixel_px
    assert result.coverage == pytest.approx(result.mask.sum() / result.mask.size)


def test_the_threshold_travels_with_the_weights(tmp_path: Path) -> None:
    image = encoded(np.full((20, 30, 3), 130, np.uint8))
    for threshold, wanted in ((0.5, True), (0.9, False)):
        folder = bright_is_vehicle(tmp_path / str(threshold), threshold=threshold)
        segmenter = Segmenter.load(folder, device="cpu", precision="float32")
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


@settings(max_examples=25, deadline=None)
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
    """One sees grey photos and the other colours, at other sizes."""
    grey = Segmenter.load(bright_is_vehicle(tmp_path / "a", channels=1, threshold=0.8), device="cpu")
    both = Segmenter([*random_net.members, *grey.members])
    assert (both.name, both.threshold) == ("random+bright", pytest.approx(0.6))
    assert [member["name"] for member in both.describe()["members"]] == ["random", "bright"]
    rng = np.random.default_rng(2)
    images = [rng.integers(0, 256, (*size_HW, 3), dtype=np.uint8) for size_HW in ((40, 60), (130, 50))]
    found = both.predict_photos([both.decode(image) for image in images])
    for image_HWC, found_HW in zip(images, found, strict=True):
        wanted_HW = (random_net(image_HWC).probability + grey(image_HWC).probability) / 2
        np.testing.assert_allclose(found_HW, wanted_HW, atol=0.01)


def test_tiles_see_what_the_whole_view_is_too_coarse_for(tmp_path: Path) -> None:
    folder = bright_is_vehicle(tmp_path)
    # Stripes one pixel of the network's wide, as it sees them in the tiles, and that the whole view blurs.
    rows = np.arange(192) // 2 % 2 == 0
    image_HWC = np.where(rows[:, None, None], np.uint8(230), np.uint8(20)).repeat(270, axis=1).repeat(3, axis=2)
    whole, tiled = (Segmenter.load(folder, device="cpu", precision="float32", tile=tile) for tile in (False, True))
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


def test_a_cutout_holds_the_photo_inside_the_mask(bright: Segmenter, tmp_path: Path) -> None:
    image_HWC = rectangle((120, 160), (30, 40, 90, 120))
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    path = tmp_path / "car.jpg"
    path.write_bytes(encoded(image_HWC, "JPEG", quality=95, icc_profile=profile))
    result = bright(path)
    transparent = result.cutout()
    assert (transparent.mode, transparent.size) == ("RGBA", (160, 120))
    assert transparent.info["icc_profile"] == profile
    alpha_HW = np.asarray(transparent)[..., 3]
    assert ((alpha_HW >= 128) == result.mask).mean() > 0.999
    white_HWC = np.asarray(result.cutout("white"))
    assert white_HWC[5, 5].tolist() == [255, 255, 255]
    np.testing.assert_allclose(white_HWC[60, 80], image_HWC[60, 80], atol=6)
    top, left, bottom, right = result.box_px or (0, 0, 0, 0)
    assert result.cutout("#102030", crop=True).size == (right - left, bottom - top)
    with pytest.raises(CarmaskError, match="whiet"):
        result.cutout("whiet")
    nothing = bright(np.zeros((20, 30, 3), np.uint8))
    assert nothing.box_px is None
    assert nothing.cutout(crop=True).size == (30, 20)
    with pytest.raises(CarmaskError, match="does not know its photo"):
        Result(result.probability, 0.5).cutout()
    path.write_bytes(encoded(image_HWC[:50]))
    with pytest.raises(CarmaskError, match="another size"):
        result.cutout()


def test_the_threshold_can_be_chosen(bright: Segmenter) -> None:
    for threshold in (0.1, 0.9):
        chosen = Segmenter(bright.members, threshold=threshold)
        assert chosen.threshold == chosen(np.zeros((5, 5), np.uint8)).threshold == threshold
    with pytest.raises(CarmaskError, match="between 0 and 1"):
        Segmenter(bright.members, threshold=1.0)
    with pytest.raises(CarmaskError, match="empty list"):
        Segmenter.load([])


def test_the_engine_gives_what_the_network_gives() -> None:
    config = NetworkConfig(
        name="n", unet=UNetConfig(in_channels=3, widths=(4, 8)), geometry=Geometry(height_px=16, width_px=16)
    )
    network = Network(config).eval()
    images_NHWC = np.random.default_rng(0).integers(0, 256, (3, 16, 24, 3), dtype=np.uint8)
    engine = TorchEngine(network, Hardware(torch.device("cpu"), torch.float32, "as asked"))
    x_BCHW = torch.from_numpy(images_NHWC.transpose(0, 3, 1, 2) / 255).float()
    with torch.no_grad():
        logits_BHW = network(x_BCHW)[:, 0].double().numpy()
    np.testing.assert_allclose(engine.run(images_NHWC), 1 / (1 + np.exp(-logits_BHW)), atol=1e-5)
    assert (engine.name, engine.device, engine.precision) == ("torch", "cpu", "float32")


@settings(max_examples=50)
@given(st.integers(1, 8), st.integers(1, 8), st.integers(0, 2**32), st.floats(0, 1))
def test_a_result_s_box_holds_its_mask_and_no_more(height: int, width: int, seed: int, share: float) -> None:
    probability_HW = (np.random.default_rng(seed).random((height, width)) < share).astype(np.float32)
    result = Result(probability_HW, threshold=0.5)
    inside = [(y, x) for y in range(height) for x in range(width) if probability_HW[y, x] >= 0.5]
    assert result.coverage == pytest.approx(len(inside) / (height * width))
    if not inside:
        assert result.box_px is None
        return
    rows, columns = zip(*inside, strict=True)
    assert result.box_px == (min(rows), min(columns), max(rows) + 1, max(columns) + 1)


def test_a_pixel_at_the_threshold_belongs_to_the_mask() -> None:
    assert Result(np.array([[0.5, 0.49999997]], np.float32), 0.5).mask.tolist() == [[True, False]]


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


def test_a_device_that_is_not_there_is_refused(tmp_path: Path) -> None:
    folder = bright_is_vehicle(tmp_path)
    for device in ("cuda:99", "abacus"):
        with pytest.raises(CarmaskError, match=device):
            Segmenter.load(folder, device=device)


@pytest.mark.parametrize("precision", ["auto", "bf16", "float32"])
def test_the_precision_is_what_was_asked_for(precision: str) -> None:
    hardware = set_up(HardwareSettings.model_validate({"device": "cpu", "precision": precision}))
    with hardware.autocast():
        product = torch.ones(2, 2) @ torch.ones(2, 2)
    assert product.dtype == hardware.precision
    if precision != "auto":
        assert str(hardware.precision).endswith({"bf16": "bfloat16"}.get(precision, precision))
    assert str(hardware.precision).removeprefix("torch.") in hardware.describe()


def test_without_pytorch_it_says_what_to_install(tmp_path: Path) -> None:
    program = (
        "import sys; sys.modules['torch'] = None\n"
        "from carmask.runtime.engine import EngineMissing\n"
        "from carmask.segmenter import Segmenter\n"
        "try:\n    Segmenter.load(sys.argv[1])\n"
        "except EngineMissing as error:\n    print(error)\n"
    )
    done = subprocess.run([sys.executable, "-c", program, str(tmp_path)], capture_output=True, text=True, check=True)
    assert "carmask[train]" in done.stdout
