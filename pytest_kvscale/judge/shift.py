"""How far the runs after lie from those before: an estimate, its interval and its evidence.

All is told on one scale, the *badness*: the logarithm of a metric, turned so that larger is worse.
A difference of badness is a ratio, whatever the metric's unit, and noise of so many per cent is
the same at every level.
"""

from __future__ import annotations

import dataclasses
import math
import re
import statistics
from collections.abc import Sequence

from pytest_kvscale.judge.change import Metric, Noise, Pair, Rules, Sample
from pytest_kvscale.judge.noise import (
    FLOOR,
    LEAST_RUNS,
    LEAST_VALUE,
    PASS_DESPITE,
    PASS_SHARE,
    SHARE,
    STANDS_OUT,
    quantile,
    relative,
    residuals,
    scale,
    squares,
)

_NUMBERS = re.compile(r"([0-9]{1,18})")
MOST_WAYS = 10**15
PULLED_IN = 2.5
"""Where runs stand out, those further than so many standard deviations are pulled in to there."""
NOISIER = 0.05
"""A calibration is not used for runs that lie further apart than equal runs do in so few cases."""


@dataclasses.dataclass(frozen=True)
class Sides:
    """A pair's runs on the scale of badness, each side in the order in which it ran."""

    metric: Metric
    before: tuple[float, ...]
    """Infinite: not reached."""
    after: tuple[float, ...]
    typical: tuple[float | None, float | None]
    """The median value of each side in the metric's unit; None: not reached, or no run."""
    began: tuple[float, ...] | None
    """When they began, those before and then those after; None: not known of all."""
    offset: float
    """What was added to values before their logarithm was taken; 0 unless some were 0."""
    rounding: float
    """Standard deviation that the metric's resolution alone brings about."""
    odd: int
    """How many values were left out, since they were no numbers or below 0."""

    @property
    def censored(self) -> bool:
        """Whether runs did not reach the metric."""
        return math.inf in self.before or math.inf in self.after

    def all_runs(self) -> list[float]:
        """Of both sides; a run that did not reach the metric is twice as bad as the worst."""
        runs = [*self.before, *self.after]
        worst = max((each for each in runs if each < math.inf), default=0.0)
        return [worst + math.log(2) if math.isinf(each) else each for each in runs]

    def turned(self) -> Sides:
        """As if what is after had been before."""
        return dataclasses.replace(self, before=self.after, after=self.before)

    def relative(self, badness: float | None, before: float | None) -> float | None:
        """A difference of badness as a relative change of a value before."""
        if badness is None or not before or not math.isfinite(badness):
            return None
        higher = badness if self.metric.worse == "higher" else -badness
        return relative(higher) * (before + self.offset) / before

    def limit(self, before: float, rules: Rules) -> float:
        """The badness that a worsening must exceed: both thresholds, relative and practical."""
        least = max(rules.relative * before, self.metric.practical)
        at = before + self.offset
        if self.metric.worse == "higher":
            return math.log1p(least / at)
        return -math.log1p(-least / at) if least < at else math.inf


def sides(pair: Pair) -> Sides:
    """The runs of a pair, ordered by when they began, then by their names."""
    before, after = (sorted(each, key=_order) for each in (pair.before, pair.after))
    fine = [each for each in (*before, *after) if _fine(each)]
    finite = [
        _counted(each.value) for each in fine if each.value is not None and each.value < math.inf
    ]
    offset = 0.0
    if finite and min(finite) == 0:
        positive = [each for each in finite if each > 0]
        offset = pair.metric.practical or min(positive, default=2.0) / 2
    least = min(finite, default=0.0) + offset
    sign = 1.0 if pair.metric.worse == "higher" else -1.0

    def badness(side: Sequence[Sample]) -> tuple[float, ...]:
        return tuple(
            math.inf if each.value is None or math.isinf(each.value)
            else sign * math.log(_counted(each.value) + offset)
            for each in side if _fine(each)
        )  # fmt: skip

    began = tuple(each.began for each in fine if each.began is not None)
    return Sides(
        metric=pair.metric, before=badness(before), after=badness(after),
        typical=(_typical(before), _typical(after)),
        began=began if len(began) == len(fine) else None, offset=offset,
        # A value lies anywhere in its step, evenly: 1 / sqrt(12) of the step.
        rounding=pair.metric.resolution / math.sqrt(12) / least if least > 0 else 0.0,
        odd=len(before) + len(after) - len(fine),
    )  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Shift:
    """A difference of badness between two sides, without infinite runs."""

    estimate: float
    """Hodges and Lehmann's: the median of all differences between a run after and one before."""
    low: float
    high: float
    """Student's interval, two-sided, of confidence `1 - 2 * alpha`."""
    p: float
    """Student's, one-sided for worse; of one pair alone."""
    noise: Noise
    """What the interval rests on."""
    reach: float
    """Half the interval's width."""
    pass_reach: float
    """The same at the confidence that a pass takes; infinite: these runs cannot pass."""
    stands_out: bool
    """A run stands out: the interval is of runs pulled in, and a permutation is the evidence."""


