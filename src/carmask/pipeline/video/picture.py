"""Frames as FFmpeg has them to upright RGB pixels and back, by the video's own color matrix and range."""

from dataclasses import dataclass, replace
from typing import Any

import av
import cv2
import numpy as np
from av.video.reformatter import ColorRange, Colorspace, Interpolation
from numpy.typing import NDArray

# By the code points of ITU-T H.273 (which FFmpeg's AVColorSpace follows): the matrix by which YUV is made of RGB.
_MATRICES = {
    1: Colorspace.ITU709,
    4: Colorspace.FCC,
    5: Colorspace.ITU601,
    6: Colorspace.ITU601,
    7: Colorspace.SMPTE240M,
    9: Colorspace.BT2020,
    10: Colorspace.BT2020,
}
_RGB, _UNSPECIFIED = 0, 2
# From this height on players take what does not say its matrix for BT.709, below for BT.601.
_HD_FROM_PX = 720

# Without these FFmpeg's conversion of halved colors is wrong by one level on average and by up to three.
_PRECISE = Interpolation.BILINEAR | Interpolation.ACCURATE_RND | Interpolation.FULL_CHR_H_INT


@dataclass(frozen=True)
class Color:
    """How a video's colors are coded: the code points of H.273 and FFmpeg's AVColorRange, kept for the result."""

    space: int
    range: int
    primaries: int
    transfer: int
    matrix: Colorspace

    @classmethod
    def of(cls, frame: Any) -> "Color":
        """The colors of a decoded frame."""
        usual = cls.usual(frame.height)
        if frame.format.is_rgb:
            # It becomes YUV, and the result must say by which matrix.
            return replace(usual, primaries=frame.color_primaries, transfer=frame.color_trc)
        matrix = _MATRICES.get(frame.colorspace, usual.matrix)
        space, range_ = frame.colorspace, frame.color_range
        if frame.format.name.startswith("yuvj"):
            range_ = int(ColorRange.JPEG)
        elif space == _RGB or space not in (*_MATRICES, _UNSPECIFIED):
            space = _UNSPECIFIED
        return cls(space, range_, frame.color_primaries, frame.color_trc, matrix)

    @classmethod
    def usual(cls, height_px: int) -> "Color":
        """The colors of a video of this height that has no source."""
        matrix, space = (Colorspace.ITU709, 1) if height_px >= _HD_FROM_PX else (Colorspace.ITU601, 6)
        return cls(space, int(ColorRange.MPEG), _UNSPECIFIED, _UNSPECIFIED, matrix)

    @property
    def _levels(self) -> ColorRange:
        return ColorRange.JPEG if self.range == ColorRange.JPEG else ColorRange.MPEG

    def to_rgb(self, frame: Any) -> NDArray[np.uint8]:
        """A decoded frame as uint8 RGB, (height, width, 3), as it is stored (not turned)."""
        told = {} if frame.format.is_rgb else {"src_colorspace": self.matrix, "src_color_range": self._levels}
        rgb = frame.reformat(format="rgb24", dst_color_range=ColorRange.JPEG, interpolation=_PRECISE, **told)
        image_HW3: NDArray[np.uint8] = rgb.to_ndarray()
        return image_HW3

    def from_pixels(self, image_HWC: NDArray[np.uint8], pixel_format: str) -> Any:
        """A frame in FFmpeg's `pixel_format` (YUV) of uint8 pixels: 1 (gray), 3 (RGB) or 4 (RGBA) channels."""
        name = {1: "gray", 3: "rgb24", 4: "rgba"}[image_HWC.shape[2]]
        pixels = image_HWC[..., 0] if name == "gray" else image_HWC
        frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(pixels), format=name)
        return frame.reformat(
            format=pixel_format,
            src_color_range=ColorRange.JPEG,
            dst_colorspace=self.matrix,
            dst_color_range=self._levels,
        )


@dataclass(frozen=True)
class Turn:
    """How stored pixels become the picture that is shown: perhaps transposed, then perhaps mirrored."""

    transposed: bool = False
    upside_down: bool = False
    mirrored: bool = False

    @classmethod
    def of(cls, frame: Any) -> tuple["Turn", bool]:
        """The turn of a decoded frame, and whether that is exactly what the video asks for.

        A display matrix of FFmpeg holds nine 32-bit numbers, a b u c d v x y w: the stored pixel (p, q) is shown at
        x' = a p + c q, y' = b p + d q. Angles between quarter turns come as the nearest of those.
        """
        matrix = next((bytes(data) for data in frame.side_data if data.type.name == "DISPLAYMATRIX"), None)
        if matrix is None or len(matrix) < 36:
            return cls(), True
        a, b, _, c, d = (value / 65536 for value in np.frombuffer(matrix, np.int32)[:5])
        transposed = bool(abs(b) + abs(c) > abs(a) + abs(d))
        across, down = (c, b) if transposed else (a, d)
        exact = min(abs(across), abs(down)) > 0.99 * max(abs(a), abs(b), abs(c), abs(d)) > 0
        return cls(transposed, upside_down=bool(down < 0), mirrored=bool(across < 0)), bool(exact)

    def __call__(self, image_HWC: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Turn stored pixels upright."""
        if self.transposed:
            image_HWC = cv2.transpose(image_HWC)
        if self.upside_down or self.mirrored:
            code = -1 if self.upside_down and self.mirrored else int(self.mirrored)
            image_HWC = cv2.flip(image_HWC, code)
        return image_HWC
