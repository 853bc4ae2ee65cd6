"""The formats in which pictures are written. Imports nothing that takes time: the command line names them."""

from typing import Literal

PictureFormat = Literal["png", "webp"]
