import dataclasses
import math
import random
import time
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pytest_kvscale.judge.change import Metric, Noise, Pair, Rules, Sample
from pytest_kvscale.judge.regression import judge_changes
from tests.judge.comparing import P95, RATE, drawn, judged, pair

TEN = [10.1, 10.2, 10.0, 9.9, 10.3]
TWELVE = [12.0, 12.2, 12.1, 12.4, 11.9]

values = st.floats(1.0, 500.0)
sides = st.lists(values, min_size=1, max_size=7)
reached_or_not = st.lists(st.none() | st.floats(0.0, 1e6), max_size=6)
metrics = st.sampled_from([P95, RATE])
noises = st.none() | st.builds(Noise, sd=st.floats(0, 0.3), df=st.integers(1, 20))


# Verdicts -------------------------------------------------------------------------------------


def test_a_clear_worsening_fails_with_its_size_and_interval() -> None:
    found = judged(TEN, TWELVE)
    assert found.verdict == "fail"
    assert (found.before, found.after) == (10.1, 12.1)
    assert found.shift == pytest.approx(0.2, abs=0.01)
    assert found.low is not None
    assert found.high is not None
    assert 0.15 < found.low < 0.2 < found.high < 0.25
    assert found.p is not None
    assert found.p < 0.001
    assert found.more_runs is None
    assert "worse by more than 5%" in found.reason


def test_less_of_what_should_be_much_fails_too() -> None:
    found = judged([50.0, 51.0, 49.0], [30.0, 31.0, 30.0], metric=RATE)
    assert found.verdict == "fail"
    assert found.shift is not None
    assert found.low is not None
    assert found.high is not None
    assert found.shift == pytest.approx(-0.4, abs=0.02)
    assert found.low < found.shift < found.high < -0.3
    assert judged([30.0, 31.0, 30.0], [50.0, 51.0, 49.0], metric=RATE).verdict == "pass"


def test_equal_and_quiet_passes() -> None:
    found = judged(TEN, [10.0, 10.2, 10.1, 9.9, 10.2])
    assert found.verdict == "pass"
    assert found.reason == "not worse by 5% or more"


def test_better_passes_though_noise_is_large() -> None:
    found = judged([20.0, 24.0, 17.0, 22.0, 19.0], [5.0, 6.0, 4.5, 5.5, 5.2])
    assert (found.verdict, found.reason) == ("pass", "better")


def test_a_certain_change_that_is_small_passes() -> None:
    found = judged([10.00, 10.01, 10.02, 10.01], [10.20, 10.21, 10.22, 10.21])
    assert found.verdict == "pass"
    assert found.p is not None
    assert found.p < 0.01


def test_a_large_relative_change_below_the_practical_threshold_does_not_fail() -> None:
    slow, fast = [1.00, 1.01, 1.02, 1.0], [1.3, 1.31, 1.32, 1.3]
    assert judged(slow, fast).verdict == "pass"
    careful = dataclasses.replace(P95, practical=0.1)
    assert judged(slow, fast, metric=careful).verdict == "fail"


def test_noise_leaves_it_open_and_says_how_many_runs_would_do() -> None:
    found = judged([18.0, 22.0, 20.0], [20.0, 23.5, 21.0])
    assert found.verdict == "inconclusive"
    assert found.more_runs is not None
    assert found.more_runs > 3
    assert "noise" in found.reason


def test_more_runs_as_advised_decide_in_most_cases() -> None:
    few = judged([20.0, 18.6, 21.6, 20.4], [22.2, 24.2, 20.9, 22.9])
    assert few.verdict == "inconclusive"
    assert few.more_runs is not None
    runs = 4 + few.more_runs
    assert few.shift is not None
    worse, sd = few.shift, 0.06
    found = [
        judged(drawn(seed, runs, sd=sd), drawn(seed + 900, runs, sd=sd, worse=worse)).verdict
        for seed in range(100)
    ]
    assert found.count("fail") >= 70


def test_certain_but_near_the_threshold_is_inconclusive() -> None:
    found = judged([10.0, 10.1, 9.9, 10.0, 10.05], [10.52, 10.4, 10.5, 10.45, 10.51])
    assert found.verdict == "inconclusive"


