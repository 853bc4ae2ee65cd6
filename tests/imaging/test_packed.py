import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from carmask.imaging.packed import PackedMask


@given(arrays.arrays(bool, st.tuples(st.integers(1, 20), st.integers(1, 40))))
def test_a_packed_mask_comes_back_as_it_was(mask_HW: np.ndarray) -> None:
    packed = PackedMask.of(mask_HW)
    assert packed.size_HW == mask_HW.shape
    assert packed.mask_HW.dtype == np.bool_
    np.testing.assert_array_equal(packed.mask_HW, mask_HW)


def test_it_takes_an_eighth() -> None:
    assert PackedMask.of(np.ones((10, 800), bool)).bits.nbytes == 1000
