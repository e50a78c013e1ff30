"""How a cluster's figures went over its runs: series, their noise, and where they changed.

Runs are put side by side only if all that makes them comparable is the same but for KubeVirt's
version (and what the user names); each other kind of run is a section of its own. A run is one
point of a series: the median of its executions of the level.
"""

from __future__ import annotations

import dataclasses
import fnmatch
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from pytest_kvscale.judge import samples
from pytest_kvscale.judge.acknowledged import Entry
from pytest_kvscale.judge.change import Metric
from pytest_kvscale.judge.comparable import Difference, differences, digest
from pytest_kvscale.judge.fitting import BY_KUBEVIRT
from pytest_kvscale.judge.runs import RunFile
from pytest_kvscale.judge.samples import LevelRun
from pytest_kvscale.judge.trend_changes import (
    RELATIVE,
    Finder,
    Found,
    TrendChange,
    changes_of,
)
from pytest_kvscale.judge.trend_series import RATE, Point, Series, series_of

METRICS = (*samples.METRICS, RATE)
MAY_DIFFER = ("versions.kubevirt",)
NEVER = "simulated"
"""Whatever the user names, runs that differ in this are never put side by side."""


@dataclasses.dataclass(frozen=True)
class Row:
    """One run of a level."""

    run: str
    started: str | None
    kubevirt: str
    executions: int
    """How many count."""
    verdict: str
    """The worst of all."""
    note: str
    """Why executions do not count; empty if all do."""
    points: Mapping[str, Point]
    """By metric; those that were measured."""


@dataclasses.dataclass(frozen=True)
class LevelTrend:
    """One level over all runs."""

    level: int
    rows: tuple[Row, ...]
    series: tuple[Series, ...]
    changes: tuple[TrendChange, ...] = ()
    """Of all metrics, in the order of the runs."""

    def of(self, metric: Metric) -> list[TrendChange]:
        """The changes of one metric."""
        return [each for each in self.changes if each.metric == metric]


@dataclasses.dataclass(frozen=True)
class Section:
    """Runs that can be compared."""

    simulated: str
    profile: str | None
    runs: int
    differs: tuple[Difference, ...]
    """From the first section; empty: it is the first."""
    levels: tuple[LevelTrend, ...]
    clusters: int = 1
    """So many real clusters they are of, as far as that is known."""


@dataclasses.dataclass(frozen=True)
class Trend:
    """All sections, those with most runs first."""

    sections: tuple[Section, ...]
    stale: tuple[Entry, ...]
    """Acknowledgements that no change was found for."""

    @property
    def changes(self) -> list[TrendChange]:
        """Of all sections and levels."""
        return [
            change
            for section in self.sections
            for level in section.levels
            for change in level.changes
        ]

    @property
    def failing(self) -> list[TrendChange]:
        """Changes for the worse that are not accepted."""
        return [each for each in self.changes if each.fails]


def trend(
    runs: Iterable[RunFile],
    acknowledged: Sequence[Entry] = (),
    may_differ: Sequence[str] = (),
    levels: Sequence[int] = (),
    metrics: Sequence[Metric] = METRICS,
    last: int | None = None,
    relative: float = RELATIVE,
    find: Finder | None = None,
) -> Trend:
    """The trend of runs.

    `levels` (empty: all) and `metrics` are those wanted, `last` how many runs of each section (the
    latest). A change is told from `relative` and the metric's practical threshold on;
    `find` finds change points; by default `judge/change_points.py` does.
    """
    allowed = (*MAY_DIFFER, *may_differ)
    look = _Look(tuple(acknowledged), tuple(levels), tuple(metrics), find or search)
    wanted = [
        run for run in sorted(runs, key=_order)
        if any(look.wants(level["level"]) for level in run.levels)
    ]  # fmt: skip
    ordered = sorted(_alike(wanted, allowed), key=lambda group: (-len(group), _order(group[0])))
    first = ordered[0][0].comparable if ordered else {}
    sections = [
        _section(group if last is None else group[-last:], first, allowed, look)
        for group in ordered
    ]
    series = [each for section in sections for level in section.levels for each in level.series]
    changes = iter(changes_of(series, look.acknowledged, look.find, relative))
    sections = [
        dataclasses.replace(
            section, levels=tuple(_with_changes(level, changes) for level in section.levels)
        )
        for section in sections
    ]
    return Trend(tuple(sections), _stale(look, sections, cut=last is not None))


def _with_changes(level: LevelTrend, changes: Iterator[list[TrendChange]]) -> LevelTrend:
    """A level with the changes of its series, which are the next ones."""
    found = [change for _ in level.series for change in next(changes)]
    return dataclasses.replace(level, changes=tuple(sorted(found, key=lambda each: each.index)))


