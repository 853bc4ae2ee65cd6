"""Photos for schemathesis; test_openapi.py names this module in its environment."""

import io
from typing import Any

import schemathesis
from hypothesis import strategies as st
from PIL import Image


def _photo(name: str, size_wh: tuple[int, int], color: str) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", size_wh, color).save(buffer, name)
    return buffer.getvalue()


# Random bytes would be refused, and nothing behind the decoder would be tested.
_PHOTOS = [_photo("PNG", (3, 2), "white"), _photo("JPEG", (16, 9), "black"), _photo("GIF", (1, 1), "white")]
schemathesis.openapi.format("binary", st.sampled_from(_PHOTOS))


@schemathesis.hook
def filter_body(context: Any, body: Any) -> bool:  # noqa: ARG001 - as it is called
    """A form has no objects, no lists but of photos, and what is empty in it is not given."""
    fields = body.items() if isinstance(body, dict) else ()
    return not any(
        (isinstance(value, list | dict) and (name != "file" or not all(isinstance(photo, bytes) for photo in value)))
        or value in ("", b"", None, [])
        for name, value in fields
    )


_ON_CANVAS = {"margin", "anchor", "floor"}
_OF_LOOK = {
    "background",
    "background_file",
    "crop",
    "format",
    "look",
    "canvas",
    "shadow",
    "quality",
    "strip",
} | _ON_CANVAS


def _make_look_valid(body: dict[str, Any]) -> None:
    """Leave out what contradicts the rest."""
    if "background_file" in body:
        body.pop("background", None)
    elif body.get("format") == "jpg" and (body.get("background") or "transparent").lower() == "transparent":
        body["background"] = "white"
    if body.get("look") == "cutout" and body.keys() & {"canvas"}:
        del body["look"]
    if "canvas" in body:
        body["canvas"] = "40x30"
    if body.get("look") in ("showroom", "marketplace") or "canvas" in body:
        body.pop("crop", None)
        body.pop("margin", None)
    else:
        for name in _ON_CANVAS:
            body.pop(name, None)


@schemathesis.hook
def before_call(context: Any, case: Any, kwargs: Any) -> None:  # noqa: ARG001 - as it is called
    """Choose a kind that has all fields of a valid form. The description says so in words; test_answers.py tests it."""
    if case.meta.generation.mode.is_positive:
        if isinstance(case.body, dict):
            case.query = {}  # a field that is in the query and in the form is refused
        fields = case.body if isinstance(case.body, dict) else case.query
        if fields and fields.keys() & _OF_LOOK:
            fields["kind"] = "cutout"
            _make_look_valid(fields)
        if fields and "mask_file" in fields:
            fields.pop("mask_file")  # a mask of another size is refused
        case._sync_validated_hashes()  # otherwise photos, which are no text, would make the form count as invalid
