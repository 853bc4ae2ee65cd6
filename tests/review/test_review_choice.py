"""Which photos are reviewed, against sorting by hand."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from carmask.errors import CarmaskError
from carmask.review.choice import ReviewChoice

SCORES = st.lists(st.one_of(st.floats(0, 1), st.just(math.nan)), max_size=60)


def choose(scores: list[float], most: str | None, below: float | None = None) -> list[int]:
    choice = ReviewChoice.parse(most, below)
    assert choice is not None
    return choice.choose(scores)


@given(SCORES, st.integers(1, 70))
def test_a_number_takes_the_lowest(scores: list[float], count: int) -> None:
    chosen = choose(scores, str(count))
    known = [score for score in scores if score == score]
    assert [scores[position] for position in chosen] == sorted(known)[:count]
    assert len(set(chosen)) == len(chosen)


@given(SCORES, st.integers(1, 100))
def test_a_share_is_rounded_up(scores: list[float], percent: int) -> None:
    known = sum(score == score for score in scores)
    assert len(choose(scores, f"{percent}%")) == -(-known * percent // 100)


@given(SCORES, st.floats(0.01, 1))
def test_a_limit_takes_all_below(scores: list[float], below: float) -> None:
    chosen = choose(scores, None, below)
    assert set(chosen) == {position for position, score in enumerate(scores) if score < below}


@pytest.mark.parametrize("most", ["0", "0%", "101%", "-3", "2.5", "many", "5 %%"])
def test_nonsense_is_refused(most: str) -> None:
    with pytest.raises(CarmaskError, match="--review"):
        ReviewChoice.parse(most, None)
    with pytest.raises(CarmaskError):
        ReviewChoice.parse(None, 1.5)
    with pytest.raises(CarmaskError):
        ReviewChoice.parse("5%", 0.5)
