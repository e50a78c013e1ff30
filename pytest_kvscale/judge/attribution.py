"""Where in the VMIs' life a change is: step, control-plane cost, failure class, deletion.

It explains a change and judges none: whether a level became worse is decided by
`judge/regression.py`. A side is one or more runs of one level, each as `results.json` has it; what
is told is the median of the runs of a side. Whatever a file lacks is named as unknown.
"""

from __future__ import annotations

import dataclasses
import math
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from pytest_kvscale.judge import cost_changes
from pytest_kvscale.judge.change import Change
from pytest_kvscale.judge.cost_changes import CostChange, figure
from pytest_kvscale.judge.rows import interval_text, per_cent
from pytest_kvscale.judge.steps import Split, Step, split
from pytest_kvscale.judge.typical import NOT_REACHED, Shift, mapping, number, shift

MOST_REQUESTS = 5
_TOLD = 3
"""So many requests, and other costs, are put into words."""
_DELETION = (0.5, 0.05)
"""The least change of the deletion's p95 that is told: seconds, and relative."""
_ERRORS = 2.0
"""A class that was there before has grown from so many standard errors of the mean on."""
_FASTER, _UNCHANGED = " (faster)", "unchanged"
_DELETION_KEY, _REQUESTS_KEY = "deletion.p95", "requests_per_vmi"
_PHASE_KEYS = {"Running.p95": "p95", "Running.p50": "p50"}


@dataclasses.dataclass(frozen=True)
class FailureGrowth:
    """A class of failures that appeared, or became more frequent."""

    name: str
    before: float
    """VMIs in a run, on average."""
    after: float
    requested: float
    """VMIs that were asked for in a run afterwards, on average; 0: not known."""
    runs: tuple[int, int]
    """In how many of the runs afterwards it was seen."""

    def text(self) -> str:
        """Like `DeviceLimit 0 → 90 of 200`."""
        seen, total = self.runs
        of = f" of {self.requested:g}" if self.requested else ""
        where = f" (in {seen} of {total} runs)" if seen < total else ""
        return f"{self.name} {_count(self.before)} → {_count(self.after)}{of}{where}"

    def as_json(self) -> dict[str, Any]:
        """As plain data."""
        return {
            "class": self.name, "before": self.before, "after": self.after,
            "requested": self.requested, "runs": list(self.runs),
        }  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Attribution:
    """Where the change of one level is."""

    level: int
    p95: Split | None
    """None: not known on one side."""
    p50: Split | None
    requests: tuple[CostChange, ...]
    """For each VMI; the largest changes first, at most `MOST_REQUESTS`."""
    costs: tuple[CostChange, ...]
    """Throttling, queues, CPU."""
    failures: tuple[FailureGrowth, ...]
    deletion: Shift | None
    """p95 of the time from asking for the deletion until a VMI was gone."""
    unknown: tuple[str, ...]
    """What cannot be told, in words."""
    change: Change | None = None
    """What was found of the metric that is explained; its interval is quoted."""

    @property
    def steps(self) -> tuple[Step, ...]:
        """The steps of p95, or of p50 where p95 was not reached."""
        for each in (self.p95, self.p50):
            if each is not None and each.steps:
                return each.steps
        return ()

    def text(self, change: Change | None = None) -> str:
        """In a line: the change, where it is, and what changed with it.

        `change` is of the metric to be explained; without one it is p95 of the time to Running,
        with no interval.
        """
        told = change or self.change
        head, step, *others = self._parts(told)
        return "; ".join([f"{head}, {step}" if step else head, *others])

    def where(self, change: Change | None = None) -> str:
        """The same without the change itself; empty: nothing is known to have changed with it."""
        _, *parts = self._parts(change or self.change)
        return "; ".join(each for each in parts if each)

    def _parts(self, change: Change | None) -> list[str]:
        """The change, the step it is in (or nothing), and what else changed, one by one."""
        key = change.pair.metric.key if change is not None else "Running.p95"
        parts = [*self._head(key, change), *(each.text() for each in self.failures)]
        # What went the way of the change is what goes with it; the rest stands in the files.
        way = self._way(key, change)
        for costs in (self.requests, self.costs):
            with_it = [each for each in costs if not way or each.rose == (way > 0)]
            parts += [each.text() for each in with_it[:_TOLD]]
        if key != _DELETION_KEY and self.deletion and self.deletion.counts(*_DELETION):
            parts.append(_changed("deletion p95", self.deletion, None))
        return parts

    def as_json(self) -> dict[str, Any]:
        """As plain JSON data."""
        return {
            "level": self.level,
            "text": self.text(),
            "p95": self.p95.as_json() if self.p95 else None,
            "p50": self.p50.as_json() if self.p50 else None,
            "requests": [each.as_json() for each in self.requests],
            "costs": [each.as_json() for each in self.costs],
            "failures": [each.as_json() for each in self.failures],
            "deletion": self.deletion.as_json() if self.deletion else None,
            "unknown": list(self.unknown),
        }

    def _way(self, key: str, change: Change | None) -> float:
        """Above 0: it became worse; below: better; 0: neither."""
        if change is not None and change.shift is not None:
            return change.shift if change.pair.metric.worse == "higher" else -change.shift
        total = self.deletion if key == _DELETION_KEY else self._split(key)
        if isinstance(total, Split):
            total = total.total if total.counts else None
        return 0.0 if total is None or math.isnan(total.difference) else total.difference

    def _split(self, key: str) -> Split | None:
        return self.p50 if key == "Running.p50" else self.p95

    def _head(self, key: str, change: Change | None) -> tuple[str, str]:
        if key == _DELETION_KEY:
            return _changed("deletion p95", self.deletion, change), ""
        if change is None or key in _PHASE_KEYS:
            name, found = _PHASE_KEYS[key], self._split(key)
            where = found.words() if found else ""
            # Where too many VMIs never got there, the half that did tells more.
            if not where and name == "p95" and self.p50 and self.p50.steps and self.p50.counts:
                where = f"{_changed('p50', self.p50.total, None)}, {self.p50.words()}"
            return _changed(name, found.total if found else None, change), where
        total = None
        if change.before is not None and change.after is not None:
            total = Shift(change.before, change.after, None)
        title = "requests per VMI" if key == _REQUESTS_KEY else change.pair.metric.title
        return _changed(title, total, change), ""


