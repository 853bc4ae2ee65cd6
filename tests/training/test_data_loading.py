import queue
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from carmask.data.cache import Cache, CacheKey
from carmask.data.cache_build import open_cache
from carmask.data.pairs import find_pairs
from carmask.data.split import make_split
from carmask.imaging.geometry import Geometry
from carmask.training.config_sections import SourceSettings
from carmask.training.data_loading import batch_indices, iterate_batches, pass_length, pass_order, seed_step
from carmask.training.datasets import Source, TrainingData
from carmask.training.distributed import DistributedContext

CPU = torch.device("cpu")


@given(st.integers(1, 40), st.integers(1, 25), st.integers(0, 1000))
def test_every_pass_has_every_photo_once_and_every_batch_is_full(count: int, batch_size: int, seed: int) -> None:
    steps = -(-3 * count // batch_size)
    batches = [batch_indices(step, batch_size, [1] * count, seed) for step in range(steps)]
    assert {len(batch) for batch in batches} == {batch_size}
    stream = np.concatenate(batches)
    for number in range(3):
        assert sorted(stream[number * count : (number + 1) * count]) == list(range(count))


@given(st.integers(0, 10_000), st.integers(1, 25), st.integers(1, 40), st.integers(0, 1000))
def test_a_step_s_batch_needs_no_steps_before_it(step: int, batch_size: int, count: int, seed: int) -> None:
    batch = batch_indices(step, batch_size, [1] * count, seed)
    np.testing.assert_array_equal(batch, batch_indices(step, batch_size, [1] * count, seed))
    assert batch.min() >= 0
    assert batch.max() < count


def test_passes_and_seeds_differ() -> None:
    orders = {tuple(batch_indices(step, 50, [1] * 50, seed)) for step in range(3) for seed in range(3)}
    assert len(orders) == 9
    # Each photo comes at each place about equally often.
    firsts = Counter(int(batch_indices(step, 5, [1] * 5, 0)[0]) for step in range(500))
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
def data(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> TrainingData:
    """The tiny data set at 16 x 24 px, all photos to train on."""
    pairs = find_pairs(tiny).pairs
    cache = open_cache(
        pairs,
        CacheKey(geometry=Geometry(height_px=16, width_px=24), channels=3),
        tmp_path_factory.mktemp("cache"),
    )
    split = make_split({pair.id: pair.group for pair in pairs}, cache.area_of)
    return TrainingData([Source("", SourceSettings(path=tiny), cache, pairs)], split, pairs, pairs)


def cache_of(data: TrainingData) -> Cache:
    return data.sources[0].cache


def choose(data: TrainingData, *ids: str) -> TrainingData:
    by_id = {pair.id: pair for pair in data.train}
    return replace(data, train=[by_id[id_] for id_ in ids])


def test_batches_are_the_cache_s_photos_scaled_to_one(data: TrainingData) -> None:
    ids = ("car3_02", "car0_01", "car5_04", "car1_01", "car1_02")
    ((_, (images_BCHW, masks_B1HW, _)),) = iterate_batches(choose(data, *ids), range(1), len(ids), 3, CPU)
    assert images_BCHW.shape == (5, 3, 16, 24)
    assert masks_B1HW.shape == (5, 1, 16, 24)
    assert images_BCHW.dtype == masks_B1HW.dtype == torch.float32
    for place, index in enumerate(batch_indices(0, len(ids), [1] * len(ids), 3)):
        row = cache_of(data).row_of[ids[index]]
        image_HWC = (images_BCHW[place].permute(1, 2, 0) * 255).round().numpy()
        np.testing.assert_array_equal(image_HWC, cache_of(data).images_NHWC[row])
        np.testing.assert_array_equal((masks_B1HW[place, 0] * 255).round().numpy(), cache_of(data).masks_NHW[row])
    assert masks_B1HW.max() == 1
    assert images_BCHW.is_contiguous(memory_format=torch.channels_last)


def test_batches_follow_the_batch_indices_from_any_step_on(data: TrainingData) -> None:
    data = choose(data, *sorted(cache_of(data).row_of)[::-2])
    whole = list(iterate_batches(data, range(9), 5, 3, CPU))
    assert [step for step, _ in whole] == list(range(9))
    for step, (images_BCHW, _, _) in whole:
        rows = [
            cache_of(data).row_of[data.train[place].id] for place in batch_indices(step, 5, [1] * len(data.train), 3)
        ]
        wanted_BHWC = cache_of(data).images_NHWC[rows]
        np.testing.assert_array_equal((images_BCHW * 255).round().permute(0, 2, 3, 1).numpy(), wanted_BHWC)
    rest = list(iterate_batches(data, range(4, 9), 5, 3, CPU))
    assert [step for step, _ in rest] == list(range(4, 9))
    for (_, (images_BCHW, masks_B1HW, _)), (_, (same_BCHW, same_B1HW, _)) in zip(whole[4:], rest, strict=True):
        assert torch.equal(images_BCHW, same_BCHW)
        assert torch.equal(masks_B1HW, same_B1HW)
    assert list(iterate_batches(data, range(9, 9), 5, 3, CPU)) == []


def test_the_parts_of_all_processes_are_the_batch(data: TrainingData) -> None:
    ((_, (whole_BCHW, _, _)),) = iterate_batches(data, range(2, 3), 6, 3, CPU)
    parts = [DistributedContext(rank, 3).batch_slice(6) for rank in range(3)]
    images = [batch[0] for part in parts for _, batch in iterate_batches(data, range(2, 3), 6, 3, CPU, part)]
    assert torch.equal(torch.cat(images), whole_BCHW)


def test_the_next_batch_and_no_more_is_read_during_a_step(data: TrainingData) -> None:
    read: queue.Queue[int] = queue.Queue()

    class Watched:
        def __getitem__(self, row: int) -> np.ndarray:
            read.put(row)
            return cache_of(data).masks_NHW[row]

    watched: Any = Watched()
    source = replace(data.sources[0], cache=replace(cache_of(data), masks_NHW=watched))
    steps = iterate_batches(replace(data, sources=[source]), range(9), 4, 3, CPU)
    rows = [cache_of(data).row_of[pair.id] for pair in data.train]
    for step in range(3):
        next(steps)
        if step == 0:
            [read.get(timeout=10) for _ in range(4)]
        wanted = [rows[index] for index in batch_indices(step + 1, 4, [1] * len(rows), 3)]
        assert [read.get(timeout=10) for _ in range(4)] == wanted
        with pytest.raises(queue.Empty):
            read.get(timeout=0.1)
    steps.close()  # type: ignore[attr-defined]


def test_what_is_done_to_a_batch_does_not_reach_the_cache(data: TrainingData) -> None:
    before = cache_of(data).images_NHWC[cache_of(data).row_of["car0_01"]].copy()
    for _, (images_BCHW, masks_B1HW, _) in iterate_batches(choose(data, "car0_01"), range(1), 1, 3, CPU):
        images_BCHW.zero_()
        masks_B1HW.zero_()
    np.testing.assert_array_equal(cache_of(data).images_NHWC[cache_of(data).row_of["car0_01"]], before)


@given(st.lists(st.sampled_from([0.25, 0.5, 1, 1.5, 2, 3.75]), min_size=1, max_size=12), st.integers(0, 100))
def test_a_pass_has_each_photo_as_often_as_its_weight_says(weights: list[float], seed: int) -> None:
    weights = [weight for weight in weights for _ in range(8)]
    orders = [pass_order(weights, seed, number) for number in range(20)]
    assert {len(order) for order in orders} == {round(sum(weights))}
    assert pass_length(weights) == round(sum(weights))
    for order in orders:
        counts = np.bincount(order, minlength=len(weights))
        assert all(abs(count - weight) < 1 for count, weight in zip(counts, weights, strict=True))
    # Other photos are drawn for the fraction of a weight in each pass.
    if any(weight % 1 for weight in weights):
        assert len({tuple(np.bincount(order, minlength=len(weights))) for order in orders}) > 1


def test_the_order_of_one_data_set_is_that_of_a_permutation() -> None:
    expected = np.random.default_rng([7, 3]).permutation(90)
    np.testing.assert_array_equal(pass_order([1.0] * 90, 7, 3), expected)
