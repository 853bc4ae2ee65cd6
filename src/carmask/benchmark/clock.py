"""Timing that is fair to what is timed: a warm-up first, then medians."""

import statistics
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

Item = TypeVar("Item")

LEAST_RUNS = 3


def median_s(run: Callable[[], object], *, seconds: float, least_runs: int = LEAST_RUNS, warm_up: int = 1) -> float:
    """Median duration of a call, of as many as fit into `seconds`, `least_runs` at least."""
    for _ in range(warm_up):
        run()
    durations_s: list[float] = []
    while sum(durations_s) < seconds or len(durations_s) < least_runs:
        durations_s.append(_duration_s(run))
    return statistics.median(durations_s)


def median_of_each_s(run: Callable[[Item], object], items: Iterable[Item]) -> float:
    """Median duration of a call for different items, each once."""
    return statistics.median(_duration_s(lambda item=item: run(item)) for item in items)  # type: ignore[misc]


def rate_of_pool(run: Callable[[Item], object], items: Sequence[Item], workers: int) -> float:
    """Items a second that `workers` threads get through, nothing else being done."""

    def forget(item: Item) -> None:
        run(item)  # results that are kept would have their memory made anew, which the pipeline's are spared

    with ThreadPoolExecutor(workers) as pool:
        list(pool.map(forget, items[:workers]))
        took_s = _duration_s(lambda: list(pool.map(forget, items)))
    return len(items) / took_s


def _duration_s(run: Callable[[], object]) -> float:
    began_s = time.perf_counter()
    run()
    return time.perf_counter() - began_s
