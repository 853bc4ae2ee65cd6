"""Frames through the networks to composited pixels, the same for video files and cameras."""

from collections.abc import Callable, Generator, Iterator
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from carmask.imaging.decode import Photo
from carmask.imaging.masks import ALL_REGIONS, Regions
from carmask.pipeline.kinds import TRANSPARENT, OutputStyle, PhotoKind, refuse_cutout_options
from carmask.pipeline.video.smoothing import TemporalSmoother
from carmask.runner import Prediction, run_segmenter
from carmask.segmenter import Result, Segmenter

Frame = TypeVar("Frame")
Output = TypeVar("Output")

_WORKERS = 2


def choose_style(kind: PhotoKind | None, background: str | None) -> OutputStyle:
    """Return the style of a result; without a kind a cutout if there is a background, otherwise an overlay.

    Raises:
        CarmaskError: the kind has no background.

    """
    if background is None:
        return OutputStyle(kind or "overlay")
    kind = kind or "cutout"
    refuse_cutout_options(kind, ["--background"])
    return OutputStyle(kind, background=background.strip())


def is_transparent(style: OutputStyle) -> bool:
    """Whether results have an alpha channel."""
    return style.kind == "cutout" and style.background == TRANSPARENT


def segment_frames(
    frames: Iterator[Frame],
    segmenter: Segmenter,
    to_rgb: Callable[[Frame], NDArray[np.uint8]],
    make_output: Callable[[NDArray[np.uint8], Result], Output],
    *,
    regions: Regions = ALL_REGIONS,
    smooth: bool = False,
    batch_size: int = 1,
    ahead: int = 4,
) -> Generator[tuple[Frame, Output, bool], None, None]:
    """Segment frame after frame, in display order. The thread that iterates runs the networks.

    Yields the frame as it was read, what `make_output` made of it, and whether a vehicle was found in it.

    Frames are read in a thread of their own, and at most `ahead` of them wait behind each stage. In any thread,
    `to_rgb` converts a frame to upright uint8 RGB pixels (height, width, 3), and `make_output` makes the output of
    those pixels and what was found in them.
    """

    def load(frame: Frame) -> tuple[Photo, NDArray[np.uint8]]:
        image_HWC = to_rgb(frame)
        return Photo(image_HWC, (image_HWC.shape[0], image_HWC.shape[1])), image_HWC

    def consume(prediction: Prediction[Frame, NDArray[np.uint8]]) -> tuple[Frame, Output, bool]:
        result = Result(regions.keep(prediction.probability_HW, segmenter.threshold), segmenter.threshold)
        return prediction.item, make_output(prediction.extra, result), bool(result.mask.any())

    return run_segmenter(
        frames,
        segmenter,
        load=load,
        consume=consume,
        smooth=TemporalSmoother().smooth if smooth else None,
        batch_size=batch_size,
        workers=_WORKERS,
        ahead=ahead,
        items_in_thread=True,
    )
