"""In which step of a VMI's life a percentile of its time to Running changed, and by how much.

Percentiles of steps do not add up: the VMIs that waited longest for their pod need not be those
whose launcher took longest. What adds up is the difference between the same percentile of the
times to successive phases (p95 of the time to Scheduled less p95 of the time to Scheduling, and so
on): these are the steps here, and together they are p95 of the time to Running in each run. They
are the time that a step added to the percentile, not the percentile of a step. A step that delays
all VMIs alike, or the slow ones more, gets exactly what it adds. One that changes who is slow may
be given a little of another's.

Each is the median over a side's runs; shares are of the sum of the steps' changes.

Inside a step, `slowest` of the results tells more: it cuts the ways of the slowest 5 % (of the
median VMI for p50) into what was waited for, on average, which does add up, to their own average.
Stretches that some run could not tell apart are taken together in all runs.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from pytest_kvscale.judge.typical import NOT_REACHED, Shift, mapping, number, shift

PHASES = ("Scheduling", "Scheduled", "Running")
TITLES = {"Pending": "created→Scheduling", "Scheduling": "Scheduling→Scheduled",
          "Scheduled": "Scheduled→Running"}  # fmt: skip
"""The steps by the phase a VMI is in meanwhile."""
_WAYS = {"p95": "slow", "p50": "median"}
_LEAST = 0.02
"""A step's change counts from this part of the percentile before on."""
_WORTH_SAYING = 0.1
"""And is worth words from this part of the largest change on."""
ALL, MOST, HALF = 0.9, 0.55, 0.4


@dataclasses.dataclass(frozen=True)
class Step:
    """What one step adds to the percentile, before and after, in seconds."""

    title: str
    shift: Shift
    counts: bool
    """Whether the change is beyond what equal runs differ by."""
    share: float | None
    """Of the whole change: 0.82 is 82 %; None: there was none."""
    within: str = ""
    """What was waited for longer (or shorter) inside it; empty: not known, or nothing by itself."""

    @property
    def name(self) -> str:
        """With what was waited for."""
        return f"{self.title} ({self.within})" if self.within else self.title

    def as_json(self) -> dict[str, Any]:
        """As plain data."""
        share = None if self.share is None else round(self.share, 3)
        return {
            "step": self.title, **self.shift.as_json(), "counts": self.counts, "share": share,
            "within": self.within or None,
        }  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Split:
    """A percentile of the time to Running, and the steps it is made of."""

    percentile: str
    total: Shift
    steps: tuple[Step, ...]
    """Empty: a side did not reach the percentile, so it has no parts."""

    @property
    def counts(self) -> bool:
        """Whether the percentile itself changed by more than equal runs differ."""
        return self.total.counts(_LEAST * self.total.before)

    def words(self) -> str:
        """Where the change is: "all of it in Scheduled→Running"; empty if there are no steps."""
        if not self.steps:
            return ""
        largest = max(abs(each.shift.difference) for each in self.steps)
        told = [
            each
            for each in self.steps
            if each.counts and abs(each.shift.difference) >= _WORTH_SAYING * largest
        ]
        told.sort(key=lambda each: -abs(each.shift.difference))
        if not told:
            return "no step changed" + (
                "" if self.total.error is None else " by more than equal runs differ"
            )
        # Shares say nothing where steps changed in opposite directions.
        if any((each.share or 0.0) <= 0 for each in told):
            return ", ".join(f"{each.name} {each.shift.difference:+.2f} s" for each in told)
        return _shares(told)

    def as_json(self) -> dict[str, Any]:
        """As plain data."""
        return {**self.total.as_json(), "steps": [each.as_json() for each in self.steps]}


def _shares(told: Sequence[Step]) -> str:
    first, *others = told
    lead = first.share or 0.0
    if lead >= ALL:
        return f"all of it in {first.name}"
    if len(others) == 1 and min(lead, others[0].share or 0.0) >= HALF:
        return f"half each in {first.name} and {others[0].name}"
    rest = "".join(f", {_per_cent(each)} in {each.name}" for each in others)
    if lead >= MOST:
        return f"most of it ({_per_cent(first)}) in {first.name}{rest}"
    return f"{_per_cent(first)} of it in {first.name}{rest}"


def _per_cent(step: Step) -> str:
    return f"{100 * (step.share or 0.0):.0f} %"


