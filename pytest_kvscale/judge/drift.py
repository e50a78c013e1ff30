"""A cluster that becomes slower by itself, while it is measured, looks like a regression.

If one side was measured after the other, not in turns, only the runs within a side can tell: where
they climb too, as steadily, the step between the sides may be no step.
"""

from __future__ import annotations

import dataclasses
import math
import statistics
from collections.abc import Sequence

from pytest_kvscale.judge.noise import FLOOR, STANDS_OUT, residuals, scale, squares
from pytest_kvscale.judge.shift import Sides

NOTICED = 0.02
"""Steady runs are taken for drifting in so many cases."""
LEAST_RUNS = 6
"""Of both sides; fewer tell nothing of a drift."""
IN_TURNS = 0.5
"""Sides are in turns if what a drift does to their difference is below that share (squared
correlation of side and order): 0 for before, after, after, before; 0.75 for one after the other."""
BETTER = 2.0
"""A step stands though runs drift, if a drift alone leaves so many times as much unexplained."""


@dataclasses.dataclass(frozen=True)
class Drift:
    """How the runs of a pair move within their sides."""

    residuals: tuple[float, ...]
    """How far each run lies from its side's mean, in standard deviations; in order of runs."""
    order: tuple[float, ...]
    """When each ran within its side: its number among all runs, less the side's mean."""
    between: float
    """How many runs the middle of the sides lie apart; below 0: what is before ran last."""
    slope: float
    """Badness a run."""
    step_alone: float
    """Squares that a step between the sides leaves unexplained."""
    drift_alone: float
    """Squares that a drift without a step leaves unexplained."""

    @property
    def is_no_step(self) -> bool:
        """Whether a drift alone explains the runs about as well as a step does."""
        return self.drift_alone <= BETTER * self.step_alone

    @property
    def moved(self) -> float:
        """The difference between the sides that the drift alone would make."""
        return self.slope * self.between


def drift(found: Sides) -> Drift | None:
    """The drift of a pair; None: too few runs, in turns, or not known when they ran."""
    runs = len(found.before) + len(found.after)
    if found.censored or found.began is None or runs < LEAST_RUNS:
        return None
    if not found.before or not found.after or len(set(found.began)) < runs:
        return None
    place = {began: float(number) for number, began in enumerate(sorted(found.began))}
    order = [place[each] for each in found.began]
    split = len(found.before)
    first, last = order[:split], order[split:]
    between = statistics.fmean(last) - statistics.fmean(first)
    within = _centred(first) + _centred(last)
    spread = sum(each**2 for each in within)
    together = between**2 * split * (runs - split) / runs
    if spread == 0 or together / (together + spread) < IN_TURNS:
        return None
    before, after = _tamed(found.before), _tamed(found.after)
    off = _centred(before) + _centred(after)
    slope = sum(a * b for a, b in zip(within, off, strict=True)) / spread
    step_alone = sum(each**2 for each in off)
    line, everything = _centred(order), _centred([*before, *after])
    climb = sum(a * b for a, b in zip(line, everything, strict=True)) / sum(a * a for a in line)
    sd = math.sqrt(max(step_alone / (runs - 2), FLOOR**2))
    return Drift(
        residuals=tuple(each / sd for each in off), order=tuple(within), between=between,
        slope=slope, step_alone=max(step_alone, (runs - 2) * FLOOR**2),
        drift_alone=max(squares(everything) - climb**2 * sum(a * a for a in line), 0.0),
    )  # fmt: skip


def noticed(one: Drift, family: Sequence[Drift | None]) -> tuple[bool, bool]:
    """Whether runs drift to the worse, and to the better, towards what is after.

    Either this pair's own do, or those of the whole family together, as far as they ran in the
    same order: what slows a cluster down slows all its levels.
    """
    same = [each for each in family if each is not None and each.order == one.order]
    means = [
        statistics.fmean(each) for each in zip(*(each.residuals for each in same), strict=True)
    ]
    sign = math.copysign(1.0, one.between)
    found = [sign * _climbs(one.order, each) for each in (one.residuals, means)]
    reach = _reach(len(one.order) - 3)
    return max(found) > reach, min(found) < -reach


def _climbs(order: Sequence[float], off: Sequence[float]) -> float:
    """The slope in standard errors."""
    spread = sum(each**2 for each in order)
    slope = sum(a * b for a, b in zip(order, off, strict=True)) / spread
    left = sum((b - slope * a) ** 2 for a, b in zip(order, off, strict=True))
    return slope * math.sqrt(spread) / math.sqrt(max(left / (len(order) - 3), 1e-12))


def _reach(df: int) -> float:
    from scipy import special

    return float(special.stdtrit(df, 1 - NOTICED))


def _centred(values: Sequence[float]) -> list[float]:
    mean = statistics.fmean(values)
    return [each - mean for each in values]


def _tamed(side: Sequence[float]) -> list[float]:
    """A side whose runs that stand out are at its middle, where they speak of no drift."""
    off = residuals(side)
    reach = STANDS_OUT * scale(off, 1)
    middle = statistics.median(side)
    return [
        each if abs(apart) <= reach else middle for each, apart in zip(side, off, strict=True)
    ]  # fmt: skip
