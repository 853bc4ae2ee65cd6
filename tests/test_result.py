from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import ImageCms

from bright_network import bright_is_vehicle
from bright_photos import BRIGHT, save
from carmask.errors import CarmaskError
from carmask.result import Result
from carmask.runtime.options import RunOptions
from carmask.segmenter import Segmenter


def test_a_cutout_holds_the_photo_inside_the_mask(tmp_path: Path) -> None:
    bright = Segmenter.load(bright_is_vehicle(tmp_path / "bright"), RunOptions(device="cpu", precision="float32"))
    vehicle_HW = np.zeros((120, 160), dtype=bool)
    vehicle_HW[30:90, 40:120] = True
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    path = save(tmp_path / "car.jpg", vehicle_HW, quality=95, icc_profile=profile)
    result = bright(path)
    transparent = result.cutout()
    assert (transparent.mode, transparent.size) == ("RGBA", (160, 120))
    assert transparent.info["icc_profile"] == profile
    alpha_HW = np.asarray(transparent)[..., 3]
    assert ((alpha_HW >= 128) == result.mask).mean() > 0.999
    white_HWC = np.asarray(result.cutout("white"))
    assert white_HWC[5, 5].tolist() == [255, 255, 255]
    np.testing.assert_allclose(white_HWC[60, 80], BRIGHT, atol=6)
    top, left, bottom, right = result.box_px or (0, 0, 0, 0)
    assert result.cutout("#102030", crop=True).size == (right - left, bottom - top)
    with pytest.raises(CarmaskError, match="whiet"):
        result.cutout("whiet")
    nothing = bright(np.zeros((20, 30, 3), np.uint8))
    assert nothing.box_px is None
    assert nothing.cutout(crop=True).size == (30, 20)
    with pytest.raises(CarmaskError, match="does not know its photo"):
        Result(result.probability, 0.5).cutout()
    save(path, vehicle_HW[:50])
    with pytest.raises(CarmaskError, match="another size"):
        result.cutout()


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
