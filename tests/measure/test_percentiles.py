"""Percentiles over what was asked for."""

from __future__ import annotations

import math
import random
import statistics
from typing import Any

import numpy
import pytest
import scipy.stats
from hypothesis import given
from hypothesis import strategies as st

from pytest_kvscale.measure.percentiles import (
    confidence,
    interval_ranks,
    nearest_rank,
    per_minute,
    summarize,
)

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


# Confidence -----------------------------------------------------------------------------------


@given(TIMES, st.integers(0, 40), st.sampled_from([50, 90, 95, 99]))
def test_intervals_agree_with_another_library(
    values: list[float], missing: int, per_cent: int
) -> None:
    """scipy's test of a quantile has an interval by the same order statistics."""
    total = len(values) + missing
    infinite = sorted(values) + [float("inf")] * missing
    tested = scipy.stats.quantile_test(infinite, q=0, p=per_cent / 100)
    expected = tested.confidence_interval(confidence_level=0.95)
    found = confidence(sorted(values), total, per_cent)
    for ours, theirs in zip(found, expected, strict=True):
        assert ours == (None if math.isnan(theirs) or math.isinf(theirs) else theirs)


@pytest.mark.parametrize("total", [1, 5, 6, 58, 73, 100, 400, 3000, 10000])
@pytest.mark.parametrize("per_cent", [50, 95])
def test_ranks_are_those_of_the_binomial_distribution(total: int, per_cent: int) -> None:
    share = per_cent / 100
    low, high = interval_ranks(total, per_cent)
    expected_low = int(scipy.stats.binom.ppf(0.025, total, share))
    expected_high = int(scipy.stats.binom.isf(0.025, total, share)) + 1
    assert low == (expected_low or None)
    assert high == (expected_high if expected_high <= total else None)


def test_intervals_enclose_the_truth_as_often_as_they_say() -> None:
    rng = random.Random(7)
    truth = {per_cent: -math.log(1 - per_cent / 100) for per_cent in (50, 95)}
    hits = dict.fromkeys(truth, 0)
    for _ in range(2000):
        sample = sorted(rng.expovariate(1) for _ in range(100))
        for per_cent, value in truth.items():
            low, high = confidence(sample, 100, per_cent)
            hits[per_cent] += (low or 0) <= value <= (high or math.inf)
    assert min(hits.values()) / 2000 > 0.945


@given(TIMES, st.integers(0, 40))
def test_an_interval_encloses_its_percentile(values: list[float], missing: int) -> None:
    summary: dict[str, Any] = {**summarize(values, len(values) + missing)}
    for name in ("p50", "p95"):
        value, low, high = (summary[f"{name}{end}"] for end in ("", "_low", "_high"))
        if value is None:
            assert high is None
        else:
            assert low is None or low <= value
            assert high is None or value <= high


def test_a_small_sample_has_no_interval_and_says_so() -> None:
    one = summarize([7.0], 1)
    assert (one["p50"], one["p50_low"], one["p50_high"]) == (7.0, None, None)
    six = summarize([1.0, 2.0, 3.0, 4.0, 5.0, 6.0], 6)
    assert (six["p50_low"], six["p50_high"]) == (1.0, 6.0)
    assert (six["p95_low"], six["p95_high"]) == (4.0, None)


def test_an_end_among_those_that_never_came_is_open() -> None:
    summary = summarize([float(each) for each in range(1, 98)], 100)
    assert (summary["p95"], summary["p95_low"], summary["p95_high"]) == (95.0, 90.0, None)


def test_ties_and_all_equal_values_have_the_interval_of_that_value() -> None:
    summary = summarize([3.0] * 100, 100)
    assert {summary[name] for name in ("p50_low", "p50_high", "p95_low", "p95_high")} == {3.0}


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
