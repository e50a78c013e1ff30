"""How a comparison is shown: lines for a terminal, a page of its own, a part of another page.

All text is escaped by the template engine: names and versions come from files.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator

from pytest_kvscale.judge.change import Change, Verdict
from pytest_kvscale.judge.comparison import Comparison
from pytest_kvscale.judge.failure_changes import FailureChange
from pytest_kvscale.judge.rows import mean_text, reason_text, shift_text, value_text
from pytest_kvscale.report.pages import aligned, templates

_HEADER = ("level", "what", "before", "after", "change", "runs", "p", "verdict")
_WIDTH, _HEIGHT = 220.0, 16.0
"""Of a bar, in pixels."""
_LEAST_REACH, _MOST_REACH = 0.1, 2.0
"""A bar's scale goes at least, and at most, so far to both sides: 0.1 is 10 %."""
_LONGEST = 1000
"""Characters of a line."""


@dataclasses.dataclass(frozen=True)
class Bar:
    """A change's interval on a scale, in pixels from the left."""

    low: float
    high: float
    shift: float
    zero: float
    threshold: float | None
    """The least change that fails; None: it lies beyond the scale, or cannot be told."""
    title: str


@dataclasses.dataclass(frozen=True)
class ShownRow:
    """One row of the table, as text."""

    level: str
    what: str
    before: str
    after: str
    change: str
    runs: str
    p: str
    verdict: Verdict
    reason: str
    where: str
    """In which part of the VMIs' life the change is; empty: it is no change, or not known."""
    bar: Bar | None

    def cells(self) -> tuple[str, ...]:
        """The columns of `_HEADER`."""
        return (
            self.level, self.what, self.before, self.after, self.change, self.runs, self.p,
            self.verdict,
        )  # fmt: skip


def rows(comparison: Comparison) -> list[ShownRow]:
    """All rows, by level: its metrics, then its failures."""
    reach = _reach(comparison)
    return [
        shown
        for level in comparison.levels
        for shown in (
            *(
                _of_change(comparison, each, reach)
                for each in comparison.changes
                if each.pair.level == level
            ),
            *(_of_failures(each) for each in comparison.failures if each.level == level),
        )
    ]


def table(comparison: Comparison) -> Iterator[str]:
    """The comparison as lines: its verdict, the table, where it got worse, what was left out."""
    yield from head(comparison)
    shown = rows(comparison)
    cells = [_HEADER, *(each.cells() for each in shown)]
    yield from aligned(cells, left=(1, 7))
    for each in shown:
        if each.verdict != "pass":
            yield f"level {each.level}, {each.what}: {each.verdict}: {_first_line(each.reason)}"
            if each.where:
                yield f"  {_first_line(each.where)}"
    for difference in comparison.differs:
        yield f"differs, and may: {_first_line(difference.text())}"
    for note in comparison.notes:
        yield f"note: {_first_line(note)}"


def head(comparison: Comparison) -> Iterator[str]:
    """What was compared with what, and the verdict, in one or two lines."""
    if comparison.simulated != "false":
        yield f"SIMULATED ({comparison.simulated}): these are not figures of real hardware"
    yield f"compared with {_runs(comparison.before)}, {versions(comparison)}: {comparison.verdict}"


def versions(comparison: Comparison) -> str:
    """KubeVirt's versions, before and after."""
    before, after = comparison.kubevirt
    return f"KubeVirt {before}" if before == after else f"KubeVirt {before} -> {after}"


def section(comparison: Comparison) -> str:
    """The comparison as a part of an HTML page."""
    return _render("comparison.html.jinja", comparison)


def page(comparison: Comparison) -> str:
    """The comparison as an HTML page of its own."""
    return _render("comparison_page.html.jinja", comparison)


def _render(template: str, comparison: Comparison) -> str:
    return (
        templates()
        .get_template(template)
        .render(
            comparison=comparison,
            rows=rows(comparison),
            versions=versions(comparison),
            differs=[each.text() for each in comparison.differs],
            width=_WIDTH,
            height=_HEIGHT,
            scale=f"{100 * _reach(comparison):.0f} %",
        )
    )


def _runs(ids: tuple[str, ...]) -> str:
    return f"run {ids[0]}" if len(ids) == 1 else f"{len(ids)} runs ({ids[0]} to {ids[-1]})"


def _first_line(text: str) -> str:
    """What a line of a terminal can hold of text that a cluster may have written."""
    return text.partition("\n")[0][:_LONGEST]


def _of_change(comparison: Comparison, change: Change, reach: float) -> ShownRow:
    pair = change.pair
    return ShownRow(
        level=str(pair.level),
        what=pair.metric.title,
        before=value_text(change, 0),
        after=value_text(change, 1),
        change=shift_text(change) or "-",
        runs=f"{len(pair.before)}+{len(pair.after)}",
        p="-" if change.p is None else f"{change.p:.2g}",
        verdict=change.verdict,
        reason=reason_text(change),
        where=comparison.where(change) if change.verdict != "pass" else "",
        bar=_bar(change, comparison.rules.relative, reach),
    )


def _of_failures(change: FailureChange) -> ShownRow:
    found = change.classes

    def side(name: str) -> str:
        counts = (f"{each.name} {mean_text(getattr(each, name))}" for each in found)
        return ", ".join(counts) or ("none" if change.before and change.after else "-")

    smallest = min((each.p for each in found if each.p is not None), default=None)
    return ShownRow(
        level=str(change.level),
        what="failed VMIs in a run",
        before=side("before"),
        after=side("after"),
        change="-",
        runs=f"{change.before}+{change.after}",
        p="-" if smallest is None else f"{smallest:.2g}",
        verdict=change.verdict,
        reason=change.reason,
        where="",
        bar=None,
    )


def _reach(comparison: Comparison) -> float:
    """How far the scale of all bars goes to both sides."""
    ends = [
        abs(each)
        for change in comparison.changes
        for each in (change.low, change.high, change.shift)
        if each is not None and math.isfinite(each)
    ]
    return min(_MOST_REACH, max(_LEAST_REACH, 1.5 * comparison.rules.relative, *ends, 0.0))


def _bar(change: Change, relative: float, reach: float) -> Bar | None:
    if change.shift is None or not math.isfinite(change.shift):
        return None

    def at(value: float | None, otherwise: float) -> float:
        if value is None or math.isnan(value):
            value = otherwise
        return round(_WIDTH * (min(reach, max(-reach, value)) + reach) / (2 * reach), 1)

    metric = change.pair.metric
    least = relative
    if change.before:
        least = max(relative, metric.practical / change.before)
    least = least if metric.worse == "higher" else -least
    return Bar(
        low=at(change.low, -reach),
        high=at(change.high, reach),
        shift=at(change.shift, 0.0),
        zero=at(0.0, 0.0),
        threshold=at(least, 0.0) if abs(least) < reach else None,
        title=f"{shift_text(change)}; fails from {100 * least:+.0f} % on, if the evidence suffices",
    )
