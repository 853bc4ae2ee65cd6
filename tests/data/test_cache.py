import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tiny_cache import KEY, assert_right, pairs_of, relabel

from carmask.data.cache import CacheKey
from carmask.data.cache_build import open_cache
from carmask.data.pairs import Pair
from carmask.imaging.geometry import Geometry, fit_known, fit_mask, plan


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("keep_aspect", [False, True])
def test_rows_are_the_fitted_photos_and_masks(tiny: Path, tmp_path: Path, channels: int, keep_aspect: bool) -> None:
    geometry = Geometry(height_px=30, width_px=50, keep_aspect=keep_aspect)
    key = CacheKey(geometry=geometry, channels=channels, stride_px=16)
    pairs = pairs_of(tiny)
    cache = open_cache(pairs, key, tmp_path)
    assert cache.fresh
    assert not cache.failures
    assert cache.images_NHWC.shape == (24, 32, 64, channels)
    assert isinstance(cache.images_NHWC, np.memmap)
    assert isinstance(cache.masks_NHW, np.memmap)
    assert_right(cache, pairs, key)
    for pair in pairs:
        assert cache.area_of[pair.id] == pytest.approx(np.array(Image.open(pair.mask)).mean(), abs=1e-6)
    assert (list(cache.rules.values()), cache.odd) == ([24], {})


def test_a_second_start_reads_no_photo(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pairs = pairs_of(data)
    calls: list[tuple[int, int]] = []

    def progress(done: int, total: int) -> None:
        calls.append((done, total))

    first = open_cache(pairs, KEY, tmp_path / "cache", progress=progress)
    assert calls == [(done, 24) for done in range(1, 25)]
    images_NHWC = first.images_NHWC.copy()
    monkeypatch.setattr("hashlib.file_digest", lambda *_: pytest.fail("a photo was read"))
    second = open_cache(pairs, KEY, tmp_path / "cache", progress=progress)
    assert not second.fresh
    assert len(calls) == 24
    np.testing.assert_array_equal(second.images_NHWC, images_NHWC)
    assert (second.row_of, second.area_of) == (first.row_of, first.area_of)


def test_a_changed_photo_is_another_cache(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pairs = pairs_of(data)
    first = open_cache(pairs, KEY, tmp_path / "cache")
    Image.open(pairs[5].image).rotate(180).save(pairs[5].image, quality=95)
    second = open_cache(pairs, KEY, tmp_path / "cache")
    assert second.fresh
    assert second.folder != first.folder
    assert_right(second, pairs)
    assert (second.images_NHWC[5] != first.images_NHWC[5]).any()

    # From then on the changed photo is not read again either.
    monkeypatch.setattr("hashlib.file_digest", lambda *_: pytest.fail("a photo was read"))
    assert open_cache(pairs, KEY, tmp_path / "cache").folder == second.folder


def test_photos_of_one_size_and_date_that_were_exchanged_are_another_cache(data: Path, tmp_path: Path) -> None:
    pairs = pairs_of(data)[:2]
    for pair in pairs:
        image = Image.open(pair.image)
        image.save(pair.image, "BMP")
        os.utime(pair.image, (1.6e9, 1.6e9))
    first = open_cache(pairs, KEY, tmp_path / "cache")
    pairs[0].image.rename(data / "aside")
    pairs[1].image.rename(pairs[0].image)
    (data / "aside").rename(pairs[1].image)
    second = open_cache(pairs, KEY, tmp_path / "cache")
    np.testing.assert_array_equal(second.images_NHWC[:], first.images_NHWC[::-1])


def test_a_changed_mask_is_another_cache(data: Path, tmp_path: Path) -> None:
    pairs = pairs_of(data)
    first = open_cache(pairs, KEY, tmp_path / "cache")
    Image.open(pairs[5].mask).transpose(Image.Transpose.FLIP_TOP_BOTTOM).save(pairs[5].mask)
    second = open_cache(pairs, KEY, tmp_path / "cache")
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
        {"ignore": 1},
    ],
    ids=str,
)
def test_another_key_is_another_cache(tiny: Path, tmp_path: Path, change: dict[str, object]) -> None:
    pairs = pairs_of(tiny)[:2]
    first = open_cache(pairs, KEY, tmp_path)
    other = open_cache(pairs, KEY.model_copy(update=change), tmp_path)
    assert other.fresh
    assert other.folder != first.folder
    assert not open_cache(pairs, KEY, tmp_path).fresh


def test_run_lengths_are_masks_too(data: Path, tmp_path: Path) -> None:
    left_out, kept = pairs_of(data)[:2]
    mask_HW = np.zeros((60, 90), np.uint8)
    mask_HW[2, 10:40] = 255
    drawn = Pair(left_out.id, left_out.image, f"{2 * 90 + 10 + 1} 30", left_out.group)
    cache = open_cache([drawn, kept], KEY, tmp_path / "cache")
    np.testing.assert_array_equal(cache.masks_NHW[0], fit_mask(mask_HW, plan((60, 90), KEY.geometry, stride_px=4)))
    moved = Pair(left_out.id, left_out.image, f"{2 * 90 + 11 + 1} 30", left_out.group)
    assert open_cache([moved, kept], KEY, tmp_path / "cache").folder != cache.folder


