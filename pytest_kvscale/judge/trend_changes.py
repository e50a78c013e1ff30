"""Where a series changed, how it is told, and what of it is accepted.

Two ways find changes. A search over all places (`judge/change_points.py`) finds those of a long
history. It needs many runs, because it may look anywhere. Places that are known beforehand need
few: where KubeVirt's version changed, and the latest runs. There the runs before and after are
compared as `compare` does it (`judge/regression.py`), all series together.
"""

from __future__ import annotations

import dataclasses
import math
import statistics
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol

from pytest_kvscale.judge.acknowledged import Entry, cover
from pytest_kvscale.judge.attribution import attribute
from pytest_kvscale.judge.change import DEFAULT, Change, Metric, Pair, Rules, Sample
from pytest_kvscale.judge.trend_series import Series

RELATIVE = DEFAULT.relative
ALPHA = DEFAULT.alpha / 2
"""The most probable it may be that a search finds anything in any of the series, if all are steady;
and again that the known places do."""
LEAST = 3
"""Runs on either side of a known place."""
LATEST = range(LEAST, 7)
"""So many of the latest runs are compared with those before them."""
MOST_VERSIONS = 5
"""And the runs of so many of the latest versions."""
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


Finder = Callable[[Sequence[float], float], Sequence[Found]]
"""Finds the change points of values; the second is how probable any may be in a steady series."""


@dataclasses.dataclass(frozen=True)
class Edge:
    """A change in a series that is told."""

    index: int
    ratio: float | None
    """After / before; None: one of them was not reached."""
    low: float | None
    high: float | None
    p: float


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


def changes_of(
    all_series: Sequence[Series],
    acknowledged: Sequence[Entry],
    find: Finder,
    relative: float = RELATIVE,
) -> list[list[TrendChange]]:
    """The changes of each series, with what is accepted of them; indices are those of rows."""
    alpha = ALPHA / max(1, len(all_series))
    edges = [_searched(each, relative, find, alpha) for each in all_series]
    _add_known(all_series, edges, relative)
    return [
        [
            dataclasses.replace(each, index=series.rows[each.index])
            for each in _acknowledged(_described(series, found), series, acknowledged)
        ]
        for series, found in zip(all_series, edges, strict=True)
    ]


def _searched(series: Series, relative: float, find: Finder, alpha: float) -> list[Edge]:
    """What a search over all places finds."""
    reached = [each for each in series.values if 0 < each < math.inf]
    if not reached or 0 in series.values:
        return []
    worst = _NOT_REACHED * max(reached)
    found = find([min(each, worst) for each in series.values], alpha)
    bounds = [0, *(each.index for each in found), len(series.values)]
    edges = []
    for number, each in enumerate(found):
        before = _typical(series, bounds[number], each.index)
        after = _typical(series, each.index, bounds[number + 2])
        if math.isfinite(before) and math.isfinite(after):
            large = max(each.ratio, 1 / each.ratio) >= 1 + relative
            if large and abs(after - before) >= series.metric.practical:
                edges.append(Edge(each.index, each.ratio, each.low, each.high, each.p))
        elif before != after:
            edges.append(Edge(each.index, None, None, None, each.p))
    return edges


def _add_known(all_series: Sequence[Series], edges: Sequence[list[Edge]], relative: float) -> None:
    """Add to each series' edges the clearest change for the worse at a place known beforehand."""
    from pytest_kvscale.judge.regression import judge_changes

    asked = [
        (number, place, pair)
        for number, series in enumerate(all_series)
        for place, pair in _known(series, edges[number][-1].index if edges[number] else 0)
    ]
    judged = judge_changes([pair for _, _, pair in asked], Rules(alpha=ALPHA, relative=relative))
    clearest: dict[int, Edge] = {}
    for (number, place, _), change in zip(asked, judged, strict=True):
        if change.verdict != "fail":
            continue
        ratio, low, high = (
            None if each is None else 1 + each for each in (change.shift, change.low, change.high)
        )
        edge = Edge(place, ratio, low, high, 0.0 if change.p is None else change.p)
        if number not in clearest or _clearness(edge) > _clearness(clearest[number]):
            clearest[number] = edge
    for number, edge in clearest.items():
        edges[number].append(edge)


def _clearness(edge: Edge) -> float:
    """How far from no change the nearer end of the interval is; infinity: it has none."""
    if edge.low is None or edge.high is None or edge.low <= 0:
        return math.inf
    return min(abs(math.log(edge.low)), abs(math.log(edge.high)))


def _known(series: Series, since: int) -> Iterator[tuple[int, Pair]]:
    """Places in the runs since the last change, each with the runs before and after it."""
    runs, end = series.runs, len(series.values)
    versions = [
        place for place in range(since + 1, end)
        if runs[place].kubevirt != runs[place - 1].kubevirt
    ]  # fmt: skip
    places = [*versions[-MOST_VERSIONS:], *(end - latest for latest in LATEST)]
    for place in dict.fromkeys(places):
        if place - since >= LEAST and end - place >= LEAST:
            sides = (_samples(series, since, place), _samples(series, place, end))
            yield place, Pair(series.level, series.metric, *sides)


def _samples(series: Series, begin: int, end: int) -> tuple[Sample, ...]:
    return tuple(
        Sample(value if math.isfinite(value) else None, run.began, run.id)
        for value, run in zip(series.values[begin:end], series.runs[begin:end], strict=True)
    )


def _typical(series: Series, begin: int, end: int) -> float:
    return statistics.median_high(series.values[begin:end])


def _described(series: Series, edges: Sequence[Edge]) -> list[TrendChange]:
    runs, higher = series.runs, series.metric.worse == "higher"
    bounds = [0, *(each.index for each in edges), len(series.values)]
    described = []
    for number, edge in enumerate(edges):
        since, until = bounds[number], bounds[number + 2]
        before, after = _typical(series, since, edge.index), _typical(series, edge.index, until)
        change = TrendChange(
            level=series.level,
            metric=series.metric,
            index=edge.index,
            run=runs[edge.index].id,
            kubevirt=runs[edge.index].kubevirt,
            from_kubevirt=runs[edge.index - 1].kubevirt,
            before=before if math.isfinite(before) else None,
            after=after if math.isfinite(after) else None,
            ratio=edge.ratio,
            low=edge.low,
            high=edge.high,
            p=edge.p,
            worse=(after > before) == higher,
        )
        if change.worse:
            where = _where(change, series, since, until)
            change = dataclasses.replace(change, where=where)
        described.append(change)
    return described


def _where(change: TrendChange, series: Series, since: int, until: int) -> str:
    """Where in the VMIs' life it became worse."""
    old, new = (
        [each.level for group in groups for each in group if each.standing == "whole"]
        for groups in (series.groups[since : change.index], series.groups[change.index : until])
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
    changes: Sequence[TrendChange], series: Series, acknowledged: Sequence[Entry]
) -> list[TrendChange]:
    """The same changes with what was accepted of them."""
    of = (series.level, series.metric.key)
    spoken = cover(
        [each for each in acknowledged if (each.level, each.metric) == of],
        [each.index for each in changes if each.worse],
        [run.id for run in series.runs],
        [run.kubevirt for run in series.runs],
    )
    higher = series.metric.worse == "higher"
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
