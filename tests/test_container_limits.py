"""Limits of containers, in the files of Linux control groups, version 2."""

import os
from pathlib import Path

import pytest

from carmask.limits import cpu_quota, free_memory_bytes, usable_cpus

GB = 1 << 30
# More than this machine has.
MANY = 1 << 20


def system(root: Path, groups: dict[str, dict[str, str]], *, own: str = "/", available_bytes: int = 64 * GB) -> Path:
    """Write the files of a system: its free memory, and the files of each control group, by path."""
    contents = {
        "proc/meminfo": f"MemTotal: {MANY} kB\nMemFree:  1 kB\nMemAvailable:   {available_bytes // 1024} kB\n",
        "proc/self/cgroup": f"1:cpu:/elsewhere\n0::{own}\n",
    }
    for group, files in groups.items():
        contents |= {f"sys/fs/cgroup/{group}/{name}": f"{content}\n" for name, content in files.items()}
    for name, content in contents.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content, encoding="utf-8")
    return root


def memory(limit: str, taken_bytes: int, *, of_files_bytes: int = 0) -> dict[str, str]:
    stat = f"anon {taken_bytes - of_files_bytes}\nfile {taken_bytes}\ninactive_file {of_files_bytes - 1}\nactive_file 1"
    return {"memory.max": limit, "memory.current": str(taken_bytes), "memory.stat": stat}


def test_this_machine_has_something() -> None:
    assert 1 << 26 < free_memory_bytes() < 1 << 50
    assert 1 <= usable_cpus() <= (os.cpu_count() or 1)


@pytest.mark.parametrize(
    ("groups", "own", "wanted_bytes"),
    [
        ({}, "/", 64 * GB),
        ({".": memory("max", 3 * GB)}, "/", 64 * GB),
        ({".": memory(str(4 * GB), 3 * GB)}, "/", GB),
        ({".": memory(str(4 * GB), 5 * GB)}, "/", 0),
        # The page cache is reclaimed when memory is needed.
        ({".": memory(str(4 * GB), 4 * GB, of_files_bytes=3 * GB)}, "/", 3 * GB),
        ({".": memory(str(128 * GB), GB)}, "/", 64 * GB),
        # The group around it has less left than the group itself.
        ({"pods": memory(str(4 * GB), 3 * GB), "pods/one": memory(str(3 * GB), GB)}, "/pods/one", GB),
        ({"pods": memory("max", 3 * GB), "pods/one": memory(str(3 * GB), GB)}, "/pods/one", 2 * GB),
        ({"pods/another": memory(str(GB), 0), "pods/one": {}}, "/pods/one", 64 * GB),
        # The path is the host's, and the folder the container's own.
        ({".": memory(str(2 * GB), GB)}, "/system.slice/docker-12ab.scope", GB),
    ],
)
def test_free_memory_is_what_groups_leave(
    groups: dict[str, dict[str, str]], own: str, wanted_bytes: int, tmp_path: Path
) -> None:
    assert free_memory_bytes(system(tmp_path, groups, own=own)) == wanted_bytes


@pytest.mark.parametrize(
    ("groups", "own", "wanted"),
    [
        ({}, "/", None),
        ({".": {"cpu.max": "max 100000"}}, "/", None),
        ({".": {"cpu.max": f"{MANY * 100000} 100000"}}, "/", None),
        ({".": {"cpu.max": "100000 100000"}}, "/", 1),
        ({".": {"cpu.max": "10000 20000"}}, "/", 1),
        ({"a": {"cpu.max": "30000 20000"}, "a/b": {"cpu.max": "max 20000"}, "a/b/c": {}}, "/a/b/c", 2),
        ({"a": {"cpu.max": "30000 20000"}, "a/b": {"cpu.max": "5000 10000"}}, "/a/b", 1),
        ({".": {"cpu.max": "100000 100000"}}, "/kubepods/pod1", 1),
        ({"größe": {"cpu.max": "100000 100000"}}, "/größe", 1),
    ],
)
def test_cpus_are_what_groups_allow(
    groups: dict[str, dict[str, str]], own: str, wanted: int | None, tmp_path: Path
) -> None:
    root = system(tmp_path, groups, own=own)
    everywhere = usable_cpus(tmp_path / "nothing")
    # What allows more than there is, as two CPUs on a machine of one, is no limit.
    assert cpu_quota(root) == (wanted if wanted is not None and wanted < everywhere else None)
    assert usable_cpus(root) == min(wanted or everywhere, everywhere)


def test_a_system_that_tells_nothing_has_something_too(tmp_path: Path) -> None:
    assert cpu_quota(tmp_path) is None
    assert usable_cpus(tmp_path) == usable_cpus()
    assert free_memory_bytes(tmp_path) > 1 << 26
