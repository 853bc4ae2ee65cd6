"""Draw overlays, comparisons, error maps and contact sheets, all uint8 RGB, 0..255."""

import unicodedata
from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from carmask.imaging.color import convert_colors

# People with red-green color blindness can distinguish blue and orange too.
OVERLAY_RGB = (0, 158, 255)
FALSE_POSITIVE_RGB = (230, 90, 0)
FALSE_NEGATIVE_RGB = (0, 90, 220)
UNKNOWN_RGB = (255, 220, 0)

_OVERLAY_SHARE = 0.45
_LEVELS_L13 = np.arange(256, dtype=np.uint8).repeat(3).reshape(256, 1, 3)
_SEPARATOR_RGB = (255, 255, 255)
_LABEL_RGB = (40, 40, 40)
_SHEET_RGB = (255, 255, 255)
_SHEET_GAP_PX = 10


def draw_overlay(
    image_HWC: NDArray[np.uint8], mask_HW: NDArray[np.bool_], icc_profile: bytes | None = None
) -> NDArray[np.uint8]:
    """Tint the foreground of a photo and draw its outline; uint8 (height, width, 3).

    image_HWC: uint8 with 1 or 3 channels. mask_HW: bool of the same height and width. icc_profile: of the photo.
    """
    rgb_HW3 = _as_rgb(image_HWC, mask_HW)
    mask_HW8 = np.ascontiguousarray(mask_HW).view(np.uint8)
    color_113 = convert_colors(np.array([[OVERLAY_RGB]], dtype=np.uint8), None, icc_profile)
    # By gray level and channel: the level under the mask's tint.
    tint_L13 = cv2.addWeighted(_LEVELS_L13, 1 - _OVERLAY_SHARE, color_113.repeat(256, axis=0), _OVERLAY_SHARE, 0)
    drawn_HW3: NDArray[np.uint8] = cv2.copyTo(cv2.LUT(rgb_HW3, tint_L13), mask_HW8, rgb_HW3.copy())
    thickness_px = max(1, round(min(mask_HW.shape) / 320))
    outlines, _ = cv2.findContours(mask_HW8, cv2.RETR_LIST, cv2.CHAIN_APPROX_NONE)
    cv2.drawContours(drawn_HW3, outlines, -1, color_113[0, 0].tolist(), thickness_px, lineType=cv2.LINE_AA)
    return drawn_HW3


