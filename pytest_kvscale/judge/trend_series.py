"""One metric of one level over runs: its values, their noise, and the points that are drawn."""

from __future__ import annotations

import dataclasses
import itertools
import math
import statistics
from collections.abc import Sequence

from pytest_kvscale.judge import samples
from pytest_kvscale.judge.change import Metric, Sample
from pytest_kvscale.judge.runs import RunFile
from pytest_kvscale.judge.samples import LevelRun

RATE = Metric("running_per_min", "VMIs Running a minute", "VMIs/min", "lower", 1.0)
_CONFIDENCE = 0.95
_LEAST_DF = 3


@dataclasses.dataclass(frozen=True)
class Point:
    """A metric in one run."""

    value: float | None
    """The median of its executions; None: it was not reached."""
    low: float | None
    """Bounds of the 95 % interval; None: not known."""
    high: float | None


@dataclasses.dataclass(frozen=True)
class Series:
    """One metric of a level, over the runs that have it."""

    level: int
    metric: Metric
    rows: tuple[int, ...]
    """The places of these runs among all runs of the level."""
    groups: tuple[tuple[LevelRun, ...], ...]
    """The executions of the level in each run."""
    values: tuple[float, ...]
    """The median of each run's executions; infinity: not reached."""
    points: tuple[Point, ...]
    sd: float | None
    """Noise: standard deviation of the logarithm from run to run; None: not known."""
    noise_from: str
    """`repeats` within runs, or `successive runs`; empty: not known."""

    @property
    def runs(self) -> list[RunFile]:
        """The runs."""
        return [group[0].run for group in self.groups]


def series_of(level: int, metric: Metric, groups: Sequence[Sequence[LevelRun]]) -> Series:
    """A metric over runs, each a group of executions of the level."""
    values = _values(metric, groups)
    there = [number for number, each in enumerate(values) if each]
    middles = [statistics.median_high(values[number]) for number in there]
    sd, df, noise_from = _noise(values, middles)
    return Series(
        level=level,
        metric=metric,
        rows=tuple(there),
        groups=tuple(tuple(groups[number]) for number in there),
        values=tuple(middles),
        points=tuple(
            _point(middle, len(values[number]), sd, df)
            for number, middle in zip(there, middles, strict=True)
        ),
        sd=sd,
        noise_from=noise_from,
    )


def _values(metric: Metric, groups: Sequence[Sequence[LevelRun]]) -> list[list[float]]:
    """The metric's values in the executions of each run; infinity: not reached."""
    if metric == samples.REQUESTS:
        # Requests of other components, or counted elsewhere, are another figure: the latest counts.
        counted = [
            each for group in groups for each in group
            if each.standing == "whole" and each.components()
        ]  # fmt: skip
        groups = [
            [each for each in group if samples.is_counted_alike([each, *counted[-1:]])]
            for group in groups
        ]
    found = [[_sample(metric, each) for each in group] for group in groups]
    return [
        [math.inf if each.value is None else each.value for each in group if each is not None]
        for group in found
    ]


def _sample(metric: Metric, execution: LevelRun) -> Sample | None:
    if execution.standing == "refused":
        # A comparison counts it as failures, of which a trend has none: it was not reached.
        return _refused(metric, execution)
    if metric != RATE:
        return execution.sample(metric)
    if execution.standing != "whole":
        return None
    mean = execution.level["rates"]["running_per_min"]["mean"]
    return None if mean is None else Sample(mean)


def _refused(metric: Metric, execution: LevelRun) -> Sample | None:
    share = {samples.RUNNING_P50: 50, samples.RUNNING_P95: 95}.get(metric)
    wall = execution.wall
    if share is None or wall is None or 100 * wall["fits"] >= share * execution.number:
        return None
    return Sample(None)


def _noise(
    values: Sequence[Sequence[float]], middles: Sequence[float]
) -> tuple[float | None, int, str]:
    """Standard deviation of the logarithm from run to run, its degrees of freedom, its source."""
    logs = [[math.log(each) for each in group if 0 < each < math.inf] for group in values]
    repeats = [group for group in logs if len(group) > 1]
    df = sum(len(group) - 1 for group in repeats)
    if df >= _LEAST_DF:
        squares = math.fsum(statistics.variance(group) * (len(group) - 1) for group in repeats)
        return math.sqrt(squares / df), df, "repeats"
    steps = [
        abs(math.log(second / first))
        for first, second in itertools.pairwise(middles)
        if 0 < first < math.inf and 0 < second < math.inf
    ]
    if len(steps) < _LEAST_DF:
        return None, 0, ""
    # The median step, so that the few that are changes do not count as noise.
    return 1.4826 * statistics.median(steps) / math.sqrt(2), len(steps), "successive runs"


def _point(middle: float, executions: int, sd: float | None, df: int) -> Point:
    if not math.isfinite(middle):
        return Point(None, None, None)
    if sd is None or middle <= 0:
        return Point(middle, None, None)
    from scipy.special import stdtrit

    reach = float(stdtrit(df, (1 + _CONFIDENCE) / 2)) * sd / math.sqrt(executions)
    return Point(middle, middle * math.exp(-reach), middle * math.exp(reach))
