"""What an `.onnx` file says about itself, read without any library that runs networks."""

import io
import os
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from pydantic import ValidationError

from carmask.errors import CarmaskError, explain
from carmask.runtime.card import CARD_KEY, ModelCard

# Fields of `ModelProto` and `StringStringEntryProto`, from onnx.proto.
_GRAPH, _METADATA_PROPS = 7, 14
_KEY, _VALUE = 1, 2

# Kinds of fields on the wire (protobuf.dev/programming-guides/encoding), with the bytes of those of fixed length.
_VARINT, _LENGTH_DELIMITED = 0, 2
_FIXED_BYTES = {1: 8, 5: 4}

_EXPORT = "export the network again with `carmask export`"


class ModelFileError(CarmaskError):
    """An `.onnx` file that is missing, damaged, or was not exported by carmask."""


class _NotProtobufError(Exception):
    """Bytes that are no protobuf message, or the beginning of one."""


def read_card(source: str | Path | bytes) -> ModelCard:
    """Read the card of an exported network. Looks at the file's metadata only, in about a millisecond.

    Raises:
        ModelFileError: the file is missing, is no whole ONNX file, or carmask has not exported it.

    """
    name = model_name(source)
    try:
        with io.BytesIO(source) if isinstance(source, bytes) else Path(source).open("rb") as stream:
            found = _metadata(stream)
    except OSError as error:
        raise ModelFileError(f"{name}: cannot be read ({error.strerror or error}); check the path") from error
    except (_NotProtobufError, UnicodeDecodeError) as error:
        raise ModelFileError(f"{name}: is no ONNX file, or not a whole one; copy it again, or {_EXPORT}") from error
    if CARD_KEY not in found:
        raise ModelFileError(
            f"{name}: an ONNX file that carmask has not exported (its metadata has no '{CARD_KEY}', so the size and "
            f"the threshold it needs are not known); {_EXPORT}"
        )
    try:
        return ModelCard.model_validate_json(found[CARD_KEY])
    except ValidationError as error:
        raise ModelFileError(
            f"{name}: its card cannot be understood ({explain(error, ModelCard)}); it may be of another version of "
            f"carmask: update carmask, or {_EXPORT}"
        ) from error


def model_name(source: str | Path | bytes) -> str:
    """What a model is called in messages."""
    return "model in memory" if isinstance(source, bytes) else str(source)


def _metadata(stream: BinaryIO) -> dict[str, str]:
    entries: dict[str, str] = {}
    has_graph = False
    for number, start, length in _fields(stream, 0, stream.seek(0, os.SEEK_END)):
        has_graph |= number == _GRAPH
        if number == _METADATA_PROPS:
            parts = {part: _read(stream, at, size) for part, at, size in _fields(stream, start, start + length)}
            entries[parts.get(_KEY, b"").decode()] = parts.get(_VALUE, b"").decode()
    if not has_graph:
        raise _NotProtobufError
    return entries


def _fields(stream: BinaryIO, start: int, stop: int) -> Iterator[tuple[int, int, int]]:
    """Number, first byte and length of each field of a message; a number's (`_VARINT`) length is nought."""
    place = start
    while place < stop:
        stream.seek(place)
        tag = _varint(stream)
        number, kind = tag >> 3, tag & 7
        if kind == _VARINT:
            _varint(stream)
            length = 0
        elif kind == _LENGTH_DELIMITED:
            length = _varint(stream)
        elif kind in _FIXED_BYTES:
            length = _FIXED_BYTES[kind]
        else:
            raise _NotProtobufError
        first = stream.tell()
        place = first + length
        if number == 0 or place > stop:
            raise _NotProtobufError
        yield number, first, length


def _varint(stream: BinaryIO) -> int:
    value = 0
    for shift in range(0, 64, 7):
        byte = stream.read(1)
        if not byte:
            raise _NotProtobufError
        value |= (byte[0] & 0x7F) << shift
        if byte[0] < 0x80:
            return value
    raise _NotProtobufError


def _read(stream: BinaryIO, start: int, length: int) -> bytes:
    stream.seek(start)
    return stream.read(length)
