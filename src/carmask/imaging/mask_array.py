"""What a mask is in memory."""

import numpy as np
from numpy.typing import NDArray


def require_mask(mask_HW: NDArray[np.bool_]) -> None:
    """Raise `ValueError` for what is no bool array (height, width): it would give a wrong result and nobody notice."""
    if mask_HW.ndim != 2 or mask_HW.dtype != np.bool_:
        raise ValueError(f"a mask is a bool array (height, width), not {mask_HW.dtype} {mask_HW.shape}")
