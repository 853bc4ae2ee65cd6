"""What a client asks for: the fields of its form, and what they mean together."""

from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from carmask.errors import CarmaskError, explain
from carmask.imaging import PictureFormat
from carmask.imaging.background import Background, named_background
from carmask.imaging.masks import Area, Regions
from carmask.pipeline.kinds import JSON_KINDS, OF_PHOTO, refuse_cutout_options
from carmask.serving.accept import choose
from carmask.serving.form import Form, Upload, bad_form
from carmask.serving.refusals import Refusal

WishKind = Literal["mask", "soft", "cutout", "overlay", "compare", "polygons"]

MEDIA_TYPES = {"png": "image/png", "webp": "image/webp"}
GEOJSON = "application/geo+json"
JSON = "application/json"

PHOTO = "file"
BACKDROP = "background_file"


def _true_or_false(value: object) -> object:
    if isinstance(value, str):
        if value.lower() not in ("true", "false"):
            raise ValueError("give true or false")
        return value.lower() == "true"
    return value


YesOrNo = Annotated[bool, BeforeValidator(_true_or_false)]


class Fields(BaseModel):
    """The text fields of a form. All have a default."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: WishKind = Field(
        default="mask",
        description="mask: 1-bit PNG. soft: probability as 8-bit PNG. cutout: the vehicle on another ground. overlay: "
        "the mask laid over the photo. compare: the photo with its mask below. polygons: outlines as GeoJSON.",
    )
    threshold: float | None = Field(
        default=None,
        gt=0,
        lt=1,
        description="A pixel belongs to the mask from this probability on; the network's own if not given.",
    )
    background: str = Field(
        default="transparent",
        max_length=64,
        description="Of cut-outs: transparent, blur, or a color (white, #00ff00).",
        examples=["white"],
    )
    crop: YesOrNo = Field(default=False, description="Cut-outs show no more than the box around the vehicle.")
    keep_largest: YesOrNo = Field(default=False, description="Of a mask in several parts only the largest is kept.")
    min_area: str = Field(
        default="0",
        max_length=64,
        description="Smaller parts of a mask are dropped: pixels (400), or a share of the photo (0.5%).",
        examples=["0.5%"],
    )
    format: PictureFormat | None = Field(
        default=None,
        description="Of cut-outs, overlays and comparisons: png, or webp, which is smaller and slower. As the header "
        "Accept says if not given, png if that says nothing.",
    )


@dataclass(frozen=True)
class Wish:
    """What is asked for. media_type: of the answer. threshold: nothing for the network's own."""

    kind: WishKind
    media_type: str
    threshold: float | None
    background: Background
    backdrop: Upload | None
    crop: bool
    regions: Regions

    @property
    def picture_format(self) -> PictureFormat:
        """In which a picture is encoded."""
        return "webp" if self.media_type == MEDIA_TYPES["webp"] else "png"


def read_wish(form: Form, accept: str) -> tuple[Upload, Wish]:
    """The photo of a form, and what is asked for.

    Raises:
        Refusal: 400, something in the form is wrong; 406, `accept` wants what there is not.

    """
    fields = _read_fields(dict(form.texts))
    photo = form.files.get(PHOTO)
    if photo is None:
        raise bad_form(f"there is no photo; send it as the field {PHOTO}, for example: curl -F {PHOTO}=@car.jpg")
    backdrop = form.files.get(BACKDROP)
    _refuse_contradictions(fields, backdrop)
    try:
        background = named_background(fields.background)
        regions = Regions(fields.keep_largest, Area.parse(fields.min_area, "min_area"))
    except CarmaskError as error:
        raise bad_form(str(error)) from error
    return photo, Wish(
        fields.kind, _choose_media_type(fields, accept), fields.threshold, background, backdrop, fields.crop, regions
    )


def _read_fields(texts: dict[str, Any]) -> Fields:
    try:
        return Fields.model_validate(texts)
    except ValidationError as error:
        raise bad_form(explain(error, Fields)) from error


def _refuse_contradictions(fields: Fields, backdrop: Upload | None) -> None:
    given = fields.model_fields_set | ({BACKDROP} if backdrop is not None else set())
    try:
        refuse_cutout_options(fields.kind, sorted(given & {"crop", "background", BACKDROP}))
    except CarmaskError as error:
        raise bad_form(str(error)) from error
    if {"background", BACKDROP} <= given:
        raise bad_form(f"background and {BACKDROP}: give one of them")
    if fields.format is not None and fields.kind not in OF_PHOTO:
        raise bad_form(f"format {fields.format}: is for {', '.join(OF_PHOTO)}; {fields.kind} has one format only")


def _choose_media_type(fields: Fields, accept: str) -> str:
    if fields.kind in JSON_KINDS:
        offers = [GEOJSON, JSON]
    elif fields.kind in OF_PHOTO and fields.format is None:
        offers = [*MEDIA_TYPES.values(), JSON]
    else:
        offers = [MEDIA_TYPES[fields.format or "png"], JSON]
    chosen = choose(accept, offers)
    if chosen is None:
        raise Refusal(406, "not_acceptable", f"the header Accept wants none of {', '.join(offers)}; name one of them")
    return chosen
