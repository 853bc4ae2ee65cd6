"""A GIF or a video behind the vehicles: each frame at its time, and again from the start."""

from pathlib import Path

import numpy as np
import pytest
from clips import Clip, av, make_clip, read_clip
from PIL import Image

from bright_photos import Command

COLORS = ((200, 30, 30), (30, 180, 40), (40, 50, 200))


def write_ground(path: Path) -> None:
    """Three colors, 0.12 s each."""
    if path.suffix == ".gif":
        first, *rest = (Image.new("RGB", (32, 20), color) for color in COLORS)
        first.save(path, save_all=True, append_images=rest, duration=120, loop=0)
        return
    with av.open(str(path), "w") as out:
        stream = out.add_stream("libx264", rate=25, options={"crf": "5"})
        stream.width, stream.height, stream.pix_fmt = 32, 20, "yuv444p"
        for color in COLORS:
            for _ in range(3):
                pixels_HW3 = np.full((20, 32, 3), color, np.uint8)
                out.mux(stream.encode(av.VideoFrame.from_ndarray(pixels_HW3, format="rgb24")))
        out.mux(stream.encode(None))


@pytest.mark.parametrize("name", ["ground.gif", "ground.mp4"])
def test_each_frame_has_the_background_of_its_time(video: Command, name: str) -> None:
    make_clip(Path("a.mp4"), Clip(frames=15, options={"crf": "5"}))
    write_ground(Path(name))
    assert video("a.mp4", "b.mp4", "--background", name, "--crf", "5") == 0
    shown = [image_HW3[2, 2].astype(int) for image_HW3 in read_clip(Path("b.mp4")).pixels()]
    assert len(shown) == 15
    wanted = [COLORS[number // 3 % 3] for number in range(15)]  # at 25 frames a second
    assert np.abs(np.array(shown) - wanted).max() < 30


def test_it_begins_with_the_first_frame_whatever_time_that_has(video: Command) -> None:
    """As in what television recorders write."""
    late = Clip(times=[1001, 1002, 1003, 1004], sound=None, options={"crf": "5"})
    make_clip(Path("a.mkv"), late)
    write_ground(Path("ground.gif"))
    assert video("a.mkv", "b.mp4", "--background", "ground.gif", "--crf", "5") == 0
    shown = [image_HW3[2, 2].astype(int) for image_HW3 in read_clip(Path("b.mp4")).pixels()]
    assert np.abs(np.array(shown) - [COLORS[0], COLORS[0], COLORS[0], COLORS[1]]).max() < 30


def test_a_background_that_is_no_video_is_refused(video: Command) -> None:
    make_clip(Path("a.mp4"))
    Path("ground.mp4").write_bytes(b"nothing")
    video.assert_refused("a.mp4", "b.mp4", "--background", "ground.mp4", naming=("ground.mp4",))
    assert not Path("b.mp4").exists()
