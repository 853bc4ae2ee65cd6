"""Whether photos can be cut out: found out on a rendered car, by the networks that serve."""

import asyncio

import numpy as np
from numpy.typing import NDArray

from carmask.errors import CarmaskError
from carmask.evaluation.metrics import dice
from carmask.runtime.locate import packaged_models
from carmask.segmenter import Segmenter
from carmask.serving.service import Service
from carstudio.render import open_session, take_photo

_SIZE_HW = (256, 384)
_CAR, _VIEW, _VIEWS = 2, 3, 16
# The packaged networks reach 0.976 and more on this car.
_LEAST_DICE = 0.95


class NotReady(CarmaskError):
    """The networks do not do what they should."""


async def self_test(service: Service) -> None:
    """Cut out a rendered car twice: both results have to be the same, and right where it is known what is right.

    Raises:
        NotReady: they are not.
        EngineError: the networks cannot be run.

    """
    loop = asyncio.get_running_loop()
    image_HWC, truth_HW = await loop.run_in_executor(None, _car)
    segmenter = service.segmenter
    fitted = segmenter.fit(segmenter.decode(image_HWC))
    probability_HW, again_HW = [
        segmenter.restore(fitted, await asyncio.wrap_future(service.infer(fitted))) for _ in range(2)
    ]
    if probability_HW.shape != truth_HW.shape or not np.isfinite(probability_HW).all():
        raise NotReady(f"{segmenter.name}: found no probabilities in the self-test; export the network again")
    if not np.array_equal(probability_HW, again_HW):
        raise NotReady(f"{segmenter.name}: finds another thing each time; choose another --engine")
    if _knows_cars(segmenter):
        # At the networks' own threshold: that of the user may be meant to find little.
        reached = dice(truth_HW, probability_HW >= Segmenter(segmenter.members).threshold)
        if reached < _LEAST_DICE:
            raise NotReady(
                f"{segmenter.name}: reaches a Dice of {reached:.3f} on a rendered car, and {_LEAST_DICE:g} is the "
                "least; install carmask again, or choose another --engine"
            )


def _car() -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    return take_photo(open_session(0, _CAR, _SIZE_HW), _VIEW, _VIEWS)


def _knows_cars(segmenter: Segmenter) -> bool:
    """Whether these are the weights inside the package; of others it is not known what they were trained to find."""
    packaged = set(packaged_models().values())
    return all(member.place in packaged for member in segmenter.members)
