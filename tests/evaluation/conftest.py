import numpy as np
import pytest
from bright_cars import write_pair


@pytest.fixture
def folder(tmp_path):
    """Three cars of four views, every photo of its own size, with errors whose pixels are known."""
    rng = np.random.default_rng(5)
    for car in ("aa", "bb", "cc"):
        for view in range(1, 5):
            height, width = (int(side) for side in rng.integers(60, 110, 2))
            truth_HW = np.zeros((height, width), dtype=bool)
            truth_HW[10 : height - 12, 8 : width - 9] = True
            bright_HW = truth_HW.copy()
            bright_HW[10 : 10 + view, :] = False
            bright_HW[: 2 * view, : width // 2] = True
            write_pair(tmp_path / "cars", f"{car}_{view:02d}", truth_HW, bright_HW)
    return tmp_path / "cars"
