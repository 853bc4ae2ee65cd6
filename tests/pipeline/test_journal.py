"""The journal of what is done, and what killed processes leave behind."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from carmask.files import remove_stale_temporary_files, write_bytes_atomically
from carmask.pipeline.jobs import Jobs, Shard
from carmask.pipeline.journal import Journal, JournalError, delete_journal, read_entries, read_provenance
from carmask.pipeline.origins import _digest_of_samples, describe_files
from carmask.pipeline.photo_list import PhotoList


def test_half_a_line_at_the_end_of_a_journal_is_dropped(tmp_path: Path) -> None:
    path = tmp_path / "sub" / "journal"
    recipe = {"kind": "mask"}
    with Journal(path, recipe) as journal:
        places = [journal.add({"n": number, "text": "x" * 70_000}) for number in range(3)]
    assert [(at, entry["n"]) for at, entry in read_entries(path)] == list(zip(places, range(3), strict=True))
    whole = path.read_bytes()
    for cut in (1, 50_000, 70_000, 140_100):
        path.write_bytes(whole[:-cut])
        with Journal(path, recipe) as journal:
            kept = [entry["n"] for _, entry in read_entries(path)]
            journal.add({"n": 9, "text": ""})
            assert [entry["n"] for _, entry in read_entries(path)] == [*kept, 9]
        assert kept == list(range(3 - -(-cut // 70_021)))
    path.write_bytes(whole[:10])
    assert read_provenance(path) is None
    with Journal(path, {"kind": "soft"}) as journal:
        assert list(read_entries(path)) == []
    assert read_provenance(path) == {"kind": "soft"}


def test_lines_that_a_power_failure_damaged_are_left_out(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    with Journal(path, {}) as opened:
        places = [opened.add({"n": number}) for number in range(3)]
    damaged = bytearray(path.read_bytes())
    damaged[places[1] : places[1] + 4] = bytes(4)
    path.write_bytes(damaged)
    assert [(at, entry["n"]) for at, entry in read_entries(path)] == [(places[0], 0), (places[2], 2)]
    with Journal(path, {}) as opened:
        opened.sort("n")
    assert [entry["n"] for _, entry in read_entries(path)] == [0, 2]
    path.write_bytes(b"[1]\n")
    assert read_provenance(path) is None


def test_a_journal_is_sorted_and_keeps_the_last_of_each(tmp_path: Path) -> None:
    with Journal(tmp_path / "journal", {}) as journal:
        for number, name in enumerate("cabca"):
            journal.add({"name": name, "n": number})
        journal.sort("name")
    assert [(entry["name"], entry["n"]) for _, entry in read_entries(tmp_path / "journal")] == [
        ("a", 4),
        ("b", 2),
        ("c", 3),
    ]
    assert [path.name for path in tmp_path.iterdir()] == ["journal"]


@pytest.mark.skipif(os.name != "posix", reason="Windows has no such locks")
def test_two_at_once_do_not_write_to_one_place(tmp_path: Path) -> None:
    with Journal(tmp_path / "journal", {}), pytest.raises(JournalError, match=r"journal.*--shard"):
        Journal(tmp_path / "journal", {})
    with Journal(tmp_path / "journal", {}), pytest.raises(JournalError, match="journal"):
        delete_journal(tmp_path / "journal")
    with Journal(tmp_path / "journal", {}):
        pass


@pytest.mark.skipif(os.name != "posix", reason="needs a process that can be asked for")
def test_only_what_killed_processes_left_is_removed(tmp_path: Path) -> None:
    program = (
        "import os, signal, sys; from carmask.files import atomic_write\n"
        "with atomic_write(sys.argv[1]) as stream:\n"
        "    stream.write(b'half'); stream.flush(); print(flush=True)\n"
        "    sys.stdin.read(); os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    command = [sys.executable, "-c", program, str(tmp_path / "a.png")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        (aside,) = tmp_path.iterdir()
        assert remove_stale_temporary_files([tmp_path, tmp_path / "gone"]) == 0
        assert aside.exists()
        process.communicate(b"")
    mine = tmp_path / ".carmask-notes.part"
    mine.touch()
    assert remove_stale_temporary_files([tmp_path]) == 1
    write_bytes_atomically(tmp_path / "a.png", b"whole")
    assert {path.name for path in tmp_path.iterdir()} == {"a.png", mine.name}
    # Of other machines nothing is known, but a day is long enough.
    other = tmp_path / ".carmask-00000000-1-00000000-00000000.part"
    other.touch()
    assert remove_stale_temporary_files([tmp_path]) == 0
    os.utime(other, (time.time() - 90_000, time.time() - 90_000))
    # One that cannot be removed, as another user's in /tmp, stops nobody.
    held = other.with_name(other.name.replace("-1-", "-2-"))
    held.mkdir()
    os.utime(held, (time.time() - 90_000, time.time() - 90_000))
    assert remove_stale_temporary_files([tmp_path]) == 1


def test_a_file_of_many_photos_is_read_once_until_it_changes(tmp_path: Path) -> None:
    labels = tmp_path / "labels.json"
    labels.write_text("first")
    names = ["a.jpg", "b.jpg", "c.jpg"]
    jobs = list(Jobs.plan(PhotoList(tmp_path, names, origins=[labels] * len(names)), ".png", Shard()))
    before = _digest_of_samples.cache_info().misses
    first = {describe_files(job) for job in jobs}
    assert _digest_of_samples.cache_info().misses == before + 1
    labels.write_text("other")
    assert first.isdisjoint(describe_files(job) for job in jobs)
    assert _digest_of_samples.cache_info().misses == before + 2
