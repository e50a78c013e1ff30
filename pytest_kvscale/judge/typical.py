"""What several equal runs say of one number: a typical value, and how far runs lie apart.

Numbers come out of files of any age: what is missing, no number or not finite is None, never 0.
"""

from __future__ import annotations

import dataclasses
import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

NOT_REACHED = math.inf
"""A percentile that lies among the VMIs that never got there: later than all that did."""
_ERRORS = 3.0
"""A change counts from so many standard errors on. It decides which words are used, no verdict."""
_OF_MEAN_DEVIATION = math.sqrt(math.pi / 2)
"""The standard deviation of a normal distribution, in mean absolute deviations."""
_OF_MEDIANS = math.sqrt(math.pi / 2)
"""How much farther medians of few runs scatter than their means, at most."""


def number(content: Any, *path: str) -> float | None:
    """The finite number at a path of nested mappings; None: there is none."""
    for step in path:
        if not isinstance(content, Mapping):
            return None
        content = content.get(step)
    if isinstance(content, bool) or not isinstance(content, int | float):
        return None
    # An integer of a file may be larger than any float.
    return float(content) if abs(content) < 1e300 else None


def mapping(content: Any, *path: str) -> Mapping[str, Any]:
    """The mapping at a path; empty: there is none."""
    for step in path:
        content = content.get(step) if isinstance(content, Mapping) else None
    return content if isinstance(content, Mapping) else {}


@dataclasses.dataclass(frozen=True)
class Shift:
    """A number before and after, each the median of equal runs."""

    before: float
    after: float
    error: float | None
    """Standard error of the difference; None: one run on each side, so it is not known."""

    @property
    def difference(self) -> float:
        """After less before; NaN: it was reached on neither side."""
        return self.after - self.before

    @property
    def relative(self) -> float | None:
        """0.23: 23 % higher; None: it cannot be told."""
        if not self.before or not math.isfinite(self.before) or not math.isfinite(self.after):
            return None
        return self.difference / self.before

    @property
    def is_beyond_noise(self) -> bool:
        """Whether it changed by more than equal runs differ (true if that is not known)."""
        if math.isnan(self.difference) or not self.difference:
            return False
        return self.error is None or abs(self.difference) > _ERRORS * self.error

    def counts(self, least: float, relative: float = 0.0) -> bool:
        """Whether it is beyond noise, and so large (absolute, and relative to before)."""
        large = abs(self.difference) >= max(least, relative * abs(self.before))
        return large and self.is_beyond_noise

    def as_json(self) -> dict[str, float | None]:
        """As plain data; null: not reached."""
        return {
            "before": round(self.before, 6) if math.isfinite(self.before) else None,
            "after": round(self.after, 6) if math.isfinite(self.after) else None,
        }


def shift(before: Iterable[float | None], after: Iterable[float | None]) -> Shift | None:
    """How a number changed from the runs of one side to those of the other.

    None in place of a number: not known of this run. The result is None if it is known of no run
    of one side.
    """
    sides = [[each for each in side if each is not None] for side in (before, after)]
    if not all(sides):
        return None
    middles = [statistics.median(side) for side in sides]
    return Shift(middles[0], middles[1], _error(sides, middles))


def _error(sides: Sequence[Sequence[float]], middles: Sequence[float]) -> float | None:
    """Of the difference of the medians, from mean absolute deviations of both sides together.

    One bad run counts with its distance, not with its square. Runs that did not get there are
    left out: how far away they are is not known.
    """
    deviations, degrees = 0.0, 0
    for side, middle in zip(sides, middles, strict=True):
        reached = [each for each in side if math.isfinite(each)]
        if math.isfinite(middle) and len(reached) > 1:
            deviations += math.fsum(abs(each - middle) for each in reached)
            degrees += len(reached) - 1
    if not degrees:
        return None
    spread = _OF_MEAN_DEVIATION * deviations / degrees
    return _OF_MEDIANS * spread * math.sqrt(sum(1 / len(side) for side in sides))
