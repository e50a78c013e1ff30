"""The verdict on a level, and its words: pass, fail or inconclusive, and why."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from pytest_kvscale.judge.classes import (
    CLASSES,
    PENDING,
    STUCK_TERMINATING,
    Finding,
    classify,
    count,
)
from pytest_kvscale.judge.objectives import NO_OBJECTIVES, Objectives, Outcome, judged_by
from pytest_kvscale.judge.quantities import Measured
from pytest_kvscale.judge.remedies import REMEDIES, node_log_command
from pytest_kvscale.measure.counted import NOT_COUNTED, Counted
from pytest_kvscale.measure.figures import Figures

Verdict = Literal["pass", "fail", "inconclusive"]
EXAMPLES = 3
SETTLED, TIME_UP, STALLED = "settled after", "time was up after", "nothing progressed for"
"""How a level's waiting ends by itself: these begin `ended`."""
CANNOT_FIT = "not begun: it cannot fit"
"""What `ended` is of a level that was refused."""
LATE, CHANGED = "creates were sent up to", "KubeVirt's settings have changed"
"""These begin a reason for which a level's figures are not those of its load on its cluster."""
KEPT = "its objects are kept in the namespace"
"""This begins the reason for which a level's deletion was not measured."""


@dataclasses.dataclass(frozen=True)
class DensityResult:
    """One level: what was measured, and what follows from it."""

    level: int
    verdict: Verdict
    reasons: tuple[str, ...]
    """Why it is no pass; one sentence each."""
    figures: Figures
    findings: Mapping[str, Finding]
    """The class of each VMI that failed, by its name."""
    failures: Mapping[str, int]
    """How many VMIs failed, by class; `StuckTerminating` beside any other."""
    objectives: tuple[Outcome, ...]
    objectives_note: str
    ended: str
    """How the level's waiting ended."""
    harness: Mapping[str, Any]
    """API requests by verb, CPU seconds and memory of the harness."""
    cooldown: Mapping[str, Any]
    """How long the cluster had to rest before the level, and did."""
    left: Sequence[str] = ()
    """What is still there, each with the command that looks into it."""
    counted: Counted = NOT_COUNTED
    """What others counted: KubeVirt's metrics, and the cost of the control plane."""
    warnings: Sequence[str] = ()
    """What makes figures doubtful without changing the verdict; one sentence each."""

    @property
    def running(self) -> int:
        """VMIs that ran when the level ended."""
        return self.figures.running

    def explanation(self, what: str = "") -> str:
        """Why the level is no pass, for an assertion: counts, examples, evidence, remedies."""
        figures = self.figures
        head = (
            f"{what or f'level {self.level}'}: {self.verdict}: {figures.running} of "
            f"{figures.requested} running"
        )
        return "\n".join(
            [
                f"{head} ({self.ended})",
                *(f"  {each}" for each in self.reasons),
                *([f"  {figures.slowest['text']}"] if figures.slowest else []),
                *self._failures(),
                *(f"  warning: {each}" for each in self.warnings),
            ]
        )

    def _failures(self) -> list[str]:
        lines = []
        pending = {name: each for name, each in self.failures.items() if name in PENDING}
        if pending:
            parts = ", ".join(f"{name} {number}" for name, number in pending.items())
            lines.append(f"  Pending: {sum(pending.values())} ({parts})")
        for name, number in self.failures.items():
            lines.append(f"  {name}: {number}")
            lines += [f"    {each}" for each in self._examples(name)]
            if CLASSES.get(name) == "sandbox":
                lines += self._look_there(name)
            lines.append(f"    remedy: {REMEDIES[name]}")
        return lines

    def _look_there(self, name: str) -> list[str]:
        """Where the cause stands, if the node's log could not be read from here."""
        timelines = [
            each
            for each in self.figures.timelines
            if each.name in self.findings and self.findings[each.name].name == name
        ]
        if any(sign.source == "node log" for each in timelines for sign in each.signs):
            return []
        command = node_log_command(timelines)
        return [f"    the cause, {command}"] if command else []

    def _examples(self, name: str) -> list[str]:
        if name == STUCK_TERMINATING:
            stuck = [each.name for each in self.figures.timelines if each.uid and each.gone is None]
            return list(self.left[:EXAMPLES]) or [
                f"{each}: still there" for each in stuck[:EXAMPLES]
            ]
        found = [(vmi, each) for vmi, each in self.findings.items() if each.name == name]
        lines = []
        for vmi, finding in found[:EXAMPLES]:
            first, *rest = finding.evidence or ("no evidence",)
            lines.append(f"{vmi}: {first}")
            lines += [f"  {each}" for each in rest]
        return lines


def judge(
    level: int,
    figures: Figures,
    objectives: Objectives = NO_OBJECTIVES,
    max_lag: float | None = None,
    ended: str = "",
    problem: str = "",
    harness: Mapping[str, Any] | None = None,
    cooldown: Mapping[str, Any] | None = None,
    left: Sequence[str] = (),
    doubts: Sequence[str] = (),
    kept: str = "",
    counted: Counted = NOT_COUNTED,
) -> DensityResult:
    """Judge a level.

    `max_lag` (seconds) is the most that `lag_p99` may be; `problem` is what cut the run short.
    A level fails if a VMI failed (of a class that no objective judges), something was left
    behind, an objective was missed or the run was cut short. `kept` says that its objects are left
    on purpose. One that would pass but fell behind its pace, or of which there are `doubts`, is
    inconclusive. `counted` is what others counted.
    """
    if kept:
        figures = dataclasses.replace(figures, left_behind=0)
    findings = {each.name: classify(each) for each in figures.not_running}
    failures = count(findings.values())
    if figures.left_behind:
        failures[STUCK_TERMINATING] = figures.left_behind
    outcomes = objectives.check(level, Measured(figures, failures, counted.cost))
    reasons = [problem] if problem else []
    judged = sum(failures[each] for each in judged_by(outcomes, failures))
    missing = figures.requested - figures.running - judged
    if missing:
        reasons.append(f"{missing} of {figures.requested} VMIs did not run")
    if figures.left_behind:
        reasons.append(f"{figures.left_behind} VMIs or pods were left behind")
    reasons += [each.text() for each in outcomes if not each.ok]
    verdict: Verdict = "fail" if reasons else "pass"
    if kept:
        reasons.append(kept)
    lag = figures.pacing["lag_p99"]
    if max_lag is not None and lag is not None and lag > max_lag:
        reasons.append(
            f"{LATE} {lag:.3f} s late (lag_p99; at most {max_lag:g} s): the "
            "harness or the API fell behind the pace"
        )
        verdict = "inconclusive" if verdict == "pass" else verdict
    if doubts:
        reasons += doubts
        verdict = "inconclusive" if verdict == "pass" else verdict
    return DensityResult(
        level=level,
        verdict=verdict,
        reasons=tuple(reasons),
        figures=figures,
        findings=findings,
        failures=failures,
        objectives=outcomes,
        objectives_note="" if outcomes else objectives.note or f"no objective for level {level}",
        ended=ended,
        harness=harness or {},
        cooldown=cooldown or {},
        left=tuple(left),
        counted=counted,
        warnings=(*figures.clocks["warnings"], *counted.warnings),
    )
