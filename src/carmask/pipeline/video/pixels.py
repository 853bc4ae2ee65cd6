"""FFmpeg's frames to upright RGB pixels and back, with the video's own color matrix and range."""

from dataclasses import dataclass, replace
from typing import Any

import av
import cv2
import numpy as np
from av.video.reformatter import ColorRange, Colorspace, Interpolation
from numpy.typing import NDArray

# The matrix that makes YUV of RGB, by the code points of ITU-T H.273 (which FFmpeg's AVColorSpace follows).
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
# If a video does not name its matrix, players assume BT.709 from this height on and BT.601 below.
_HD_FROM_PX = 720

# Without these flags FFmpeg's conversion of subsampled colors is wrong by one level on average and by up to three.
_PRECISE = Interpolation.BILINEAR | Interpolation.ACCURATE_RND | Interpolation.FULL_CHR_H_INT


@dataclass(frozen=True)
class ColorProperties:
    """How a video's colors are coded: code points of H.273 and FFmpeg's AVColorRange, which the result keeps."""

    space: int
    range: int
    primaries: int
    transfer: int
    matrix: Colorspace

    @classmethod
    def of(cls, frame: Any) -> "ColorProperties":
        """Return the color properties of a decoded frame."""
        default = cls.default(frame.height)
        if frame.format.is_rgb:
            # It is encoded as YUV, and the result must name the matrix.
            return replace(default, primaries=frame.color_primaries, transfer=frame.color_trc)
        matrix = _MATRICES.get(frame.colorspace, default.matrix)
        space, range_ = frame.colorspace, frame.color_range
        if frame.format.name.startswith("yuvj"):
            range_ = int(ColorRange.JPEG)
        elif space == _RGB or space not in (*_MATRICES, _UNSPECIFIED):
            space = _UNSPECIFIED
        return cls(space, range_, frame.color_primaries, frame.color_trc, matrix)

    @classmethod
    def default(cls, height_px: int) -> "ColorProperties":
        """Return the color properties for a new video of this height."""
        matrix, space = (Colorspace.ITU709, 1) if height_px >= _HD_FROM_PX else (Colorspace.ITU601, 6)
        return cls(space, int(ColorRange.MPEG), _UNSPECIFIED, _UNSPECIFIED, matrix)

    @property
    def _yuv_range(self) -> ColorRange:
        return ColorRange.JPEG if self.range == ColorRange.JPEG else ColorRange.MPEG

    def to_rgb(self, frame: Any) -> NDArray[np.uint8]:
        """Convert a decoded frame to uint8 RGB, (height, width, 3), in stored orientation."""
        source = {} if frame.format.is_rgb else {"src_colorspace": self.matrix, "src_color_range": self._yuv_range}
        rgb = frame.reformat(format="rgb24", dst_color_range=ColorRange.JPEG, interpolation=_PRECISE, **source)
        image_HW3: NDArray[np.uint8] = rgb.to_ndarray()
        return image_HW3

    def to_frame(self, image_HWC: NDArray[np.uint8], pixel_format: str) -> Any:
        """Convert uint8 pixels with 1 (gray), 3 (RGB) or 4 (RGBA) channels to a frame in a YUV `pixel_format`."""
        name = {1: "gray", 3: "rgb24", 4: "rgba"}[image_HWC.shape[2]]
        pixels = image_HWC[..., 0] if name == "gray" else image_HWC
        frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(pixels), format=name)
        return frame.reformat(
            format=pixel_format,
            src_color_range=ColorRange.JPEG,
            dst_colorspace=self.matrix,
            dst_color_range=self._yuv_range,
        )


@dataclass(frozen=True)
class Orientation:
    """How to turn stored pixels upright: transpose, then flip."""

    transposed: bool = False
    flipped_vertically: bool = False
    flipped_horizontally: bool = False

    @classmethod
    def of(cls, frame: Any) -> tuple["Orientation", bool]:
        """Return the orientation of a decoded frame, and whether it is exactly the one that the video asks for.

        FFmpeg's display matrix holds nine 32-bit numbers, a b u c d v x y w: the stored pixel (p, q) is shown at
        x' = a p + c q, y' = b p + d q. Other angles become the nearest quarter turn.
        """
        matrix = next((bytes(data) for data in frame.side_data if data.type.name == "DISPLAYMATRIX"), None)
        if matrix is None or len(matrix) < 36:
            return cls(), True
        a, b, _, c, d = (value / 65536 for value in np.frombuffer(matrix, np.int32)[:5])
        transposed = bool(abs(b) + abs(c) > abs(a) + abs(d))
        x_scale, y_scale = (c, b) if transposed else (a, d)
        is_exact = min(abs(x_scale), abs(y_scale)) > 0.99 * max(abs(a), abs(b), abs(c), abs(d)) > 0
        return cls(transposed, bool(y_scale < 0), bool(x_scale < 0)), bool(is_exact)

    def apply(self, image_HWC: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Turn stored pixels upright."""
        if self.transposed:
            image_HWC = cv2.transpose(image_HWC)
        if self.flipped_vertically or self.flipped_horizontally:
            code = -1 if self.flipped_vertically and self.flipped_horizontally else int(self.flipped_horizontally)
            image_HWC = cv2.flip(image_HWC, code)
        return image_HWC
