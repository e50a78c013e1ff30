"""Percentiles and rates over what was asked for, not over what came.

Percentiles are nearest-rank: the smallest value with at least so many per cent of the sample at
or below it. Values that never came are censored: later than every one that did. A percentile
that falls among them is None, and so are mean and maximum as soon as there are any.

Confidence intervals are by order statistics: how many of a sample lie below the true percentile
is binomial, whatever the distribution, so two of the sample's own values enclose it. They hold
for VMIs drawn as these were, in this run; how much runs differ from each other they do not say.
"""

from __future__ import annotations

import bisect
import itertools
import math
from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import TypedDict

DIGITS = 6
"""Decimals kept of times: microseconds."""
CONFIDENCE = 0.95
"""Of the intervals around p50 and p95."""
RATE_DIGITS = 3
"""Decimals kept of rates."""


class Summary(TypedDict):
    """A sample's figures, in seconds; `n` values came, `censored` did not.

    `p50_low` to `p50_high` encloses the median with 95 % confidence, likewise for p95; None: the
    sample is too small, or the end lies among the values that did not come.
    """

    n: int
    censored: int
    p50: float | None
    p90: float | None
    p95: float | None
    p99: float | None
    max: float | None
    mean: float | None
    p50_low: float | None
    p50_high: float | None
    p95_low: float | None
    p95_high: float | None


class Rate(TypedDict):
    """Arrivals a minute: over the whole time, and in the busiest 60 seconds."""

    mean: float | None
    peak: float | None


def nearest_rank(ordered: Sequence[float], total: int, per_cent: int) -> float | None:
    """The percentile of a sample of `total`, of which the values in `ordered` (ascending) came.

    None if the rank falls among those that did not come. Raises ValueError for an empty sample
    or more values than there can be: no data is an error, never a 0.
    """
    if not 0 < per_cent <= 100:
        raise ValueError(f"a percentile lies above 0 and up to 100, not at {per_cent}")
    if total <= 0 or len(ordered) > total:
        raise ValueError(f"{len(ordered)} values cannot come of a sample of {total}")
    rank = -(-per_cent * total // 100)
    return ordered[rank - 1] if rank <= len(ordered) else None


@lru_cache(maxsize=256)
def interval_ranks(total: int, per_cent: int) -> tuple[int | None, int | None]:
    """The ranks (from 1) of the values that enclose a percentile with `CONFIDENCE`.

    On each side the error is at most half of what is allowed. None: no value of so small a sample
    lies far enough out.
    """
    allowed = (1 - CONFIDENCE) / 2
    below = _binomial(total, per_cent / 100)
    # Fewer than `low` values below the true percentile: then the interval lies above it.
    low = next((rank for rank in range(total, 0, -1) if below[rank - 1] <= allowed), None)
    high = next((rank for rank in range(1, total + 1) if 1 - below[rank - 1] <= allowed), None)
    return low, high


def _binomial(total: int, share: float) -> list[float]:
    """How likely at most 0, 1, … of `total` are, each with the probability `share`."""
    chances = [
        math.exp(
            math.lgamma(total + 1) - math.lgamma(number + 1) - math.lgamma(total - number + 1)
            + number * math.log(share) + (total - number) * math.log1p(-share)
        )
        for number in range(total + 1)
    ]  # fmt: skip
    return list(itertools.accumulate(chances))


def confidence(ordered: Sequence[float], total: int, per_cent: int) -> list[float | None]:
    """The two values (ascending order given) that enclose a percentile with `CONFIDENCE`."""
    return [
        ordered[rank - 1] if rank is not None and rank <= len(ordered) else None
        for rank in interval_ranks(total, per_cent)
    ]


def summarize(values: Iterable[float], total: int) -> Summary:
    """The figures of a sample of `total`, of which these values came."""
    ordered = sorted(values)
    complete = len(ordered) == total

    def at(per_cent: int) -> float | None:
        return _rounded(nearest_rank(ordered, total, per_cent)) if total else None

    def around(per_cent: int) -> list[float | None]:
        found = confidence(ordered, total, per_cent) if total else [None, None]
        return [_rounded(each) for each in found]

    (p50_low, p50_high), (p95_low, p95_high) = around(50), around(95)
    return Summary(
        n=len(ordered),
        censored=total - len(ordered),
        p50=at(50),
        p90=at(90),
        p95=at(95),
        p99=at(99),
        max=_rounded(ordered[-1]) if complete and total else None,
        mean=_rounded(math.fsum(ordered) / total) if complete and total else None,
        p50_low=p50_low,
        p50_high=p50_high,
        p95_low=p95_low,
        p95_high=p95_high,
    )


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, DIGITS)


def per_minute(moments: Iterable[float], start: float | None, window: float = 60.0) -> Rate:
    """How fast things came: from `start` to the last one, and in the busiest window (seconds)."""
    ordered = sorted(moments)
    if not ordered or start is None:
        return Rate(mean=None, peak=None)
    span = ordered[-1] - start
    busiest = max(
        bisect.bisect_left(ordered, moment + window) - index for index, moment in enumerate(ordered)
    )
    return Rate(
        mean=round(len(ordered) * 60 / span, RATE_DIGITS) if span > 0 else None,
        peak=round(busiest * 60 / window, RATE_DIGITS),
    )
