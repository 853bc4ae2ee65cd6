"""A GIF or a video behind the vehicles of another video, from its start and again from its start when it ends."""

from collections.abc import Generator
from pathlib import Path
from typing import Self

import numpy as np
from numpy.typing import NDArray

from carmask.imaging.background import Background, picture_background
from carmask.imaging.decode import Photo
from carmask.pipeline.video.reader import VideoReader

_SUFFIXES = frozenset({".gif", ".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi"})


def is_moving(background: str) -> bool:
    """Whether the text that names a background is the path of a GIF or a video."""
    path = Path(background.strip())
    return path.suffix.lower() in _SUFFIXES and path.is_file()


class MovingBackground:
    """Gives the background at a time. Only the frame that is shown and the next one are in memory."""

    def __init__(self, path: Path) -> None:
        """Open the file.

        Raises:
            BadVideo: it is no video that can be decoded.
        """
        self._path = path
        self._frames = self._repeat()
        _, self._shown_HW3 = next(self._frames)
        self._next_s, self._next_HW3 = next(self._frames)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._frames.close()

    def at(self, time_s: float) -> Background:
        """Return the background at this time from the start; call it with increasing times, in one thread."""
        while self._next_s <= time_s:
            self._shown_HW3 = self._next_HW3
            self._next_s, self._next_HW3 = next(self._frames)
        height, width = self._shown_HW3.shape[:2]
        return picture_background(Photo(self._shown_HW3, (height, width)))

    def _repeat(self) -> Generator[tuple[float, NDArray[np.uint8]], None, None]:
        start_s = 0.0
        while True:
            with VideoReader(self._path) as reader:
                info, first = reader.info, None
                for frame in reader:
                    first = frame.pts if first is None else first
                    time_s = start_s + float((frame.pts - first) * info.time_base)
                    end_s = time_s + float(max(frame.duration * info.time_base, 1 / info.rate / 2))
                    yield time_s, reader.to_rgb(frame)
            start_s = end_s
