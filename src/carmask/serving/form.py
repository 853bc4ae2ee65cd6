"""What a request may say: the form of `POST /v1/segment`, which FastAPI validates and describes."""

import math
from typing import Annotated, Literal, cast

from fastapi import UploadFile
from PIL import ImageColor
from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    JsonValue,
    PrivateAttr,
    WithJsonSchema,
    model_validator,
)
from pydantic.config import JsonDict
from pydantic.json_schema import SkipJsonSchema

from carmask.errors import CarmaskError
from carmask.imaging import PictureFormat, Vehicles
from carmask.imaging.background import Background, parse_background
from carmask.imaging.formats import FORMATS
from carmask.imaging.look import (
    CANVAS_PATTERN,
    MARGIN_PATTERN,
    PLAIN_LOOK,
    TRANSPARENT,
    Anchor,
    BadLook,
    Look,
    LookName,
    Shadow,
    load_look,
)
from carmask.imaging.masks import Area, Regions
from carmask.pipeline.kinds import OF_FILE, OF_PHOTO, OutputStyle, refuse_cutout_options, refuse_file_options
from carmask.serving.schemas import GEOJSON, JSON, PICTURE_TYPES, PNG, WEBP

SegmentKind = Literal["mask", "soft", "cutout", "overlay", "compare", "polygons"]

# As OpenAPI described files before 3.1, for tools that know only that.
_BINARY: JsonDict = {"format": "binary"}
_BINARY_LIST: JsonDict = {"items": {"type": "string", "format": "binary"}}

# As programs and HTML's check boxes send them.
_TRUE, _FALSE = ("true", "on", "yes", "1"), ("false", "off", "no", "0")


def _form_bool(value: object) -> object:
    if isinstance(value, str):
        if value.lower() not in _TRUE + _FALSE:
            raise ValueError("must be true or false")
        return value.lower() in _TRUE
    return value


FormBool = Annotated[
    bool,
    BeforeValidator(_form_bool),
    # Each enumeration of one type, for programs that generate clients.
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "boolean"},
                {"type": "string", "enum": [*_TRUE, *_FALSE]},
                {"type": "integer", "enum": [0, 1]},
            ]
        }
    ),
]

_BACKGROUND: JsonDict = {
    "anyOf": [
        {"type": "string", "enum": ["transparent", "blur", "studio", *ImageColor.colormap]},
        {"type": "string", "pattern": "^#([0-9a-fA-F]{3}){1,2}$"},
    ]
}


def _say_defaults(schema: JsonDict) -> None:
    """Move defaults into words. Generated clients send what is a default, but `background` is refused for a mask."""
    for described in cast(dict[str, JsonDict], schema["properties"]).values():
        if (default := described.pop("default", None)) is not None:
            described["description"] = f"{described['description']} Default: {str(default).lower()}."


