"""The CPUs and the memory that this process may use, less in a container than the machine has, and pixels of a picture.

`docker run --cpus --memory`, Kubernetes and systemd set limits on control groups, version 2
(https://docs.kernel.org/admin-guide/cgroup-v2.html). `os.cpu_count` and most libraries do not know them.

Functions of CPUs and memory take `root`, the folder of the system's files, for tests.
"""

import math
import os
from collections.abc import Iterator
from pathlib import Path

from carmask.errors import CarmaskError

DEFAULT_MAX_PIXELS = 100_000_000
# What `--max-pixels` sets. The processes that a command starts inherit it.
MAX_PIXELS_VARIABLE = "CARMASK_MAX_PIXELS"

# Where the system does not say how much memory is free.
_ASSUMED_BYTES = 4 << 30
_ROOT = Path("/")


def max_pixels() -> int:
    """Return how many pixels a picture may have.

    Raises:
        CarmaskError: the environment does not hold a number of pixels.
    """
    text = os.environ.get(MAX_PIXELS_VARIABLE, str(DEFAULT_MAX_PIXELS))
    if not text.isdecimal() or not int(text):
        raise CarmaskError(f"--max-pixels (or {MAX_PIXELS_VARIABLE}) {text}: give a number of pixels, like 200000000")
    return int(text)


def usable_cpus(root: Path = _ROOT) -> int:
    """Return the number of CPUs that this process may use."""
    return cpu_quota(root) or _cpus()


def cpu_quota(root: Path = _ROOT) -> int | None:
    """Return the CPU limit of the control group, rounded up; None if there is none below the number of CPUs.

    Libraries that start a thread per CPU do not respect it.
    """
    quotas = [math.ceil(cpus) for group in _cgroups(root) if (cpus := _cpu_limit(group)) is not None]
    quota = min(quotas, default=None)
    return quota if quota is not None and quota < _cpus() else None


def free_memory_bytes(root: Path = _ROOT) -> int:
    """Return the memory that this process may still allocate."""
    free_in_groups = (_free_bytes_in_cgroup(group) for group in _cgroups(root))
    return min([_free_bytes_of_machine(root), *(free for free in free_in_groups if free is not None)])


def _cpus() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _cgroups(root: Path) -> Iterator[Path]:
    """Yield the folders of this process's control group and of its parents, as far as they are visible here."""
    lines = (_read(root / "proc/self/cgroup") or "").splitlines()
    own = next((line.removeprefix("0::").strip("/") for line in lines if line.startswith("0::")), None)
    if own is not None:
        top = root / "sys/fs/cgroup"
        # In a container the path may be the host's while the folder is the container's own: then only `top` exists.
        yield from (top / group for group in (Path(own), *Path(own).parents))


def _cpu_limit(group: Path) -> float | None:
    # cpu.max holds "quota period" in microseconds, or "max period".
    words = (_read(group / "cpu.max") or "max").split()
    return None if words[0] == "max" else int(words[0]) / int(words[1])


def _free_bytes_in_cgroup(group: Path) -> int | None:
    limit, used = (_read(group / f"memory.{name}") for name in ("max", "current"))
    if limit is None or used is None or limit == "max":
        return None
    # The page cache counts as used, but the kernel reclaims it when memory is needed.
    stat = _fields(_read(group / "memory.stat") or "")
    cached_bytes = sum(int(stat.get(name, 0)) for name in ("active_file", "inactive_file"))
    return max(0, int(limit) - int(used) + cached_bytes)


def _free_bytes_of_machine(root: Path) -> int:
    # Not MemFree, which leaves out the page cache, large after the cache of fitted photos was written.
    available = _fields(_read(root / "proc/meminfo") or "").get("MemAvailable:")
    if available is not None:
        return int(available) * 1024
    try:
        return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (ValueError, OSError, AttributeError):
        return _ASSUMED_BYTES


def _fields(text: str) -> dict[str, str]:
    """Map the first word of each line to the second."""
    return {words[0]: words[1] for line in text.splitlines() if len(words := line.split()) > 1}


def _read(path: Path) -> str | None:
    try:
        return os.fsdecode(path.read_bytes()).strip()
    except OSError:
        return None