def attribute(
    level: int,
    before: Sequence[Mapping[str, Any]],
    after: Sequence[Mapping[str, Any]],
    change: Change | None = None,
) -> Attribution:
    """Where the change between two sides of a level is.

    `before` and `after` hold level objects of equal runs. Nothing raises: what is missing or makes
    no sense in them is not known.
    """
    found = {name: split(name, before, after) for name in ("p95", "p50")}
    deletion = shift(*([_deletion(run) for run in side] for side in (before, after)))
    unknown = [f"{name} to Running" for name, each in found.items() if each is None]
    if deletion is None:
        unknown.append("deletion")
    unknown += cost_changes.unknown(before, after)
    if not any("failures" in run for run in before) or not any("failures" in run for run in after):
        unknown.append("failures")
    return Attribution(
        level=level,
        p95=found["p95"],
        p50=found["p50"],
        requests=tuple(cost_changes.request_changes(before, after)[:MOST_REQUESTS]),
        costs=tuple(cost_changes.other_changes(before, after)),
        failures=tuple(_failures(before, after)),
        deletion=deletion,
        unknown=tuple(unknown),
        change=change,
    )


def _deletion(run: Mapping[str, Any]) -> float | None:
    summary = mapping(run, "deletion")
    value = number(summary, "p95")
    if value is None and (number(summary, "censored") or 0) > 0:
        return NOT_REACHED
    return value


def _failures(
    before: Sequence[Mapping[str, Any]], after: Sequence[Mapping[str, Any]]
) -> list[FailureGrowth]:
    sides = [[run for run in side if "failures" in run] for side in (before, after)]
    if not all(sides):
        return []
    names = sorted({str(name) for run in sides[1] for name in mapping(run, "failures")})
    found = []
    for name in names:
        counts = [[number(run, "failures", name) or 0.0 for run in side] for side in sides]
        means = [round(math.fsum(side) / len(side), 3) for side in counts]
        if means[1] <= means[0] or (means[0] and not _is_growth(*counts)):
            continue
        asked = [number(run, "requested") or 0.0 for run in sides[1]]
        found.append(
            FailureGrowth(
                name=name,
                before=means[0],
                after=means[1],
                requested=round(math.fsum(asked) / len(asked), 3),
                runs=(sum(each > 0 for each in counts[1]), len(counts[1])),
            )
        )
    return sorted(found, key=lambda each: (each.before - each.after, each.name))


def _is_growth(before: Sequence[float], after: Sequence[float]) -> bool:
    """Whether there are more failures than equal runs differ by: they come in few of many runs."""
    squares = math.fsum(
        statistics.variance(side) / len(side) for side in (before, after) if len(side) > 1
    )
    change = math.fsum(after) / len(after) - math.fsum(before) / len(before)
    return change > _ERRORS * math.sqrt(squares)


def _count(value: float) -> str:
    return f"{value:.1f}".removesuffix(".0")


def _changed(name: str, shift: Shift | None, change: Change | None) -> str:
    """Like `p95 +23 % [15, 31]`."""
    if change is not None and change.shift is not None:
        is_time = change.pair.metric.unit == "s"
        faster = _FASTER if is_time and change.high is not None and change.high < 0 else ""
        return f"{name} {_relative(change.shift)}{interval_text(change)}{faster}"
    return f"{name} not known" if shift is None else f"{name} {_between(shift)}"


def _between(shift: Shift) -> str:
    if math.isnan(shift.difference):
        return "reached neither before nor after"
    if not math.isfinite(shift.after):
        return f"{figure(shift.before)} s before, no longer reached"
    if not math.isfinite(shift.before):
        return f"not reached before, {figure(shift.after)} s after"
    if shift.relative is None:
        return f"{figure(shift.before)} → {figure(shift.after)}"
    faster = _FASTER if shift.difference < 0 and shift.is_beyond_noise else ""
    text = _relative(shift.relative)
    return f"{text}{faster}" if text != _UNCHANGED else text


def _relative(relative: float) -> str:
    text = per_cent(relative)
    return _UNCHANGED if text == "0" else f"{text} %"