@dataclasses.dataclass(frozen=True)
class _Look:
    """What is looked at, and how."""

    acknowledged: tuple[Entry, ...]
    levels: tuple[int, ...]
    metrics: tuple[Metric, ...]
    find: Finder

    def wants(self, level: int) -> bool:
        return not self.levels or level in self.levels


def search(values: Sequence[float], alpha: float) -> Sequence[Found]:
    """The change points of a series, anywhere in it; `alpha`: how probable any may be by chance."""
    from pytest_kvscale.judge.change_points import change_points

    return change_points(values, alpha)


def _order(run: RunFile) -> tuple[float, str, bool]:
    name, _, side = run.id.partition(":")
    return run.began or 0.0, name, side == "after"


def _alike(runs: Iterable[RunFile], allowed: Sequence[str]) -> Iterator[list[RunFile]]:
    """The runs in groups that can be put side by side.

    What KubeVirt itself offers may change with its version, as in a comparison: as long as it is
    one thing in each version.
    """
    groups: dict[str, list[RunFile]] = {}
    for run in runs:
        groups.setdefault(_kind(run, (*allowed, *BY_KUBEVIRT)), []).append(run)
    for group in groups.values():
        kinds: dict[str, list[RunFile]] = {}
        for run in group:
            kinds.setdefault(_kind(run, allowed), []).append(run)
        offers = {(run.kubevirt, _kind(run, allowed)) for run in group}
        if len(offers) == len({run.kubevirt for run in group}):
            yield group
        else:
            yield from kinds.values()


def _kind(run: RunFile, allowed: Sequence[str]) -> str:
    return digest(
        {
            name: value
            for name, value in run.comparable.items()
            if name == NEVER or not any(fnmatch.fnmatchcase(name, each) for each in allowed)
        }
    )


def _section(
    runs: Sequence[RunFile], first: Mapping[str, Any], allowed: Sequence[str], look: _Look
) -> Section:
    by_level: dict[int, list[LevelRun]] = {}
    for each in samples.level_runs(runs):
        if look.wants(each.number):
            by_level.setdefault(each.number, []).append(each)
    told = {each.name for each in differences(first, runs[0].comparable, allowed)} | {NEVER}
    differs = [each for each in differences(first, runs[0].comparable) if each.name in told]
    return Section(
        simulated=runs[0].simulated,
        profile=runs[0].profile,
        runs=len(runs),
        differs=tuple(differs),
        levels=tuple(_level(level, by_level[level], look) for level in sorted(by_level)),
        clusters=len({run.uid for run in runs if run.uid and run.simulated != "sim"}),
    )


def _level(level: int, executions: Sequence[LevelRun], look: _Look) -> LevelTrend:
    by_run: dict[str, list[LevelRun]] = {}
    for each in executions:
        by_run.setdefault(each.run.id, []).append(each)
    groups = [*by_run.values()]
    series = [series_of(level, metric, groups) for metric in look.metrics]
    points: list[dict[str, Point]] = [{} for _ in groups]
    for one in series:
        for number, point in zip(one.rows, one.points, strict=True):
            points[number][one.metric.key] = point
    rows = [_row(group, each) for group, each in zip(groups, points, strict=True)]
    return LevelTrend(level, tuple(rows), tuple(series))


def _row(group: Sequence[LevelRun], points: Mapping[str, Point]) -> Row:
    verdicts = {each.level["verdict"] for each in group}
    notes = [f"{each.level['label']}: {each.why}" for each in group if each.standing != "whole"]
    return Row(
        run=group[0].run.id,
        started=group[0].run.started,
        kubevirt=group[0].run.kubevirt,
        executions=sum(each.standing == "whole" for each in group),
        verdict=next(each for each in ("fail", "inconclusive", "pass") if each in verdicts),
        note="; ".join(notes),
        points=points,
    )


def _stale(look: _Look, sections: Sequence[Section], cut: bool) -> tuple[Entry, ...]:
    """Entries of what was looked at that speak of nothing.

    If the runs were cut to the latest (`cut`), those of earlier ones are not looked at.
    """
    used = {
        entry.where
        for section in sections
        for level in section.levels
        for change in level.changes
        for entry in change.acknowledged
    }
    keys = {each.key for each in look.metrics}
    rows = [row for section in sections for level in section.levels for row in level.rows]
    return tuple(
        each
        for each in look.acknowledged
        if each.where not in used
        and look.wants(each.level)
        and each.metric in keys
        and not (
            cut and each.place([row.run for row in rows], [row.kubevirt for row in rows]) is None
        )
    )
