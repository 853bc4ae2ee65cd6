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
from carmask.files import BinaryWriter, is_gzip

_HEADER = ("img", "rle_mask")


class TableError(CarmaskError):
    """A file that is no table of run lengths."""


def write_rows(stream: BinaryWriter, rows: Iterable[tuple[str, str]]) -> None:
    """Write a table of (photo's name, run lengths)."""
    text = io.TextIOWrapper(stream, encoding="utf-8", errors="surrogateescape", newline="")
    writer = csv.writer(text)
    writer.writerow(_HEADER)
    writer.writerows(rows)
    text.flush()
    text.detach()


def read_rows(path: Path) -> Iterator[tuple[int, list[str]]]:
    """The rows below the header, one at a time: the number of the line on which it ends, and its fields.

    Raises:
        TableError: the file cannot be read, or does not begin as such a table.

    """
    # Noisy masks have rows of megabytes, and csv's own limit is 128 KiB. It is one for the whole process and is raised
    # for all of it: it guards nothing but memory, and rows split by hand would mistake quoted names and line ends.
    csv.field_size_limit(sys.maxsize if sys.maxsize < 2**31 else 2**31 - 1)
    try:
        with _opened(path) as stream:
            reader = csv.reader(stream)
            header = next(reader, [])
            if [field.strip() for field in header] != list(_HEADER):
                raise TableError(
                    f"{path}: its first line is not '{','.join(_HEADER)}', so it is no table of run lengths"
                )
            for row in reader:
                if row:
                    yield reader.line_num, row
    except (OSError, EOFError, zlib.error, csv.Error) as error:
        raise TableError(f"{path}: cannot be read as a table ({error})") from error


@contextmanager
def _opened(path: Path) -> Iterator[IO[str]]:
    with (
        gzip.open(path) if is_gzip(path) else path.open("rb") as binary,
        io.TextIOWrapper(binary, encoding="utf-8-sig", errors="surrogateescape", newline="") as stream,
    ):
        yield stream
