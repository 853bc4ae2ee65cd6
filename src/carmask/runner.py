"""The one scheduler: decode -> fit -> infer -> restore -> consume, in order and in bounded memory.

Predicting, evaluating, video and the workers of a cluster differ in what they load and in what they do with a
probability map; everything between is here. Decoding and consuming run in pools of threads, the network runs in the
thread that iterates:

    def load(path: Path) -> tuple[Photo, None]:         # in any thread
        return segmenter.decode(path), None

    def consume(found: Prediction[Path, None]) -> float:  # in any thread
        return float((found.probability_HW >= segmenter.threshold).mean())

    for coverage in run_segmenter(paths, segmenter, load=load, consume=consume):
        print(coverage)                                 # in the order of `paths`

What `load` returns beside the photo (a true mask, the full-size frame) reaches `consume` as `Prediction.extra`. Without
`on_error` the first error ends the run. With it a failed item becomes what `on_error` returns, in its place in the
order, and the rest goes on; `on_error` raises again what must end the run (a full disk).

`map_ahead` and `in_batches`, of which the scheduler is made, and `in_threads` do other ordered work.
"""

from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from itertools import chain, count, islice, takewhile
from time import perf_counter
from typing import TYPE_CHECKING, Generic, TypeAlias, TypeVar

import cv2
import numpy as np
from numpy.typing import NDArray

from carmask.errors import CarmaskError
from carmask.limits import usable_cpus

if TYPE_CHECKING:
    from carmask.imaging.decode import Photo
    from carmask.segmenter import Fitted, Raw, Segmenter

Item = TypeVar("Item")
Extra = TypeVar("Extra")
Done = TypeVar("Done")

_MAX_WORKERS = 16


@dataclass(frozen=True, eq=False)
class Prediction(Generic[Item, Extra]):
    """What the networks found in one item.

    extra: what `load` returned beside the photo. probability_HW: float32 0..1, (height, width) of the photo. seconds:
    computing time so far, with the item's share of its batch.
    """

    item: Item
    extra: Extra
    probability_HW: NDArray[np.float32]
    seconds: float


def run_segmenter(
    items: Iterable[Item],
    segmenter: "Segmenter",
    *,
    load: Callable[[Item], tuple["Photo", Extra]],
    consume: Callable[[Prediction[Item, Extra]], Done],
    on_error: Callable[[Item, Exception], Done] | None = None,
    smooth: Callable[["Fitted", "Raw"], "Raw"] | None = None,
    batch_size: int = 4,
    workers: int | None = None,
    ahead: int | None = None,
    items_in_thread: bool = False,
) -> Generator[Done, None, None]:
    """Run a segmenter on every item, and yield what `consume` returns, in the order of the items.

    The thread that iterates runs the networks. Batches are padded to `batch_size`, so that the result
    of an item does not depend on its neighbors, to the last bit.

    Args:
        items: Photos, pairs, frames; taken one by one, in the iterating thread unless `items_in_thread`.
        segmenter: Its networks run on the items.
        load: Decodes an item, and returns the photo with anything else that `consume` needs; in any thread.
        consume: Uses the probability map, and writes a result, for example; in any thread.
        on_error: Called with an item and the error of `load`, the networks or `consume`, in any thread. Where the
            networks refuse a batch, each of its items is tried alone.
        smooth: Changes what the networks found before it is brought to the photo's size; in one thread, in order.
        batch_size: Items that pass through the networks together.
        workers: Threads that load, and as many that consume; one for each CPU if not given.
        ahead: Items that may wait behind each stage; if not given, enough to keep all threads busy.
        items_in_thread: Take the items in a thread of their own, for a source that decodes or waits itself.
    """
    workers = workers or default_workers()
    stages = _Stages(segmenter, load, consume, on_error, batch_size)
    with (
        one_opencv_thread(),
        ThreadPoolExecutor(1, "items") as source,
        ThreadPoolExecutor(workers, "load") as loaders,
        ThreadPoolExecutor(1, "smooth") as smoother,
        ThreadPoolExecutor(workers, "consume") as consumers,
    ):
        if items_in_thread:
            items = _take_in_thread(source, iter(items), ahead or workers)
        loaded = map_ahead(loaders, stages.load_and_fit, items, ahead or workers + 2 * batch_size)
        inferred: Iterator[_Passed[Item, Extra, Done]]
        inferred = chain.from_iterable(map(stages.infer, in_batches(loaded, batch_size)))
        if smooth is not None:
            inferred = map_ahead(smoother, partial(stages.smooth, smooth), inferred, ahead or workers)
        yield from map_ahead(consumers, stages.restore_and_consume, inferred, ahead or workers + batch_size)


@dataclass(frozen=True, eq=False)
class _Loaded(Generic[Item, Extra]):
    """An item on its way through the stages. raw: what the networks found, once they ran. seconds: computing time."""

    item: Item
    extra: Extra
    fitted: "Fitted"
    seconds: float
    raw: "Raw" = ()


@dataclass(frozen=True, eq=False)
class _Failed(Generic[Done]):
    """A failed item passes through the remaining stages as what `on_error` made of it."""

    done: Done


