"""Digests of the content of photos and masks, remembered so that a second start reads none of them."""

import hashlib
import json
import stat
from collections.abc import Callable, Sequence
from pathlib import Path

from pydantic import TypeAdapter

from carmask.data.pairs import Pair
from carmask.files import write_bytes_atomically

# Size, time of change and SHA-256 of a file, by its path.
_Known = TypeAdapter(dict[str, tuple[int, int, str]])


def read_digests(pairs: Sequence[Pair], memory: Path, wants_stop: Callable[[], bool]) -> list[list[str]]:
    """Id, digest of the photo and digest of the mask (SHA-256 of their content) of each pair, in their order.

    Files whose size and time of change are known from `memory` are not read again. Once something new was read,
    `wants_stop` is asked before each pair; where it says so, the rest is missing.

    Raises:
        UnwritableFile: `memory` cannot be written.

    """
    try:
        known = _Known.validate_json(memory.read_bytes())
    except (OSError, ValueError):
        known = {}
    read: list[str] = []

    def digest(source: Path | str) -> str:
        if isinstance(source, str):
            return hashlib.sha256(source.encode()).hexdigest()
        name = str(source.absolute())
        try:
            status = source.stat()
            if not stat.S_ISREG(status.st_mode):  # reading a named pipe or a device might never end
                return "unreadable: not a plain file"
            if known.get(name, ())[:2] != (status.st_size, status.st_mtime_ns):
                with source.open("rb") as file:
                    content = hashlib.file_digest(file, "sha256").hexdigest()
                read.append(name)
                known[name] = (status.st_size, status.st_mtime_ns, content)
        except OSError as error:
            return f"unreadable: {error.strerror}"
        return known[name][2]

    result = []
    for pair in pairs:
        if read and wants_stop():
            break
        result.append([pair.id, digest(pair.image), digest(pair.mask)])
    if read or not memory.exists():
        write_bytes_atomically(memory, json.dumps(known).encode())
    return result
