import queue
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from carmask.data.cache import Cache, CacheKey, open_cache
from carmask.data.pairs import find_pairs
from carmask.imaging.geometry import Geometry
from carmask.training.batches import BatchReader, batch_indices, harder_indices, seed_step

CPU = torch.device("cpu")


@given(st.integers(1, 40), st.integers(1, 25), st.integers(0, 1000))
def test_every_pass_has_every_photo_once_and_every_batch_is_full(count: int, batch_size: int, seed: int) -> None:
    steps = -(-3 * count // batch_size)
    batches = [batch_indices(step, batch_size, count, seed) for step in range(steps)]
    assert {len(batch) for batch in batches} == {batch_size}
    stream = np.concatenate(batches)
    for number in range(3):
        assert sorted(stream[number * count : (number + 1) * count]) == list(range(count))


@given(st.integers(0, 10_000), st.integers(1, 25), st.integers(1, 40), st.integers(0, 1000))
def test_a_step_s_batch_needs_no_steps_before_it(step: int, batch_size: int, count: int, seed: int) -> None:
    batch = batch_indices(step, batch_size, count, seed)
    np.testing.assert_array_equal(batch, batch_indices(step, batch_size, count, seed))
    assert batch.min() >= 0
    assert batch.max() < count


def test_passes_and_seeds_differ() -> None:
    orders = {tuple(batch_indices(step, 50, 50, seed)) for step in range(3) for seed in range(3)}
    assert len(orders) == 9
    # Each photo comes at each place about equally often.
    firsts = Counter(int(batch_indices(step, 5, 5, 0)[0]) for step in range(500))
    assert min(firsts.values()) > 60


def test_the_seed_of_a_step_decides_all_that_torch_draws() -> None:
    drawn = {}
    for seed in (0, 1, 2**40):
        for step in (0, 1, 2**32 - 1):
            seed_step(seed, step)
            drawn[seed, step] = torch.rand(4)
            seed_step(seed, step)
            assert torch.equal(torch.rand(4), drawn[seed, step])
    assert torch.stack([*drawn.values()]).unique(dim=0).shape == (9, 4)


@pytest.fixture(scope="module")
def cache(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Cache:
    recipe = CacheKey(geometry=Geometry(height_px=16, width_px=24), channels=3)
    return open_cache(find_pairs(tiny).pairs, recipe, tmp_path_factory.mktemp("cache"))


def of_seed_3(batch_size: int, count: int) -> Callable[[int], NDArray[np.int64]]:
    return lambda step: batch_indices(step, batch_size, count, 3)


def test_a_reader_gives_the_cache_s_photos_scaled_to_one(cache: Cache) -> None:
    ids = ("car3_02", "car0_01", "car5_04", "car1_01", "car1_02")
    reader = BatchReader(cache, ids, CPU)
    ((_, (images_BCHW, masks_B1HW)),) = reader.steps(range(1), of_seed_3(len(ids), len(ids)))
    assert images_BCHW.shape == (5, 3, 16, 24)
    assert masks_B1HW.shape == (5, 1, 16, 24)
    assert images_BCHW.dtype == masks_B1HW.dtype == torch.float32
    for place, index in enumerate(batch_indices(0, len(ids), len(ids), 3)):
        row = cache.row_of[ids[index]]
        image_HWC = (images_BCHW[place].permute(1, 2, 0) * 255).round().numpy()
        np.testing.assert_array_equal(image_HWC, cache.images_NHWC[row])
        np.testing.assert_array_equal((masks_B1HW[place, 0] * 255).round().numpy(), cache.masks_NHW[row])
    assert masks_B1HW.max() == 1
    assert images_BCHW.is_contiguous(memory_format=torch.channels_last)


def test_steps_follow_the_batch_s_indices_from_any_step_on(cache: Cache) -> None:
    ids = tuple(sorted(cache.row_of))[::-2]
    reader = BatchReader(cache, ids, CPU)
    whole = list(reader.steps(range(9), of_seed_3(5, len(ids))))
    assert [step for step, _ in whole] == list(range(9))
    for step, (images_BCHW, _) in whole:
        rows = [cache.row_of[ids[place]] for place in batch_indices(step, 5, len(ids), 3)]
        wanted_BHWC = cache.images_NHWC[rows]
        np.testing.assert_array_equal((images_BCHW * 255).round().permute(0, 2, 3, 1).numpy(), wanted_BHWC)
    rest = list(reader.steps(range(4, 9), of_seed_3(5, len(ids))))
    assert [step for step, _ in rest] == list(range(4, 9))
    for (_, (images_BCHW, masks_B1HW)), (_, (same_BCHW, same_B1HW)) in zip(whole[4:], rest, strict=True):
        assert torch.equal(images_BCHW, same_BCHW)
        assert torch.equal(masks_B1HW, same_B1HW)
    assert list(reader.steps(range(9, 9), of_seed_3(5, len(ids)))) == []


def test_the_next_batch_and_no_more_is_read_while_a_step_is_under_way(cache: Cache) -> None:
    read: queue.Queue[list[int]] = queue.Queue()

    class Watched:
        def __getitem__(self, rows: np.ndarray) -> np.ndarray:
            read.put(rows.tolist())
            return cache.masks_NHW[rows]

    watched: Any = Watched()
    reader = BatchReader(replace(cache, masks_NHW=watched), tuple(cache.row_of), CPU)
    steps = reader.steps(range(9), of_seed_3(4, len(cache.row_of)))
    for step in range(3):
        next(steps)
        if step == 0:
            read.get(timeout=10)
        assert read.get(timeout=10) == batch_indices(step + 1, 4, len(cache.row_of), 3).tolist()
        with pytest.raises(queue.Empty):
            read.get(timeout=0.1)
    steps.close()


@settings(max_examples=30)
@given(st.integers(0, 99), st.sampled_from([0.0, 0.3, 1.0]))
def test_harder_photos_come_more_often(seed: int, share: float) -> None:
    losses_N = np.array([0.1, 0.1, 0.1, 3.0, 0.1])
    steps = [batch_indices(step, 10, 5, seed) for step in range(60)]
    drawn = [harder_indices(indices, step, seed, share=share, losses_N=losses_N) for step, indices in enumerate(steps)]
    again = [harder_indices(indices, step, seed, share=share, losses_N=losses_N) for step, indices in enumerate(steps)]
    np.testing.assert_array_equal(drawn, again)
    # Of the share that is drawn by loss, 3.0 of 3.4 fall on the hard photo; of the rest a fifth.
    wanted = share * 3.0 / 3.4 + (1 - share) / 5
    assert np.mean(np.array(drawn) == 3) == pytest.approx(wanted, abs=0.08)


def test_what_is_done_to_a_batch_does_not_reach_the_cache(cache: Cache) -> None:
    reader = BatchReader(cache, ("car0_01",), CPU)
    before = cache.images_NHWC[cache.row_of["car0_01"]].copy()
    for _, (images_BCHW, masks_B1HW) in reader.steps(range(1), of_seed_3(1, 1)):
        images_BCHW.zero_()
        masks_B1HW.zero_()
    np.testing.assert_array_equal(cache.images_NHWC[cache.row_of["car0_01"]], before)
