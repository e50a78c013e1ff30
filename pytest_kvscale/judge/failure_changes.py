"""Did more VMIs fail? Counts by class, one number a run, as VMIs of a run share their fate.

Two kinds of failures are told apart. What a node has room for is no matter of luck: if after the
change every run was refused for a limit that no run met before, and more fail than ever before, one
run is evidence enough. Anything else may be a bad night. It fails if the counts of the runs after
are higher than those before by an exact permutation test of their ranks (with any-or-none counts
that is Fisher's exact test), one-sided, adjusted over all classes and levels by Holm's method.
"""

from __future__ import annotations

import dataclasses
import statistics
from collections.abc import Mapping, Sequence

from pytest_kvscale.judge.change import Verdict
from pytest_kvscale.judge.classes import PENDING

CAPACITY = PENDING | {"PodIPExhausted"}
"""Classes that say that a limit was met: the same load meets it again."""
_SET = frozenset({"DeviceLimit", "PodLimit"})
"""Limits that are a setting: one VMI beyond is refused in every run. Of others what else is on the
node takes its part."""
_EDGE = 0.02
"""A part of a level's VMIs: with fewer refused, a level lies at the edge of what others leave."""
LEAST_RUNS = 3
"""So many runs after must have a failure of a class before its growth can be more than chance."""
_RESAMPLES = 20_000
_MOST_RUNS = 40
"""More runs than that are not suggested to anybody."""

Counts = Mapping[str, int]


@dataclasses.dataclass(frozen=True)
class ClassChange:
    """One class of failures of one level, before and after."""

    name: str
    before: tuple[int, ...]
    """VMIs in each run."""
    after: tuple[int, ...]
    verdict: Verdict
    p: float | None
    """Adjusted; None: there was nothing to test."""
    more_runs: int | None
    """How many more runs on each side would do if they went on like this; None: none, or not
    known."""
    reason: str


@dataclasses.dataclass(frozen=True)
class FailureChange:
    """What came of the failures of one level."""

    level: int
    verdict: Verdict
    before: int
    """Runs."""
    after: int
    classes: tuple[ClassChange, ...]
    """Those that were seen on any side."""
    reason: str


def judge_failures(
    levels: Mapping[int, tuple[Sequence[Counts], Sequence[Counts]]], alpha: float
) -> list[FailureChange]:
    """Verdicts for each level's failures by class, of each run before and after.

    `alpha` bounds the probability that any of them fails by chance. Levels need runs on both sides.
    """
    found = {
        (level, name): _Seen(
            tuple(each.get(name, 0) for each in before),
            tuple(each.get(name, 0) for each in after),
            _is_wall(name, level, before, after),
        )
        for level, (before, after) in levels.items()
        for name in sorted({name for each in (*before, *after) for name in each})
    }
    found = {key: each for key, each in found.items() if any((*each.before, *each.after))}
    tests = {key: _p(each) for key, each in found.items() if each.needs_test}
    adjusted = _holm(tests)
    changes = []
    for level, (before, after) in levels.items():
        classes = tuple(
            _judged(
                name,
                each,
                adjusted.get((level, name)),
                alpha / max(1, len(tests)),
                alpha,
            )
            for (of, name), each in found.items()
            if of == level
        )
        changes.append(_together(level, len(before), len(after), classes))
    return changes


@dataclasses.dataclass(frozen=True)
class _Seen:
    before: tuple[int, ...]
    after: tuple[int, ...]
    is_wall: bool
    """Whether it is a limit that is met now, and was not before."""

    @property
    def needs_test(self) -> bool:
        """Whether there were more in a run after than before, on average, which may be chance."""
        return not self.is_wall and statistics.fmean(self.after) > statistics.fmean(self.before)


def _is_wall(name: str, level: int, before: Sequence[Counts], after: Sequence[Counts]) -> bool:
    met = [each.get(name, 0) for each in after]
    if name not in CAPACITY or any(each.get(name, 0) for each in before) or not all(met):
        return False
    grew = min(sum(each.values()) for each in after) > max(sum(each.values()) for each in before)
    return grew and (name in _SET or min(met) >= _EDGE * level)


