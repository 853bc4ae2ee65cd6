"""Pixels, no learning: decoding, geometry, masks, run lengths, outlines, encoding."""

from typing import Literal

# The command line names these, and this import takes no time.
# The formats in which pictures are written.
PictureFormat = Literal["png", "webp", "jpg", "avif", "tiff"]
# Which vehicles of a photo belong to its mask: see `carmask.imaging.masks.Regions`.
Vehicles = Literal["all", "largest", "center"]
