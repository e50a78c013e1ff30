import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pytest_kvscale.judge.change_points import change_points
from tests.judge.comparing import drawn


def test_a_shift_is_found_with_its_place_and_size() -> None:
    (found,) = change_points([*drawn(1, 20), *drawn(2, 8, worse=0.2)])
    assert found.index == 20
    assert found.low < found.ratio < found.high
    assert found.ratio == pytest.approx(1.2, abs=0.07)
    assert found.p <= 0.01


def test_a_regression_and_its_repair_are_two_shifts() -> None:
    worse, repaired = change_points([*drawn(1, 14), *drawn(2, 10, worse=0.3), *drawn(3, 12)])
    assert worse.index == 14
    assert abs(repaired.index - 24) <= 1
    assert worse.ratio > 1.2
    assert repaired.ratio < 0.85


def test_bad_runs_are_no_shift() -> None:
    series = drawn(4, 30)
    for place in (3, 11, 12, 29):
        series[place] *= 2.5
    assert change_points(series) == []


def test_alike_runs_shift_when_they_do() -> None:
    assert change_points([10.0] * 20) == []
    (found,) = change_points([10.0] * 20 + [12.0] * 5)
    assert found.index == 20
    assert found.ratio == pytest.approx(1.2)


def test_a_shift_smaller_than_any_cluster_repeats_itself_is_none() -> None:
    assert change_points([10.0] * 20 + [10.02] * 10) == []


def test_too_few_runs_have_no_shift() -> None:
    assert change_points([]) == []
    assert change_points([1.0, 1.0, 5.0, 5.0, 5.0]) == []


def test_values_that_are_none_are_counted_but_passed_over() -> None:
    (found,) = change_points([None, math.nan, *drawn(1, 20), None, *drawn(2, 8, worse=0.4)])
    assert found.index == 23


@settings(max_examples=50, deadline=None)
@given(st.lists(st.none() | st.floats(allow_nan=True), max_size=25))
def test_any_series_is_answered(series: list[float | None]) -> None:
    for each in change_points(series):
        assert 0 < each.index < len(series)
        assert each.low <= each.ratio <= each.high


def test_steady_series_hardly_ever_shift() -> None:
    assert sum(bool(change_points(drawn(seed, 25))) for seed in range(150)) <= 6


def test_five_runs_that_are_a_fifth_slower_are_found() -> None:
    found = [
        change_points([*drawn(seed, 20), *drawn(seed + 999, 5, worse=0.2)]) for seed in range(60)
    ]
    near = np.array([any(abs(each.index - 20) <= 1 for each in points) for points in found])
    assert near.sum() >= 48


def test_a_change_is_told_at_whatever_rate_of_false_alarms_it_is_clear() -> None:
    clear = [*drawn(1, 20), *drawn(2, 8, worse=0.4)]
    doubtful = [*drawn(3, 20), *drawn(4, 5, worse=0.12)]
    (found,) = change_points(clear, 1e-4)
    assert found.p <= 1e-4
    (perhaps,) = change_points(doubtful, 0.2)
    assert change_points(doubtful, 1e-4) == []
    assert perhaps.p > 1e-4
