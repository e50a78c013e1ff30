"""What equal runs of a level tell: how far they lie apart, and how small a change can be found.

It also looks whether they were equal: a cluster that drifts while it is calibrated, or that is in
one of two states from run to run, has a noise that no comparison should be built on.
"""

from __future__ import annotations

import dataclasses
import math
import statistics
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from pytest_kvscale.judge.change import DEFAULT, Metric, Noise, Rules, Verdict
from pytest_kvscale.judge.samples import METRICS, LevelRun, samples

LEAST_RUNS = 3
"""Fewer than that are no calibration."""
SIDES = (1, 3, 5, 10, 20)
"""So many runs on each side are told what they can find."""
MATERIAL = 0.02
"""A drift, or a distance of two groups, that is smaller is not worth a warning: 0.02 is 2 %."""
_DRIFT_P = 0.005
_MOST_WITHIN = {5: 0.011, 6: 0.022, 7: 0.035, 8: 0.051, 10: 0.077, 12: 0.101, 15: 0.128, 20: 0.159,
                30: 0.192, 40: 0.217}  # fmt: skip
"""By the number of runs: what of the squares is left within the best two groups of at least two, in
0.5 % of samples that have one normal distribution (simulated; heavier tails alarm no more often).
"""

Json = dict[str, Any]


@dataclasses.dataclass(frozen=True)
class MetricCalibration:
    """A metric in equal runs of a level."""

    metric: Metric
    values: tuple[float | None, ...]
    """In the order of the runs; None: it was not reached."""
    median: float | None
    noise: Noise | None
    """None: there are too few values."""
    low: float | None
    """Bounds of the noise's standard deviation, of 95 % confidence."""
    high: float | None
    detectable: Mapping[int, float | None]
    """By runs on each side: the smallest relative worsening that is found in nine of ten cases.
    None: none is."""
    warnings: tuple[str, ...]
    """In which way the runs do not look equal; one sentence each."""

    def as_json(self) -> Json:
        """As it stands in the results."""
        noise = self.noise
        return {
            "metric": self.metric.key,
            "title": self.metric.title,
            "unit": self.metric.unit,
            "values": list(self.values),
            "median": self.median,
            "sd": None if noise is None else _digits(noise.sd),
            "sd_low": _digits(self.low),
            "sd_high": _digits(self.high),
            "df": None if noise is None else noise.df,
            "detectable": {str(runs): _digits(each) for runs, each in self.detectable.items()},
            "warnings": list(self.warnings),
        }


@dataclasses.dataclass(frozen=True)
class LevelCalibration:
    """A level that was run several times with nothing changed in between."""

    level: int
    runs: int
    usable: int
    """Runs that count."""
    metrics: tuple[MetricCalibration, ...]
    left_out: tuple[str, ...]
    """Which runs do not count, and why."""

    @property
    def verdict(self) -> Verdict:
        """Whether it can be used: not if it has too few runs; doubtful if some do not count."""
        if self.usable < LEAST_RUNS or not any(each.noise for each in self.metrics):
            return "fail"
        return "inconclusive" if self.left_out else "pass"

    @property
    def warnings(self) -> tuple[str, ...]:
        """In which way the runs do not look equal."""
        return tuple(
            f"{each.metric.title}: {warning}" for each in self.metrics for warning in each.warnings
        )

    def text(self) -> str:
        """What came of it, in words."""
        head = f"level {self.level}: {self.usable} of {self.runs} runs can be used"
        if self.usable < LEAST_RUNS:
            head += f": too few, a calibration needs {LEAST_RUNS}"
        elif self.verdict == "fail":
            head += ": nothing in them could be measured twice"
        return "\n".join([head, *(f"  {each}" for each in (*self.left_out, *self.warnings))])

    def as_json(self) -> Json:
        """As it stands in the results."""
        return {
            "level": self.level,
            "verdict": self.verdict,
            "runs": self.runs,
            "usable": self.usable,
            "metrics": [each.as_json() for each in self.metrics],
            "left_out": list(self.left_out),
        }


def calibrate(level: int, runs: Sequence[LevelRun], rules: Rules = DEFAULT) -> LevelCalibration:
    """What equal runs of a level tell; `runs` in the order they were made."""
    usable = [each for each in runs if each.standing == "whole"]
    return LevelCalibration(
        level=level,
        runs=len(runs),
        usable=len(usable),
        metrics=tuple(_metric(metric, usable, rules) for metric in METRICS),
        left_out=tuple(
            f"{each.label} does not count: {each.why}" for each in runs if each not in usable
        ),
    )


