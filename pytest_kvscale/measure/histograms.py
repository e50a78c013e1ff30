"""Percentiles of a histogram: never a number alone, always with the edges of its bucket.

What is in a bucket lies anywhere between its edges; the number that dashboards show
(`histogram_quantile`) assumes that it is spread evenly. In the last bucket nothing is known but
that it was more: `saturated`.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import TypedDict

from pytest_kvscale.measure.percentiles import DIGITS
from pytest_kvscale.measure.series import Series, Window, total_by

Buckets = Mapping[float, float]
"""Cumulative counts by upper edge; the last edge is infinite."""


class Bucketed(TypedDict):
    """Percentiles of a histogram, in seconds; `n` values were counted.

    `p95` is what `histogram_quantile` says, and lies between `p95_low` and `p95_high`, the edges
    of its bucket; `p95_high` None: the last bucket.
    """

    n: int
    p50: float | None
    p50_low: float | None
    p50_high: float | None
    p95: float | None
    p95_low: float | None
    p95_high: float | None
    saturated: bool
    """Whether p95 lies in the last bucket."""


def buckets_of(series: Iterable[Series], window: Window) -> dict[float, float]:
    """What was counted in a window, by upper edge, over all instances."""
    found: dict[float, float] = {}
    for (edge,), count in total_by(series, window, "le").items():
        if edge:
            # Clients write the same edge in different ways: 1, 1.0.
            found[float(edge)] = found.get(float(edge), 0.0) + count
    return dict(sorted(found.items()))


def interval(buckets: Buckets, share: float) -> tuple[float, float, float | None] | None:
    """A percentile as `histogram_quantile` has it, and the edges of its bucket.

    None if nothing was counted. Raises ValueError for a histogram without a last bucket.
    """
    edges = sorted(buckets)
    if not edges or not math.isinf(edges[-1]):
        raise ValueError("a histogram has a bucket without an upper edge")
    total = buckets[edges[-1]]
    if total <= 0:
        return None
    rank, low, below = share * total, 0.0, 0.0
    for edge in edges:
        # Sums of instances that were scraped at different times may fall a little.
        count = max(below, buckets[edge])
        if count >= rank and count > below:
            if math.isinf(edge):
                return low, low, None
            return low + (edge - low) * (rank - below) / (count - below), low, edge
        low, below = edge, count
    return low, low, None


def bucketed(buckets: Buckets) -> Bucketed:
    """The figures of a histogram."""
    p50, p95 = (_rounded(interval(buckets, share)) for share in (0.5, 0.95))
    return Bucketed(
        n=round(max(buckets.values(), default=0.0)),
        p50=p50[0], p50_low=p50[1], p50_high=p50[2],
        p95=p95[0], p95_low=p95[1], p95_high=p95[2],
        saturated=p95[0] is not None and p95[2] is None,
    )  # fmt: skip


def _rounded(
    found: tuple[float, float, float | None] | None,
) -> tuple[float | None, float | None, float | None]:
    if found is None:
        return None, None, None
    value, low, high = found
    return round(value, DIGITS), low, high


def contradicts(found: Bucketed, ours: float | None, early: float, late: float) -> bool:
    """Whether a p95 of our own cannot have been counted in the bucket that holds theirs.

    Ours may be longer by `early` (we began to count before the server did, or heard later) and
    shorter by `late` seconds.
    """
    if ours is None or found["p95_low"] is None:
        return False
    low, high = found["p95_low"] - late, found["p95_high"]
    return ours < low or (high is not None and ours > high + early)