def split(
    percentile: str, before: Sequence[Mapping[str, Any]], after: Sequence[Mapping[str, Any]]
) -> Split | None:
    """A percentile ("p95", "p50") of both sides' level objects in its steps.

    None: it is not known of any run of one side.
    """
    total = shift(
        *([_reached(run, "Running", percentile) for run in side] for side in (before, after))
    )
    if total is None:
        return None
    parts: list[Shift] = []
    for index in range(len(PHASES)):
        part = shift(
            *([_added(run, index, percentile) for run in side] for side in (before, after))
        )
        if part is None or not math.isfinite(part.difference):
            return Split(percentile, total, ())
        parts.append(part)
    if not math.isfinite(total.difference):
        return Split(percentile, total, ())
    changed = math.fsum(each.difference for each in parts)
    inside = _inside(percentile, before, after)
    steps = []
    for (phase, title), part in zip(TITLES.items(), parts, strict=True):
        counts = part.counts(_LEAST * total.before)
        steps.append(
            Step(
                title=title,
                shift=part,
                counts=counts,
                share=part.difference / changed if changed else None,
                within=_most(inside.get(phase, {}), part.difference) if counts else "",
            )
        )
    return Split(percentile, total, tuple(steps))


def _reached(run: Mapping[str, Any], phase: str, percentile: str) -> float | None:
    """Seconds from the send; NOT_REACHED; None: nothing is known of the phase."""
    summary = mapping(run, "phases", phase)
    value = number(summary, percentile)
    if value is None and percentile in summary and (number(summary, "censored") or 0) > 0:
        return NOT_REACHED
    return value


def _added(run: Mapping[str, Any], index: int, percentile: str) -> float | None:
    """What a step added to the percentile in one run."""
    until = _reached(run, PHASES[index], percentile)
    since = _reached(run, PHASES[index - 1], percentile) if index else 0.0
    if until is None or since is None or not math.isfinite(since):
        return None
    return until - since


def _inside(
    percentile: str, before: Sequence[Mapping[str, Any]], after: Sequence[Mapping[str, Any]]
) -> dict[str, dict[str, Shift]]:
    """By phase, what was waited for, where all told of it: seconds before and after."""
    sides = [
        [waits for run in side if (waits := dict(_waits(run, _WAYS[percentile])))]
        for side in (before, after)
    ]
    if not all(sides):
        return {}
    groups = _together([names for side in sides for run in side for _, names in run])
    found: dict[str, dict[str, Shift]] = {}
    for group in groups:
        change = shift(
            *(
                [
                    math.fsum(value for (_, names), value in run.items() if names[0] in group)
                    for run in side
                ]
                for side in sides
            )
        )
        phases = {
            phase for side in sides for run in side for phase, names in run if names[0] in group
        }
        # What reaches over two steps explains neither.
        if change is not None and len(phases) == 1:
            found.setdefault(phases.pop(), {})[", ".join(group)] = change
    return found


def _waits(run: Mapping[str, Any], way: str) -> Iterator[tuple[tuple[str, tuple[str, ...]], float]]:
    """Each stretch of a way: its phase and what was waited for, and seconds."""
    steps = mapping(run, "slowest", way, "steps")
    for name in steps:
        phase, _, names = str(name).partition(": ")
        seconds = number(steps, name)
        if seconds is not None and phase in TITLES and names:
            yield (phase, tuple(names.split(", "))), seconds


def _together(stretches: Sequence[tuple[str, ...]]) -> list[tuple[str, ...]]:
    """What was waited for, in groups: those that any stretch has together are in one."""
    groups: list[list[str]] = []
    for names in stretches:
        touched = [each for each in groups if set(each) & set(names)]
        merged = list(dict.fromkeys(name for each in (*touched, names) for name in each))
        groups = [each for each in groups if each not in touched] + [merged]
    return [tuple(each) for each in groups]


def _most(inside: Mapping[str, Shift], difference: float) -> str:
    """What changed most inside a step, if it does so by itself; empty if it is all there is."""
    moved = {
        name: each
        for name, each in inside.items()
        if each.difference * difference > 0 and each.is_beyond_noise
    }
    if not moved or len(inside) < 2:
        return ""
    name = max(moved, key=lambda each: abs(moved[each].difference))
    changed = math.fsum(abs(each.difference) for each in moved.values())
    return name if abs(moved[name].difference) >= MOST * changed else ""
