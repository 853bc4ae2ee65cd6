"""Forms: read correctly in whatever pieces they arrive, and refused when damaged, incomplete or too large."""

import asyncio
from collections.abc import Iterable, Iterator
from itertools import pairwise
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from service_process import BOUNDARY, FORM, form, part, part_of_file
from starlette.datastructures import UploadFile

from carmask.serving.errors import ServiceError
from carmask.serving.settings import ServiceLimits
from carmask.serving.uploads import UploadRequest, take

END = b"--" + BOUNDARY + b"--\r\n"


def read(pieces: Iterable[bytes], content_type: str = FORM, **limits: int) -> dict[str, str | tuple[str | None, bytes]]:
    """Read a form as the service does, with files as their names and bytes."""
    arriving = iter(pieces)

    async def receive() -> dict[str, Any]:
        piece = next(arriving, None)
        return {"type": "http.request", "body": piece or b"", "more_body": piece is not None}

    async def read_all() -> dict[str, str | tuple[str | None, bytes]]:
        worker = SimpleNamespace(check_ready=lambda: None, limits=ServiceLimits(**limits))
        headers = [(b"content-type", content_type.encode())]
        scope = {
            "type": "http",
            "query_string": b"",
            "headers": headers,
            "app": SimpleNamespace(state=SimpleNamespace(worker=worker)),
        }
        found = await UploadRequest(scope, receive).form()
        return {
            name: await take(value) if isinstance(value, UploadFile) else value for name, value in found.multi_items()
        }

    return asyncio.run(read_all())


# What looks like the end of a part and is not.
pretenders = st.sampled_from([b"\r\n", b"--", b"\r\n--", b"\r\n--" + BOUNDARY[:-1], BOUNDARY, b"\r", b"\n", b"-"])
contents = (
    st.lists(st.binary(max_size=20) | pretenders, max_size=8)
    .map(b"".join)
    .filter(lambda data: b"\r\n--" + BOUNDARY not in b"\r\n" + data)
)


@given(contents, contents, st.text("abcxyz", min_size=1, max_size=9), st.lists(st.integers(0, 400), max_size=6))
def test_a_form_is_read_however_it_arrives(photo: bytes, backdrop: bytes, kind: str, cuts: list[int]) -> None:
    whole = part_of_file("file", "car.jpg", photo) + part("kind", kind) + part("background_file", backdrop) + END
    places = sorted({0, len(whole), *(cut % len(whole) for cut in cuts)})
    found = read(whole[start:end] for start, end in pairwise(places))
    expected = {"file": ("car.jpg", photo), "kind": kind, "background_file": ("photo.jpg", backdrop)}
    assert found == expected


@given(st.data())
def test_a_form_that_is_cut_is_refused(data: st.DataObject) -> None:
    whole = form(file=b"a photo", kind="mask")
    cut = data.draw(st.integers(0, len(whole) - len(b"--\r\n")))
    with pytest.raises(ServiceError) as caught:
        read([whole[:cut]])
    assert (caught.value.status_code, caught.value.code) == (400, "bad_form")


@given(st.binary(max_size=300), st.booleans())
def test_noise_is_refused(noise: bytes, has_boundary: bool) -> None:
    with pytest.raises(ServiceError) as caught:
        read([b"--" + BOUNDARY + b"\r\n" + noise if has_boundary else noise])
    assert (caught.value.status_code, caught.value.code) == (400, "bad_form")


@pytest.mark.parametrize(
    ("sent", "name"),
    [
        ("car.jpg", "car.jpg"),
        ("../../etc/passwd", "passwd"),
        (r"C:\photos\car.jpg", "car.jpg"),
        ("", "photo"),
        ("red\x1b[31m.jpg", "red[31m.jpg"),
        ("Škoda Straße.jpg", "Škoda Straße.jpg"),
        ("a" * 500, "a" * 100),
    ],
)
def test_a_file_name_is_not_a_path_and_harmless(sent: str, name: str) -> None:
    assert read([part_of_file("file", sent, b"photo") + END]) == {"file": (name, b"photo")}


def test_what_a_browser_sends_empty_is_not_given() -> None:
    untouched = part_of_file("background_file", "", b"")
    assert read([part("file", b"1") + untouched + form(kind="", threshold="0.5")]).keys() == {"file", "threshold"}
    # A file without bytes was chosen, and its name says which.
    assert read([part_of_file("file", "car.jpg", b"") + END]) == {"file": ("car.jpg", b"")}


@pytest.mark.parametrize(
    ("body", "limits"),
    [
        (part("kind", "mask") + part("kind", "soft") + END, {}),
        (part("background_file", b"1") + part("background_file", b"2") + END, {}),
        (part("file", b"1") + part("file", "2") + END, {}),
        (form(file=b"1", kind="k" * 1001), {}),
        (form(file=b"1", kind="mask"), {"max_parts": 1}),
        (b"--" + BOUNDARY + b"\r\nContent-Type: image/png\r\n\r\nphoto\r\n" + END, {}),
        (part_of_file("file", "a" * 5000, b"photo") + END, {}),
        (b"\r\n" * 5000, {}),
        (b"", {}),
    ],
)
def test_bad_forms_are_refused(body: bytes, limits: dict[str, int]) -> None:
    with pytest.raises(ServiceError) as caught:
        read([body], **limits)
    assert (caught.value.status_code, caught.value.code) == (400, "bad_form")


def test_a_field_is_refused_before_all_of_it_is_there() -> None:
    def endless() -> Iterator[bytes]:
        yield part("kind", "k" * 100_000)[:2000]
        pytest.fail("more of the form was read")

    with pytest.raises(ServiceError) as caught:
        read(endless())
    assert caught.value.code == "bad_form"


@pytest.mark.parametrize("kind", ["", "application/x-www-form-urlencoded", "text/plain", "multipart/mixed; boundary=x"])
def test_other_media_types_are_refused(kind: str) -> None:
    with pytest.raises(ServiceError) as caught:
        read([b"photo"], content_type=kind)
    assert (caught.value.status_code, caught.value.code) == (415, "unsupported_media_type")


@pytest.mark.parametrize("kind", ["multipart/form-data", "multipart/form-data; boundary=" + "b" * 500])
def test_a_missing_or_too_long_boundary(kind: str) -> None:
    with pytest.raises(ServiceError) as caught:
        read([b"photo"], content_type=kind)
    assert (caught.value.status_code, caught.value.code) == (400, "bad_form")
