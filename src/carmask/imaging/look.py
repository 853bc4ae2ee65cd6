"""How a cut-out looks: format, canvas, where the vehicle is on it, background and shadow. One model for all.

The command line, Python, the service and its page fill in a `Look`. A YAML file holds one; three are in the package.
"""

import re
from collections.abc import Mapping
from functools import cached_property
from os.path import exists, isfile
from pathlib import Path
from typing import Annotated, Any, Literal, Self, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from carmask.errors import CarmaskError, explain
from carmask.files import read_settings
from carmask.imaging import PictureFormat

Anchor = Literal["center", "bottom"]
Scale = Literal["fit", "same-car"]
Shadow = Literal["none", "contact", "soft", "original"]
LookName = Literal["cutout", "showroom", "marketplace"]

LOOKS: tuple[LookName, ...] = get_args(LookName)
TRANSPARENT = "transparent"
_FOLDER = Path(__file__).parents[1] / "looks"
_MOST_SIDE_PX = 10_000
CANVAS_PATTERN = r"^[1-9][0-9]{1,4}x[1-9][0-9]{1,4}$"
MARGIN_PATTERN = r"^[0-9]{1,4}(\.[0-9]{1,3})?(%|px)?$"
# Only what is on a canvas has them.
_OF_CANVAS = ("margin", "anchor", "scale", "floor")


class BadLook(CarmaskError):
    """A look that is not there, or whose settings contradict each other."""


class Look(BaseModel):
    """How cut-outs look.

    Attributes:
        format: png, webp, jpg, avif or tiff.
        quality: Of JPEG, WebP and AVIF, 1 to 100.
        strip: Leave out the photo's density and EXIF. Position, serial numbers and maker notes are never kept.
        background: transparent, blur, studio, a color (white, #00ff00), or the path of a picture.
        crop: Crop to the box around the vehicle.
        canvas: Size of the picture in pixels, 1600x1200; the photo's own size and place of the vehicle if not given.
        margin: Free space around the vehicle on a canvas: a share of the shorter side (6%) or pixels (40).
        anchor: Where the vehicle is between the margins: bottom stands on the lower one, center is in the middle.
        floor: The line on which the wheels stand, as a share of the canvas's height from the top; replaces anchor.
        scale: fit fills the space between the margins. same-car has one scale for all photos of a car.
        shadow: contact: a soft dark band below wheels and sill. soft: that, and a wide one on the floor. original:
            the photo's own shadow.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", str_strip_whitespace=True, ignored_types=(cached_property,))

    format: PictureFormat = "png"
    quality: int = Field(default=90, ge=1, le=100)
    strip: bool = False
    background: str = Field(default=TRANSPARENT, min_length=1)
    crop: bool = False
    canvas: Annotated[str, Field(pattern=CANVAS_PATTERN)] | None = None
    margin: str = Field(default="6%", pattern=MARGIN_PATTERN)
    anchor: Anchor = "center"
    floor: float | None = Field(default=None, gt=0.1, le=1)
    scale: Scale = "fit"
    shadow: Shadow = "none"

    @model_validator(mode="after")
    def _check_combination(self) -> Self:
        if self.canvas is None:
            if names := [name for name in _OF_CANVAS if name in self.model_fields_set]:
                raise ValueError(
                    f"{' and '.join(names)}: only for a canvas; give its size too, such as canvas 1600x1200"
                )
            return self
        if self.crop:
            raise ValueError("crop: contradicts canvas, on which the vehicle is placed; leave out one of them")
        height, width = self.canvas_HW or (0, 0)
        if max(height, width) > _MOST_SIDE_PX:
            raise ValueError(f"canvas {self.canvas}: at most {_MOST_SIDE_PX} px per side are allowed")
        top_px, bottom_px = self.margin_px, height - self.margin_px
        if self.floor is not None:
            bottom_px = self.floor * height
        if bottom_px - top_px < 1 or width - 2 * self.margin_px < 1:
            raise ValueError(f"margin {self.margin}: leaves no space for the vehicle on {self.canvas}")
        return self

    @cached_property
    def canvas_HW(self) -> tuple[int, int] | None:
        """Height and width of the canvas in pixels."""
        if self.canvas is None:
            return None
        width, height = map(int, self.canvas.split("x"))
        return height, width

    @property
    def margin_px(self) -> float:
        """The margin in pixels of the canvas."""
        number, unit = float(re.sub("[%px]", "", self.margin)), self.margin[-1]
        return number / 100 * min(self.canvas_HW or (0,)) if unit == "%" else number

    def require_opaque_jpeg(self) -> None:
        """Refuse a JPEG that is to be transparent.

        Raises:
            BadLook: it is one.
        """
        if self.format == "jpg" and self.background.lower() == TRANSPARENT:
            raise BadLook(
                "format jpg: JPEG has no transparency; choose a background such as white or studio, or the format png"
            )

    def changed(self, settings: Mapping[str, Any]) -> "Look":
        """Return this look with other settings; those that are None stay.

        Raises:
            BadLook: there is no such value, or the settings contradict each other.
        """
        given = {name: value for name, value in settings.items() if value is not None}
        return _validated({**self.model_dump(exclude_unset=True), **given}, "look") if given else self

    def described(self) -> dict[str, Any]:
        """Return the settings that results depend on, without those that have no effect."""
        always = ("format", "background", "crop")
        settings = self.model_dump(exclude={"canvas", *_OF_CANVAS} if self.canvas is None else set())
        return {name: value for name, value in settings.items() if name in always or value != getattr(PLAIN_LOOK, name)}


PLAIN_LOOK = Look()


def load_look(name: str | Path) -> Look:
    """Return a look of the package by its name (cutout, showroom, marketplace), or read one from a YAML file.

    The path of a background picture is relative to the file.

    Raises:
        BadLook: there is no such look, or the file is not one.
    """
    path = _FOLDER / f"{name}.yaml" if str(name) in LOOKS else Path(name)
    if not exists(path):  # noqa: PTH110 - a Path's raises for a long name
        known = ", ".join(LOOKS)
        raise BadLook(f"look {str(name)!r}: there is no such look or file; give {known}, or a YAML file")
    settings = read_settings(path, BadLook, example="format: jpg")
    background = settings.get("background")
    if isinstance(background, str) and isfile(path.parent / background):  # noqa: PTH113 - unlike is_file it never raises
        settings["background"] = str(path.parent / background)
    return _validated(settings, str(path))


def _validated(settings: Mapping[str, Any], name: str) -> Look:
    try:
        return Look.model_validate(settings)
    except ValidationError as error:
        raise BadLook(f"{name}: {explain(error, Look)}") from error
