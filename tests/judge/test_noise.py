import math

import numpy as np
import pytest
from scipy import stats

from pytest_kvscale.judge.change import Noise, Rules, Sample
from pytest_kvscale.judge.noise import detectable, noise_of, runs_needed, runs_to_pass
from tests.judge.comparing import drawn, judged, samples


def test_noise_is_the_standard_deviation_of_logarithms_pooled_over_groups() -> None:
    one, two = drawn(1, 6), [10 * each for each in drawn(2, 4)]
    found = noise_of([samples(one), samples(two)])
    assert found is not None
    expected = (5 * np.var(np.log(one), ddof=1) + 3 * np.var(np.log(two), ddof=1)) / 8
    assert found.sd == pytest.approx(math.sqrt(expected))
    assert found.df == 8


def test_a_bad_run_is_no_noise() -> None:
    quiet = noise_of([samples(drawn(1, 9, sd=0.02))])
    found = noise_of([samples([*drawn(1, 9, sd=0.02), 60.0])])
    assert quiet is not None
    assert found is not None
    assert found.sd == pytest.approx(quiet.sd)
    assert found.df == quiet.df


def test_one_run_or_none_tells_no_noise() -> None:
    assert noise_of([]) is None
    assert noise_of([samples([10.0]), samples([20.0])]) is None
    assert noise_of([samples([None, None, 0.0])]) is None


def test_runs_alike_are_noise_of_zero() -> None:
    assert noise_of([samples([10.0] * 4)]) == Noise(0.0, 3)


def test_what_is_detectable_is_found_in_nine_of_ten_cases() -> None:
    # By the t-test alone: the noncentral t distribution.
    worse = math.log1p(detectable(Noise(0.05, 18), 10, 10))
    error = 0.05 * math.sqrt(0.2)
    power = stats.nct.sf(stats.t.isf(0.0075, 18), 18, worse / error)
    assert power == pytest.approx(0.9, abs=0.02)
    found = [
        judged(drawn(seed, 10), drawn(seed + 5000, 10, worse=math.expm1(worse))).verdict == "fail"
        for seed in range(200)
    ]
    assert 165 <= sum(found) <= 195


def test_what_is_detectable_grows_with_noise_and_family_and_shrinks_with_runs() -> None:
    least = detectable(Noise(0.05, 18), 10, 10)
    assert detectable(Noise(0.05, 18), 10, 10, family=20) > least
    assert detectable(Noise(0.10, 18), 10, 10) > least
    assert detectable(Noise(0.05, 38), 20, 20) < least
    assert detectable(Noise(0.0, 18), 10, 10) > Rules().relative
    assert detectable(Noise(0.05, 18), 10, 2) == math.inf


def test_runs_needed_are_the_fewest_that_detect_it() -> None:
    runs = runs_needed(0.05, 0.10)
    assert runs is not None
    assert detectable(Noise(0.05, 2 * runs - 2), runs, runs) <= 0.10
    assert detectable(Noise(0.05, 2 * runs - 4), runs - 1, runs - 1) > 0.10
    assert runs_needed(0.05, 0.05) is None
    assert runs_needed(0.001, 0.5) == 3


def test_equal_sides_with_as_many_runs_as_it_takes_pass_in_nine_of_ten_cases() -> None:
    runs = runs_to_pass(0.02)
    assert runs is not None
    found = [
        judged(drawn(seed, runs, sd=0.02), drawn(seed + 5000, runs, sd=0.02)).verdict
        for seed in range(200)
    ]
    assert 165 <= found.count("pass") <= 195
    assert runs_to_pass(0.05) is not None
    assert runs_to_pass(0.5) is None
    assert runs_to_pass(0.0) == 3


def test_a_sample_without_a_time_is_a_sample() -> None:
    assert noise_of([[Sample(10.0), Sample(11.0)]]) is not None
