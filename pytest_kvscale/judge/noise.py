"""How far equal runs lie apart, and what can be found through that noise."""

from __future__ import annotations

import functools
import math
import statistics
from collections.abc import Iterable, Sequence

from pytest_kvscale.judge.change import DEFAULT, Noise, Rules, Sample

FLOOR = 0.005
"""No cluster repeats itself closer than that (standard deviation of logarithms): runs that came
out alike, as those of an embedded cluster with one seed do, are no proof of the contrary."""
STANDS_OUT = 8.0
"""A run that lies so many (robust) standard deviations from the middle of its side stands out."""
SHARE = 0.75
"""Of the false alarms that the rules allow, this share may come of noise that a test knows. The
rest is for what none knows: drift, and bad runs that come together."""
PASS_SHARE = 0.25
"""A wrong pass may be so many times as probable as alpha: with few runs noise is sometimes taken
for far less than it is, and a change of twice the threshold must not pass even then."""
PASS_DESPITE = 16
"""Where a run stands out so many runs of both sides are needed to pass: fewer are often falsely
quiet ones, beside which an ordinary run stands out."""
LEAST_RUNS = 3
"""A side's runs below which they could all be bad ones: if one in ten is, three are in 1,000."""
FOUND = 0.9
"""What is called detectable is found in that share of cases."""
LEAST_VALUE = 1e-9
"""What is smaller, in the unit of any metric, counts as 0."""
MOST_RUNS = 200
"""More runs of a side than that are no advice."""


def noise_of(samples: Sequence[Sequence[Sample]]) -> Noise | None:
    """The noise of groups of equal runs, pooled, without runs that stand out.

    None: no group has two values. Values that were not reached, or are not above 0, are left out.
    """
    logs = [
        [math.log(each.value) for each in group if each.value is not None and _positive(each.value)]
        for group in samples
    ]
    apart = [each for group in logs for each in residuals(group)]
    reach = STANDS_OUT * scale(apart, sum(len(group) > 1 for group in logs))
    squares, df = 0.0, 0
    for group in logs:
        kept = [
            each for each, off in zip(group, residuals(group), strict=True) if abs(off) <= reach
        ]
        if len(kept) > 1:
            squares += statistics.variance(kept) * (len(kept) - 1)
            df += len(kept) - 1
    return Noise(math.sqrt(squares / df), df) if df else None


def detectable(
    noise: Noise, before: int, after: int, rules: Rules = DEFAULT, family: int = 1
) -> float:
    """The smallest relative worsening that so many runs find in nine of ten cases.

    `noise` as it was estimated, `family` how many pairs are judged together. Infinite where so few
    runs never fail.
    """
    if after < LEAST_RUNS or before < 1 or noise.df < 1:
        return math.inf
    sd = max(noise.sd, FLOOR)
    error = sd * math.sqrt(1 / before + 1 / after)
    return relative(
        max(
            error * _reach(rules.alpha * SHARE / family, noise.df),
            # The estimate must exceed the threshold too.
            math.log1p(rules.relative) + error * quantile(FOUND, noise.df),
        )
    )


def runs_needed(sd: float, worsening: float, rules: Rules = DEFAULT, family: int = 1) -> int | None:
    """How many runs on each side find a relative worsening in nine of ten cases.

    `sd` is the noise, of the logarithm. None: no number of runs, since it is not above the
    threshold, or more than MOST_RUNS.
    """
    for runs in range(LEAST_RUNS, MOST_RUNS + 1):
        if detectable(Noise(sd, 2 * runs - 2), runs, runs, rules, family) <= worsening:
            return runs
    return None


def runs_to_pass(sd: float, rules: Rules = DEFAULT) -> int | None:
    """How many runs on each side let equal sides pass in nine of ten cases; None: too many."""
    for runs in range(LEAST_RUNS, MOST_RUNS + 1):
        error = max(sd, FLOOR) * math.sqrt(2 / runs)
        if error * _reach(rules.alpha * PASS_SHARE, 2 * runs - 2) < math.log1p(rules.relative):
            return runs
    return None


# Arithmetic ---------------------------------------------------------------------------------


def residuals(values: Sequence[float]) -> list[float]:
    """How far each lies from their middle."""
    if not values:
        return []
    middle = statistics.median(values)
    return [each - middle for each in values]


def scale(apart: Sequence[float], groups: int) -> float:
    """A robust standard deviation of residuals from the medians of so many groups."""
    if len(apart) <= groups:
        return FLOOR
    # 1.4826: the median of |z| is 0.6745 of a normal distribution's standard deviation.
    small = math.sqrt(len(apart) / (len(apart) - groups))
    return max(FLOOR, 1.4826 * statistics.median(map(abs, apart)) * small)


@functools.lru_cache(maxsize=10_000)
def quantile(share: float, df: float) -> float:
    """Of Student's t distribution."""
    from scipy import special

    return float(special.stdtrit(df, share))


def relative(log: float) -> float:
    """A difference of logarithms as a relative change, however large."""
    return math.expm1(min(log, 500.0))


def _reach(alpha: float, df: int) -> float:
    """How many standard errors a shift must be to be significant in nine of ten cases."""
    return quantile(1 - alpha, df) + quantile(FOUND, df)


def _positive(value: float) -> bool:
    return LEAST_VALUE <= value < math.inf


def squares(values: Iterable[float]) -> float:
    """Sum of squares around the mean."""
    values = list(values)
    mean = sum(values) / len(values)
    return sum((each - mean) ** 2 for each in values)