def _metric(metric: Metric, runs: Sequence[LevelRun], rules: Rules) -> MetricCalibration:
    from pytest_kvscale.judge.noise import noise_of

    found = samples(runs, metric)
    values = tuple(each.value for each in found)
    reached = [each for each in values if each is not None and each > 0]
    median = statistics.median(reached) if len(reached) == len(values) and reached else None
    noise = noise_of([found]) if len(reached) >= LEAST_RUNS else None
    low, high = (None, None) if noise is None else _interval(noise)
    whole = [math.log(each) for each in reached] if len(reached) == len(values) else []
    return MetricCalibration(
        metric=metric,
        values=values,
        median=median,
        noise=noise,
        low=low,
        high=high,
        detectable={} if noise is None else {
            each: _detectable(metric, noise, median, each, rules) for each in SIDES
        },
        warnings=tuple(_warnings(whole)),
    )  # fmt: skip


def _interval(noise: Noise) -> tuple[float, float]:
    from scipy import stats

    low, high = (math.sqrt(noise.df / float(stats.chi2.ppf(p, noise.df))) for p in (0.975, 0.025))
    return noise.sd * low, noise.sd * high


def _detectable(
    metric: Metric, noise: Noise, median: float | None, runs: int, rules: Rules
) -> float | None:
    """With so many runs on each side, in a comparison of this level alone.

    Nothing fails that is below the thresholds, however sure it is.
    """
    from pytest_kvscale.judge.noise import detectable

    found = detectable(noise, runs, runs, rules, family=len(METRICS))
    if found is None or not math.isfinite(found):
        return None
    return max(found, rules.relative, 0.0 if not median else metric.practical / median)


def _warnings(logs: Sequence[float]) -> Iterator[str]:
    if len(logs) < min(_MOST_WITHIN):
        return
    drift = _drift(logs)
    if drift is not None:
        yield (
            f"it drifted by {_percent(drift)} from the first run to the last: the cluster was not "
            "in one state"
        )
    groups = _groups(logs)
    if groups is not None:
        less, more = groups
        yield (
            f"the runs fall in two groups, {less} at about {math.exp(_middle(logs, 0, less)):.4g} "
            f"and {more} at about {math.exp(_middle(logs, less, less + more)):.4g}: something is "
            "different from run to run"
        )


def _drift(logs: Sequence[float]) -> float | None:
    """The relative change over all runs, by the median slope, if its sign is no chance."""
    from scipy import stats

    if max(logs) - min(logs) < math.log1p(MATERIAL):
        return None
    order = range(len(logs))
    if not float(stats.kendalltau(order, logs).pvalue) < _DRIFT_P:
        return None
    change = float(stats.theilslopes(logs, order)[0]) * (len(logs) - 1)
    return math.expm1(change) if abs(change) > math.log1p(MATERIAL) else None


def _groups(logs: Sequence[float]) -> tuple[int, int] | None:
    """How many runs two groups have, the lower first, if all do not have one distribution.

    One run that lies apart is no group.
    """
    ordered = sorted(logs)
    total = _squares(ordered)
    splits = {
        split: _squares(ordered[:split]) + _squares(ordered[split:])
        for split in range(2, len(logs) - 1)
    }
    best = min(splits, key=lambda split: splits[split])
    apart = statistics.median(ordered[best:]) - statistics.median(ordered[:best])
    if apart < math.log1p(MATERIAL) or splits[best] >= _most_within(len(logs)) * total:
        return None
    return best, len(logs) - best


def _middle(logs: Sequence[float], begin: int, end: int) -> float:
    return statistics.median(sorted(logs)[begin:end])


def _squares(values: Sequence[float]) -> float:
    mean = statistics.fmean(values)
    return sum((each - mean) ** 2 for each in values)


def _most_within(runs: int) -> float:
    """The limit for so many runs; between those of the table on a straight line."""
    known = sorted(_MOST_WITHIN)
    if runs >= known[-1]:
        return _MOST_WITHIN[known[-1]]
    above = next(each for each in known if each >= runs)
    below = max(each for each in known if each <= runs)
    share = 0.0 if above == below else (runs - below) / (above - below)
    return _MOST_WITHIN[below] + share * (_MOST_WITHIN[above] - _MOST_WITHIN[below])


def _percent(change: float) -> str:
    return f"{100 * change:+.0f} %"


def _digits(value: float | None) -> float | None:
    return None if value is None else float(f"{value:.4g}")
