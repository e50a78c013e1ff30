"""How far equal runs lie apart, and what can be found through that noise."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence

from pytest_kvscale.judge.change import DEFAULT, Noise, Rules, Sample


def noise_of(samples: Sequence[Sequence[Sample]]) -> Noise | None:
    """The noise of groups of equal runs, pooled; None: no group has two values."""
    squares, df = 0.0, 0
    for group in samples:
        logs = [math.log(each.value) for each in group if each.value is not None and each.value > 0]
        if len(logs) > 1:
            squares += statistics.variance(logs) * (len(logs) - 1)
            df += len(logs) - 1
    return Noise(math.sqrt(squares / df), df) if df else None


def detectable(
    noise: Noise,
    before: int,
    after: int,
    rules: Rules = DEFAULT,
    family: int = 1,
) -> float:
    """The smallest relative worsening that so many runs find in nine of ten cases."""
    from scipy import stats

    df = noise.df
    error = noise.sd * math.sqrt(1 / before + 1 / after)
    return math.expm1(
        error * float(stats.t.ppf(1 - rules.alpha / family, df) + stats.t.ppf(0.9, df))
    )  # fmt: skip
