"""Forms: read in whatever pieces they come, and refused for all that they should not have."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from service_process import BOUNDARY, FORM, form, part, part_of_file

from carmask.serving.form import Form, Upload, read_form
from carmask.serving.refusals import Refusal
from carmask.serving.settings import Limits

TEXTS, FILES = frozenset({"kind", "threshold"}), frozenset({"file", "background_file"})
END = b"--" + BOUNDARY + b"--\r\n"


def read(*pieces: bytes, content_type: str = FORM, **limits: int) -> Form:
    async def arriving(pieces: Sequence[bytes]) -> AsyncIterator[bytes]:
        for piece in pieces:
            yield piece

    return asyncio.run(read_form(content_type, arriving(pieces), texts=TEXTS, files=FILES, limits=Limits(**limits)))


# What looks like the end of a part, and is none.
pretenders = st.sampled_from([b"\r\n", b"--", b"\r\n--", b"\r\n--" + BOUNDARY[:-1], BOUNDARY, b"\r", b"\n", b"-"])
contents = (
    st.lists(st.binary(max_size=20) | pretenders, max_size=8)
    .map(b"".join)
    .filter(lambda data: b"\r\n--" + BOUNDARY not in b"\r\n" + data)
)


@given(contents, contents, st.text("abcxyz", max_size=9), st.lists(st.integers(0, 400), max_size=6))
def test_a_form_is_read_however_it_arrives(photo: bytes, backdrop: bytes, kind: str, cuts: list[int]) -> None:
    whole = part_of_file("file", "car.jpg", photo) + part("kind", kind) + part("background_file", backdrop) + END
    places = sorted({0, len(whole), *(cut % len(whole) for cut in cuts)})
    found = read(*(whole[start:end] for start, end in pairwise(places)))
    assert found.files == {"file": Upload("car.jpg", photo), "background_file": Upload("photo.jpg", backdrop)}
    assert found.texts == {"kind": kind}


@given(st.data())
def test_a_form_that_is_cut_is_refused(data: st.DataObject) -> None:
    whole = form(file=b"a photo", kind="mask")
    cut = data.draw(st.integers(0, len(whole) - len(b"--\r\n")))
    with pytest.raises(Refusal) as caught:
        read(whole[:cut])
    assert (caught.value.status_code, caught.value.code) == (400, "bad_form")


@given(st.binary(max_size=300), st.booleans())
def test_noise_is_refused_in_words(noise: bytes, has_boundary: bool) -> None:
    with pytest.raises(Refusal) as caught:
        read(b"--" + BOUNDARY + b"\r\n" + noise if has_boundary else noise)
    assert caught.value.status_code == 400
    assert caught.value.message


@pytest.mark.parametrize(
    ("told", "name"),
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
def test_a_files_name_is_no_path_and_harmless(told: str, name: str) -> None:
    assert read(part_of_file("file", told, b"photo") + END).files["file"].name == name


@pytest.mark.parametrize(
    ("body", "limits", "words"),
    [
        (form(fil=b"photo"), {}, "did you mean file"),
        (form(url="http://localhost/"), {}, "there is no field 'url'; there are"),
        (part("file", b"1") + part("file", b"2") + END, {}, "twice"),
        (form(file=b"1", kind="k" * 1001), {}, "more than 1000 bytes"),
        (form(file=b"1", kind="mask"), {"max_parts": 1}, "more than 1 parts"),
        (b"--" + BOUNDARY + b"\r\nContent-Type: image/png\r\n\r\nphoto\r\n" + END, {}, "has no name"),
        (part_of_file("file", "a" * 5000, b"photo") + END, {}, "header"),
        (part("kind", b"").replace(b"\r\n\r\n", b"\r\n\r\n\xff\xfe") + END, {}, "no UTF-8"),
    ],
)
def test_what_a_form_may_not_have(body: bytes, limits: dict[str, int], words: str) -> None:
    with pytest.raises(Refusal) as caught:
        read(body, **limits)
    assert (caught.value.status_code, caught.value.code) == (400, "bad_form")
    assert words in caught.value.message


def test_a_preamble_is_not_read_for_ever() -> None:
    with pytest.raises(Refusal, match="does not begin with its boundary"):
        read(*[b"\r\n" * 100] * 10, form(file=b"photo"))


def test_a_form_may_be_empty() -> None:
    assert read(END) == Form()


def test_a_field_is_refused_before_all_of_it_is_there() -> None:
    endless = part("kind", "k" * 100_000)
    with pytest.raises(Refusal, match="more than 1000 bytes"):
        read(endless[:2000])


@pytest.mark.parametrize("kind", ["", "application/x-www-form-urlencoded", "image/jpeg", "multipart/mixed; boundary=x"])
def test_other_kinds_of_bodies_are_refused(kind: str) -> None:
    with pytest.raises(Refusal) as caught:
        read(b"photo", content_type=kind)
    assert caught.value.status_code == 415
    assert "curl -F" in caught.value.message


@pytest.mark.parametrize("kind", ["multipart/form-data", "multipart/form-data; boundary=" + "b" * 500])
def test_a_boundary_that_is_none(kind: str) -> None:
    with pytest.raises(Refusal, match="boundary"):
        read(b"photo", content_type=kind)