def test_how_masks_were_read_is_kept_with_the_cache(data: Path, tmp_path: Path) -> None:
    pairs = pairs_of(data)[:5]
    classes_HW = np.zeros((60, 90), np.uint8)
    classes_HW[10:20], classes_HW[20:40] = 1, 2
    Image.fromarray(classes_HW).save(pairs[1].mask)
    os.truncate(pairs[4].mask, 50)
    cache = open_cache(pairs, KEY, tmp_path / "cache")
    usual, soft = cache.rules
    assert ("0 and 255" in usual, "soft" in soft) == (True, True)
    assert list(cache.rules.values()) == [3, 1]
    assert set(cache.odd) == {pairs[1].id}
    assert "class numbers" in cache.odd[pairs[1].id]
    again = open_cache(pairs, KEY, tmp_path / "cache")
    assert (again.fresh, again.rules, again.odd) == (False, cache.rules, cache.odd)
    chosen = open_cache(pairs, KEY.model_copy(update={"foreground": 1}), tmp_path / "cache")
    assert (chosen.odd, sum(chosen.rules.values())) == ({}, 4)


def test_opening_side_by_side_is_harmless(tiny: Path, tmp_path: Path) -> None:
    pairs = pairs_of(tiny)
    for attempt in range(3):
        folder = tmp_path / str(attempt)
        with ThreadPoolExecutor(4) as pool:
            caches = [done.result() for done in [pool.submit(open_cache, pairs, KEY, folder) for _ in range(4)]]
        for cache in caches:
            assert_right(cache, pairs)
        assert sorted(path.name for path in folder.iterdir()) == sorted([caches[0].folder.name, "digests.json"])
        assert not open_cache(pairs, KEY, folder).fresh


def test_all_of_carvana_fits_on_disk(tiny: Path, tmp_path: Path) -> None:
    key = CacheKey(geometry=Geometry(height_px=256, width_px=384), channels=3, stride_px=32)
    few, all_ = (
        sum(file.stat().st_size for file in open_cache(pairs, key, tmp_path).folder.iterdir())
        for pairs in (pairs_of(tiny)[:4], pairs_of(tiny))
    )
    bytes_of_a_pair = (all_ - few) / 20
    assert bytes_of_a_pair >= 256 * 384 * 4
    assert few + 5088 * bytes_of_a_pair <= 2.1e9


def test_what_is_unknown_is_kept_with_the_masks(data: Path, tmp_path: Path) -> None:
    *pairs, bare = pairs_of(data)[:4]
    empty = Pair(bare.id, bare.image, None, bare.group)
    pairs[1], value_HW = relabel(pairs[1], tmp_path)
    key = KEY.model_copy(update={"ignore": 128})
    cache = open_cache([*pairs, empty], key, tmp_path / "cache")
    placement = plan((60, 90), KEY.geometry, stride_px=KEY.stride_px)
    row = cache.row_of[pairs[1].id]
    known_HW = fit_known(value_HW != 128, placement)
    assert 0 < known_HW.mean() < 0.6
    assert isinstance(cache.known_NHW, np.memmap)
    np.testing.assert_array_equal(cache.known_NHW[row], known_HW * np.uint8(255))
    np.testing.assert_array_equal(
        cache.masks_NHW[row], fit_mask((value_HW == 255).astype(np.uint8) * np.uint8(255), placement)
    )
    assert (np.delete(cache.known_NHW, row, axis=0) == 255).all()
    assert not cache.masks_NHW[cache.row_of[empty.id]].any()
    assert cache.area_of[pairs[1].id] == pytest.approx((value_HW == 255).sum() / (value_HW != 128).sum())
    assert cache.area_of[empty.id] == 0
    again = open_cache([*pairs, empty], key, tmp_path / "cache")
    assert not again.fresh
    assert again.known_NHW is not None
    np.testing.assert_array_equal(again.known_NHW, cache.known_NHW)


def test_without_an_ignored_value_all_is_known(data: Path, tmp_path: Path) -> None:
    pairs = pairs_of(data)[:2]
    cache = open_cache(pairs, KEY, tmp_path / "cache")
    assert (cache.known_NHW, (cache.folder / "known.npy").exists()) == (None, False)


def test_a_photo_without_a_vehicle_is_not_one_with_an_empty_mask(data: Path, tmp_path: Path) -> None:
    pair = pairs_of(data)[0]
    assert (
        len(
            {
                open_cache([Pair(pair.id, pair.image, mask, pair.group)], KEY, tmp_path / "cache").folder
                for mask in (pair.mask, None, "")
            }
        )
        == 3
    )
