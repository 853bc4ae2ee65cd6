"""What a request may say and what a response says, as pydantic models: FastAPI validates and describes them."""

from typing import Annotated, Literal, cast

from fastapi import UploadFile
from PIL import ImageColor
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, JsonValue, WithJsonSchema, model_validator
from pydantic.config import JsonDict
from pydantic.json_schema import SkipJsonSchema

from carmask.errors import CarmaskError
from carmask.imaging import PictureFormat, Vehicles
from carmask.imaging.cutout import Background, parse_background
from carmask.imaging.formats import FORMATS
from carmask.imaging.masks import Area, Regions
from carmask.pipeline.kinds import JSON_KINDS, OF_PHOTO, refuse_cutout_options

SegmentKind = Literal["mask", "soft", "cutout", "overlay", "compare", "polygons"]

PNG, WEBP = "image/png", "image/webp"
GEOJSON = "application/geo+json"
JSON = "application/json"
ZIP, MULTIPART = "application/zip", "multipart/mixed"

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
        {"type": "string", "enum": ["transparent", "blur", *ImageColor.colormap]},
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
        "overlay: the mask drawn over the photo. compare: the photo above its mask. polygons: outlines as GeoJSON.",
    )
    threshold: Annotated[float, Field(gt=0, lt=1)] | SkipJsonSchema[None] = Field(
        default=None,
        description="Pixels of at least this probability belong to the mask. Default: the network's own threshold.",
    )
    background: str = Field(
        default="transparent",
        max_length=64,
        description="Cut-outs only: transparent, blur, or a color (white, #00ff00).",
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
        description="Cut-outs, overlays and comparisons only: png, or webp, which is smaller and slower to encode. "
        "Default: what the Accept header prefers, else png.",
    )

    @model_validator(mode="after")
    def _check_combination(self) -> "SegmentForm":
        given = self.model_fields_set
        if {"background", "background_file"} <= given:
            raise ValueError("background and background_file: send only one of them")
        if self.mask_file is not None and len(self.file) > 1:
            raise ValueError("mask_file: is the mask of one photo; send each photo in a request of its own")
        if self.format is not None and self.kind not in OF_PHOTO:
            raise ValueError(f"format: works only with {', '.join(OF_PHOTO)}; {self.kind} has one format")
        try:
            refuse_cutout_options(self.kind, sorted(given & {"crop", "background", "background_file"}))
            self.parsed_background()
            self.regions()
        except CarmaskError as error:
            raise ValueError(str(error)) from error
        return self

    def parsed_background(self) -> Background:
        """The background by name. Never opens a file."""
        return parse_background(self.background, may_be_picture=False)

    def regions(self) -> Regions:
        """Which regions of the mask are kept."""
        return Regions(self.vehicles, Area.parse(self.min_area, "min_area"))

    def media_types(self) -> list[str]:
        """Media types in which the result of a photo can be sent, the default first."""
        if self.kind in JSON_KINDS:
            return [GEOJSON, JSON]
        if self.kind in OF_PHOTO and self.format is None:
            return [PNG, WEBP, JSON]
        return [WEBP if self.format == "webp" else PNG, JSON]


class Segmentation(BaseModel):
    """The mask and what was measured on it."""

    size: tuple[int, int] = Field(description="height and width of the photo as displayed, in pixels")
    box: tuple[int, int, int, int] | None = Field(
        description="top, left, bottom, right of the box around the mask in pixels, bottom and right exclusive; null "
        "if no vehicle was found"
    )
    coverage: float = Field(ge=0, le=1, description="share of the photo that the mask covers")
    expected_dice: float | None = Field(
        ge=0,
        le=1,
        description="the Dice that the mask is expected to have with the true one, by the network's own probabilities; "
        "of an empty mask, how likely the photo shows no vehicle; null if the network is not calibrated",
    )
    threshold: float = Field(gt=0, lt=1, description="pixels of at least this probability belong to the mask")
    rle: str = Field(description="the mask as run lengths: `start length` pairs, 1-indexed, row by row")
    model: str = Field(description="name of the network")
    seconds: float = Field(ge=0, description="from the photo's arrival to the response")
    request_id: str


class BatchEntry(BaseModel):
    """One photo of several: what `results.json` in an archive says of it. With an error it has no result."""

    file: str = Field(description="the photo's name, as sent")
    result: str | None = Field(default=None, description="the name of its result in the archive")
    size: tuple[int, int] | None = None
    box: tuple[int, int, int, int] | None = None
    coverage: float | None = None
    expected_dice: float | None = None
    error: "ErrorDetails | None" = None


class Status(BaseModel):
    """The state of the process."""

    status: Literal["ok", "ready"]


class RequestLimits(BaseModel):
    """How large a request may be."""

    max_bytes: int
    max_pixels: int


class ModelInfo(BaseModel):
    """The network, with more fields about its input and engine."""

    model_config = ConfigDict(extra="allow")

    name: str
    threshold: float
    limits: RequestLimits


class ErrorDetails(BaseModel):
    """What went wrong."""

    code: str = Field(description="for programs", examples=["too_large"])
    message: str = Field(description="for people: what is wrong and what to do")
    request_id: str = Field(description="identifies the request in the log; also in X-Request-Id")


class ErrorResponse(BaseModel):
    """Every response that is not a success."""

    error: ErrorDetails


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
