"""A fixture that the tests of exporting share."""

from collections.abc import Iterator

import pytest

from carmask.models import efficientnet


@pytest.fixture(scope="module")
def shallow_encoder() -> Iterator[None]:
    """The pretrained encoder with fewer blocks, of every sort that it has: PyTorch exports a graph block by block."""
    # The two that are left out keep the size of what they get, as the first one does.
    kept = [stage for stage in efficientnet._STAGES if stage.channels not in (112, 320)]
    stages = tuple(stage._replace(repeats=2 if stage.channels == 24 else 1) for stage in kept)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(efficientnet, "_STAGES", stages)
        yield
