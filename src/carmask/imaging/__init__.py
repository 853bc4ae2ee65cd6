"""Pixels, no learning: decoding, geometry, masks, run lengths, outlines, encoding."""

from typing import Literal

# The formats in which pictures are written. The command line names them, and this import takes no time.
PictureFormat = Literal["png", "webp"]
