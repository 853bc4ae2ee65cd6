"""The scheduler alone, with a segmenter that doubles numbers."""

import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from carmask.errors import CarmaskError
from carmask.runner import in_batches, map_ahead, run_segmenter


class Doubler:
    """A photo is a number; `infer` doubles it. Refuses any batch that holds `refused`."""

    def __init__(self, refused=None):
        self.refused = refused
        self.batches = []
        self.threads = set()

    def fit(self, photo):
        return photo

    def infer(self, fitted, *, pad_to):
        self.threads.add(threading.get_ident())
        self.batches.append((list(fitted), pad_to))
        if self.refused in fitted:
            raise CarmaskError(f"{self.refused} is refused")
        return [2 * one for one in fitted]

    def restore(self, _, raw):
        return raw


def run(segmenter, items, **options):
    def load(item):
        if item == "broken":
            raise CarmaskError("broken")
        return item, str(item)

    def consume(found):
        time.sleep(0.01 * (found.item % 3))
        if found.item == 7:
            raise CarmaskError("seven")
        return found.item, found.extra, found.probability_HW

    return run_segmenter(items, segmenter, load=load, consume=consume, batch_size=3, workers=2, **options)


def test_results_come_in_order_and_the_network_stays_in_one_thread():
    segmenter = Doubler()
    items = [number for number in range(20) if number != 7]
    assert list(run(segmenter, items)) == [(item, str(item), 2 * item) for item in items]
    assert segmenter.threads == {threading.get_ident()}
    assert [len(batch) for batch, _ in segmenter.batches] == [3] * 6 + [1]
    assert {pad_to for _, pad_to in segmenter.batches} == {3}


def test_a_failed_item_keeps_its_place_and_the_rest_goes_on():
    items = [0, "broken", 2, 7, 4, 5]
    done = list(run(Doubler(refused=4), items, on_error=lambda item, error: (item, str(error))))
    assert [item for item, *_ in done] == items
    assert [one for one in done if len(one) == 2] == [("broken", "broken"), (7, "seven"), (4, "4 is refused")]


def test_without_on_error_the_first_error_ends_the_run():
    for segmenter, items in ((Doubler(), [1, "broken", 2]), (Doubler(), [7]), (Doubler(refused=1), [0, 1, 2])):
        with pytest.raises(CarmaskError):
            list(run(segmenter, items))


def test_on_error_may_end_the_run():
    def on_error(_, error):
        raise error

    with pytest.raises(CarmaskError, match="seven"):
        list(run(Doubler(), [1, 7, 2], on_error=on_error))


def test_items_are_smoothed_in_order_and_taken_in_a_thread():
    taken_in, total = set(), [0]

    def source() -> Iterator[int]:
        for number in range(6):
            taken_in.add(threading.get_ident())
            yield number

    def smooth(_, raw):
        total[0] += raw
        return total[0]

    done = list(run(Doubler(), source(), smooth=smooth, items_in_thread=True, ahead=1))
    assert [sum_ for _, _, sum_ in done] == [0, 2, 6, 12, 20, 30]
    assert threading.get_ident() not in taken_in
    assert len(taken_in) == 1


def test_few_items_are_taken_ahead():
    taken = []

    def source() -> Iterator[int]:
        for number in range(0, 300, 3):
            taken.append(number)
            yield number

    results = run(Doubler(), source())
    for _ in range(5):
        next(results)
    assert len(taken) < 30
    results.close()


def test_map_ahead_and_in_batches_refuse_nothing_ahead():
    with ThreadPoolExecutor(1) as pool:
        assert list(map_ahead(pool, abs, [-1, -2], 1)) == [1, 2]
        with pytest.raises(ValueError, match="ahead = 0"):
            list(map_ahead(pool, abs, [-1], 0))
    assert list(in_batches(range(5), 2)) == [[0, 1], [2, 3], [4]]
    with pytest.raises(ValueError, match="size = 0"):
        in_batches([], 0)
