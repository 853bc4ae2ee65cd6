"""COCO's run lengths against pycocotools, by property."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from pycocotools import mask as pycocotools

from carmask.imaging.decode import decode_mask
from carmask.imaging.rle import RleError, encode_coco, parse_coco

# Of pycocotools 2.0.11 with NumPy 2.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

masks = hnp.arrays(np.bool_, hnp.array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=20))


def by_pycocotools(mask_HW):
    return pycocotools.encode(np.asfortranarray(mask_HW.astype(np.uint8)))


def check(mask_HW):
    encoded, reference = encode_coco(mask_HW), by_pycocotools(mask_HW)
    assert encoded == {"size": list(reference["size"]), "counts": reference["counts"].decode()}
    np.testing.assert_array_equal(pycocotools.decode(encoded), mask_HW)


@given(masks)
def test_as_pycocotools(mask_HW):
    check(mask_HW)


@given(
    st.integers(1, 60), st.integers(1, 60), st.lists(st.tuples(st.integers(0, 3599), st.integers(1, 3000)), max_size=9)
)
def test_long_runs_as_pycocotools(height, width, runs):
    flat = np.zeros(height * width, dtype=np.bool_)
    for start, length in runs:
        flat[start : start + length] ^= True
    check(flat.reshape(width, height).T)


@pytest.mark.parametrize("size_HW", [(1, 1), (1, 7), (7, 1), (700, 1000), (3, 100_000)])
def test_empty_full_and_single_pixels(size_HW):
    for number in (None, 0, size_HW[0] * size_HW[1] // 2, size_HW[0] * size_HW[1] - 1):
        mask_HW = np.zeros(size_HW, dtype=np.bool_)
        if number is not None:
            mask_HW.reshape(-1)[number] = True
        check(mask_HW)
        check(~mask_HW)


def test_real_masks(carvana):
    for path in sorted((carvana / "train_masks").glob("*.gif"))[::250]:
        check(decode_mask(path).mask_HW)


def test_known_example():
    # Two columns of three: the runs are 1 of background, 4 of foreground, 1 of background.
    mask_HW = np.array([[0, 1], [1, 1], [1, 0]], dtype=np.bool_)
    assert encode_coco(mask_HW) == {"size": [3, 2], "counts": "141"}


@pytest.mark.parametrize("counts", ["1\ud8004", "1\u00e94", "1/4", "1p4", "14P", "o" * 8 + "4"])
def test_what_is_no_text_of_run_lengths_is_refused(counts):
    with pytest.raises(RleError):
        parse_coco(counts)


def test_soft_masks_are_refused():
    with pytest.raises(ValueError, match="bool"):
        encode_coco(np.zeros((3, 4), dtype=np.uint8))
