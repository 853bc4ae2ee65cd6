"""Results in object stores: s3://bucket/masks, gs://..., az://... A file appears there whole or not at all.

A store can replace a file, but cannot append to one. Each process therefore writes its journal in segments, objects of
their own beside the results, and when a run begins or ends they are merged into the one journal that a folder on a disk
has, with the same bytes.
"""

import os
import secrets
import socket
import tempfile
import threading
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Self

from carmask.errors import CarmaskError
from carmask.pipeline.jobs import BadDestination, Job, Jobs, Shard
from carmask.pipeline.journal import (
    Entry,
    Journal,
    Provenance,
    entry_line,
    header_line,
    other_provenance,
    parse_provenance,
    read_entries,
    read_provenance,
)
from carmask.pipeline.kinds import TableKind
from carmask.pipeline.render import Render
from carmask.pipeline.sinks import OpenRemotely, Put, Sink, find_undone, journal_stem, read_journals, result_entry
from carmask.pipeline.tables import TableFile, open_table, part_of
from carmask.pipeline.urls import URL
from carmask.result import Result

# A request to a store takes as long as a photo, or ten times as long.
_UPLOADS = 32
# Lines of a journal are written together, as many as come in this time; the last ones are not waited for as long.
_GATHER_S, _PAUSE_S = 0.5, 0.15
_GATHERED = 32
_SEGMENT_LINES, _SEGMENT_BYTES = 256, 65536
_TABLE_ROWS = "rows"
_MAX_HEADER_BYTES = 65536


class SegmentWriter:
    """Writes results into a store from threads of its own, and notes each in the journal of this process before."""

    def __init__(self, folder: URL, stem: str, provenance: Provenance) -> None:
        """`folder` and `stem` are those of the journal, as in `merge_segments`."""
        self._folder, self._header = folder, header_line(provenance)
        self._name = f"{stem}+{secrets.token_hex(4)}"
        self._number, self._lines, self._closed = 1, b"", False
        self._waiting: list[tuple[bytes, URL | None, bytes, Future[None]]] = []
        self._wake = threading.Condition()
        self._uploads = ThreadPoolExecutor(_UPLOADS, "upload")
        self._thread = threading.Thread(target=self._write_segments, name="journal")
        self._thread.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def put(self, entry: Entry, file: URL | None = None, data: bytes = b"") -> "Future[None]":
        """Note a result and then write its file, if there is one; the future is done when both are in the store."""
        done: Future[None] = Future()
        with self._wake:
            self._waiting.append((entry_line(entry), file, data, done))
            self._wake.notify()
        return done

    def close(self) -> None:
        """Wait until everything is in the store."""
        with self._wake:
            self._closed = True
            self._wake.notify()
        self._thread.join()
        self._uploads.shutdown()

    def _write_segments(self) -> None:
        while True:
            with self._wake:
                self._wake.wait_for(lambda: self._waiting or self._closed)
                self._gather()
                batch, self._waiting = self._waiting, []
            if not batch:
                return
            self._write_batch(batch)

    def _gather(self) -> None:
        """Wait while lines come; returns at once when the writer is closed."""
        end_s = time.monotonic() + _GATHER_S
        before = 0
        while before < len(self._waiting) < _GATHERED and not self._closed and time.monotonic() < end_s:
            before = len(self._waiting)
            self._wake.wait(_PAUSE_S)

    def _write_batch(self, batch: list[tuple[bytes, URL | None, bytes, "Future[None]"]]) -> None:
        self._lines += b"".join(line for line, *_ in batch)
        try:
            # The journal first: a result that no journal knows is taken for somebody else's file.
            (self._folder / f"{self._name}-{self._number:06}.jsonl").write_bytes(self._header + self._lines)
        except Exception as error:  # noqa: BLE001 - raised where the futures are waited for
            for *_, done in batch:
                done.set_exception(error)
            return
        if len(self._lines) >= _SEGMENT_BYTES or self._lines.count(b"\n") >= _SEGMENT_LINES:
            self._number, self._lines = self._number + 1, b""
        for _, file, data, done in batch:
            if file is None:
                done.set_result(None)
            else:
                self._uploads.submit(_write_file, file, data, done)


def _write_file(file: URL, data: bytes, done: "Future[None]") -> None:
    try:
        file.write_bytes(data)
    except Exception as error:  # noqa: BLE001 - raised where the future is waited for
        done.set_exception(error)
    else:
        done.set_result(None)


def merge_segments(folder: URL, stem: str, provenance: Provenance, key: str | None = None) -> None:
    """Merge the segments of all processes into the journal `stem`.jsonl; `key` sorts it, see `Journal.sort`.

    Lines of another provenance are dropped.

    Raises:
        UnwritableStore: there is no such bucket, or it cannot be written to.
    """
    names = sorted(name for name in folder.files_below() if _is_journal(name, f"{stem}+"))
    with tempfile.TemporaryDirectory(prefix="carmask-journal-") as place:
        whole = f"{stem}.jsonl"
        _download(folder, [whole, *names], Path(place))
        with Journal(Path(place, whole), provenance) as journal:
            for name in names:
                if read_provenance(Path(place, name)) == provenance:
                    for _, entry in read_entries(Path(place, name)):
                        journal.add(entry)
            if key is not None:
                journal.sort(key)
        (folder / whole).write_bytes(Path(place, whole).read_bytes(), tries=3)
    folder.remove(names)


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
    head = (path / f"{journal}.jsonl").read_if_exists(_MAX_HEADER_BYTES) or b""
    if parse_provenance(head.partition(b"\n")[0] + b"\n") != provenance:
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
    journals = [name for name in files if _is_journal(name, stem)]
    with tempfile.TemporaryDirectory(prefix="carmask-journal-") as place:
        folder = Path(place)
        _download(path, journals, folder)
        written = read_journals(folder, path, stem, provenance, files.__contains__, overwrite)
        todo, outdated, empty, dice = find_undone(path, jobs, written, files.get, overwrite=overwrite)
        foreign = [name for name in journals if not (folder / name).exists()]
    journal = f"{stem}{shard.suffix}"
    merge_segments(path, journal, provenance)
    path.remove([name for name in foreign if name != f"{journal}.jsonl" and not _is_journal(name, f"{journal}+")])
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
    head = (folder / f"{_TABLE_ROWS}.jsonl").read_if_exists(_MAX_HEADER_BYTES)
    if overwrite:
        folder.remove(found)
    elif head is not None:
        earlier = parse_provenance(head.partition(b"\n")[0] + b"\n")
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


def _is_journal(name: str, stem: str) -> bool:
    return name.startswith(stem) and name.endswith(".jsonl") and "/" not in name


def _download(folder: URL, names: Iterable[str], place: Path) -> None:
    """Copy files of a store into a folder, as far as they are still there."""

    def copy(name: str) -> None:
        data = (folder / name).read_if_exists()
        if data is not None:
            (place / name).write_bytes(data)

    with ThreadPoolExecutor(_UPLOADS, "download") as pool:
        list(pool.map(copy, names))
