"""Percentiles over what was asked for."""

from __future__ import annotations

import random
import statistics

import numpy
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_kvscale.measure.percentiles import nearest_rank, per_minute, summarize

TIMES = st.lists(st.floats(0, 1e5, allow_nan=False), min_size=1, max_size=60)


@given(TIMES, st.integers(1, 100))
def test_nearest_rank_agrees_with_another_library(values: list[float], per_cent: int) -> None:
    expected = numpy.percentile(values, per_cent, method="inverted_cdf")
    assert nearest_rank(sorted(values), len(values), per_cent) == expected


@given(TIMES, st.integers(0, 40), st.integers(1, 100))
def test_what_never_came_is_later_than_all_that_did(
    values: list[float], missing: int, per_cent: int
) -> None:
    total = len(values) + missing
    infinite = sorted(values) + [float("inf")] * missing
    expected = numpy.percentile(infinite, per_cent, method="inverted_cdf")
    found = nearest_rank(sorted(values), total, per_cent)
    assert found == (None if expected == float("inf") else expected)


@given(TIMES, st.randoms(use_true_random=False))
def test_the_order_of_values_does_not_matter(values: list[float], rng: random.Random) -> None:
    shuffled = list(values)
    rng.shuffle(shuffled)
    assert summarize(shuffled, len(values)) == summarize(values, len(values))


@given(TIMES)
def test_a_complete_sample_has_a_mean_and_a_maximum(values: list[float]) -> None:
    summary = summarize(values, len(values))
    assert summary["mean"] == pytest.approx(statistics.fmean(values), abs=1e-6)
    assert summary["max"] == pytest.approx(max(values), abs=1e-6)
    assert (summary["n"], summary["censored"]) == (len(values), 0)


@given(TIMES, st.integers(1, 40))
def test_a_censored_sample_has_neither(values: list[float], missing: int) -> None:
    summary = summarize(values, len(values) + missing)
    assert summary["mean"] is None
    assert summary["max"] is None
    assert summary["censored"] == missing


def test_ranks_do_not_suffer_from_rounding() -> None:
    hundred = [float(value) for value in range(1, 101)]
    asked = [1, 55, 95, 99, 100]
    assert [nearest_rank(hundred, 100, each) for each in asked] == asked


def test_one_value_is_every_percentile() -> None:
    assert {nearest_rank([7.0], 1, each) for each in (1, 50, 100)} == {7.0}


def test_all_censored_is_no_number() -> None:
    summary = summarize([], 5)
    assert summary["p50"] is summary["p95"] is summary["mean"] is None
    assert (summary["n"], summary["censored"]) == (0, 5)


def test_no_data_is_an_error() -> None:
    with pytest.raises(ValueError, match="cannot come of a sample"):
        nearest_rank([], 0, 50)
    with pytest.raises(ValueError, match="cannot come of a sample"):
        nearest_rank([1.0, 2.0], 1, 50)
    with pytest.raises(ValueError, match="a percentile lies"):
        nearest_rank([1.0], 1, 0)


def test_the_busiest_minute_is_counted() -> None:
    moments = [10.0, 70.0, 71.0, 72.0, 129.9, 130.0, 500.0]
    rate = per_minute(moments, 0.0)
    assert rate["peak"] == 4
    assert rate["mean"] == pytest.approx(7 * 60 / 500)


def test_nothing_has_no_rate() -> None:
    assert per_minute([], 0.0) == {"mean": None, "peak": None}
    assert per_minute([5.0], 5.0) == {"mean": None, "peak": 1}


@given(st.lists(st.floats(0, 1000, allow_nan=False), min_size=1, max_size=40))
def test_the_busiest_minute_agrees_with_counting_by_hand(moments: list[float]) -> None:
    expected = max(sum(begin <= each < begin + 60 for each in moments) for begin in moments)
    assert per_minute(moments, 0.0)["peak"] == expected
