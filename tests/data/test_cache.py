import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from carmask.data.cache import Cache, CacheError, CacheRecipe, open_cache
from carmask.data.pairs import Pair, find_pairs
from carmask.imaging.decode import decode_photo
from carmask.imaging.geometry import Geometry, fit_image, fit_mask, plan

RECIPE = CacheRecipe(geometry=Geometry(height_px=30, width_px=50), channels=3, stride_px=4)


@pytest.fixture
def data(tiny: Path, tmp_path: Path) -> Path:
    """A copy of the tiny data set that a test may damage."""
    return shutil.copytree(tiny, tmp_path / "data")


def pairs_of(data: Path) -> tuple[Pair, ...]:
    return find_pairs(data).pairs


def by_hand(pair: Pair, recipe: CacheRecipe = RECIPE) -> tuple[np.ndarray, np.ndarray]:
    assert isinstance(pair.mask, Path)
    mask_HW = np.array(Image.open(pair.mask)) * np.uint8(255)
    placement = plan(mask_HW.shape, recipe.geometry, stride_px=recipe.stride_px)
    image_HWC = decode_photo(pair.image, channels=recipe.channels).image_HWC
    return fit_image(image_HWC, placement), fit_mask(mask_HW, placement)


def assert_right(cache: Cache, pairs: tuple[Pair, ...], recipe: CacheRecipe = RECIPE) -> None:
    assert set(cache.row_of) == {pair.id for pair in pairs}
    for pair in pairs:
        image_HWC, mask_HW = by_hand(pair, recipe)
        np.testing.assert_array_equal(cache.images_NHWC[cache.row_of[pair.id]], image_HWC)
        np.testing.assert_array_equal(cache.masks_NHW[cache.row_of[pair.id]], mask_HW)


def wipe_unnoticed(path: Path) -> None:
    """With size and time as before nothing tells of the damage but reading the file."""
    before = path.stat()
    path.write_bytes(bytes(before.st_size))
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


OPEN = """
import os, signal, sys
from pathlib import Path
from carmask.data.cache import CacheRecipe, open_cache
from carmask.data.pairs import find_pairs

data, folder, recipe, killed_at = sys.argv[1:]

def progress(done, total):
    if str(done) == killed_at:
        os.kill(os.getpid(), signal.SIGKILL)

recipe = CacheRecipe.model_validate_json(recipe)
print(*open_cache(find_pairs(data).pairs, recipe, Path(folder), progress=progress).failures)
"""


def open_in_a_process(data: Path, folder: Path, killed_at: int | None = None) -> subprocess.CompletedProcess[str]:
    """Print the ids of the failures; `killed_at`: after how many photos the process is killed."""
    command = [sys.executable, "-c", OPEN, str(data), str(folder), RECIPE.model_dump_json(), str(killed_at)]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("keep_aspect", [False, True])
def test_rows_are_the_fitted_photos_and_masks(tiny: Path, tmp_path: Path, channels: int, keep_aspect: bool) -> None:
    geometry = Geometry(height_px=30, width_px=50, keep_aspect=keep_aspect)
    recipe = CacheRecipe(geometry=geometry, channels=channels, stride_px=16)
    pairs = pairs_of(tiny)
    cache = open_cache(pairs, recipe, tmp_path)
    assert cache.fresh
    assert not cache.failures
    assert cache.images_NHWC.shape == (24, 32, 64, channels)
    assert isinstance(cache.images_NHWC, np.memmap)
    assert isinstance(cache.masks_NHW, np.memmap)
    assert_right(cache, pairs, recipe)
    for pair in pairs:
        assert cache.area_of[pair.id] == pytest.approx(np.array(Image.open(pair.mask)).mean(), abs=1e-6)
    assert (list(cache.rules.values()), cache.odd) == ([24], {})


def test_a_second_start_reads_no_photo(data: Path, tmp_path: Path) -> None:
    pairs = pairs_of(data)
    calls: list[tuple[int, int]] = []

    def progress(done: int, total: int) -> None:
        calls.append((done, total))

    first = open_cache(pairs, RECIPE, tmp_path / "cache", progress=progress)
    assert calls == [(done, 24) for done in range(1, 25)]
    images_NHWC = first.images_NHWC.copy()
    for pair in pairs:
        wipe_unnoticed(pair.image)
    second = open_cache(pairs, RECIPE, tmp_path / "cache", progress=progress)
    assert not second.fresh
    assert len(calls) == 24
    np.testing.assert_array_equal(second.images_NHWC, images_NHWC)
    assert (second.row_of, second.area_of) == (first.row_of, first.area_of)


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
    place = open_cache(pairs, RECIPE, tmp_path).folder
    DAMAGES[damage](place)
    again = open_cache(pairs, RECIPE, tmp_path)
    assert again.fresh
    assert again.folder == place
    assert_right(again, pairs)
    assert not open_cache(pairs, RECIPE, tmp_path).fresh


