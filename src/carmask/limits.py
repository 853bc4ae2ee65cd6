"""What this process may take of its machine, which in a container is less than there is.

`docker run --cpus --memory`, Kubernetes and systemd set their limits on groups of processes, which Linux tells of in
files (control groups, version 2: https://docs.kernel.org/admin-guide/cgroup-v2.html). What counts CPUs or asks for free
memory elsewhere is told of the whole machine.
"""

import math
import os
from collections.abc import Iterator
from pathlib import Path

# Where nothing tells of memory.
_ASSUMED_BYTES = 4 << 30
_ROOT = Path("/")


def usable_cpus(root: Path = _ROOT) -> int:
    """How many CPUs' time this process may take; files of the system are looked for below `root`."""
    return cpu_quota(root) or _cpus()


def cpu_quota(root: Path = _ROOT) -> int | None:
    """So many CPUs' time, rounded up, where a group may take less of it than there are CPUs; nothing elsewhere.

    Libraries that start a thread for each CPU do not know of it.
    """
    allowed = [math.ceil(cpus) for group in _groups(root) if (cpus := _cpus_of(group)) is not None]
    quota = min(allowed, default=None)
    return quota if quota is not None and quota < _cpus() else None


def free_memory_bytes(root: Path = _ROOT) -> int:
    """Memory that this process may still take; files of the system are looked for below `root`."""
    free_of_groups = (_free_bytes_of(group) for group in _groups(root))
    return min([_free_bytes_of_machine(root), *(free for free in free_of_groups if free is not None)])


def _cpus() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _groups(root: Path) -> Iterator[Path]:
    """Folders that tell of the group of this process and of those around it, as far as they are to be seen here."""
    lines = (_read(root / "proc/self/cgroup") or "").splitlines()
    own = next((line.removeprefix("0::").strip("/") for line in lines if line.startswith("0::")), None)
    if own is not None:
        top = root / "sys/fs/cgroup"
        # In a container the path may be the host's and the folder the container's own: then its top alone is there.
        yield from (top / group for group in (Path(own), *Path(own).parents))


def _cpus_of(group: Path) -> float | None:
    """Its `cpu.max` is a time in each period, or "max"."""
    words = (_read(group / "cpu.max") or "max").split()
    return None if words[0] == "max" else int(words[0]) / int(words[1])


def _free_bytes_of(group: Path) -> int | None:
    limit, taken = (_read(group / f"memory.{which}") for which in ("max", "current"))
    if limit is None or taken is None or limit == "max":
        return None
    # Pages that are only kept for files count as taken, and are given up when they are needed.
    kept = _fields(_read(group / "memory.stat") or "")
    kept_bytes = sum(int(kept.get(name, 0)) for name in ("active_file", "inactive_file"))
    return max(0, int(limit) - int(taken) + kept_bytes)


def _free_bytes_of_machine(root: Path) -> int:
    # What Linux calls free leaves out the pages that it only keeps for files, of which a cache makes many.
    available = _fields(_read(root / "proc/meminfo") or "").get("MemAvailable:")
    if available is not None:
        return int(available) * 1024
    try:
        return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (ValueError, OSError, AttributeError):
        return _ASSUMED_BYTES


def _fields(text: str) -> dict[str, str]:
    """The first word of each line, and the second."""
    return {words[0]: words[1] for line in text.splitlines() if len(words := line.split()) > 1}


def _read(path: Path) -> str | None:
    try:
        return path.read_text(encoding="ascii").strip()
    except OSError:
        return None