_Passed: TypeAlias = _Loaded[Item, Extra] | _Failed[Done]


@dataclass(frozen=True)
class _Stages(Generic[Item, Extra, Done]):
    """What `run_segmenter` does with each item; it explains the fields."""

    segmenter: "Segmenter"
    load: Callable[[Item], tuple["Photo", Extra]]
    consume: Callable[[Prediction[Item, Extra]], Done]
    on_error: Callable[[Item, Exception], Done] | None
    batch_size: int

    def load_and_fit(self, item: Item) -> _Passed[Item, Extra, Done]:
        """Decode an item and place it on the canvases of the networks; in any thread."""
        started_s = perf_counter()
        try:
            photo, extra = self.load(item)
            return _Loaded(item, extra, self.segmenter.fit(photo), perf_counter() - started_s)
        except Exception as error:  # noqa: BLE001 - `on_error` decides
            return self._fail(item, error)

    def infer(self, batch: Sequence[_Passed[Item, Extra, Done]]) -> list[_Passed[Item, Extra, Done]]:
        """Run the networks on what could be loaded; in the iterating thread."""
        loaded = [one for one in batch if isinstance(one, _Loaded)]
        started_s = perf_counter()
        try:
            raws = iter(self.segmenter.infer([one.fitted for one in loaded], pad_to=self.batch_size))
        except CarmaskError as error:
            if len(loaded) == 1 or self.on_error is None:
                return [self._fail(one.item, error) if isinstance(one, _Loaded) else one for one in batch]
            return [self.infer([one])[0] for one in batch]
        share_s = (perf_counter() - started_s) / max(1, len(loaded))
        return [
            replace(one, raw=next(raws), seconds=one.seconds + share_s) if isinstance(one, _Loaded) else one
            for one in batch
        ]

    def smooth(
        self, smooth: Callable[["Fitted", "Raw"], "Raw"], one: _Passed[Item, Extra, Done]
    ) -> _Passed[Item, Extra, Done]:
        """Smooth what was found in one item; in one thread, in order."""
        return one if isinstance(one, _Failed) else replace(one, raw=smooth(one.fitted, one.raw))

    def restore_and_consume(self, one: _Passed[Item, Extra, Done]) -> Done:
        """Bring what was found to the photo's size, and consume it; in any thread."""
        if isinstance(one, _Failed):
            return one.done
        started_s = perf_counter()
        try:
            probability_HW = self.segmenter.restore(one.fitted, one.raw)
            seconds = one.seconds + perf_counter() - started_s
            return self.consume(Prediction(one.item, one.extra, probability_HW, seconds))
        except Exception as error:  # noqa: BLE001 - `on_error` decides
            return self._fail(one.item, error).done

    def _fail(self, item: Item, error: Exception) -> _Failed[Done]:
        if self.on_error is None:
            raise error
        return _Failed(self.on_error(item, error))


def map_ahead(pool: Executor, function: Callable[[Item], Done], items: Iterable[Item], ahead: int) -> Iterator[Done]:
    """Like `pool.map`, in the order of the items, but with at most `ahead` (1 or more) results waiting to be taken."""
    if ahead < 1:
        raise ValueError(f"ahead = {ahead}: at least one result must be able to wait")
    coming: deque[Future[Done]] = deque()
    source = iter(items)
    for item in islice(source, ahead):
        coming.append(pool.submit(function, item))
    while coming:
        done = coming.popleft().result()
        for item in islice(source, 1):
            coming.append(pool.submit(function, item))
        yield done


def in_threads(
    function: Callable[[Item], Done], items: Iterable[Item], workers: int | None = None
) -> Generator[Done, None, None]:
    """Yield `function(item)` for every item, in order. Threads are enough, since decoders release the GIL.

    workers: number of threads; one for each usable CPU if not given.
    """
    workers = workers or usable_cpus()
    with ThreadPoolExecutor(workers) as pool:
        yield from map_ahead(pool, function, items, 4 * workers)


def in_batches(items: Iterable[Item], size: int) -> Iterator[list[Item]]:
    """Lists of `size` (1 or more) items; the last one may be shorter."""
    if size < 1:
        raise ValueError(f"size = {size}: a batch holds at least one item")
    source = iter(items)
    return iter(lambda: list(islice(source, size)), [])


def default_workers() -> int:
    """One thread for each CPU that this process may use, 2 to 16."""
    return min(max(2, usable_cpus()), _MAX_WORKERS)


@contextmanager
def one_opencv_thread() -> Iterator[None]:
    """Keep OpenCV from starting threads of its own: every core has work already, and they would wait for each other.

    On a machine that other programs use too that cost most of the speed.
    """
    before = cv2.getNumThreads()
    cv2.setNumThreads(1)
    try:
        yield
    finally:
        cv2.setNumThreads(before)


def _take_in_thread(thread: Executor, items: Iterator[Item], ahead: int) -> Iterator[Item]:
    """The same items, taken a few ahead by a pool of one thread."""
    slots = map_ahead(thread, lambda _: list(islice(items, 1)), count(), ahead)
    return chain.from_iterable(takewhile(bool, slots))
