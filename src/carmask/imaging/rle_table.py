"""Tables of run lengths as the Carvana challenge has them: `img,rle_mask`, a row for each photo.

The rows end in CR LF, as in the challenge's `train_masks.csv`. A table whose name ends in .gz is compressed.
"""

import csv
import gzip
import io
import sys
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from carmask.errors import CarmaskError

HEADER = ("img", "rle_mask")


class TableError(CarmaskError):
    """A file that is no table of run lengths."""


def write_rows(stream: IO[bytes], rows: Iterable[tuple[str, str]], *, compressed: bool = False) -> None:
    """Write a table of (photo's name, run lengths), the same bytes for the same rows every time."""
    with _packed(stream) if compressed else _kept_open(stream) as plain:
        text = io.TextIOWrapper(plain, encoding="utf-8", errors="surrogateescape", newline="")
        writer = csv.writer(text)
        writer.writerow(HEADER)
        writer.writerows(rows)
        text.flush()
        text.detach()


def read_rows(path: Path) -> Iterator[tuple[int, list[str]]]:
    """The rows below the header, one at a time: the number of the line on which it ends, and its fields.

    Raises:
        TableError: the file cannot be read, or does not begin as such a table.

    """
    # Noisy masks have rows of megabytes; csv's own limit is 128 KiB, and one for the whole process.
    csv.field_size_limit(sys.maxsize if sys.maxsize < 2**31 else 2**31 - 1)
    try:
        with _opened(path) as stream:
            reader = csv.reader(stream)
            header = next(reader, [])
            if [field.strip() for field in header] != list(HEADER):
                raise TableError(
                    f"{path}: its first line is not '{','.join(HEADER)}', so it is no table of run lengths"
                )
            for row in reader:
                if row:
                    yield reader.line_num, row
    except (OSError, EOFError, zlib.error, csv.Error) as error:
        raise TableError(f"{path}: cannot be read as a table ({error})") from error


def is_compressed(path: Path) -> bool:
    """Whether a table of this name is compressed."""
    return path.suffix.lower() == ".gz"


@contextmanager
def _opened(path: Path) -> Iterator[IO[str]]:
    with (
        gzip.open(path) if is_compressed(path) else path.open("rb") as binary,
        io.TextIOWrapper(binary, encoding="utf-8-sig", errors="surrogateescape", newline="") as stream,
    ):
        yield stream


def _packed(stream: IO[bytes]) -> gzip.GzipFile:
    # No name and no time inside, so that the same rows give the same bytes.
    return gzip.GzipFile(filename="", fileobj=stream, mode="wb", compresslevel=6, mtime=0)


@contextmanager
def _kept_open(stream: IO[bytes]) -> Iterator[IO[bytes]]:
    yield stream
