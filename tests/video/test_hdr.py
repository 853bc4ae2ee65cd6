"""Backgrounds behind videos in high dynamic range, against the levels that ITU-R BT.2408 gives."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from clips import Clip, av, make_clip

from bright_photos import Command
from carmask.imaging.background import parse_background
from carmask.pipeline.video.hdr import in_video_range, to_video_range
from carmask.pipeline.video.pixels import ColorProperties

PQ, HLG, BT709, BT2020 = 16, 18, 1, 9
# Table 1 of BT.2408: graphics white, 203 cd/m2, is 58 % of PQ and 75 % of HLG.
WHITE = {PQ: 0.58, HLG: 0.75}


@pytest.mark.parametrize("transfer", WHITE)
def test_white_is_laid_at_203_nits(transfer: int, video: Command) -> None:
    tags = {"color_primaries": BT2020, "color_trc": transfer, "colorspace": 9, "color_range": 1}
    make_clip(Path("in.mp4"), Clip(frames=3, tags=tags))
    assert video("in.mp4", "out.mp4", "--background", "white") == 0
    with av.open("out.mp4") as made:
        frame = next(made.decode(video=0))
    assert frame.color_trc == transfer
    luma = frame.to_ndarray(format="gray")[2, 2]
    assert luma / 255 == pytest.approx(WHITE[transfer], abs=0.01)


def test_other_videos_keep_the_background() -> None:
    background = parse_background("white")
    color = ColorProperties.default(1080)
    assert in_video_range(background, color) is background
    for primaries in (BT709, BT2020):
        pq = replace(color, transfer=PQ, primaries=primaries)
        assert (to_video_range(np.zeros((1, 1, 3), np.uint8), pq) == 0).all()
    red_rgb = to_video_range(np.array([[[255, 0, 0]]], np.uint8), replace(color, transfer=PQ, primaries=BT2020))[0, 0]
    assert red_rgb[0] > red_rgb[1] > red_rgb[2] > 0, "the red of sRGB lies inside BT.2020"
