"""The thread of the networks: who shares a batch, who is dropped, who waits."""

import asyncio
import threading
import time
from collections.abc import Sequence

import numpy as np
import pytest

from carmask.imaging.geometry import Geometry, plan
from carmask.segmenter import Fitted, Raw, View
from carmask.serving.batcher import Batcher

GEOMETRY = Geometry(height_px=16, width_px=16)


def fitted(value: int) -> Fitted:
    placement = plan((4, 6), GEOMETRY, stride_px=1)
    image_HWC = np.full((4, 6, 3), value, np.uint8)
    return Fitted((4, 6), (View(0, image_HWC, placement),))


class Network:
    """Returns each photo's first value; while held, it waits in its batch."""

    def __init__(self, *, is_held: bool = False) -> None:
        self.batches: list[list[int]] = []
        self.threads: set[str] = set()
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
        return Batcher(self, batch_size=batch_size, wait_s=wait_s)


async def submit(batcher: Batcher, value: int) -> "asyncio.Task[int]":
    """Queue a photo; the task returns what the network found in it."""

    async def infer() -> int:
        (canvas_HW,) = await batcher.infer(fitted(value))
        return int(canvas_HW[0, 0])

    task = asyncio.create_task(infer())
    await asyncio.sleep(0)
    return task


async def started(network: Network) -> None:
    await asyncio.to_thread(network.started.wait)


def test_photos_that_come_while_the_network_works_share_batches_in_order() -> None:
    network = Network(is_held=True)
    batcher = network.batcher()

    async def run() -> list[int]:
        tasks = [await submit(batcher, 0)]
        await started(network)
        tasks += [await submit(batcher, number) for number in range(1, 7)]
        assert batcher.waiting == 6
        network.go.set()
        return await asyncio.gather(*tasks)

    assert asyncio.run(run()) == list(range(7))
    batcher.close()
    assert network.batches == [[0], [1, 2, 3, 4], [5, 6]]
    assert network.threads == {"network_0"}


def test_a_photo_waits_for_others_no_longer_than_it_must() -> None:
    network = Network()
    batcher = network.batcher(batch_size=3, wait_s=30)

    async def run() -> list[int]:
        return await asyncio.gather(*[await submit(batcher, number) for number in range(3)])

    started_s = time.monotonic()
    assert asyncio.run(run()) == [0, 1, 2]
    assert time.monotonic() - started_s < 20, "a full batch does not wait"
    assert network.batches == [[0, 1, 2]]
    batcher.close()


def test_a_photo_that_stays_alone_is_run_after_the_wait() -> None:
    network = Network()
    batcher = network.batcher(wait_s=0.05)

    async def run() -> list[int]:
        return [await (await submit(batcher, number)) for number in range(2)]

    assert asyncio.run(run()) == [0, 1]
    assert network.batches == [[0], [1]]
    batcher.close()


def test_what_is_cancelled_is_never_run() -> None:
    network = Network(is_held=True)
    batcher = network.batcher(batch_size=2)

    async def run() -> None:
        tasks = [await submit(batcher, 0)]
        await started(network)
        tasks += [await submit(batcher, number) for number in range(1, 6)]
        for number in (0, 1, 3):
            tasks[number].cancel()
        await asyncio.sleep(0)
        network.go.set()
        assert await asyncio.gather(*(tasks[number] for number in (2, 4, 5))) == [2, 4, 5]
        assert all(tasks[number].cancelled() for number in (0, 1, 3))

    asyncio.run(run())
    batcher.close()
    assert network.batches == [[0], [2, 4], [5]], "the first was running already"


def test_a_failure_is_told_to_those_who_wait_and_the_thread_goes_on() -> None:
    network = Network()
    batcher = network.batcher(batch_size=1)

    async def run() -> int:
        with pytest.raises(ValueError, match="unlucky"):
            await batcher.infer(fitted(13))
        return await (await submit(batcher, 7))

    assert asyncio.run(run()) == 7
    batcher.close()


def test_closing_takes_nothing_more() -> None:
    batcher = Network().batcher()
    batcher.close()
    with pytest.raises(RuntimeError):
        asyncio.run(batcher.infer(fitted(9)))
