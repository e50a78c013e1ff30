"""Did it become worse? Verdicts over a family of pairs, with false alarms controlled together.

- `fail`: the estimate is worse than both thresholds, relative and practical, and the evidence
  suffices over the whole family: Student's t-test (Holm), or, where a run stands out or did not
  reach the metric, a permutation of runs (Westfall and Young).
- `pass`: the interval ends below the threshold and is narrow enough to tell, or it is all on the
  better side.
- `inconclusive`: everything else, with what would do.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence

from pytest_kvscale.judge import noise as noises
from pytest_kvscale.judge.advice import more_runs, more_runs_reaching
from pytest_kvscale.judge.change import DEFAULT, Change, Pair, Rules, Verdict
from pytest_kvscale.judge.drift import Drift, drift, noticed
from pytest_kvscale.judge.noise import LEAST_RUNS, SHARE
from pytest_kvscale.judge.permutation import probabilities
from pytest_kvscale.judge.shift import (
    Shift,
    arrangements,
    hodges_lehmann,
    shift,
    sides,
)

Finding = tuple[Verdict, str]


def judge_changes(pairs: Sequence[Pair], rules: Rules = DEFAULT) -> list[Change]:
    """Verdicts on all pairs, in their order; the family is all pairs given."""
    family = [_Judging(pair, rules) for pair in pairs]
    tested = [each for each in family if each.can_be_tested]
    _holm(tested)
    _permute(tested)
    drifts = [each.drift for each in family]
    return [each.change(drifts, len(tested)) for each in family]


class _Judging:
    """One pair on its way to a verdict."""

    def __init__(self, pair: Pair, rules: Rules) -> None:
        self.pair = pair
        self.rules = rules
        self.sides = found = sides(pair)
        self.shift: Shift | None = None
        self.drift: Drift | None = None
        self.before, self.after = found.typical
        self.limit = math.inf if self.before is None else found.limit(self.before, rules)
        if not found.censored:
            self.shift = shift(found, pair.noise, rules)
            self.drift = drift(found)
        self.p: float | None = None
        """Adjusted for the family and for SHARE."""
        self.p_better: float | None = None
        """The same for better, of censored pairs."""

    @property
    def can_be_tested(self) -> bool:
        """Whether there is any evidence for or against."""
        return self.shift is not None or self.may_be_permuted

    @property
    def may_be_permuted(self) -> bool:
        """Whether runs dealt at random could ever suffice."""
        found = self.sides
        both = bool(found.before) and bool(found.after)
        return both and arrangements(found) * SHARE * self.rules.alpha >= 1

    @property
    def needs_permutation(self) -> bool:
        """Whether the t-test does not do, and a permutation decides something."""
        if self.shift is None:
            return self.sides.censored and self.may_be_permuted
        # Elsewhere than near a fail Student's p serves.
        return (
            self.shift.stands_out
            and self.shift.estimate > self.limit
            and self.shift.low > 0
        )  # fmt: skip

    def change(self, drifts: Sequence[Drift | None], family: int) -> Change:
        """The pair's change, with its verdict."""
        verdict, reason = self._finding(drifts)
        found, sides = self.shift, self.sides
        if found is None:
            estimate, low, high = self._censored_estimate(), None, None
        else:
            estimate, low, high = found.estimate, found.low, found.high
        bounds = [sides.relative(each, self.before) for each in (low, high)]
        if self.pair.metric.worse == "lower":
            bounds.reverse()
        if sides.odd:
            reason = f"{reason}; {sides.odd} value(s) were left out, being no numbers from 0 up"
        return Change(
            pair=self.pair, verdict=verdict, before=self.before, after=self.after,
            shift=sides.relative(estimate, self.before), low=bounds[0], high=bounds[1], p=self.p,
            more_runs=self._more_runs(family) if verdict == "inconclusive" else None,
            detectable=self._detectable(family), reason=reason,
        )  # fmt: skip

    # Verdicts ---------------------------------------------------------------------------------

    def _finding(self, drifts: Sequence[Drift | None]) -> Finding:
        if not self.sides.before or not self.sides.after:
            side = "after" if self.sides.before else "before"
            return "inconclusive", f"{self.pair.metric.title} was not measured {side}"
        if self.sides.censored:
            return self._censored_finding()
        if self.shift is None:
            return "inconclusive", (
                "one run on each side, without a calibration, does not tell how far equal runs lie "
                "apart"
            )
        return self._weighed(self.shift, drifts)

    def _weighed(self, found: Shift, drifts: Sequence[Drift | None]) -> Finding:
        enough = self.p is not None and self.p <= self.rules.alpha and found.low > 0
        if enough and found.estimate > self.limit:
            return self._worse(found, drifts)
        if found.high < 0 or (found.high < self.limit and self._narrow(found)):
            return self._not_worse(found, drifts)
        if enough:
            return "inconclusive", f"worse, but perhaps by less than {self._threshold()}"
        also = ", and at least one run stands out" if found.stands_out else ""
        return "inconclusive", f"{self._unclear(found)}{also}"

    def _worse(self, found: Shift, drifts: Sequence[Drift | None]) -> Finding:
        if len(self.sides.after) < LEAST_RUNS:
            return "inconclusive", (
                f"worse, but {_runs(len(self.sides.after))} after may be bad by chance: "
                f"only {LEAST_RUNS} or more can fail"
            )
        if self.drift is not None and self.drift.is_no_step:
            worse, _ = noticed(self.drift, drifts)
            if worse:
                return "inconclusive", (
                    "drift: runs become worse within the sides too, one after the other, which "
                    "explains the change about as well as a step does; measure in turns"
                )
        more = ", by permutation, since at least one run stands out" if found.stands_out else ""
        return "fail", f"worse by more than {self._threshold()} and by more than noise{more}"

    def _not_worse(self, found: Shift, drifts: Sequence[Drift | None]) -> Finding:
        better = found.high < 0
        if better and len(self.sides.before) < LEAST_RUNS:
            return "inconclusive", (
                f"better, but {_runs(len(self.sides.before))} before may have been bad by chance"
            )
        if self.drift is not None and -self.drift.moved > self.limit / 2:
            _, hidden = noticed(self.drift, drifts)
            if hidden:
                return "inconclusive", (
                    "drift: runs become better within the sides, one after the other, which may "
                    "hide that it is worse; measure in turns"
                )
        return "pass", "better" if better else f"not worse by {self._threshold()} or more"

    def _narrow(self, found: Shift) -> bool:
        """Whether the interval tells by itself, not by an estimate that was lucky."""
        return found.pass_reach + max(found.estimate, 0.0) < self.limit

    def _unclear(self, found: Shift) -> str:
        if found.high < self.limit:
            return "probably not worse, but so few runs may hide how far they lie apart"
        bound = self.sides.relative(found.high, self.before)
        how = "" if bound is None else f" by up to {abs(bound):.0%}"
        return (
            f"equal, or worse{how}: noise of {found.noise.sd:.1%} from run to run leaves both open"
        )

    def _threshold(self) -> str:
        metric = self.pair.metric
        if self.before is not None and metric.practical > self.rules.relative * self.before:
            return f"{metric.practical:g} {metric.unit}".rstrip()
        return f"{self.rules.relative:.0%}"

    # Runs that did not reach the metric -------------------------------------------------------

    def _censored_finding(self) -> Finding:
        found, title = self.sides, self.pair.metric.title
        before, after = (sum(map(math.isinf, each)) for each in (found.before, found.after))
        if before == len(found.before) and after == len(found.after):
            return "inconclusive", f"{title} was reached on neither side"
        counts = (
            f"{title} was not reached in {before} of {_runs(len(found.before))} before and in "
            f"{after} of {len(found.after)} after"
        )
        worse = hodges_lehmann(found.before, found.after) > self.limit or (
            self.before is not None and self.after is None
        )
        alpha = self.rules.alpha
        if worse and self.p is not None and self.p <= alpha:
            return "fail", f"{counts}, more than chance deals out by permutation"
        if self.p_better is not None and self.p_better <= alpha and after == 0:
            return "pass", f"better: {counts}"
        return "inconclusive", f"{counts}: that may be chance"

    def _censored_estimate(self) -> float | None:
        found = self.sides
        if not found.before or not found.after or None in (self.before, self.after):
            return None
        return hodges_lehmann(found.before, found.after)

    # Advice -----------------------------------------------------------------------------------

    def _more_runs(self, family: int) -> int | None:
        found = self.sides
        if found.censored:
            return more_runs_reaching(found.before, found.after, self.rules)
        counts = len(found.before), len(found.after)
        return more_runs(counts, self.shift, self.limit, self.rules, family)

    def _detectable(self, family: int) -> float | None:
        if self.shift is None:
            return None
        found = noises.detectable(
            self.shift.noise, len(self.sides.before), len(self.sides.after), self.rules,
            max(family, 1),
        )  # fmt: skip
        return found if math.isfinite(found) else None