@pytest.mark.parametrize("content", [b"", b"[]", b'{"a": null}', b'{"a": [1]}', b"\xff"])
def test_damaged_digests_are_made_again(tiny: Path, tmp_path: Path, content: bytes) -> None:
    pairs = pairs_of(tiny)
    place = open_cache(pairs, RECIPE, tmp_path).folder
    digests = tmp_path / "digests.json"
    if b'"a"' in content:
        content = content.replace(b'"a"', json.dumps(str(pairs[0].image)).encode())
    digests.write_bytes(content)
    again = open_cache(pairs, RECIPE, tmp_path)
    assert (again.folder, again.fresh) == (place, False)


def test_a_changed_photo_is_another_cache(data: Path, tmp_path: Path) -> None:
    pairs = pairs_of(data)
    first = open_cache(pairs, RECIPE, tmp_path / "cache")
    Image.open(pairs[5].image).rotate(180).save(pairs[5].image, quality=95)
    second = open_cache(pairs, RECIPE, tmp_path / "cache")
    assert second.fresh
    assert second.folder != first.folder
    assert_right(second, pairs)
    assert (second.images_NHWC[5] != first.images_NHWC[5]).any()

    # From then on the changed photo is not read again either.
    wipe_unnoticed(pairs[5].image)
    assert open_cache(pairs, RECIPE, tmp_path / "cache").folder == second.folder


def test_a_changed_mask_is_another_cache(data: Path, tmp_path: Path) -> None:
    pairs = pairs_of(data)
    first = open_cache(pairs, RECIPE, tmp_path / "cache")
    Image.open(pairs[5].mask).transpose(Image.Transpose.FLIP_TOP_BOTTOM).save(pairs[5].mask)
    second = open_cache(pairs, RECIPE, tmp_path / "cache")
    assert second.folder != first.folder
    assert_right(second, pairs)


@pytest.mark.parametrize(
    "change",
    [
        {"geometry": Geometry(height_px=32, width_px=50)},
        {"geometry": Geometry(height_px=30, width_px=50, keep_aspect=True)},
        {"channels": 1},
        {"stride_px": 8},
        {"foreground": 1},
    ],
    ids=str,
)
def test_another_recipe_is_another_cache(tiny: Path, tmp_path: Path, change: dict[str, object]) -> None:
    pairs = pairs_of(tiny)[:2]
    first = open_cache(pairs, RECIPE, tmp_path)
    other = open_cache(pairs, RECIPE.model_copy(update=change), tmp_path)
    assert other.fresh
    assert other.folder != first.folder
    assert not open_cache(pairs, RECIPE, tmp_path).fresh


def test_run_lengths_are_masks_too(data: Path, tmp_path: Path) -> None:
    left_out, kept = pairs_of(data)[:2]
    mask_HW = np.zeros((60, 90), np.uint8)
    mask_HW[2, 10:40] = 255
    drawn = Pair(left_out.id, left_out.image, f"{2 * 90 + 10 + 1} 30", left_out.group)
    cache = open_cache([drawn, kept], RECIPE, tmp_path / "cache")
    np.testing.assert_array_equal(cache.masks_NHW[0], fit_mask(mask_HW, plan((60, 90), RECIPE.geometry, stride_px=4)))
    moved = Pair(left_out.id, left_out.image, f"{2 * 90 + 11 + 1} 30", left_out.group)
    assert open_cache([moved, kept], RECIPE, tmp_path / "cache").folder != cache.folder