# Few runs -------------------------------------------------------------------------------------


def test_one_run_a_side_without_a_calibration_is_inconclusive_and_asks_for_three() -> None:
    found = judged([10.0], [30.0])
    assert (found.verdict, found.more_runs) == ("inconclusive", 2)
    assert found.shift == pytest.approx(2.0)
    assert (found.low, found.high, found.p) == (None, None, None)
    assert "one run on each side" in found.reason


def test_one_run_a_side_with_a_calibration_passes_when_equal() -> None:
    assert judged([10.0], [10.0], noise=Noise(0.01, 19)).verdict == "pass"


@pytest.mark.parametrize("runs", [1, 2])
def test_one_or_two_runs_after_may_be_bad_ones_and_do_not_fail(runs: int) -> None:
    found = judged(TEN, [30.0] * runs, noise=Noise(0.01, 20))
    assert found.verdict == "inconclusive"
    assert found.more_runs == 3 - runs
    assert "bad by chance" in found.reason


def test_a_bad_run_before_makes_nothing_better() -> None:
    found = judged([30.0], [10.0], noise=Noise(0.01, 20))
    assert found.verdict == "inconclusive"
    assert "bad by chance" in found.reason


def test_three_runs_a_side_fail_when_twice_as_slow() -> None:
    assert judged([10.0, 10.4, 9.8], [20.0, 20.6, 19.9]).verdict == "fail"


def test_a_calibration_decides_what_three_runs_leave_open() -> None:
    before, after = [10.0, 10.5, 9.5], [11.5, 11.1, 12.1]
    alone, calibrated = judged(before, after), judged(before, after, noise=Noise(0.04, 20))
    assert (alone.verdict, calibrated.verdict) == ("inconclusive", "fail")
    assert calibrated.detectable is not None
    assert alone.detectable is not None
    assert calibrated.detectable < alone.detectable


def test_a_calibration_does_not_quieten_runs_that_are_noisier() -> None:
    noisy = [10.0, 14.0, 8.0], [13.0, 18.0, 10.0]
    assert judged(*noisy, noise=Noise(0.01, 20)).verdict == "inconclusive"


def test_a_side_without_runs_is_inconclusive() -> None:
    found = judged(TEN, [])
    assert (found.verdict, found.before, found.after) == ("inconclusive", 10.1, None)
    assert "not measured after" in found.reason
    assert judged([], []).verdict == "inconclusive"


def test_no_pairs_are_no_changes() -> None:
    assert judge_changes([]) == []


# Runs alike, zeros, odd values ----------------------------------------------------------------


def test_runs_that_came_out_alike_pass_or_fail_by_the_thresholds() -> None:
    assert judged([10.0] * 3, [10.0] * 3).verdict == "pass"
    assert judged([10.0] * 3, [10.01] * 3).verdict == "pass"
    assert judged([10.0] * 3, [13.0] * 3).verdict == "fail"


def test_whole_seconds_hide_what_is_within_one() -> None:
    stamps = dataclasses.replace(P95, resolution=1.0)
    assert judged([12.0] * 3, [13.0] * 3).verdict == "fail"
    assert judged([12.0] * 3, [13.0] * 3, metric=stamps).verdict == "inconclusive"


def test_from_nothing_to_something_fails_without_a_ratio() -> None:
    found = judged([0.0] * 4, [5.0, 6.0, 5.0, 5.5])
    assert (found.verdict, found.shift, found.low) == ("fail", None, None)
    assert judged([0.0] * 4, [0.0] * 4).verdict == "pass"
    assert judged([0.0] * 4, [0.1, 0.2, 0.1, 0.1]).verdict == "pass"


def test_what_is_no_number_is_left_out_and_told() -> None:
    found = judged([math.nan, *TEN], [*TWELVE, -1.0])
    assert found.verdict == "fail"
    assert "2 value(s) were left out" in found.reason


# Not reached ----------------------------------------------------------------------------------


