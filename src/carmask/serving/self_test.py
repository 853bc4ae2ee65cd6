"""The test before the service accepts photos: the networks must segment a photo whose mask is known."""

from importlib.resources import files

import numpy as np

from carmask.errors import CarmaskError
from carmask.evaluation.metrics import dice
from carmask.imaging.decode import decode_photo
from carmask.runtime.locate import packaged_models
from carmask.segmenter import Segmenter
from carmask.serving.worker import SegmentationWorker

# The packaged networks reach 0.973 and more on this photo, which `carmask studio` rendered.
_MIN_DICE = 0.95


class SelfTestFailed(CarmaskError):
    """The networks do not give the results that they should."""


async def self_test(worker: SegmentationWorker) -> None:
    """Segment the photo twice: both results must be the same, and those of packaged networks must be right.

    Raises:
        SelfTestFailed: they are not.
        EngineError: a network cannot run.

    """
    here = files("carmask.serving")
    segmenter = worker.segmenter
    fitted = segmenter.fit(segmenter.decode((here / "self_test.jpg").read_bytes()))
    true_mask_HW = decode_photo((here / "self_test.png").read_bytes(), channels=1).image_HWC[..., 0] > 127
    probability_HW, again_HW = [segmenter.restore(fitted, await worker.batcher.infer(fitted)) for _ in range(2)]
    if probability_HW.shape != true_mask_HW.shape or not np.isfinite(probability_HW).all():
        raise SelfTestFailed(f"{segmenter.name}: the network returns no probabilities; export it again")
    if not np.array_equal(probability_HW, again_HW):
        raise SelfTestFailed(f"{segmenter.name}: the same photo gives two results; choose another --engine")
    # What other networks were trained to find is not known.
    packaged = set(packaged_models().values())
    if all(member.place in packaged for member in segmenter.members):
        # At the networks' own threshold: an extreme --threshold is the user's choice.
        reached = dice(true_mask_HW, probability_HW >= Segmenter(segmenter.members).threshold)
        if reached < _MIN_DICE:
            raise SelfTestFailed(
                f"{segmenter.name}: the Dice score on a known photo is {reached:.3f}, below {_MIN_DICE:g}; install "
                "carmask again or choose another --engine"
            )
