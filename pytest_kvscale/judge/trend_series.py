"""One metric of one level over runs: its points, its noise, and where it changed."""

from __future__ import annotations

import dataclasses
import itertools
import math
import statistics
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from pytest_kvscale.judge import samples
from pytest_kvscale.judge.acknowledged import Entry, cover
from pytest_kvscale.judge.attribution import attribute
from pytest_kvscale.judge.change import DEFAULT, Change, Metric, Pair, Sample
from pytest_kvscale.judge.runs import RunFile
from pytest_kvscale.judge.samples import LevelRun

RATE = Metric("running_per_min", "VMIs Running a minute", "VMIs/min", "lower", 1.0)
RELATIVE = DEFAULT.relative
_CONFIDENCE = 0.95
_LEAST_DF = 3
_NOT_REACHED = 4.0
"""A value that was not reached counts as so many times the worst one that was."""


class Found(Protocol):
    """A change point, as `judge/change_points.py` finds it."""

    @property
    def index(self) -> int:
        """Of the first value after the change."""

    @property
    def ratio(self) -> float:
        """After / before."""

    @property
    def low(self) -> float:
        """Lower end of the ratio's interval."""

    @property
    def high(self) -> float:
        """Upper end."""

    @property
    def p(self) -> float:
        """How probable it is without any change."""


Finder = Callable[[Sequence[float]], Sequence[Found]]


@dataclasses.dataclass(frozen=True)
class Told:
    """Which of the changes that are found are told."""

    relative: float = RELATIVE
    """From this relative change on; a metric has its own absolute threshold."""
    family: int = 1
    """So many series are looked at together: each change must be clear for all of them."""

    def has(self, metric: Metric, before: float, after: float, found: Found) -> bool:
        """Whether a change from one typical value to another is large and clear enough."""
        large = max(found.ratio, 1 / found.ratio) >= 1 + self.relative
        return large and abs(after - before) >= metric.practical and self._is_clear(found)

    def _is_clear(self, found: Found) -> bool:
        """Whether the interval would leave out 1 with the confidence that the family needs."""
        reach = math.log(found.high / found.low) / 2
        normal = statistics.NormalDist()
        wider = normal.inv_cdf(1 - DEFAULT.alpha / self.family) / normal.inv_cdf(1 - DEFAULT.alpha)
        return abs(math.log(found.ratio)) > reach * wider


@dataclasses.dataclass(frozen=True)
class Point:
    """A metric in one run."""

    value: float | None
    """The median of its executions; None: it was not reached."""
    low: float | None
    """Bounds of the 95 % interval; None: not known."""
    high: float | None


@dataclasses.dataclass(frozen=True)
class TrendChange:
    """A place from which on a metric is another one."""

    level: int
    metric: Metric
    index: int
    """Of the first row after it."""
    run: str
    kubevirt: str
    from_kubevirt: str
    """The version in the run before it."""
    before: float | None
    """The median from the change before (or the beginning); None: not reached."""
    after: float | None
    """The median until the next change (or the end)."""
    ratio: float | None
    """After / before; None: one of them is not reached."""
    low: float | None
    high: float | None
    p: float
    worse: bool
    where: str = ""
    """Where in the VMIs' life it is, as `judge/attribution.py` says it; empty: it is better."""
    acknowledged: tuple[Entry, ...] = ()
    """What was accepted of it."""
    is_accepted: bool = False
    """Whether that is enough."""

    @property
    def fails(self) -> bool:
        """Whether it is worse, and that is not accepted."""
        return self.worse and not self.is_accepted

    @property
    def accepting(self) -> dict[str, Any]:
        """The entry that would accept it, but for who and why."""
        ratio = "not reached" if self.ratio is None else _rounded(self.ratio, self.metric)
        return {"level": self.level, "metric": self.metric.key, "run": self.run, "accepted": ratio}


@dataclasses.dataclass(frozen=True)
class Series:
    """One metric of a level, over the rows that have it."""

    metric: Metric
    sd: float | None
    """Noise: standard deviation of the logarithm from run to run; None: not known."""
    noise_from: str
    """`repeats` within runs, or `successive runs`; empty: not known."""
    changes: tuple[TrendChange, ...]


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
    if metric != RATE:
        return execution.sample(metric)
    if execution.standing != "whole":
        return None
    mean = execution.level["rates"]["running_per_min"]["mean"]
    return None if mean is None else Sample(mean)


