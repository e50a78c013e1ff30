"""How often a trend is wrong: steady histories that fail, and changes that are not found.

Each history has ten independent series, of which one changes or none; noise is that of logarithms
from run to run. A tenth of the runs has four times the noise where tails are `heavy`.
"""

from __future__ import annotations

import random
from math import exp

from benchmarks.options import Options
from pytest_kvscale.judge.change import Metric
from pytest_kvscale.judge.runs import RunFile
from pytest_kvscale.judge.samples import LevelRun
from pytest_kvscale.judge.trend import search
from pytest_kvscale.judge.trend_changes import TrendChange, changes_of
from pytest_kvscale.judge.trend_series import Series

SERIES = 10
STEADY, CHANGED = 300, 100
"""Histories of each kind."""
_METRIC = Metric("Running.p95", "p95", "s", "higher", 1.0)
_EACH_VERSION = 5
"""Runs of a version."""


def measure(options: Options) -> None:
    """Print the rates, with the number of histories they are of."""
    draw = random.Random(0)  # noqa: S311 - a simulation
    print(f"steady histories that fail, of {STEADY}, {SERIES} series each")
    for runs, noise, heavy in (
        (10, 0.05, False), (20, 0.02, False), (20, 0.05, False), (20, 0.05, True),
        (20, 0.1, False), (60, 0.05, False),
    ):  # fmt: skip
        wrong = sum(
            any(each.fails for found in _history(draw, runs, noise, heavy) for each in found)
            for _ in range(STEADY)
        )
        tails = ", heavy tails" if heavy else ""
        print(f"  {runs:3} runs, noise {noise:.0%}{tails}: {wrong / STEADY:.1%}")
    print(f"changes of one series that are found, within one run of their place, of {CHANGED}")
    for before, after in ((5, 5), (10, 3), (10, 5), (20, 3), (40, 10)):
        for ratio, noise in ((1.1, 0.02), (1.1, 0.05), (1.2, 0.02), (1.2, 0.05)):
            right = sum(
                any(each.fails and abs(each.index - before) <= 1 for each in found[0])
                for found in (
                    _history(draw, before + after, noise, change=(before, ratio))
                    for _ in range(CHANGED)
                )
            )
            told = f"{before:3} + {after:2} runs, {ratio - 1:+.0%}, noise {noise:.0%}"
            print(f"  {told}: {right / CHANGED:.0%}")


def _history(
    draw: random.Random,
    runs: int,
    noise: float,
    heavy: bool = False,
    change: tuple[int, float] | None = None,
) -> list[list[TrendChange]]:
    """The changes found in each series; the first one may have one, at an index, of a ratio."""
    every = []
    for number in range(SERIES):
        values = []
        for run in range(runs):
            changed = not number and change is not None and run >= change[0]
            level = 30 * change[1] if changed and change is not None else 30.0
            wild = 4 if heavy and draw.random() < 0.1 else 1
            values.append(level * exp(noise * wild * draw.gauss(0, 1)))
        every.append(_series(values))
    return changes_of(every, (), search)


def _series(values: list[float]) -> Series:
    groups = tuple((LevelRun(_run(number), {}, "no"),) for number in range(len(values)))
    return Series(100, _METRIC, tuple(range(len(values))), groups, tuple(values), (), None, "")


def _run(number: int) -> RunFile:
    started = f"2026-{1 + number // 28:02}-{1 + number % 28:02}T02:00:00+00:00"
    version = f"v1.{number // _EACH_VERSION}.0"
    return RunFile(f"run-{number}", started, "false", None, version, {}, (), "made")
