"""What a comparison says, row by row, in words."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

from pytest_kvscale.judge.change import Change, Verdict
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
    facts = [f"{value_text(change, 0)} -> {value_text(change, 1)}"]
    facts.append(f"{len(pair.before)}+{len(pair.after)} runs")
    if change.p is not None:
        facts.append(f"p {change.p:.2g}")
    shift = f" {shift_text(change)}" if change.shift is not None else ""
    why = f" ({reason_text(change)})" if change.verdict != "pass" or change.shift is None else ""
    return (
        f"level {pair.level}: {pair.metric.title}{shift} ({', '.join(facts)}): "
        f"{change.verdict}{why}"
    )


def reason_text(change: Change) -> str:
    """Why, and if it is inconclusive what would be found, and how many runs would tell."""
    said = [change.reason]
    if change.verdict == "inconclusive":
        if change.detectable is not None and math.isfinite(change.detectable):
            said.append(f"so many runs find {100 * change.detectable:.0f} % in 9 of 10 cases")
        if change.more_runs is not None:
            runs = "run" if change.more_runs == 1 else "runs"
            said.append(f"{change.more_runs} more {runs} on each side would probably tell")
    return "; ".join(said)


def shift_text(change: Change) -> str:
    """Like `+23 % [15, 31]`; empty: it cannot be told."""
    if change.shift is None:
        return ""
    return f"{per_cent(change.shift)} %{interval_text(change)}"


def interval_text(change: Change) -> str:
    """Like ` [15, 31]`, in per cent; empty: neither end is known."""
    ends = [
        "…" if each is None or not math.isfinite(each) else per_cent(each).removeprefix("+")
        for each in (change.low, change.high)
    ]
    return "" if ends == ["…", "…"] else f" [{', '.join(ends)}]"


def per_cent(share: float) -> str:
    """A relative change as a whole number with its sign: 0.234 is `+23`, and 0 has none."""
    text = f"{100 * share:+.0f}"
    return "0" if text in ("+0", "-0") else text


def value_text(change: Change, side: int) -> str:
    """The typical value before (0) or after (1), with its unit."""
    pair, value = change.pair, (change.before, change.after)[side]
    if not (pair.before, pair.after)[side]:
        return "not measured"
    if value is None:
        return "not reached"
    unit = f" {pair.metric.unit}" if pair.metric.unit else ""
    return f"{value:.3g}{unit}" if value < 100 else f"{value:.0f}{unit}"


def failure_text(change: FailureChange) -> str:
    """One line, e.g. `level 400: failures DeviceLimit 0 -> 290 (3+3 runs): fail (a limit …)`."""
    counts = ", ".join(
        f"{each.name} {mean_text(each.before)} -> {mean_text(each.after)}"
        for each in change.classes
    )
    runs = f"{change.before}+{change.after} runs"
    return f"level {change.level}: failures {counts or 'none'} ({runs}): " + (
        f"{change.verdict} ({change.reason})" if change.verdict != "pass" else "pass"
    )


def mean_text(counts: Sequence[int]) -> str:
    """VMIs in a run, on average."""
    return f"{sum(counts) / len(counts):.1f}".removesuffix(".0")