def series_of(
    level: int,
    metric: Metric,
    groups: Sequence[Sequence[LevelRun]],
    acknowledged: Sequence[Entry],
    told: Told,
    find: Finder,
) -> tuple[Series, list[Point | None]]:
    """A metric over runs, each a group of executions of the level, and its point in each run.

    `acknowledged` are all entries; `told` says which changes are told; `find` finds change points.
    A run in which the metric was not measured has no point.
    """
    values = _values(metric, groups)
    there = [number for number, each in enumerate(values) if each]
    middles = [statistics.median_high(values[number]) for number in there]
    sd, df, noise_from = _noise(values, middles)
    points: list[Point | None] = [None] * len(values)
    for number, middle in zip(there, middles, strict=True):
        points[number] = _point(middle, len(values[number]), sd, df)
    kept = [groups[number] for number in there]
    found = _changes(level, metric, middles, kept, told, find)
    changes = [
        dataclasses.replace(each, index=there[each.index])
        for each in _acknowledged(found, [group[0].run for group in kept], acknowledged)
    ]
    return Series(metric, sd, noise_from, tuple(changes)), points


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


def _changes(
    level: int,
    metric: Metric,
    middles: Sequence[float],
    groups: Sequence[Sequence[LevelRun]],
    told: Told,
    find: Finder,
) -> list[TrendChange]:
    """The changes that matter, with indices into these groups."""
    reached = [each for each in middles if 0 < each < math.inf]
    if not reached or 0 in middles:
        return []
    worst = _NOT_REACHED * max(reached)
    found = find([min(each, worst) for each in middles])
    bounds = [0, *(each.index for each in found), len(middles)]
    changes = []
    for number, each in enumerate(found):
        since, until = bounds[number], bounds[number + 2]
        before = statistics.median_high(middles[since : each.index])
        after = statistics.median_high(middles[each.index : until])
        known = math.isfinite(before) and math.isfinite(after)
        if before == after or (known and not told.has(metric, before, after, each)):
            continue
        first = groups[each.index][0].run
        change = TrendChange(
            level=level,
            metric=metric,
            index=each.index,
            run=first.id,
            kubevirt=first.kubevirt,
            from_kubevirt=groups[each.index - 1][0].run.kubevirt,
            before=before if math.isfinite(before) else None,
            after=after if math.isfinite(after) else None,
            ratio=each.ratio if known else None,
            low=each.low if known else None,
            high=each.high if known else None,
            p=each.p,
            worse=(after > before) == (metric.worse == "higher"),
        )
        if change.worse:
            sides = groups[since : each.index], groups[each.index : until]
            change = dataclasses.replace(change, where=_where(change, *sides))
        changes.append(change)
    return changes


def _where(
    change: TrendChange,
    before: Sequence[Sequence[LevelRun]],
    after: Sequence[Sequence[LevelRun]],
) -> str:
    """Where in the VMIs' life it became worse."""
    old, new = (
        [each.level for group in side for each in group if each.standing == "whole"]
        for side in (before, after)
    )
    low, high, shift = (
        None if each is None else each - 1 for each in (change.low, change.high, change.ratio)
    )
    told = Change(
        pair=Pair(change.level, change.metric, (), ()), verdict="fail",
        before=change.before, after=change.after, shift=shift, low=low, high=high, p=change.p,
        more_runs=None, detectable=None, reason="",
    )  # fmt: skip
    return attribute(change.level, old, new).where(told)


def _acknowledged(
    changes: Sequence[TrendChange], runs: Sequence[RunFile], acknowledged: Sequence[Entry]
) -> list[TrendChange]:
    """The same changes with what was accepted of them."""
    if not changes:
        return []
    level, metric = changes[0].level, changes[0].metric
    spoken = cover(
        [each for each in acknowledged if (each.level, each.metric) == (level, metric.key)],
        [each.index for each in changes if each.worse],
        [run.id for run in runs],
        [run.kubevirt for run in runs],
    )
    higher = metric.worse == "higher"
    marked = []
    for each in changes:
        entries = tuple(spoken.get(each.index, ()))
        bound = each.low if higher else each.high
        accepted = any(entry.accepts(each.ratio, bound, higher) for entry in entries)
        marked.append(dataclasses.replace(each, acknowledged=entries, is_accepted=accepted))
    return marked


def _rounded(ratio: float, metric: Metric) -> float:
    """Two decimals, to the worse side: what is pasted accepts what was found."""
    worse = math.ceil if metric.worse == "higher" else math.floor
    return worse(round(100 * ratio, 6)) / 100