class SegmentForm(BaseModel):
    """The form of `POST /v1/segment`."""

    model_config = ConfigDict(extra="forbid", json_schema_extra=_say_defaults)

    file: list[UploadFile] = Field(
        min_length=1,
        description=f"The photo: {FORMATS}. Several photos, each in a part of its own, have "
        "their results in one archive.",
        json_schema_extra=_BINARY_LIST,
    )
    kind: SegmentKind = Field(
        default="mask",
        description="mask: 1-bit PNG. soft: probability as 8-bit PNG. cutout: the vehicle on another background. "
        "overlay: the mask drawn over the photo. compare: the photo above its mask. polygons: outlines as GeoJSON. "
        "With a look and no kind it is cutout.",
    )
    threshold: Annotated[float, Field(gt=0, lt=1)] | SkipJsonSchema[None] = Field(
        default=None,
        description="Pixels of at least this probability belong to the mask. Default: the network's own threshold.",
    )
    look: LookName | SkipJsonSchema[None] = Field(
        default=None,
        description="Cut-outs only: showroom, on the floor of a studio; marketplace, large on white; cutout, cropped "
        "and transparent. Other fields override it.",
    )
    background: str | SkipJsonSchema[None] = Field(
        default=None,
        max_length=64,
        description="Cut-outs only: transparent (the default), blur, studio, or a color (white, #00ff00).",
        json_schema_extra=_BACKGROUND,
    )
    background_file: UploadFile | SkipJsonSchema[None] = Field(
        default=None,
        description="Cut-outs only: a picture as the background, instead of `background`.",
        json_schema_extra=_BINARY,
    )
    mask_file: UploadFile | SkipJsonSchema[None] = Field(
        default=None,
        description="A mask of the photo, such as a corrected one, to use instead of the network: gray, of the photo's "
        "size, black to white as the probability from 0 to 1.",
        json_schema_extra=_BINARY,
    )
    crop: FormBool = Field(default=False, description="Cut-outs only: crop to the box around the vehicle.")
    canvas: Annotated[str, Field(pattern=CANVAS_PATTERN)] | SkipJsonSchema[None] = Field(
        default=None, description="Cut-outs only: place the vehicle on a canvas of this size in pixels, 1600x1200."
    )
    margin: Annotated[str, Field(pattern=MARGIN_PATTERN)] | SkipJsonSchema[None] = Field(
        default=None,
        description="On a canvas: free space around the vehicle, a share of the shorter side or pixels (40). Default: "
        "6%.",
    )
    anchor: Anchor | SkipJsonSchema[None] = Field(
        default=None, description="On a canvas: the vehicle is in the center (default), or on the lower margin."
    )
    floor: Annotated[float, Field(gt=0.1, le=1)] | SkipJsonSchema[None] = Field(
        default=None, description="On a canvas: where the wheels stand, as a share of its height from the top."
    )
    shadow: Shadow | SkipJsonSchema[None] = Field(
        default=None,
        description="Cut-outs only. contact: a soft dark band below wheels and sill. soft: that, and a wide one on the "
        "floor. original: the photo's own.",
    )
    vehicles: Vehicles = Field(
        default="all",
        description="Keep all regions of the mask, or the largest, or the one in the center, with the pixel nearest to "
        "the middle of the photo; regions with less than 5% of the largest one's area do not count.",
    )
    min_area: str = Field(
        default="0",
        max_length=64,
        description="Remove smaller regions of the mask: an area in pixels (400) or a share of the photo (0.5%).",
        json_schema_extra={"pattern": r"^[0-9]{1,9}(\.[0-9]{1,6})?(px)?$|^[0-9]{1,2}(\.[0-9]{1,6})?%$"},
    )
    format: PictureFormat | SkipJsonSchema[None] = Field(
        default=None,
        description="Cut-outs, overlays and comparisons only: png; jpg, which has no transparency; webp or avif, which "
        "are smaller and slower to encode; tiff. Default: the look's, or the one that the Accept header prefers, else "
        "png.",
    )
    quality: Annotated[int, Field(ge=1, le=100)] | SkipJsonSchema[None] = Field(
        default=None, description="Of JPEG, WebP and AVIF. Default: 90."
    )
    strip: FormBool = Field(
        default=False,
        description="Cut-outs, overlays and comparisons only: leave out the photo's density and EXIF. Position and "
        "maker notes are never kept.",
    )
    _look: Look = PrivateAttr(default=PLAIN_LOOK)

    @model_validator(mode="after")
    def _check_combination(self) -> "SegmentForm":
        given = self.model_fields_set
        if self.look is not None and "kind" not in given:
            self.kind = "cutout"
        if {"background", "background_file"} <= given:
            raise ValueError("background and background_file: send only one of them")
        if self.mask_file is not None and len(self.file) > 1:
            raise ValueError("mask_file: is the mask of one photo; send each photo in a request of its own")
        try:
            refuse_file_options(self.kind, sorted(given & {*OF_FILE}))
            of_look = {"look", "background_file", *Look.model_fields} - {*OF_FILE}
            refuse_cutout_options(self.kind, sorted(given & of_look))
            settings = {name: getattr(self, name) for name in given & Look.model_fields.keys()}
            if "background_file" in given:
                settings["background"] = "picture"
            look = PLAIN_LOOK if self.look is None else load_look(self.look)
            self._look = OutputStyle(self.kind, look.changed(settings)).look
            self.parsed_background()
            self.regions()
        except CarmaskError as error:
            raise ValueError(str(error)) from error
        return self

    def parsed_background(self) -> Background:
        """The background by name. Never opens a file."""
        background = self._look.background if self.background_file is None else TRANSPARENT
        return parse_background(background, may_be_picture=False)

    def style(self, media_type: str) -> OutputStyle:
        """What the response shows, in a format of its media type."""
        formats = {of_format: name for name, of_format in PICTURE_TYPES.items()}
        return OutputStyle(self.kind, self._look.changed({"format": formats.get(media_type)}))

    @property
    def canvas_px(self) -> int:
        """Number of pixels of the look's canvas; 0 without one."""
        return math.prod(self._look.canvas_HW or (0,))

    def check_canvas(self, max_pixels: int) -> None:
        """Refuse a canvas of more pixels than a photo may have.

        Raises:
            BadLook: it has more.
        """
        if self.canvas_px > max_pixels:
            raise BadLook(f"canvas {self._look.canvas}: this service makes pictures of up to {max_pixels:,} pixels")

    def regions(self) -> Regions:
        """Which regions of the mask are kept."""
        return Regions(self.vehicles, Area.parse(self.min_area, "min_area"))

    def media_types(self) -> list[str]:
        """Media types in which the result of a photo can be sent, the default first."""
        if self.kind == "polygons":
            return [GEOJSON, JSON]
        if self.kind not in OF_PHOTO:
            return [PNG, JSON]
        if "format" in self._look.model_fields_set:
            return [PICTURE_TYPES[self._look.format], JSON]
        return [PNG, WEBP, JSON]


def _describe_request() -> JsonDict:
    """What FastAPI does not see: fields may be in the query, and the photo may be the body."""
    properties = SegmentForm.model_json_schema()["properties"]
    parameters: list[JsonValue] = [
        {
            "name": name,
            "in": "query",
            "description": schema.pop("description"),
            "schema": {key: value for key, value in schema.items() if key != "title"},
        }
        for name, schema in properties.items()
        if name not in ("file", "background_file", "mask_file")
    ]
    photo: JsonDict = {"schema": {"type": "string", "format": "binary"}}
    return {
        "parameters": parameters,
        "requestBody": {"content": {"image/*": photo, "application/octet-stream": photo}},
    }


DESCRIBED_REQUEST = _describe_request()
"""Of `POST /v1/segment`, for OpenAPI."""
