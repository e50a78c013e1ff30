"""What a comparison says, row by row, in words."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

from pytest_kvscale.judge.change import Change, Pair, Verdict
from pytest_kvscale.judge.failure_changes import FailureChange

FAILURES = "failures"


@dataclasses.dataclass(frozen=True)
class Row:
    """One thing that was judged, in words."""

    level: int
    key: str
    """A metric's key, or `failures`."""
    verdict: Verdict
    text: str

    @property
    def id(self) -> str:
        """What it is called in reports: `400 Running.p95`."""
        return f"{self.level} {self.key}"


def change_text(change: Change) -> str:
    """One line, e.g. `level 400: p95 creation to Running +23 % [15, 31] (29.1 s -> 35.8 s, …`."""
    pair = change.pair
    facts = [f"{_value(change.before, pair, 0)} -> {_value(change.after, pair, 1)}"]
    facts.append(f"{len(pair.before)}+{len(pair.after)} runs")
    if change.p is not None:
        facts.append(f"p {change.p:.2g}")
    shift = f" {_shift(change)}" if change.shift is not None else ""
    why = f" ({change.reason})" if change.verdict != "pass" or change.shift is None else ""
    return (
        f"level {pair.level}: {pair.metric.title}{shift} ({', '.join(facts)}): "
        f"{change.verdict}{why}"
    )


def _shift(change: Change) -> str:
    assert change.shift is not None  # noqa: S101 - asked by the caller
    if change.low is None and change.high is None:
        return f"{100 * change.shift:+.0f} %"
    ends = [
        "…" if each is None or not math.isfinite(each) else f"{100 * each:.0f}"
        for each in (change.low, change.high)
    ]
    return f"{100 * change.shift:+.0f} % [{', '.join(ends)}]"


def _value(value: float | None, pair: Pair, side: int) -> str:
    if not (pair.before, pair.after)[side]:
        return "not measured"
    if value is None:
        return "not reached"
    unit = f" {pair.metric.unit}" if pair.metric.unit else ""
    return f"{value:.3g}{unit}" if value < 100 else f"{value:.0f}{unit}"


def failure_text(change: FailureChange) -> str:
    """One line, e.g. `level 400: failures DeviceLimit 0 -> 290 (3+3 runs): fail (a limit …)`."""
    counts = ", ".join(
        f"{each.name} {_mean(each.before)} -> {_mean(each.after)}" for each in change.classes
    )
    runs = f"{change.before}+{change.after} runs"
    return f"level {change.level}: failures {counts or 'none'} ({runs}): " + (
        f"{change.verdict} ({change.reason})" if change.verdict != "pass" else "pass"
    )


def _mean(counts: Sequence[int]) -> str:
    return f"{sum(counts) / len(counts):.1f}".removesuffix(".0")
