"""Work done ahead by threads, in order and in bounded memory."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor, Future
from itertools import islice
from typing import TypeVar

Item = TypeVar("Item")
Done = TypeVar("Done")


def map_ahead(pool: Executor, function: Callable[[Item], Done], items: Iterable[Item], ahead: int) -> Iterator[Done]:
    """Like `pool.map`, in the order of the items, but no more than `ahead` (at least 1) results wait to be taken."""
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


def in_batches(items: Iterable[Item], size: int) -> Iterator[list[Item]]:
    """Lists of `size` (at least 1) items, the last one perhaps shorter."""
    if size < 1:
        raise ValueError(f"size = {size}: a batch holds at least one item")
    source = iter(items)
    return iter(lambda: list(islice(source, size)), [])
