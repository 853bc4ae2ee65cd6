"""A cache that is damaged, stopped or killed while it is built, or made of files that cannot be used."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tiny_cache import KEY, assert_right, pairs_of, relabel

from carmask.data.cache import CacheKey
from carmask.data.cache_build import CacheError, CacheUnfinished, open_cache
from carmask.imaging.geometry import Geometry
from carmask.limits import MAX_PIXELS_VARIABLE

OPEN = """
import os, signal, sys
from pathlib import Path
from carmask.data.cache import CacheKey
from carmask.data.cache_build import open_cache
from carmask.data.pairs import find_pairs

data, folder, key, killed_at = sys.argv[1:]

def progress(done, total):
    if str(done) == killed_at:
        os.kill(os.getpid(), signal.SIGKILL)

key = CacheKey.model_validate_json(key)
print(*open_cache(find_pairs(data).pairs, key, Path(folder), progress=progress).failures)
"""


def open_in_a_process(data: Path, folder: Path, killed_at: int | None = None) -> subprocess.CompletedProcess[str]:
    """Print the ids of the failures; `killed_at`: after how many photos the process is killed."""
    command = [sys.executable, "-c", OPEN, str(data), str(folder), KEY.model_dump_json(), str(killed_at)]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)


def test_pairs_that_can_be_used_now_are_decoded(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pairs = pairs_of(data)[:3]
    monkeypatch.setenv(MAX_PIXELS_VARIABLE, str(90 * 60 - 1))
    cache = open_cache(pairs, KEY, tmp_path / "cache")
    assert set(cache.failures) == {pair.id for pair in pairs}
    assert not open_cache(pairs, KEY, tmp_path / "cache").fresh
    monkeypatch.delenv(MAX_PIXELS_VARIABLE)
    allowed = open_cache(pairs, KEY, tmp_path / "cache")
    assert allowed.fresh
    assert allowed.folder == cache.folder
    assert_right(allowed, pairs)
    assert not open_cache(pairs, KEY, tmp_path / "cache").fresh


def flip_a_byte(place: Path, name: str) -> None:
    with (place / name).open("r+b") as file:
        file.seek(-1000, os.SEEK_END)
        byte = file.read(1)[0]
        file.seek(-1000, os.SEEK_END)
        file.write(bytes([byte ^ 1]))


def change_a_row_in_the_notes(place: Path) -> None:
    text = (place / "cache.json").read_text()
    assert '"car0_01": 0' in text
    changed = text.replace('"car0_01": 0', '"car0_01": 9', 1)
    assert json.loads(changed) != json.loads(text)
    (place / "cache.json").write_text(changed)


DAMAGES: dict[str, Callable[[Path], object]] = {
    "a flipped bit in the images": lambda place: flip_a_byte(place, "images.npy"),
    "a flipped bit in the masks": lambda place: flip_a_byte(place, "masks.npy"),
    "cut masks": lambda place: os.truncate(place / "masks.npy", 5000),
    "empty images": lambda place: (place / "images.npy").write_bytes(b""),
    "no images": lambda place: (place / "images.npy").unlink(),
    "no notes": lambda place: (place / "cache.json").unlink(),
    "cut notes": lambda place: os.truncate(place / "cache.json", 40),
    "notes of another kind": lambda place: (place / "cache.json").write_text("[]"),
    "notes without rows": lambda place: (place / "cache.json").write_text("{}"),
    "notes that are no text": lambda place: (place / "cache.json").write_bytes(b"\xff\xfe\x00"),
    "wrong rows in the notes": change_a_row_in_the_notes,
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_cache_is_built_again(tiny: Path, tmp_path: Path, damage: str) -> None:
    pairs = pairs_of(tiny)
    place = open_cache(pairs, KEY, tmp_path).folder
    DAMAGES[damage](place)
    again = open_cache(pairs, KEY, tmp_path)
    assert again.fresh
    assert again.folder == place
    assert_right(again, pairs)
    assert not open_cache(pairs, KEY, tmp_path).fresh


@pytest.mark.parametrize("content", [b"", b"[]", b'{"a": null}', b'{"a": [1]}', b"\xff"])
def test_damaged_digests_are_made_again(tiny: Path, tmp_path: Path, content: bytes) -> None:
    pairs = pairs_of(tiny)
    place = open_cache(pairs, KEY, tmp_path).folder
    digests = tmp_path / "digests.json"
    if b'"a"' in content:
        content = content.replace(b'"a"', json.dumps(str(pairs[0].image)).encode())
    digests.write_bytes(content)
    again = open_cache(pairs, KEY, tmp_path)
    assert (again.folder, again.fresh) == (place, False)


@pytest.mark.skipif(os.name != "posix", reason="needs named pipes and devices")
def test_what_would_never_end_is_not_read(data: Path, tmp_path: Path) -> None:
    pairs = pairs_of(data)[:4]
    for path in (pairs[0].image, pairs[1].image, pairs[2].mask):
        assert isinstance(path, Path)
        path.unlink()
    os.mkfifo(pairs[0].image)
    pairs[1].image.symlink_to("/dev/zero")
    os.mkfifo(pairs[2].mask)
    # In a process of its own: a read that never returns could not be given up here.
    result = open_in_a_process(data, tmp_path / "cache")
    assert (result.returncode, result.stdout.split()) == (0, [pair.id for pair in pairs[:3]]), result.stderr


def test_pairs_that_cannot_be_used_are_named_and_the_rest_is_there(data: Path, tmp_path: Path) -> None:
    pairs = pairs_of(data)
    os.truncate(pairs[3].image, 700)
    os.truncate(pairs[4].mask, 50)
    Image.new("L", (40, 40), 255).save(pairs[7].mask)
    pairs[9].image.unlink()
    cache = open_cache(pairs, KEY, tmp_path / "cache")
    bad = {pairs[place].id for place in (3, 4, 7, 9)}
    assert set(cache.failures) == bad
    assert pairs[3].image.name in cache.failures[pairs[3].id]
    assert pairs[4].mask.name in cache.failures[pairs[4].id]
    assert "40 x 40" in cache.failures[pairs[7].id]
    assert pairs[9].image.name in cache.failures[pairs[9].id]
    assert_right(cache, tuple(pair for pair in pairs if pair.id not in bad))
    again = open_cache(pairs, KEY, tmp_path / "cache")
    assert (again.fresh, again.failures) == (False, cache.failures)


@pytest.mark.skipif(os.name != "posix", reason="needs SIGKILL")
def test_a_killed_build_leaves_nothing_that_is_trusted(tiny: Path, tmp_path: Path) -> None:
    assert open_in_a_process(tiny, tmp_path, killed_at=3).returncode == -signal.SIGKILL
    (leftover,) = tmp_path.glob("*.partial")
    (tmp_path / "film.partial").mkdir()
    pairs = pairs_of(tiny)
    cache = open_cache(pairs, KEY, tmp_path)
    assert cache.fresh
    assert_right(cache, pairs)
    assert leftover.is_dir(), "it may be a build that is going on"

    for folder in (leftover, tmp_path / "film.partial"):
        os.utime(folder, (time.time() - 25 * 60 * 60,) * 2)
    open_cache(pairs[:2], KEY, tmp_path)
    assert [path.name for path in tmp_path.glob("*.partial")] == ["film.partial"], "not ours, so not to be removed"


def test_a_build_that_is_stopped_goes_on(data: Path, tmp_path: Path) -> None:
    pairs = pairs_of(data)
    os.truncate(data / "train" / "car0_02.jpg", 100)
    whole = open_cache(pairs, KEY, tmp_path / "whole")
    counts: list[int] = []
    said: list[str] = []
    while len(said) < 99:
        # Going on is never too late.
        for stopped in tmp_path.glob("parts/*.partial"):
            os.utime(stopped, (time.time() - 25 * 60 * 60,) * 2)
        try:
            cache = open_cache(
                pairs,
                KEY,
                tmp_path / "parts",
                progress=lambda done, _: counts.append(done),
                wants_stop=lambda: True,
            )
            break
        except CacheUnfinished as error:
            said.append(str(error))
    # However little time there is, a photo is read each time, and then one is decoded, none of them twice.
    assert counts == list(range(1, 25))
    assert said == [f"{done} of 24 photos are {what}" for what in ("read", "decoded") for done in range(1, 24)]
    assert (cache.folder.name, cache.row_of, cache.area_of) == (whole.folder.name, whole.row_of, whole.area_of)
    assert (cache.failures, cache.rules, cache.odd) == (whole.failures, whole.rules, whole.odd)
    assert list(cache.failures) == ["car0_02"]
    np.testing.assert_array_equal(cache.images_NHWC, whole.images_NHWC)
    np.testing.assert_array_equal(cache.masks_NHW, whole.masks_NHW)
    assert sorted(path.name for path in (tmp_path / "parts").iterdir()) == sorted([cache.folder.name, "digests.json"])


@pytest.mark.parametrize("damage", ["images.npy", "stopped.json"])
def test_a_stopped_build_that_is_damaged_is_begun_anew(tiny: Path, tmp_path: Path, damage: str) -> None:
    pairs = pairs_of(tiny)
    counts: list[int] = []
    with pytest.raises(CacheUnfinished, match="5 of 24"):
        open_cache(
            pairs, KEY, tmp_path, progress=lambda done, _: counts.append(done), wants_stop=lambda: len(counts) == 5
        )
    counts.clear()
    (stopped,) = tmp_path.glob("*.partial")
    os.truncate(stopped / damage, 300)
    cache = open_cache(pairs, KEY, tmp_path, progress=lambda done, _: counts.append(done))
    assert_right(cache, pairs)
    assert counts == list(range(1, 25))
    assert not stopped.exists()


@pytest.mark.parametrize("at", [3, 24])
def test_an_interrupted_build_goes_on(tiny: Path, tmp_path: Path, at: int) -> None:
    def interrupt(done: int, _total: int) -> None:
        if done == at:
            raise KeyboardInterrupt

    pairs = pairs_of(tiny)
    counts: list[int] = []
    with pytest.raises(KeyboardInterrupt):
        open_cache(pairs, KEY, tmp_path, progress=interrupt)
    cache = open_cache(pairs, KEY, tmp_path, progress=lambda done, _: counts.append(done))
    assert_right(cache, pairs)
    assert counts == list(range(at + 1, 25))
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([cache.folder.name, "digests.json"])


def test_a_cache_that_cannot_be_written_is_an_error_of_its_own(tiny: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(CacheError):
        open_cache(pairs_of(tiny), KEY, tmp_path / "file" / "cache")
    # 24 x 8192 x 8192 x 4 bytes, a thousand times: more than any disk of a test machine has.
    huge = CacheKey(geometry=Geometry(height_px=8192, width_px=8192), channels=3)
    with pytest.raises(CacheError, match=r"6442\.5 GB"):
        open_cache(pairs_of(tiny) * 1000, huge, tmp_path / "cache")


def test_a_stopped_build_keeps_what_is_unknown(data: Path, tmp_path: Path) -> None:
    pairs = [relabel(pair, tmp_path)[0] for pair in pairs_of(data)[:6]]
    key = KEY.model_copy(update={"ignore": 128})
    whole = open_cache(pairs, key, tmp_path / "whole")
    counts: list[int] = []
    with pytest.raises(CacheUnfinished, match="3 of 6"):
        open_cache(
            pairs,
            key,
            tmp_path / "parts",
            progress=lambda done, _: counts.append(done),
            wants_stop=lambda: len(counts) == 3,
        )
    cache = open_cache(pairs, key, tmp_path / "parts", progress=lambda done, _: counts.append(done))
    assert counts == [1, 2, 3, 4, 5, 6]
    assert 0 < cache.known_NHW.mean() < 250
    np.testing.assert_array_equal(cache.known_NHW, whole.known_NHW)

    flip_a_byte(cache.folder, "known.npy")
    again = open_cache(pairs, key, tmp_path / "parts")
    assert again.fresh
    np.testing.assert_array_equal(again.known_NHW, whole.known_NHW)
    (again.folder / "known.npy").unlink()
    assert open_cache(pairs, key, tmp_path / "parts").fresh
