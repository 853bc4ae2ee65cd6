"""Parquet tables: paths are read from them, results are written to them. Needs pyarrow, which is an extra."""

from collections.abc import Iterable
from pathlib import Path
from typing import IO, Any

from carmask.errors import CarmaskError, first_line
from carmask.pipeline.urls import URL
from carmask.runner import in_batches

PATH_COLUMN = "path"

# About ten megabytes of run lengths.
_ROWS_IN_GROUP = 1024


class ParquetError(CarmaskError):
    """A Parquet table cannot be read, or pyarrow is not installed."""


def require_parquet(what: str) -> None:
    """Check that pyarrow is installed, which `what` needs.

    Raises:
        ParquetError: it is not.

    """
    try:
        import pyarrow  # noqa: F401
    except ImportError as error:
        raise ParquetError(f"{what}: needs pyarrow; install it with `pip install 'carmask[cluster]'`") from error


def read_paths(source: Path | URL) -> list[str]:
    """Return the column `path` of a table, a file or a folder of parts, without empty rows.

    Raises:
        ParquetError: it is not such a table, or pyarrow is not installed.
        URLError: it cannot be read.

    """
    require_parquet(str(source))
    from pyarrow import ArrowException

    try:
        if isinstance(source, Path):
            return _read_column(str(source), None, str(source))
        with source.filesystem() as (system, path):
            return _read_column(path, system, str(source))
    except (ArrowException, OSError) as error:
        raise ParquetError(f"{source}: cannot be read as a Parquet table ({first_line(error)})") from error


def write_results(stream: IO[bytes], rows: Iterable[dict[str, Any]]) -> None:
    """Write rows of path, height, width, rle, box_px (top, left, bottom, right), coverage, seconds and error.

    A row needs nothing but its path.
    """
    import pyarrow as pa
    from pyarrow.parquet import ParquetWriter

    sides = [pa.field(side, pa.int32(), nullable=False) for side in ("top", "left", "bottom", "right")]
    schema = pa.schema(
        [
            pa.field(PATH_COLUMN, pa.string(), nullable=False),
            ("height", pa.int32()),
            ("width", pa.int32()),
            ("rle", pa.string()),
            ("box_px", pa.struct(sides)),
            ("coverage", pa.float64()),
            ("seconds", pa.float64()),
            ("error", pa.string()),
        ]
    )
    with ParquetWriter(stream, schema, compression="zstd") as writer:
        for group in in_batches(rows, _ROWS_IN_GROUP):
            writer.write_table(pa.Table.from_pylist(group, schema))


def _read_column(path: str, system: Any, label: str) -> list[str]:
    from pyarrow import dataset, types

    table = dataset.dataset(path, filesystem=system, format="parquet")
    if PATH_COLUMN not in table.schema.names:
        raise ParquetError(
            f"{label}: has no column '{PATH_COLUMN}' (it has {', '.join(table.schema.names)}); use that name for the "
            "column of the photos' paths"
        )
    kind = table.schema.field(PATH_COLUMN).type
    if not (types.is_string(kind) or types.is_large_string(kind)):
        raise ParquetError(f"{label}: its column '{PATH_COLUMN}' holds {kind}, not text")
    batches: Iterable[Any] = table.to_batches(columns=[PATH_COLUMN])
    return [path for batch in batches for path in batch.column(0).to_pylist() if path]
