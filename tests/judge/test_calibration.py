"""What equal runs tell: their noise, what it lets one find, and whether they were equal."""

from __future__ import annotations

import dataclasses
import math
import random
import re
from typing import Any

import pytest

from pytest_kvscale.judge.calibration import SIDES, LevelCalibration, calibrate
from pytest_kvscale.judge.change import Rules
from pytest_kvscale.judge.comparison import not_calibrated
from pytest_kvscale.judge.runs import RunFile
from pytest_kvscale.judge.samples import LevelRun
from pytest_kvscale.report import calibration as reports

RUN = RunFile("r1", None, "false", None, "v1.9.0", {}, (), "r1/results.json")


def run(p95: float | None, index: int = 0, standing: Any = "whole") -> LevelRun:
    """A run of level 100; its other metrics vary a little."""
    other = 100.0 + 0.1 * (index * 7 % 5)
    level = {
        "level": 100, "label": f"100-{index}", "began": None, "reasons": [], "left_behind": 0,
        "test": "passed", "phases": {"Running": {"p50": other, "p95": p95}},
        "deletion": {"p95": other, "censored": 0}, "failures": {},
        "control_plane": {"source": "none", "requests_per_vmi": {}},
    }  # fmt: skip
    return LevelRun(RUN, level, standing, "" if standing == "whole" else "it was cut short")


def calibrated(*values: float | None) -> LevelCalibration:
    return calibrate(100, [run(value, index) for index, value in enumerate(values)])


def noisy(number: int, sd: float, seed: int = 1) -> list[float]:
    draw = random.Random(seed)
    return [100 * math.exp(draw.gauss(0, sd)) for _ in range(number)]


def test_the_noise_is_found_with_its_interval_and_more_runs_find_less() -> None:
    found = calibrated(*noisy(40, 0.05))
    _, p95, _, requests = found.metrics
    assert p95.noise is not None
    assert p95.low is not None
    assert p95.high is not None
    assert p95.low < 0.05 < p95.high
    assert p95.low < p95.noise.sd < p95.high
    smallest = [p95.detectable[each] or math.inf for each in SIDES]
    assert smallest == sorted(smallest, reverse=True)
    assert smallest[0] > 2 * smallest[-1]
    assert (found.verdict, found.warnings, found.usable) == ("pass", (), 40)
    assert (requests.noise, requests.median, requests.detectable) == (None, None, {})


def test_nothing_is_said_to_be_found_that_would_not_fail() -> None:
    """Both thresholds hold, however quiet the cluster is: 1 s is 10 % of 10 s."""
    quiet = calibrate(
        100, [run(10 + index / 1e4, index) for index in range(6)], Rules(relative=0.2)
    )
    assert quiet.metrics[1].detectable[20] == pytest.approx(0.2, rel=0.05)
    usual = calibrate(100, [run(10 + index / 1e4, index) for index in range(6)])
    assert usual.metrics[1].detectable[20] == pytest.approx(0.1, rel=0.01)


@pytest.mark.parametrize("number", [3, 6, 10, 17, 60])
def test_equal_runs_raise_no_alarm(number: int) -> None:
    alarms = sum(bool(calibrated(*noisy(number, 0.05, seed)).warnings) for seed in range(20))
    assert alarms <= 1


@pytest.mark.parametrize("number", [8, 10, 25])
def test_a_drift_is_told(number: int) -> None:
    drifting = [each * 1.03**index for index, each in enumerate(noisy(number, 0.01))]
    (warning,) = calibrated(*drifting).warnings[:1]
    found = re.match(r"p95 creation to Running: it drifted by \+(\d+) % from the first", warning)
    assert found is not None
    assert int(found[1]) == pytest.approx(100 * (1.03 ** (number - 1) - 1), rel=0.15)


@pytest.mark.parametrize("number", [9, 10, 25])
def test_two_groups_are_told_in_whatever_order_they_come(number: int) -> None:
    two = [each * (1.2 if index % 2 else 1) for index, each in enumerate(noisy(number, 0.01))]
    (warning,) = calibrated(*two).warnings
    lower, upper = math.ceil(number / 2), number // 2
    assert f"the runs fall in two groups, {lower} at about " in warning
    assert f" and {upper} at about 1" in warning


def test_one_run_that_lies_apart_is_no_group() -> None:
    assert calibrated(*noisy(9, 0.01), 150.0).warnings == ()


def test_a_difference_too_small_to_matter_raises_no_alarm() -> None:
    assert calibrated(*(100 + 0.01 * index for index in range(12))).warnings == ()


@pytest.mark.parametrize(
    ("runs", "verdict", "text"),
    [
        ([run(9.0), run(9.1)], "fail", "2 of 2 runs can be used: too few, a calibration needs 3"),
        ([run(9.0, 1), run(9.1), run(9.2), run(8.0, 4, "no")], "inconclusive",
         "3 of 4 runs can be used\n  r1 100-4 does not count: it was cut short"),
        ([run(9.0, 1, "refused")] * 5, "fail", "0 of 5 runs can be used: too few"),
        ([run(9.0 + index / 9, index) for index in range(3)], "pass", "3 of 3 runs can be used"),
    ],
)  # fmt: skip
def test_a_calibration_needs_runs_that_count(runs: list[LevelRun], verdict: str, text: str) -> None:
    found = calibrate(100, runs)
    assert found.verdict == verdict
    assert text in found.text()


def test_a_value_that_was_not_reached_leaves_no_median_and_no_alarm() -> None:
    found = calibrated(*noisy(8, 0.01), None)
    assert (found.metrics[1].median, found.warnings) == (None, ())
    assert found.metrics[1].noise is not None


def test_it_is_shown_in_lines_a_page_and_markdown() -> None:
    found = [calibrated(*(each * (1.3 if index % 2 else 1)
                          for index, each in enumerate(noisy(10, 0.01))))]  # fmt: skip
    lines = [*reports.table(found)]
    assert lines[2].split("  ")[0] == "level"
    assert lines[2].endswith("1 run  3 runs  5 runs  10 runs  20 runs")
    assert "  100  p95 creation to Running " in lines[4]
    assert lines[-1].startswith("level 100: warning: p95 creation to Running: the runs fall in two")
    page, text = reports.section(found), reports.markdown(found)
    for shown in (page, text):
        assert "p95 creation to Running" in shown
        assert "the runs fall in two groups" in shown
    assert text.startswith("## Calibration\n\nNoise is how far equal runs lie apart")
    assert found[0].as_json()["metrics"][1]["values"][0] is not None


def test_a_comparison_names_the_levels_that_were_not_calibrated() -> None:
    """Another level's noise is not taken for theirs."""
    calibration = [dataclasses.replace(RUN, levels=({"level": 100},))]
    assert not_calibrated(calibration, [100]) == []
    assert not_calibrated([], [100, 200]) == []
    assert not_calibrated(calibration, [100, 200]) == [
        "level 200 was not calibrated (100 was): its noise is told by its own runs alone"
    ]