def _judged(name: str, seen: _Seen, p: float | None, least: float, alpha: float) -> ClassChange:
    verdict: Verdict
    more = None
    had, runs = sum(each > 0 for each in seen.after), len(seen.after)
    if seen.is_wall:
        verdict, reason = "fail", "a limit that no run met before, and every run meets now"
    elif p is None:
        verdict, reason = "pass", "no more than before"
    elif p <= alpha and had >= LEAST_RUNS:
        verdict, reason = "fail", f"in {had} of {runs} runs, and more than before"
    else:
        more = _more_runs(seen, least)
        would = (
            "" if more is None else f": {more} more runs on each side would do, if it goes on so"
        )
        verdict, reason = "inconclusive", f"in {had} of {runs} runs, which may be chance{would}"
    return ClassChange(name, seen.before, seen.after, verdict, p, more, reason)


def _together(
    level: int, before: int, after: int, classes: tuple[ClassChange, ...]
) -> FailureChange:
    verdicts = {each.verdict for each in classes}
    verdict: Verdict = "inconclusive" if "inconclusive" in verdicts else "pass"
    verdict = "fail" if "fail" in verdicts else verdict
    telling = [each for each in classes if each.verdict == verdict]
    if not classes:
        reason = "no VMI failed, before or after"
    elif verdict == "pass":
        reason = "no more VMIs failed than before"
    else:
        reason = "; ".join(f"{each.name}: {each.reason}" for each in telling)
    return FailureChange(level, verdict, before, after, classes, reason)


def _p(seen: _Seen) -> float:
    """Probability of ranks so high after, if sides were dealt out by chance."""
    import numpy as np
    from scipy import stats

    everything = [*seen.before, *seen.after]
    # Where a side is one run, its place among all runs decides; the library wants two.
    if len(seen.after) == 1:
        return sum(each >= seen.after[0] for each in everything) / len(everything)
    if len(seen.before) == 1:
        return sum(each <= seen.before[0] for each in everything) / len(everything)
    ranks = stats.rankdata(everything)
    found = stats.permutation_test(
        (ranks[len(seen.before) :], ranks[: len(seen.before)]),
        lambda after, _before, axis: np.sum(after, axis=axis),
        vectorized=True,
        alternative="greater",
        n_resamples=_RESAMPLES,
        rng=np.random.default_rng(0),  # The same counts have the same p.
    )
    return float(found.pvalue)


def _holm(tests: Mapping[tuple[int, str], float]) -> dict[tuple[int, str], float]:
    """P-values adjusted for all of the family, by Holm's method."""
    adjusted: dict[tuple[int, str], float] = {}
    highest = 0.0
    ordered = sorted(tests.items(), key=lambda each: each[1])
    for rank, (key, p) in enumerate(ordered):
        highest = max(highest, min(1.0, p * (len(ordered) - rank)))
        adjusted[key] = highest
    return adjusted


def _more_runs(seen: _Seen, alpha: float) -> int | None:
    """How many more on each side would be evidence, if shares of runs stayed as they are."""
    from scipy import stats

    def share(side: Sequence[int], beyond: int) -> float:
        return sum(each > beyond for each in side) / len(side)

    beyond = max(
        sorted({0, *seen.before, *seen.after}),
        key=lambda each: share(seen.after, each) - share(seen.before, each),
    )
    new, old = share(seen.after, beyond), share(seen.before, beyond)
    fewest = min(len(seen.before), len(seen.after))
    for runs in range(max(fewest, LEAST_RUNS - 1) + 1, _MOST_RUNS + 1):
        hit, hit_before = round(new * runs), round(old * runs)
        table = [[hit, runs - hit], [hit_before, runs - hit_before]]
        if stats.fisher_exact(table, alternative="greater").pvalue <= alpha:
            return runs - fewest
    return None
