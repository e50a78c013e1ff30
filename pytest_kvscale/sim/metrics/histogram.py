"""A histogram as Prometheus has it."""

from __future__ import annotations

import bisect
from collections.abc import Iterator


class Histogram:
    """Counts of values up to each bound (cumulated when told), and their sum."""

    __slots__ = ("bounds", "count", "counts", "sum")

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.count = 0
        self.sum = 0.0

    def observe(self, value: float) -> None:
        """Take a value."""
        self.counts[bisect.bisect_left(self.bounds, value)] += 1
        self.count += 1
        self.sum += value

    def buckets(self) -> Iterator[tuple[str, float]]:
        """Upper bounds, as the `le` label has them, and how many values are not above."""
        total = 0
        for bound, count in zip(self.bounds, self.counts, strict=False):
            total += count
            yield label(bound), total
        yield "+Inf", self.count


def label(number: float) -> str:
    """A number as Go's client writes it in a label: `1`, `0.5`, `1e-08`."""
    return str(int(number)) if number == int(number) and abs(number) < 1e15 else repr(number)


def exponential(start: float, factor: float, count: int) -> tuple[float, ...]:
    """Bounds each of which is `factor` times the one before, multiplied up as Go's client does."""
    bounds = [start]
    for _ in range(count - 1):
        bounds.append(bounds[-1] * factor)
    return tuple(bounds)