def draw_compare(image_HWC: NDArray[np.uint8], mask_HW: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """Draw the photo, a thin line, and below it the mask in white on black; uint8 RGB."""
    rgb_HW3 = _as_rgb(image_HWC, mask_HW)
    height, width = mask_HW.shape
    separator_HW3 = np.full((max(2, round(height / 160)), width, 3), _SEPARATOR_RGB, dtype=np.uint8)
    white_HW3 = cv2.cvtColor(mask_HW.view(np.uint8) * np.uint8(255), cv2.COLOR_GRAY2RGB)
    return np.concatenate([rgb_HW3, separator_HW3, white_HW3])


def draw_error_map(
    image_HWC: NDArray[np.uint8], truth_HW: NDArray[np.bool_], mask_HW: NDArray[np.bool_]
) -> NDArray[np.uint8]:
    """Draw where a mask and the truth differ, over the photo in gray with a faded background; uint8 RGB.

    False positives are FALSE_POSITIVE_RGB (orange), false negatives FALSE_NEGATIVE_RGB (blue).
    """
    rgb_HW3 = _as_rgb(image_HWC, mask_HW)
    if truth_HW.shape != mask_HW.shape:
        raise ValueError(f"truth {truth_HW.shape} and mask {mask_HW.shape} differ in size")
    gray_HW = cv2.cvtColor(rgb_HW3, cv2.COLOR_RGB2GRAY)
    background_HW = 255 - (255 - gray_HW) // 4
    drawn_HW3 = np.repeat(np.where(truth_HW, gray_HW, background_HW)[..., None], 3, axis=2)
    drawn_HW3[mask_HW & ~truth_HW] = FALSE_POSITIVE_RGB
    drawn_HW3[truth_HW & ~mask_HW] = FALSE_NEGATIVE_RGB
    return drawn_HW3


def hatch_unknown(image_HWC: NDArray[np.uint8], known_HW: NDArray[np.bool_] | None) -> NDArray[np.uint8]:
    """Draw yellow diagonal lines over the pixels that are not known; uint8 RGB.

    known_HW: bool of the image's height and width; None if all is known, and the image stays as it is.
    """
    if known_HW is None:
        return image_HWC
    drawn_HW3 = _as_rgb(image_HWC, known_HW).copy()
    height, width = known_HW.shape
    period_px = max(8, round(min(height, width) / 40))
    lines_HW = (np.arange(height)[:, None] + np.arange(width)) % period_px < period_px // 4
    drawn_HW3[lines_HW & ~known_HW] = UNKNOWN_RGB
    return drawn_HW3


def sheet(tiles: Sequence[tuple[str, NDArray[np.uint8]]], columns: int, tile_width_px: int) -> NDArray[np.uint8]:
    """Lay out labeled pictures in rows; uint8 RGB.

    tiles: (label, image_HWC uint8 with 1 or 3 channels). Each is scaled to `tile_width_px`, with its label above it,
    which is shortened in the middle if it is too long; rows without labels have no space for them. Raises
    `ValueError` if there are no tiles.
    """
    if not tiles or columns < 1 or tile_width_px < 1:
        raise ValueError(f"a sheet needs tiles, columns and a width: {len(tiles)}, {columns}, {tile_width_px}")
    text_px = max(10, round(tile_width_px / 22))
    font = ImageFont.load_default(size=text_px)
    columns = min(columns, len(tiles))
    pictures = [_scaled(image_HWC, tile_width_px) for _, image_HWC in tiles]
    rows = [range(first, min(first + columns, len(tiles))) for first in range(0, len(tiles), columns)]
    labels_px = [round(text_px * 1.6) if any(tiles[tile][0] for tile in row) else 0 for row in rows]
    heights_px = [max(pictures[tile].height for tile in row) for row in rows]
    width_px = columns * (tile_width_px + _SHEET_GAP_PX) + _SHEET_GAP_PX
    height_px = sum(heights_px) + sum(labels_px) + _SHEET_GAP_PX * (len(rows) + 1)
    page = Image.new("RGB", (width_px, height_px), _SHEET_RGB)
    pen = ImageDraw.Draw(page)
    top_px = _SHEET_GAP_PX
    for row, row_px, label_px in zip(rows, heights_px, labels_px, strict=True):
        for column, tile in enumerate(row):
            left_px = _SHEET_GAP_PX + column * (tile_width_px + _SHEET_GAP_PX)
            label = _shortened(tiles[tile][0], font, tile_width_px)
            pen.text((left_px, top_px + label_px / 2), label, fill=_LABEL_RGB, font=font, anchor="lm")
            page.paste(pictures[tile], (left_px, top_px + label_px))
        top_px += label_px + row_px + _SHEET_GAP_PX
    return np.array(page)


def _as_rgb(image_HWC: NDArray[np.uint8], mask_HW: NDArray[np.bool_]) -> NDArray[np.uint8]:
    if image_HWC.ndim != 3 or image_HWC.shape[2] not in (1, 3) or image_HWC.dtype != np.uint8:
        raise ValueError(f"an image is uint8 (height, width, 1 or 3), not {image_HWC.dtype} {image_HWC.shape}")
    if mask_HW.shape != image_HWC.shape[:2] or mask_HW.dtype != np.bool_:
        raise ValueError(f"the mask of {image_HWC.shape} is bool and as large, not {mask_HW.dtype} {mask_HW.shape}")
    return np.repeat(image_HWC, 3, axis=2) if image_HWC.shape[2] == 1 else image_HWC


def _scaled(image_HWC: NDArray[np.uint8], width_px: int) -> Image.Image:
    image = Image.fromarray(image_HWC[..., 0] if image_HWC.shape[2] == 1 else image_HWC).convert("RGB")
    height_px = max(1, round(image.height * width_px / image.width))
    return image.resize((width_px, height_px), Image.Resampling.LANCZOS, reducing_gap=2.0)


def _shortened(label: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont, width_px: int) -> str:
    # Pillow's built-in font has only plain Latin letters, so accents are removed; they would be drawn as boxes.
    bare = "".join(letter for letter in unicodedata.normalize("NFKD", label) if not unicodedata.combining(letter))
    label = " ".join(bare.split())
    shown = label
    keep = len(label)
    while keep > 1 and font.getlength(shown) > width_px:
        keep -= 1
        shown = f"{label[: (keep + 1) // 2]}…{label[len(label) - keep // 2 :]}"
    return shown