def shift(found: Sides, noise: Noise | None, rules: Rules) -> Shift | None:
    """The shift of sides without infinite runs; None: nothing tells how far equal runs lie apart.

    Where no run stands out this is Student's t-test. Its standard deviation is that of the sides,
    together with a calibration's unless the sides are clearly noisier. Where a run stands out, it
    is pulled in and does not count as a degree of freedom; that makes the interval a fair one, but
    with few runs too narrow a one for a verdict by itself.
    """
    before, after = found.before, found.after
    if not before or not after:
        return None
    wild = standing_out(found, noise) and arrangements(found) * SHARE * rules.alpha >= 1
    counts = [len(before), len(after)]
    if wild:
        reach = PULLED_IN * scale([*residuals(before), *residuals(after)], 2)
        inner = [_pulled_in(each, reach) for each in (before, after)]
        # A side of two halves far apart has no middle to be pulled in to.
        wild = all(2 * kept > len(side) for side, kept in inner)
        if wild:
            (before, counts[0]), (after, counts[1]) = inner
    df = sum(counts) - 2
    variance = (squares(before) + squares(after)) / df if df else 0.0
    if noise is not None and not wild and not _noisier(variance, df, noise):
        variance = (variance * df + noise.sd**2 * noise.df) / (df + noise.df)
        df += noise.df
    if df <= 0:
        return None
    sd = math.sqrt(max(variance, FLOOR**2 + found.rounding**2))
    error = sd * math.sqrt(sum(1 / each for each in counts))
    centre = statistics.fmean(after) - statistics.fmean(before)
    reach = error * quantile(1 - rules.alpha, df)
    certain = not wild or len(before) + len(after) >= PASS_DESPITE
    estimate = hodges_lehmann(found.before, found.after)
    return Shift(
        estimate=estimate, low=min(centre - reach, estimate), high=max(centre + reach, estimate),
        p=_above(centre / error, df), noise=Noise(sd, df), reach=reach,
        pass_reach=error * quantile(1 - rules.alpha * PASS_SHARE, df) if certain else math.inf,
        stands_out=wild,
    )  # fmt: skip


def hodges_lehmann(before: Sequence[float], after: Sequence[float]) -> float:
    """The median difference; infinite if most runs after, and not most before, are."""
    return _median([0.0 if a == b else a - b for a in after for b in before])


def standing_out(found: Sides, noise: Noise | None) -> bool:
    """Whether a run lies far from the middle of its side, which needs three runs to have one."""
    groups = [each for each in (found.before, found.after) if len(each) >= LEAST_RUNS]
    apart = [each for side in groups for each in residuals(side)]
    if not apart:
        return False
    typical = scale(apart, len(groups))
    if noise is not None:
        typical = math.hypot(
            typical * math.sqrt(len(apart)), noise.sd * math.sqrt(noise.df)
        ) / math.sqrt(len(apart) + noise.df)  # fmt: skip
    return max(map(abs, apart)) > STANDS_OUT * max(typical, found.rounding, FLOOR)


def arrangements(found: Sides) -> int:
    """In how many ways the runs can be dealt to the two sides, as far as it can be counted."""
    return ways(len(found.before), len(found.after))


def ways(before: int, after: int) -> int:
    """The same of so many runs; a number above `MOST_WAYS`, which no float holds, is that."""
    few = min(before, after)
    return MOST_WAYS if few > 60 else min(math.comb(before + after, few), MOST_WAYS)


def _pulled_in(side: Sequence[float], reach: float) -> tuple[tuple[float, ...], int]:
    middle = statistics.median(side)
    inner = tuple(min(max(each, middle - reach), middle + reach) for each in side)
    return inner, sum(a == b for a, b in zip(side, inner, strict=True))


def _noisier(variance: float, df: int, noise: Noise) -> bool:
    from scipy import special

    if df == 0:
        return False
    return float(special.fdtrc(df, noise.df, variance / max(noise.sd, FLOOR) ** 2)) < NOISIER


def _above(t: float, df: int) -> float:
    from scipy import special

    return float(special.stdtr(df, -t))


def _typical(side: Sequence[Sample]) -> float | None:
    values = [
        math.inf if each.value is None else _counted(each.value) for each in side if _fine(each)
    ]
    middle = _median(values) if values else math.inf
    return None if math.isinf(middle) else middle


def _median(values: Sequence[float]) -> float:
    ordered = sorted(values)
    low, high = ordered[(len(ordered) - 1) // 2], ordered[len(ordered) // 2]
    return high if math.isinf(high) else (low + high) / 2


def _order(sample: Sample) -> tuple[float, list[tuple[int, str]]]:
    """By when it began, then by its name: `400-2` before `400-10`."""
    parts = _NUMBERS.split(sample.run)
    # Texts and numbers take turns.
    name = [(int(each), "") if index % 2 else (0, each) for index, each in enumerate(parts)]
    return (0.0 if sample.began is None else sample.began, name)


def _counted(value: float) -> float:
    return value if value >= LEAST_VALUE else 0.0


def _fine(sample: Sample) -> bool:
    """Not NaN, not below 0."""
    return sample.value is None or sample.value >= 0
