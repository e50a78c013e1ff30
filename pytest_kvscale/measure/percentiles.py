"""Percentiles and rates over what was asked for, not over what came.

Percentiles are nearest-rank: the smallest value with at least so many per cent of the sample at
or below it. Values that never came are censored: later than every one that did. A percentile
that falls among them is None, and so are mean and maximum as soon as there are any.
"""

from __future__ import annotations

import bisect
import math
from collections.abc import Iterable, Sequence
from typing import TypedDict

DIGITS = 6
"""Decimals kept of times: microseconds."""
RATE_DIGITS = 3
"""Decimals kept of rates."""


class Summary(TypedDict):
    """A sample's figures, in seconds; `n` values came, `censored` did not."""

    n: int
    censored: int
    p50: float | None
    p90: float | None
    p95: float | None
    p99: float | None
    max: float | None
    mean: float | None


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


def summarize(values: Iterable[float], total: int) -> Summary:
    """The figures of a sample of `total`, of which these values came."""
    ordered = sorted(values)
    if not total:
        return Summary(n=0, censored=0, p50=None, p90=None, p95=None, p99=None, max=None, mean=None)
    complete = len(ordered) == total

    def at(per_cent: int) -> float | None:
        value = nearest_rank(ordered, total, per_cent)
        return None if value is None else round(value, DIGITS)

    return Summary(
        n=len(ordered),
        censored=total - len(ordered),
        p50=at(50),
        p90=at(90),
        p95=at(95),
        p99=at(99),
        max=round(ordered[-1], DIGITS) if complete else None,
        mean=round(math.fsum(ordered) / total, DIGITS) if complete else None,
    )


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
