"""Did it become worse? Verdicts over a family of pairs, with false alarms controlled together."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence

from pytest_kvscale.judge.change import DEFAULT, Change, Pair, Rules, Sample, Verdict

LEAST_RUNS = 3
"""A fail needs so many runs after: one or two may be bad ones, whatever they came out as."""
FLOOR = 0.005
"""No cluster repeats itself closer than that (standard deviation of logarithms)."""


def judge_changes(pairs: Sequence[Pair], rules: Rules = DEFAULT) -> list[Change]:
    """Verdicts on all pairs, in their order; the family is all pairs given."""
    raw = [_test(pair, rules) for pair in pairs]
    adjusted = _holm([each[-1] for each in raw])
    return [
        _judged(pair, rules, found, p) for pair, found, p in zip(pairs, raw, adjusted, strict=True)
    ]


_Found = tuple[float | None, float | None, float | None, float | None]


def _values(samples: Sequence[Sample]) -> list[float]:
    return [
        each.value for each in samples if each.value is not None and 0 < each.value < math.inf
    ]  # fmt: skip


def _test(pair: Pair, rules: Rules) -> _Found:
    from scipy import stats

    before, after = (
        [math.log(each) for each in _values(side)] for side in (pair.before, pair.after)
    )
    if not before or not after or len(before) + len(after) < len(pair.before) + len(pair.after):
        return None, None, None, None
    squares = sum((each - statistics.fmean(side)) ** 2 for side in (before, after) for each in side)
    df = len(before) + len(after) - 2
    if pair.noise is not None:
        squares, df = squares + pair.noise.df * pair.noise.sd**2, df + pair.noise.df
    shift = statistics.fmean(after) - statistics.fmean(before)
    if df == 0:
        return shift, None, None, None
    sd = max(FLOOR, math.sqrt(squares / df))
    error = sd * math.sqrt(1 / len(before) + 1 / len(after))
    reach = error * float(stats.t.ppf(1 - rules.alpha, df))
    worse = shift if pair.metric.worse == "higher" else -shift
    return shift, shift - reach, shift + reach, float(stats.t.sf(worse / error, df))


def _holm(found: Sequence[float | None]) -> list[float | None]:
    order = sorted((p, index) for index, p in enumerate(found) if p is not None)
    adjusted: list[float | None] = [None] * len(found)
    highest = 0.0
    for rank, (p, index) in enumerate(order):
        highest = max(highest, min(1.0, p * (len(order) - rank)))
        adjusted[index] = highest
    return adjusted


def _judged(pair: Pair, rules: Rules, found: _Found, p: float | None) -> Change:
    shift, low, high, _ = found
    before, after = _middle(pair.before), _middle(pair.after)
    more = max(1, LEAST_RUNS - min(len(pair.before), len(pair.after)))
    verdict: Verdict = "inconclusive"
    reason = f"too little evidence: {more} more runs on each side may do"
    if shift is not None and low is not None and high is not None and before is not None:
        sign = 1 if pair.metric.worse == "higher" else -1
        bound = high if sign > 0 else -low
        practical = abs((after or 0.0) - before) > pair.metric.practical
        large = sign * shift > math.log1p(rules.relative) and practical
        if p is not None and p <= rules.alpha and large and len(pair.after) >= LEAST_RUNS:
            verdict, reason = "fail", f"worse by {abs(math.expm1(shift)):.0%}"
        elif (
            bound < math.log1p(rules.relative) or before * math.expm1(bound) < pair.metric.practical
        ):
            verdict, reason = "pass", f"not worse by {rules.relative:.0%} or more"
    return Change(
        pair=pair, verdict=verdict, before=before, after=after, shift=_ratio(shift),
        low=_ratio(low), high=_ratio(high), p=p,
        more_runs=more if verdict == "inconclusive" else None, detectable=None, reason=reason,
    )  # fmt: skip


def _ratio(log: float | None) -> float | None:
    return None if log is None else math.expm1(log)


def _middle(side: Sequence[Sample]) -> float | None:
    values = sorted(math.inf if each.value is None else each.value for each in side)
    middle = statistics.median_high(values) if values else math.inf
    return None if math.isinf(middle) else middle
