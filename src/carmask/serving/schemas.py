"""What a response says, as pydantic models: FastAPI describes them."""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from carmask.imaging import PictureFormat

PNG, WEBP = "image/png", "image/webp"
PICTURE_TYPES: dict[PictureFormat, str] = {
    "png": PNG,
    "webp": WEBP,
    "jpg": "image/jpeg",
    "avif": "image/avif",
    "tiff": "image/tiff",
}
GEOJSON = "application/geo+json"
JSON = "application/json"
ZIP, MULTIPART = "application/zip", "multipart/mixed"


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
        "for an empty mask, how likely it is that the photo shows no vehicle; null if the network is not calibrated",
    )
    threshold: float = Field(gt=0, lt=1, description="pixels of at least this probability belong to the mask")
    rle: str = Field(description="the mask as run lengths: `start length` pairs, 1-indexed, row by row")
    model: str = Field(description="name of the network")
    remark: str = Field(description="what was left out of the photo, such as further frames; empty if nothing was")
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
