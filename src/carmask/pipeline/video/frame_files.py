"""Frames of a video that are picture files: a folder, or a pattern with a number such as frames/%04d.png."""

import re
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any, Self

import av
import cv2
import numpy as np
from numpy.typing import NDArray

from carmask.imaging.decode import UnreadableImage, decode_photo
from carmask.pipeline.photo_list import SourceError
from carmask.pipeline.video.codecs import BadVideo
from carmask.pipeline.video.pixels import ColorProperties
from carmask.pipeline.video.reader import VideoInfo
from carmask.pipeline.walk import list_folder

_NUMBER = re.compile(r"%(?:0\d+)?d")


def is_frame_files(source: Path) -> bool:
    """Whether a source is a folder, or a pattern with one number."""
    return source.is_dir() or (not source.exists() and len(_NUMBER.findall(source.name)) == 1)


class FrameFiles:
    """Pictures as the frames of a video without sound, in the order of the numbers in their names.

    It has the interface of `VideoReader`. A picture that cannot be read is left out and is in `damage`.
    """

    def __init__(self, source: Path, rate: Fraction) -> None:
        """Find the pictures, and read the first.

        Raises:
            BadVideo: there are none, or the first cannot be read.
        """
        self.path = source
        self.damage: list[str] = []
        self.notes: list[str] = []
        self._files = _list_files(source)
        try:
            self._size_HW = decode_photo(self._files[0]).size_HW
        except UnreadableImage as error:
            raise BadVideo(str(error)) from error
        self.info = VideoInfo(
            self._size_HW, rate, 1 / rate, ColorProperties.default(self._size_HW[0]), expected_frames=len(self._files)
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """Nothing stays open."""

    def __iter__(self) -> Iterator[Any]:
        """Yield the pictures as PyAV's frames, one tick of `info.time_base` after the other."""
        resized = 0
        for number, file in enumerate(self._files):
            try:
                image_HWC = decode_photo(file).image_HWC
            except UnreadableImage as error:
                self.damage.append(str(error))
                continue
            if image_HWC.shape[:2] != self._size_HW:
                resized += 1
                image_HWC = cv2.resize(image_HWC, self._size_HW[::-1], interpolation=cv2.INTER_AREA)
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(image_HWC), format="rgb24")
            frame.pts, frame.duration = number, 1
            yield frame
        if resized:
            self.notes.append(f"{resized} frames had another size and were scaled to the size of the first frame")

    def to_rgb(self, frame: Any) -> NDArray[np.uint8]:
        """Return the uint8 RGB pixels of a frame, (height, width, 3); in any thread."""
        image_HW3: NDArray[np.uint8] = frame.to_ndarray(format="rgb24")
        return image_HW3


def _list_files(source: Path) -> list[Path]:
    if source.is_dir():
        try:
            files = [source / name for name in list_folder(source, None, False).names]
        except SourceError as error:
            raise BadVideo(str(error)) from error
        return sorted(files, key=_by_numbers)
    before, after = map(re.escape, _NUMBER.split(source.name))
    name = re.compile(f"{before}\\d+{after}")
    folder = source.parent
    found = [file for file in folder.iterdir() if name.fullmatch(file.name)] if folder.is_dir() else []
    if not found:
        raise BadVideo(f"{source}: no file has a name like this one with a number; check the folder and the pattern")
    return sorted(found, key=_by_numbers)


def _by_numbers(file: Path) -> list[tuple[int, str]]:
    """Order names as people count: frame2 is before frame10."""
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in re.split(r"(\d+)", str(file))]
