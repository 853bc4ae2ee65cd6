"""Results in object stores: s3://bucket/masks, gs://..., az://... A file appears there whole or not at all."""

import os
import socket
import tempfile
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from carmask.errors import CarmaskError
from carmask.pipeline.jobs import BadDestination, Job, Jobs, Shard
from carmask.pipeline.journal import parse_provenance
from carmask.pipeline.kinds import TableKind
from carmask.pipeline.provenance import Provenance, other_provenance
from carmask.pipeline.render import Render
from carmask.pipeline.segments import SegmentWriter, download, is_journal, merge_segments
from carmask.pipeline.sinks import OpenRemotely, Put, Sink, find_undone, journal_stem, read_journals, result_entry
from carmask.pipeline.tables import TableFile, open_table, part_of
from carmask.pipeline.urls import URL
from carmask.result import Result

_TABLE_ROWS = "rows"
_MAX_HEADER_BYTES = 65536


@dataclass
class StoreFolder(Sink):
    """Results in a store, named like those in a folder."""

    path: URL
    render: Render
    provenance: Provenance
    journal: str
    writer: SegmentWriter

    def put(self, job: Job, found: Result) -> "Future[None]":
        """See `Sink.put`. The result is uploaded meanwhile."""
        return _put(self.path, self.render, self.writer, job, found)

    def remote(self) -> OpenRemotely:
        """See `Sink.remote`."""
        return partial(_open_remotely, self.path, self.journal, self.provenance, self.render)

    def finish(self) -> None:
        """See `Sink.finish`."""
        self.writer.close()
        merge_segments(self.path, self.journal, self.provenance, key="result")


@contextmanager
def _open_remotely(path: URL, journal: str, provenance: Provenance, render: Render) -> Iterator[Put]:
    """Open a folder in a store from another machine."""
    if parse_provenance(_read_header(path / f"{journal}.jsonl") or b"") != provenance:
        raise BadDestination(
            f"{path}: is not the same store on {socket.gethostname()}; set the same address and credentials on all "
            "machines of the cluster"
        )
    with SegmentWriter(path, journal, provenance) as writer:
        yield partial(_put, path, render, writer)


def _put(path: URL, render: Render, writer: SegmentWriter, job: Job, found: Result) -> "Future[None]":
    file = path / job.result
    file.require_text()
    data = render(job, found)
    return writer.put(result_entry(job, found, data), file, data)


@contextmanager
def open_store_folder(
    path: URL, jobs: Jobs, provenance: Provenance, render: Render, *, shard: Shard, overwrite: bool
) -> Iterator[StoreFolder]:
    """Open a folder in a store for results; see `open_folder`. Several processes may write there at the same time.

    Raises:
        BadDestination: the folder holds results of another provenance, or files of the same names from elsewhere.
        URLError: the store cannot be read or written to.
    """
    stem = journal_stem(jobs)
    files = path.files_below()
    journals = [name for name in files if is_journal(name, stem)]
    with tempfile.TemporaryDirectory(prefix="carmask-journal-") as place:
        folder = Path(place)
        download(path, journals, folder)
        written = read_journals(folder, path, stem, provenance, files.__contains__, overwrite)
        todo, outdated, empty, dice = find_undone(path, jobs, written, files.get, overwrite=overwrite)
        foreign = [name for name in journals if not (folder / name).exists()]
    journal = f"{stem}{shard.suffix}"
    merge_segments(path, journal, provenance)
    path.remove([name for name in foreign if name != f"{journal}.jsonl" and not is_journal(name, f"{journal}+")])
    path.remove(jobs.at(position).result for position in outdated)
    with SegmentWriter(path, journal, provenance) as writer:
        yield StoreFolder(jobs.only(todo), empty, dice, path, render, provenance, journal, writer)


@contextmanager
def open_store_table(
    path: URL, jobs: Jobs, provenance: Provenance, kind: TableKind, *, overwrite: bool
) -> Iterator[TableFile]:
    """Open a table in a store. It is put together here; its rows are kept in a folder with `.part` at the end, too.

    Raises:
        BadDestination: there is a finished table, or an unfinished one of another provenance.
        URLError: the store cannot be read or written to.
    """
    folder = path.with_name(f"{path.name}.part")
    found = folder.files_below()
    header = _read_header(folder / f"{_TABLE_ROWS}.jsonl")
    if overwrite:
        folder.remove(found)
    elif header is not None:
        earlier = parse_provenance(header)
        if earlier != provenance:
            raise other_provenance(folder, earlier, provenance)
    elif path.exists():
        raise BadDestination(f"{path}: already exists; use --overwrite or another name")
    merge_segments(folder, _TABLE_ROWS, provenance)
    with tempfile.TemporaryDirectory(prefix="carmask-results-") as place:
        table = Path(place, path.name)
        part = part_of(table)
        part.write_bytes((folder / f"{_TABLE_ROWS}.jsonl").read_bytes())
        last_ns = max((file.mtime_ns for file in found.values()), default=0)
        os.utime(part, ns=(last_ns, last_ns))
        with (
            _named(table, path),
            open_table(table, jobs, provenance, kind, overwrite=False) as sink,
            SegmentWriter(folder, _TABLE_ROWS, provenance) as writer,
        ):
            sink.replicate = writer.put
            yield sink
        if table.exists():
            path.write_bytes(table.read_bytes())
            segments = list(folder.files_below())
            if part.exists():
                (folder / f"{_TABLE_ROWS}.jsonl").write_bytes(part.read_bytes())
                segments.remove(f"{_TABLE_ROWS}.jsonl")
            folder.remove(segments)


@contextmanager
def mirror_file(file: Path | URL | None) -> Iterator[Path | None]:
    """Give a local file for one in a store: it has its content, and what the block changes goes back.

    A file that is not in a store is itself.

    Raises:
        URLError: the store cannot be read or written to.
    """
    if not isinstance(file, URL):
        yield file
        return
    with tempfile.TemporaryDirectory(prefix="carmask-results-") as place:
        local = Path(place, file.name)
        before = file.read_if_exists()
        if before is not None:
            local.write_bytes(before)
        with _named(local, file):
            yield local
        after = local.read_bytes() if local.exists() else None
        if after is not None and after != before:
            file.write_bytes(after)
        elif after is None and before is not None:
            file.parent.remove([file.name])


@contextmanager
def _named(local: Path, file: URL) -> Iterator[None]:
    """Let errors of the block name the file in the store, and not the temporary one."""
    try:
        yield
    except CarmaskError as error:
        raise type(error)(str(error).replace(str(local), str(file))) from error


def _read_header(journal: URL) -> bytes | None:
    """Return the first line of a journal in a store; None without one."""
    head = journal.read_if_exists(_MAX_HEADER_BYTES)
    return None if head is None else head.partition(b"\n")[0] + b"\n"