def test_not_reached_by_any_run_after_fails_if_that_is_more_than_chance() -> None:
    found = judged(TEN, [None] * 5)
    assert (found.verdict, found.after, found.shift) == ("fail", None, None)
    assert "not reached in 0 of 5 runs before and in 5 of 5 after" in found.reason
    few = judged(TEN[:3], [None] * 3)
    assert (few.verdict, few.more_runs) == ("inconclusive", 2)


def test_not_reached_on_either_side_is_inconclusive() -> None:
    found = judged([None] * 5, [None] * 5)
    assert (found.verdict, found.more_runs) == ("inconclusive", None)
    assert "reached on neither side" in found.reason


def test_reached_at_last_passes() -> None:
    assert judged([None] * 5, TEN).verdict == "pass"
    assert judged([None] * 3, TEN[:3]).verdict == "inconclusive"


def test_not_reached_once_is_no_fail() -> None:
    found = judged(TEN, [*TEN[:4], None])
    assert found.verdict == "inconclusive"
    assert found.after == 10.1


# Bad runs, drift ------------------------------------------------------------------------------


def test_one_bad_run_after_does_not_fail() -> None:
    assert judged(TEN, [10.1, 10.2, 31.0, 9.9, 10.0]).verdict != "fail"


def test_one_bad_run_before_hides_no_worsening() -> None:
    found = judged([10.1, 10.2, 31.0, 9.9, 10.3], TWELVE)
    assert found.verdict == "fail"
    assert "stands out" in found.reason
    assert found.low is not None
    assert found.low > 0


def test_runs_that_climb_within_their_sides_are_a_drift_not_a_change() -> None:
    climbing = [10 * 1.03**run for run in range(10)]
    hours = [3600.0 * run for run in range(10)]
    found = judged(climbing[:5], climbing[5:], began=hours)
    assert found.verdict == "inconclusive"
    assert found.reason.startswith("drift")
    # Without the times, or in turns, the same runs are judged as they are.
    assert judged(climbing[:5], climbing[5:]).verdict == "fail"


def test_a_drift_of_all_levels_is_noticed_though_each_is_noisy() -> None:
    hours = [3600.0 * run for run in range(10)]
    pairs = []
    for level in range(8):
        runs = [
            each * 1.03**place for place, each in enumerate(drawn(40 + level, 10, sd=0.04))
        ]  # fmt: skip
        pairs.append(pair(runs[:5], runs[5:], began=hours))
    assert any(judge_changes([each])[0].verdict == "fail" for each in pairs)
    assert all(each.verdict == "inconclusive" for each in judge_changes(pairs))


def test_a_step_stands_though_it_is_measured_one_side_after_the_other() -> None:
    found = judged(TEN, TWELVE, began=[3600.0 * run for run in range(10)])
    assert found.verdict == "fail"


def test_a_cluster_that_warms_up_may_hide_a_worsening() -> None:
    warming = [10 * 0.98**run for run in range(6)]
    hours = [3600.0 * run for run in range(12)]
    runs = [*warming, *(each * 0.98**6 * 1.12 for each in warming)]
    found = judged(runs[:6], runs[6:], began=hours, noise=Noise(0.02, 20))
    assert found.verdict == "inconclusive"


# Properties -----------------------------------------------------------------------------------


@settings(max_examples=100, deadline=None)
@given(reached_or_not, reached_or_not, metrics, noises)
def test_any_values_give_a_verdict_with_a_reason(before, after, metric, noise) -> None:  # type: ignore[no-untyped-def]
    found = judged(before, after, metric=metric, noise=noise)
    assert found.reason
    assert (found.more_runs is None) or found.verdict == "inconclusive"
    if found.verdict == "fail":
        assert found.p is not None
        assert found.p <= Rules().alpha
        assert len(after) >= 3
    if found.low is not None and found.shift is not None and found.high is not None:
        assert found.low <= found.shift + 1e-9 * abs(found.shift)
        assert found.shift <= found.high + 1e-9 * abs(found.high)


@settings(max_examples=100, deadline=None)
@given(sides, st.floats(1.0, 3.0), metrics, st.integers(0, 10**6))
def test_a_fail_with_its_sides_swapped_never_fails(before, factor, metric, seed) -> None:  # type: ignore[no-untyped-def]
    rng = random.Random(seed)
    after = [each * factor * rng.lognormvariate(0, 0.05) for each in before]
    if judged(before, after, metric=metric).verdict == "fail":
        assert judged(after, before, metric=metric).verdict != "fail"


