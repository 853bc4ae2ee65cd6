"""Journals in object stores, which can replace a file, but cannot append to one.

Each process writes its journal in segments, objects of their own beside the results. When a run begins or ends they are
merged into the one journal that a folder on a disk has, with the same bytes.
"""

import secrets
import tempfile
import threading
import time
from collections.abc import Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Self

from carmask.pipeline.journal import Entry, Journal, entry_line, header_line, read_entries, read_provenance
from carmask.pipeline.provenance import Provenance
from carmask.pipeline.urls import URL

# A request to a store takes as long as a photo, or ten times as long.
_UPLOADS = 32
# Lines of a journal are written together, as many as come in this time; the last ones are not waited for as long.
_GATHER_S, _PAUSE_S = 0.5, 0.15
_GATHERED = 32
_SEGMENT_LINES, _SEGMENT_BYTES = 256, 65536


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
    names = sorted(name for name in folder.files_below() if is_journal(name, f"{stem}+"))
    with tempfile.TemporaryDirectory(prefix="carmask-journal-") as place:
        whole = f"{stem}.jsonl"
        download(folder, [whole, *names], Path(place))
        with Journal(Path(place, whole), provenance) as journal:
            for name in names:
                if read_provenance(Path(place, name)) == provenance:
                    for _, entry in read_entries(Path(place, name)):
                        journal.add(entry)
            if key is not None:
                journal.sort(key)
        (folder / whole).write_bytes(Path(place, whole).read_bytes(), tries=3)
    folder.remove(names)


def is_journal(name: str, stem: str) -> bool:
    """Whether a file in a folder of results is a journal, or a segment of one, whose name begins like this."""
    return name.startswith(stem) and name.endswith(".jsonl") and "/" not in name


def download(folder: URL, names: Iterable[str], place: Path) -> None:
    """Copy files of a store into a folder, as far as they are still there."""

    def copy(name: str) -> None:
        data = (folder / name).read_if_exists()
        if data is not None:
            (place / name).write_bytes(data)

    with ThreadPoolExecutor(_UPLOADS, "download") as pool:
        list(pool.map(copy, names))
