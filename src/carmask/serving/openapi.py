"""What the service says of itself, as OpenAPI: the form, all answers, and all refusals."""

from typing import Any

from PIL import ImageColor

from carmask.pipeline.kinds import OF_PHOTO
from carmask.serving.answers import BOX, COVERAGE, SECONDS, SIZE, Segmentation
from carmask.serving.refusals import RETRY_AFTER_S, ErrorAnswer
from carmask.serving.wishes import BACKDROP, GEOJSON, JSON, MEDIA_TYPES, PHOTO, Fields

Schema = dict[str, Any]

# An area as a share of the picture, and in pixels: of what `Area` reads the part whose bounds a pattern can tell.
_SHARE = r"^(100(\.0+)?|[0-9]{1,2}(\.[0-9]+)?) ?%$"
_PIXELS = r"^[0-9]+(\.[0-9]+)? ?(px)?$"

_COLOR = "^#([0-9A-Fa-f]{3}|[0-9A-Fa-f]{6})$"

# Why a request may be refused, by status.
_CAUSES = {
    400: "The form is damaged, or asks for what there is not.",
    401: "A token is needed, as `Authorization: Bearer ...`.",
    406: "The header Accept wants none of the forms that the answer may have.",
    408: "The request did not arrive in time.",
    413: "The request has too many bytes. It is refused when the limit is reached, not at its end.",
    415: "The request is no multipart/form-data.",
    422: "The photo cannot be read, or has too many pixels.",
    431: "The request's head has too many bytes.",
    500: "The service failed. Its log says more, under the request's id.",
    503: "Too much is going on, or the service is not ready yet. The header Retry-After says when to try again.",
}
# What any request may meet.
EVERYWHERE = (408, 431, 500, 503)
SEGMENT = (400, 406, 408, 413, 415, 422, 431, 500, 503)

_REQUEST_ID = {"X-Request-Id": {"schema": {"type": "string"}, "description": "names the request in the service's log"}}
_OF_RESULT = {
    SIZE: ("height,width of the photo in pixels, as it is shown", r"^\d+,\d+$"),
    BOX: (
        "top,left,bottom,right of the box around the mask in pixels, bottom and right exclusive; or none",
        r"^(none|\d+,\d+,\d+,\d+)$",
    ),
    COVERAGE: ("the share of the photo that the mask covers, 0..1", r"^[01]\.\d{6}$"),
    SECONDS: ("from the photo's arrival to its answer", r"^\d+\.\d{4}$"),
}


RESULT_HEADERS = tuple(_OF_RESULT)

STATUS: Schema = {"type": "object", "required": ["status"], "properties": {"status": {"type": "string"}}}
MODEL: Schema = {
    "type": "object",
    "required": ["name", "threshold", "limits"],
    "properties": {
        "name": {"type": "string"},
        "threshold": {"type": "number"},
        "limits": {
            "type": "object",
            "required": ["max_bytes", "max_pixels"],
            "properties": {"max_bytes": {"type": "integer"}, "max_pixels": {"type": "integer"}},
        },
    },
}


def refusals_of(statuses: tuple[int, ...]) -> dict[int | str, Schema]:
    """How refusals are described."""
    described: dict[int | str, Schema] = {}
    for status in statuses:
        headers: Schema = dict(_REQUEST_ID)
        if status == 503:
            headers["Retry-After"] = {"schema": {"type": "integer"}, "example": RETRY_AFTER_S}
        if status == 401:
            headers["WWW-Authenticate"] = {"schema": {"type": "string"}}
        described[status] = {"model": ErrorAnswer, "description": _CAUSES[status], "headers": headers}
    return described


def json_answer(description: str, schema: Schema) -> Schema:
    """How an answer of JSON is described."""
    return {"description": description, "headers": _REQUEST_ID, "content": {JSON: {"schema": schema}}}


def success_of_segment() -> Schema:
    """How the answer with a photo's result is described."""
    picture = {"schema": {"type": "string", "format": "binary"}}
    described = {
        name: {"description": text, "required": True, "schema": {"type": "string", "pattern": pattern}}
        for name, (text, pattern) in _OF_RESULT.items()
    }
    return {
        "description": "The result, in the form that the header Accept wants most: a picture, GeoJSON of polygons, or "
        "a description of the mask.",
        "headers": {**_REQUEST_ID, **described},
        "content": {
            **dict.fromkeys(MEDIA_TYPES.values(), picture),
            GEOJSON: {"schema": {"type": "object", "required": ["type", "features"]}},
            JSON: {"schema": Segmentation.model_json_schema()},
        },
    }


def form_of_segment() -> Schema:
    """How the form is described, with what goes with which kinds."""
    told = Fields.model_json_schema()["properties"]
    fields: Schema = {name: _plain(schema) for name, schema in told.items()}
    # In a form a number is a text too.
    del fields["min_area"]["type"]
    fields["min_area"]["anyOf"] = [
        {"type": "number", "minimum": 0},
        {"type": "string", "pattern": _SHARE},
        {"type": "string", "pattern": _PIXELS},
    ]
    fields["background"]["anyOf"] = [{"enum": ["transparent", "blur", *ImageColor.colormap]}, {"pattern": _COLOR}]
    binary = {"type": "string", "format": "binary"}
    photo = {**binary, "description": "The photo: JPEG, PNG, GIF, BMP, TIFF or WebP."}
    backdrop = {**binary, "description": "Of cut-outs: a picture as the background."}
    kind = fields.pop("kind")
    common = {PHOTO: photo, **{name: fields[name] for name in ("threshold", "keep_largest", "min_area")}}
    drawing = {**common, "format": fields["format"]}
    cutout = {**drawing, "crop": fields["crop"]}
    masks = [one for one in kind["enum"] if one not in OF_PHOTO]
    drawings = [one for one in kind["enum"] if one in OF_PHOTO and one != "cutout"]
    variants = [
        _variant("Mask", common, {**kind, "enum": masks}, PHOTO),
        _variant("Drawing", drawing, _chosen(kind, drawings), PHOTO, "kind"),
        _variant("Cut-out", {**cutout, "background": fields["background"]}, _chosen(kind, ["cutout"]), PHOTO, "kind"),
        _variant("Cut-out on a picture", {**cutout, BACKDROP: backdrop}, _chosen(kind, ["cutout"]), PHOTO, "kind"),
    ]
    return {"required": True, "content": {"multipart/form-data": {"schema": {"anyOf": variants}}}}


def _chosen(kind: Schema, kinds: list[str]) -> Schema:
    """A kind that has to be given, one of these."""
    return {name: value for name, value in kind.items() if name != "default"} | {"enum": kinds}


def _variant(title: str, properties: Schema, kind: Schema, *required: str) -> Schema:
    return {
        "title": title,
        "type": "object",
        "required": list(required),
        "properties": {"kind": kind, **properties},
        "additionalProperties": False,
    }


def _plain(schema: Schema) -> Schema:
    """A field that may be left out, instead of one that may be null: forms have no null."""
    kept = {name: value for name, value in schema.items() if name not in ("title", "anyOf")}
    if "anyOf" in schema:
        kept |= next(one for one in schema["anyOf"] if one.get("type") != "null")
        del kept["default"]
    return kept
