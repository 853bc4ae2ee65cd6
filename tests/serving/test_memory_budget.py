"""Memory that requests share."""

import threading
from concurrent.futures import ThreadPoolExecutor

from hypothesis import given
from hypothesis import strategies as st

from carmask.serving.memory import MemoryBudget


@given(st.lists(st.integers(0, 150), max_size=40))
def test_many_threads_never_have_more_than_there_is(sizes: list[int]) -> None:
    memory = MemoryBudget(100)

    def use(size: int) -> int:
        reserved = memory.reserve(size)
        most = memory.used_bytes
        memory.release(reserved)
        return most

    with ThreadPoolExecutor(8) as pool:
        assert max(pool.map(use, sizes), default=0) <= 100
    assert memory.used_bytes == 0


def test_who_asked_first_is_served_first() -> None:
    """What is large is not overtaken for ever by what is small."""
    memory = MemoryBudget(10)
    served: list[int] = []
    first = memory.reserve(5)

    def ask(size: int) -> None:
        reserved = memory.reserve(size)
        served.append(size)
        memory.release(reserved)

    threads = []
    for size in (9, 1, 2):
        threads.append(threading.Thread(target=ask, args=(size,)))
        threads[-1].start()
        while len(memory._waiting) < len(threads):
            pass
    assert not served, "there would be room for 1 and 2, but 9 was first"
    memory.release(first)
    for thread in threads:
        thread.join()
    assert served[0] == 9
    assert sorted(served) == [1, 2, 9]