# The family -----------------------------------------------------------------------------------


def _holm(tested: Sequence[_Judging]) -> None:
    """Adjust Student's p for as many pairs as are tested."""
    order = sorted(
        ((each.shift.p, place) for place, each in enumerate(tested) if each.shift is not None)
    )
    highest = 0.0
    for rank, (p, place) in enumerate(order):
        highest = max(highest, min(1.0, p * (len(tested) - rank) / SHARE))
        tested[place].p = highest


def _permute(tested: Sequence[_Judging]) -> None:
    """Replace p where a permutation decides, with all pairs that have as many runs."""
    groups = defaultdict(list)
    for each in tested:
        if each.may_be_permuted:
            groups[len(each.sides.before), len(each.sides.after)].append(each)
    for group in groups.values():
        deciding = [each.needs_permutation for each in group]
        if not any(deciding):
            continue
        # What is not dealt together with this group has its share of alpha.
        others = len(tested) / len(group) / SHARE
        found = probabilities([each.sides for each in group])
        better = [1.0] * len(group)
        if any(each.sides.censored for each in group):
            better = probabilities([each.sides.turned() for each in group])
        for each, decides, p, p_better in zip(group, deciding, found, better, strict=True):
            if decides:
                each.p, each.p_better = min(1.0, p * others), min(1.0, p_better * others)


def _runs(count: int) -> str:
    return "1 run" if count == 1 else f"{count} runs"
