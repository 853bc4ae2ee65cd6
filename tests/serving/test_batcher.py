"""The thread of the networks: who shares a batch, who is dropped, who waits."""

import threading
import time
from collections.abc import Sequence
from concurrent.futures import Future, wait

import numpy as np
import pytest

from carmask.imaging.geometry import Geometry, plan
from carmask.segmenter import Fitted, Raw, View
from carmask.serving.batcher import Batcher

GEOMETRY = Geometry(height_px=16, width_px=16)


def fitted(value: int, views: int = 1) -> Fitted:
    placement = plan((4, 6), GEOMETRY, stride_px=1)
    image_HWC = np.full((4, 6, 3), value, np.uint8)
    return Fitted((4, 6), tuple(View(0, image_HWC, placement) for _ in range(views)))


class Network:
    """Gives back each photo's first value, and waits in a batch until it is let go."""

    def __init__(self, *, is_held: bool = False) -> None:
        self.batches: list[list[int]] = []
        self.threads: set[str] = set()
        self.told: list[int] = []
        self.go = threading.Event()
        self.started = threading.Event()
        if not is_held:
            self.go.set()

    def __call__(self, photos: Sequence[Fitted]) -> list[Raw]:
        self.started.set()
        self.go.wait()
        values = [int(photo.views[0].image_HWC[0, 0, 0]) for photo in photos]
        self.threads.add(threading.current_thread().name)
        self.batches.append(values)
        if 13 in values:
            raise ValueError("an unlucky photo")
        return [(np.full((4, 6), value, np.float32),) for value in values]

    def batcher(self, batch_size: int = 4, wait_s: float = 0.0) -> Batcher:
        return Batcher(self, batch_size=batch_size, wait_s=wait_s, on_batch=lambda count, _: self.told.append(count))


def value(done: "Future[Raw]") -> int:
    return int(done.result(60)[0][0, 0])


def test_photos_that_come_while_the_network_works_share_batches_in_order() -> None:
    network = Network(is_held=True)
    batcher = network.batcher()
    first = batcher.submit(fitted(0))
    network.started.wait()
    others = [batcher.submit(fitted(number)) for number in range(1, 7)]
    assert batcher.waiting == 6
    network.go.set()
    assert [value(done) for done in (first, *others)] == list(range(7))
    batcher.close()
    assert network.batches == [[0], [1, 2, 3, 4], [5, 6]]
    assert network.told == [1, 4, 2]
    assert network.threads == {"network"}


def test_a_photo_waits_for_others_no_longer_than_it_must() -> None:
    network = Network()
    batcher = network.batcher(batch_size=3, wait_s=30)
    started_s = time.monotonic()
    done = [batcher.submit(fitted(number)) for number in range(3)]
    assert [value(one) for one in done] == [0, 1, 2]
    assert time.monotonic() - started_s < 20, "a full batch does not wait"
    assert network.batches == [[0, 1, 2]]
    batcher.close()


def test_only_photos_that_are_alike_share_a_batch() -> None:
    network = Network(is_held=True)
    batcher = network.batcher()
    first = batcher.submit(fitted(0))
    network.started.wait()
    done = [batcher.submit(fitted(number, views=1 + number % 2)) for number in range(1, 6)]
    network.go.set()
    assert [value(one) for one in (first, *done)] == list(range(6))
    batcher.close()
    assert network.batches == [[0], [1, 3, 5], [2, 4]]


def test_what_is_cancelled_is_never_run() -> None:
    network = Network(is_held=True)
    batcher = network.batcher(batch_size=1)
    done = [batcher.submit(fitted(number)) for number in range(5)]
    network.started.wait()
    assert not done[0].cancel(), "it runs already"
    assert all(done[number].cancel() for number in (1, 3))
    network.go.set()
    wait(done)
    batcher.close()
    assert network.batches == [[0], [2], [4]]


def test_a_failure_is_told_to_those_who_wait_and_the_thread_goes_on() -> None:
    network = Network()
    batcher = network.batcher(batch_size=1)
    unlucky = batcher.submit(fitted(13))
    with pytest.raises(ValueError, match="unlucky"):
        unlucky.result(60)
    assert value(batcher.submit(fitted(7))) == 7
    batcher.close()


def test_closing_finishes_what_waits_and_takes_nothing_more() -> None:
    network = Network(is_held=True)
    batcher = network.batcher(batch_size=2, wait_s=30)
    done = [batcher.submit(fitted(number)) for number in range(5)]
    network.go.set()
    batcher.close()
    assert [value(one) for one in done] == list(range(5))
    with pytest.raises(RuntimeError):
        batcher.submit(fitted(9))