def test_how_masks_were_read_is_kept_with_the_cache(data: Path, tmp_path: Path) -> None:
    pairs = pairs_of(data)[:5]
    classes_HW = np.zeros((60, 90), np.uint8)
    classes_HW[10:20], classes_HW[20:40] = 1, 2
    Image.fromarray(classes_HW).save(pairs[1].mask)
    os.truncate(pairs[4].mask, 50)
    cache = open_cache(pairs, RECIPE, tmp_path / "cache")
    usual, soft = cache.rules
    assert ("0 and 255" in usual, "soft" in soft) == (True, True)
    assert list(cache.rules.values()) == [3, 1]
    assert set(cache.odd) == {pairs[1].id}
    assert "class numbers" in cache.odd[pairs[1].id]
    again = open_cache(pairs, RECIPE, tmp_path / "cache")
    assert (again.fresh, again.rules, again.odd) == (False, cache.rules, cache.odd)
    chosen = open_cache(pairs, RECIPE.model_copy(update={"foreground": 1}), tmp_path / "cache")
    assert (chosen.odd, sum(chosen.rules.values())) == ({}, 4)


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
    cache = open_cache(pairs, RECIPE, tmp_path / "cache")
    bad = {pairs[place].id for place in (3, 4, 7, 9)}
    assert set(cache.failures) == bad
    assert pairs[3].image.name in cache.failures[pairs[3].id]
    assert pairs[4].mask.name in cache.failures[pairs[4].id]
    assert "40 x 40" in cache.failures[pairs[7].id]
    assert pairs[9].image.name in cache.failures[pairs[9].id]
    assert_right(cache, tuple(pair for pair in pairs if pair.id not in bad))
    again = open_cache(pairs, RECIPE, tmp_path / "cache")
    assert (again.fresh, again.failures) == (False, cache.failures)


def test_opening_side_by_side_is_harmless(tiny: Path, tmp_path: Path) -> None:
    pairs = pairs_of(tiny)
    for attempt in range(3):
        folder = tmp_path / str(attempt)
        with ThreadPoolExecutor(4) as pool:
            caches = [done.result() for done in [pool.submit(open_cache, pairs, RECIPE, folder) for _ in range(4)]]
        for cache in caches:
            assert_right(cache, pairs)
        assert sorted(path.name for path in folder.iterdir()) == sorted([caches[0].folder.name, "digests.json"])
        assert not open_cache(pairs, RECIPE, folder).fresh


@pytest.mark.skipif(os.name != "posix", reason="needs SIGKILL")
def test_a_killed_build_leaves_nothing_that_is_trusted(tiny: Path, tmp_path: Path) -> None:
    assert open_in_a_process(tiny, tmp_path, killed_at=3).returncode == -signal.SIGKILL
    (leftover,) = tmp_path.glob("*.partial")
    (tmp_path / "film.partial").mkdir()
    pairs = pairs_of(tiny)
    cache = open_cache(pairs, RECIPE, tmp_path)
    assert cache.fresh
    assert_right(cache, pairs)
    assert leftover.is_dir(), "it may be a build that is going on"

    for folder in (leftover, tmp_path / "film.partial"):
        os.utime(folder, (time.time() - 25 * 60 * 60,) * 2)
    open_cache(pairs[:2], RECIPE, tmp_path)
    assert [path.name for path in tmp_path.glob("*.partial")] == ["film.partial"], "not ours, so not to be removed"


def test_an_interrupted_build_cleans_up(tiny: Path, tmp_path: Path) -> None:
    def interrupt(done: int, _total: int) -> None:
        if done == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        open_cache(pairs_of(tiny), RECIPE, tmp_path, progress=interrupt)
    assert [path.name for path in tmp_path.iterdir()] == ["digests.json"]


def test_all_of_carvana_fits_on_disk(tiny: Path, tmp_path: Path) -> None:
    recipe = CacheRecipe(geometry=Geometry(height_px=256, width_px=384), channels=3, stride_px=32)
    few, all_ = (
        sum(file.stat().st_size for file in open_cache(pairs, recipe, tmp_path).folder.iterdir())
        for pairs in (pairs_of(tiny)[:4], pairs_of(tiny))
    )
    bytes_of_a_pair = (all_ - few) / 20
    assert bytes_of_a_pair >= 256 * 384 * 4
    assert few + 5088 * bytes_of_a_pair <= 2.1e9


def test_a_cache_that_cannot_be_written_is_an_error_of_its_own(tiny: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(CacheError, match="cannot be written"):
        open_cache(pairs_of(tiny), RECIPE, tmp_path / "file" / "cache")
    # 24 x 8192 x 8192 x 4 bytes, a thousand times: more than any disk of a test machine has.
    huge = CacheRecipe(geometry=Geometry(height_px=8192, width_px=8192), channels=3)
    with pytest.raises(CacheError, match=r"needs 6442\.5 GB"):
        open_cache(pairs_of(tiny) * 1000, huge, tmp_path / "cache")
