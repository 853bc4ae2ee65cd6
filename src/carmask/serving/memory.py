"""Memory that photos in progress share: how many bytes may be in use at the same time, and what drawing takes."""

import threading
from collections import deque

from carmask.imaging import PictureFormat
from carmask.serving.settings import DRAWING_BYTES_PER_PX

# The most that a pixel takes while a mask is restored to the photo's size, as measured.
_MASKING_BYTES_PER_PX = 12
# The most that a pixel takes while a picture is drawn and encoded, as measured: by format, of a photo whose vehicle is
# placed on a canvas, and of one that is drawn beside its mask, in a picture of twice its size, where that takes more.
_DRAWING_BYTES_PER_PX: dict[PictureFormat, int] = {"avif": DRAWING_BYTES_PER_PX, "webp": 38}
_OTHER_BYTES_PER_PX = 30
_PLACED_BYTES_PER_PX = 18
_COMPARED_BYTES_PER_PX: dict[PictureFormat, int] = {"avif": 68}
# A probability and a mask, which are there while a photo is decoded to be drawn.
FOUND_BYTES_PER_PX = 5


def masking_bytes(photo_px: int, *, chooses_regions: bool) -> int:
    """Return the most memory that restoring a mask to a photo's size takes."""
    # To choose regions takes nearly as much as to draw.
    return photo_px * (DRAWING_BYTES_PER_PX if chooses_regions else _MASKING_BYTES_PER_PX)


def drawing_bytes(
    kind: str, picture_format: PictureFormat, photo_px: int, *, canvas_px: int = 0, background_px: int = 0
) -> int:
    """Return the most memory that drawing and encoding a picture takes.

    canvas_px: of a cut-out on a canvas. background_px: of a picture behind it.
    """
    per_px = _DRAWING_BYTES_PER_PX.get(picture_format, _OTHER_BYTES_PER_PX)
    if kind == "compare":
        return photo_px * _COMPARED_BYTES_PER_PX.get(picture_format, per_px)
    # A background is there as it was sent, and as large as the result.
    background_bytes = 3 * (background_px + (canvas_px or photo_px)) if background_px else 0
    if canvas_px:
        return photo_px * _PLACED_BYTES_PER_PX + canvas_px * per_px + background_bytes
    return photo_px * per_px + background_bytes


class MemoryBudget:
    """A number of bytes that photos reserve parts of. Thread-safe."""

    def __init__(self, limit_bytes: int) -> None:
        self.used_bytes = 0
        self._limit_bytes = limit_bytes
        self._waiting: deque[object] = deque()
        self._changed = threading.Condition()

    def reserve(self, size_bytes: int) -> int:
        """Wait until the bytes are free, first come first served, and reserve them, but no more than the limit.

        Returns the number of reserved bytes, for `release`.
        """
        size_bytes = min(size_bytes, self._limit_bytes)
        turn = object()
        with self._changed:
            self._waiting.append(turn)
            self._changed.wait_for(
                lambda: self._waiting[0] is turn and self.used_bytes + size_bytes <= self._limit_bytes
            )
            self._waiting.popleft()
            self.used_bytes += size_bytes
            self._changed.notify_all()
        return size_bytes

    def release(self, size_bytes: int) -> None:
        """Free bytes that were reserved."""
        with self._changed:
            self.used_bytes -= size_bytes
            self._changed.notify_all()
