"""A form of multipart/form-data, read in memory as it arrives.

Starlette's own reader writes files of more than 1 MB to disk and knows no limit for them. This one knows which fields
there are, and refuses all else before it is stored. (RFC 7578; the parser is python-multipart's.)
"""

import difflib
from collections.abc import AsyncIterable, Mapping
from dataclasses import dataclass, field

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from carmask.serving.refusals import Refusal
from carmask.serving.settings import Limits

# What may stand before the first part: a newline or two.
_MOST_PREAMBLE_BYTES = 1024
_MOST_HEADER_BYTES = 4096
_MOST_NAME_CHARACTERS = 100


@dataclass(frozen=True)
class Upload:
    """A file of a form. `name` is what its sender calls it, without folders; never a path to anything."""

    name: str
    data: bytes


@dataclass(frozen=True)
class Form:
    """A form's text fields and files by their names."""

    texts: Mapping[str, str] = field(default_factory=dict)
    files: Mapping[str, Upload] = field(default_factory=dict)


async def read_form(
    content_type: str, chunks: AsyncIterable[bytes], *, texts: frozenset[str], files: frozenset[str], limits: Limits
) -> Form:
    """Read a form that has at most these text fields and files, each once.

    Raises:
        Refusal: 415, this is no such form; 400, it is damaged, or has what it should not.

    """
    reader = _Reader(_boundary(content_type), texts, files, limits)
    async for chunk in chunks:
        reader.feed(chunk)
    return reader.finish()


def bad_form(message: str) -> Refusal:
    """A form that says something wrong."""
    return Refusal(400, "bad_form", message)


def _boundary(content_type: str) -> bytes:
    kind, options = parse_options_header(content_type)
    if kind != b"multipart/form-data":
        raise Refusal(
            415, "unsupported_media_type", "send the photo as multipart/form-data, for example: curl -F file=@car.jpg"
        )
    boundary = options.get(b"boundary", b"")
    if not boundary:
        raise bad_form("the header Content-Type names no boundary; let your HTTP library write it")
    return boundary


class _Reader:
    def __init__(self, boundary: bytes, texts: frozenset[str], files: frozenset[str], limits: Limits) -> None:
        self._texts, self._files, self._limits = texts, files, limits
        self._parts: dict[str, tuple[str, bytearray]] = {}
        self._header = (bytearray(), bytearray())
        self._disposition, self._header_bytes = b"", 0
        self._name = ""
        self._fed_bytes = 0
        self._begun = 0
        self._is_whole = False
        try:
            self._parser = MultipartParser(
                boundary,
                {
                    "on_part_begin": self._begin,
                    "on_header_field": lambda data, start, end: self._take_header(0, data[start:end]),
                    "on_header_value": lambda data, start, end: self._take_header(1, data[start:end]),
                    "on_header_end": self._end_header,
                    "on_headers_finished": self._open,
                    "on_part_data": self._take,
                    "on_end": self._end,
                },
            )
        except FormParserError as error:
            raise bad_form(f"the form's boundary cannot be used ({error})") from error

    def feed(self, chunk: bytes) -> None:
        self._fed_bytes += len(chunk)
        try:
            self._parser.write(chunk)
        except FormParserError as error:
            raise bad_form(f"the form is damaged ({error}); send it as your HTTP library makes it") from error
        if not self._begun and self._fed_bytes > _MOST_PREAMBLE_BYTES:
            raise bad_form("the form does not begin with its boundary; send it as your HTTP library makes it")

    def finish(self) -> Form:
        if not self._is_whole:
            raise bad_form("the form is cut short; send it whole")
        texts = {}
        for name in self._parts.keys() & self._texts:
            try:
                texts[name] = self._parts[name][1].decode()
            except UnicodeDecodeError as error:
                raise bad_form(f"the field {name} is no UTF-8 text") from error
        pictures = {name: self._parts[name] for name in self._parts.keys() & self._files}
        return Form(texts, {field: Upload(name, bytes(data)) for field, (name, data) in pictures.items()})

    def _begin(self) -> None:
        self._begun += 1
        self._disposition, self._header_bytes = b"", 0
        if self._begun > self._limits.max_parts:
            raise bad_form(f"the form has more than {self._limits.max_parts} parts; send one photo in each request")

    def _take_header(self, which: int, data: bytes) -> None:
        self._header[which].extend(data)
        self._header_bytes += len(data)
        if self._header_bytes > _MOST_HEADER_BYTES:
            raise bad_form("a part of the form has too long a header")

    def _end_header(self) -> None:
        name, value = self._header
        if name.lower() == b"content-disposition":
            self._disposition = bytes(value)
        self._header = (bytearray(), bytearray())

    def _open(self) -> None:
        _, options = parse_options_header(self._disposition)
        if b"name" not in options:
            raise bad_form("a part of the form has no name")
        name = options[b"name"].decode(errors="replace")
        if name not in self._texts | self._files:
            near = difflib.get_close_matches(name, sorted(self._texts | self._files), n=1)
            hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(sorted(self._texts | self._files))}"
            raise bad_form(f"there is no field {_shown(name)!r}; {hint}")
        if name in self._parts:
            raise bad_form(f"the field {name} is there twice; send one photo in each request")
        self._name = name
        self._parts[name] = _shown(options.get(b"filename", b"").decode(errors="replace")) or "photo", bytearray()

    def _take(self, data: bytes, start: int, end: int) -> None:
        stored = self._parts[self._name][1]
        if self._name in self._texts and len(stored) + end - start > self._limits.max_field_bytes:
            raise bad_form(f"the field {self._name} has more than {self._limits.max_field_bytes} bytes")
        stored += data[start:end]

    def _end(self) -> None:
        self._is_whole = True


def _shown(name: str) -> str:
    """A name as it may be printed: the last part of a path, nothing that could steer a terminal."""
    last = name.replace("\\", "/").rpartition("/")[2]
    return "".join(character for character in last if character.isprintable())[:_MOST_NAME_CHARACTERS]
