import itertools
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from carmask.training.config_sections import ScheduleSettings
from carmask.training.optimizer import learning_rate

NAMES = ("constant", "one-cycle", "cosine")


def rates(name: str, total: int, warmup: float, *, peak: float = 2.0) -> list[float]:
    settings = ScheduleSettings(name=name, warmup=warmup)
    return [learning_rate(step, total, peak, settings) for step in range(total)]


@given(st.sampled_from(NAMES), st.integers(1, 400), st.floats(0, 1, exclude_max=True), st.floats(1e-8, 10))
def test_rates_are_positive_and_no_higher_than_the_peak(name: str, total: int, warmup: float, peak: float) -> None:
    for rate in rates(name, total, warmup, peak=peak):
        assert 0 < rate <= peak * (1 + 1e-12)


@given(st.sampled_from(NAMES), st.integers(2, 400), st.floats(0, 1, exclude_max=True))
def test_rates_climb_to_the_peak_and_then_fall(name: str, total: int, warmup: float) -> None:
    climbing = math.ceil(warmup * total)
    values = rates(name, total, warmup)
    if name == "constant":
        assert set(values) == {2.0}
        return
    assert values[:climbing] == sorted(values[:climbing])
    assert values[climbing:] == sorted(values[climbing:], reverse=True)


@pytest.mark.parametrize("name", ["one-cycle", "cosine"])
def test_the_peak_is_reached_where_the_warm_up_ends(name: str) -> None:
    values = rates(name, 1000, 0.2)
    assert values.index(max(values)) == 200
    assert values[200] == 2.0
    # No jump anywhere: a step changes the rate by no more than the steepest slope of either half.
    assert max(abs(after - before) for before, after in itertools.pairwise(values)) < 2.0 * math.pi / 2 / 200 * 1.01


def test_one_cycle_is_two_halves_of_a_cosine() -> None:
    values = rates("one-cycle", 1000, 0.2)
    assert values[0] == pytest.approx(2 / 25, rel=0.01)
    assert values[100] == pytest.approx((2 / 25 + 2) / 2, rel=0.02)
    assert values[600] == pytest.approx((2 + 2e-4) / 2, rel=1e-6)
    assert values[-1] == pytest.approx(2e-4, rel=0.05)


def test_cosine_warms_up_along_a_line_and_ends_at_nothing() -> None:
    values = rates("cosine", 1000, 0.2)
    assert values[49] == pytest.approx(2 * 50 / 201)
    assert values[99] == pytest.approx(2 * values[49])
    assert values[600] == pytest.approx(1)
    assert values[800] == pytest.approx(1 + math.cos(0.75 * math.pi))
    assert values[-1] < 2e-5


def test_without_warm_up_the_first_step_is_at_the_peak() -> None:
    for name in NAMES:
        assert rates(name, 10, 0)[0] == 2.0
        assert rates(name, 1, 0) == [2.0]
