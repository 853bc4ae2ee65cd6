"""Videos from picture files: in the order of their numbers, at the rate that is asked for."""

from fractions import Fraction
from pathlib import Path

import numpy as np
from clips import Clip, overlap, read_clip
from PIL import Image

from bright_photos import Command

CLIP = Clip(frames=12)


def write_frames(folder: str, name: str) -> None:
    Path(folder).mkdir()
    for number in range(CLIP.frames):
        Image.fromarray(CLIP.stored(number)).save(Path(folder, name % number))


def test_a_folder_and_a_numbered_pattern_are_videos(video: Command) -> None:
    write_frames("folder", "f%d.png")  # f10 is after f9
    write_frames("numbered", "shot_%03d.jpg")
    Image.new("RGB", (8, 8)).save("numbered/other.jpg")
    for source in ("folder", "numbered/shot_%03d.jpg"):
        assert video(source, "b.mp4", "--kind", "mask", "--rate", "10", "--overwrite") == 0
        after = read_clip(Path("b.mp4"))
        assert after.times_s == [Fraction(number, 10) for number in range(CLIP.frames)]
        assert overlap(after.masks(), CLIP.vehicles()) > 0.9


def test_frames_that_cannot_be_read_are_named(video: Command) -> None:
    write_frames("folder", "f%d.png")
    Path("folder/f3.png").write_bytes(b"no picture")
    Image.fromarray(np.zeros((48, 80, 3), np.uint8)).save("folder/f4.png")
    assert video("folder", "b.mp4", "--kind", "mask") == 2
    assert "f3.png" in video.out + video.err
    assert len(read_clip(Path("b.mp4")).times_s) == CLIP.frames - 1
    Path("none").mkdir()
    video.assert_refused("none", "c.mp4", naming=("none",))
    video.assert_refused("none/%d.png", "c.mp4", naming=("%d.png",))
    video.assert_refused("folder", "c.mp4", "--rate", "0", naming=("--rate",))