@settings(max_examples=60, deadline=None)
@given(sides, sides, st.floats(0.01, 1000.0))
def test_the_unit_does_not_matter(before, after, factor) -> None:  # type: ignore[no-untyped-def]
    one = judged(before, after)
    scaled = Metric("m", "m", "ms", "higher", P95.practical * factor)
    other = judged([x * factor for x in before], [x * factor for x in after], metric=scaled)
    assert one.verdict == other.verdict
    if one.p is not None:
        assert other.p == pytest.approx(one.p, rel=1e-6, abs=1e-12)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10**6), st.integers(3, 8), st.floats(1.0, 2.0), st.floats(1.0, 2.0))
def test_slower_runs_after_never_turn_a_fail_into_a_pass(seed, runs, worse, slower) -> None:  # type: ignore[no-untyped-def]
    before, after = drawn(seed, runs), [each * worse for each in drawn(seed + 1, runs)]
    verdicts = [judged(before, [x * by for x in after]).verdict for by in (1.0, slower)]
    assert verdicts not in (["fail", "pass"], ["inconclusive", "pass"])


@settings(max_examples=20, deadline=None)
@given(st.randoms(use_true_random=False))
def test_neither_the_order_of_pairs_nor_that_of_runs_matters(rng: random.Random) -> None:
    pairs = [
        pair(drawn(each, 5), drawn(each + 50, 5, worse=each / 40), began=range(10))
        for each in range(6)
    ]
    pairs.append(pair([10.1, 10.2, 31.0, 9.9, 10.3], TWELVE, began=range(10)))
    straight = judge_changes(pairs)
    order = list(range(len(pairs)))
    rng.shuffle(order)
    shuffled = judge_changes([_shuffled(pairs[each], rng) for each in order])
    for place, each in zip(order, shuffled, strict=True):
        same = straight[place]
        assert (each.verdict, each.reason) == (same.verdict, same.reason)
        assert each.p == pytest.approx(same.p)
        assert each.low == pytest.approx(same.low)


def _shuffled(one: Pair, rng: random.Random) -> Pair:
    def mixed(side: tuple[Sample, ...]) -> tuple[Sample, ...]:
        return tuple(rng.sample(side, len(side)))

    return dataclasses.replace(one, before=mixed(one.before), after=mixed(one.after))


# Error rates, roughly: the real ones are measured by benchmarks/error_rates.py ------------------


def _verdicts(sessions: int, runs: int, worse: float, sd: float = 0.05) -> Counter[str]:
    return Counter(
        judged(drawn(seed, runs, sd=sd), drawn(10_000 + seed, runs, sd=sd, worse=worse)).verdict
        for seed in range(sessions)
    )


def test_equal_pairs_hardly_ever_fail() -> None:
    assert _verdicts(400, 5, 0.0)["fail"] <= 12


def test_ten_per_cent_worse_is_found_half_the_time_and_never_passes() -> None:
    found = _verdicts(400, 5, 0.10)
    assert found["fail"] >= 160
    assert found["pass"] == 0


def test_twenty_per_cent_worse_is_found() -> None:
    assert _verdicts(200, 5, 0.20)["fail"] >= 180
    assert _verdicts(100, 10, 0.10)["fail"] >= 80


def test_a_family_of_equal_pairs_hardly_ever_fails() -> None:
    failed = 0
    for session in range(40):
        pairs = [pair(drawn(1000 * session + each, 5), drawn(500 + 1000 * session + each, 5))
                 for each in range(20)]  # fmt: skip
        failed += any(each.verdict == "fail" for each in judge_changes(pairs))
    assert failed <= 4


def test_a_large_family_is_judged_fast() -> None:
    pairs = [pair([*drawn(each, 9), 60.0], drawn(each + 50, 10, worse=0.3)) for each in range(25)]
    began = time.process_time()
    assert sum(each.verdict == "fail" for each in judge_changes(pairs)) >= 20
    assert time.process_time() - began < 2
