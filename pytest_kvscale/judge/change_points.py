"""Where in a history of runs the level of a metric shifted, and by how much.

A shift lasts: LEAST runs or more. Whether there is one is told by dealing the runs of the series in
random order: how rarely does any stretch of them lie as far from the others as the farthest does
here? That holds a steady series' false alarms to `alpha` however its runs are distributed, single
bad runs included. What is found splits the series, and each part is asked again.
"""

from __future__ import annotations

import dataclasses
import functools
import math
import statistics
from collections.abc import Sequence
from typing import Any

from pytest_kvscale.judge.change import DEFAULT, Metric, Rules
from pytest_kvscale.judge.noise import LEAST_VALUE, relative, residuals, scale
from pytest_kvscale.judge.shift import PULLED_IN, Shift, Sides, shift

LEAST = 3
"""Runs of a stretch; fewer could all be bad ones."""
DEALT = 500
"""How often a series is dealt at once; more often only where that leaves a change in doubt."""
ALPHA = DEFAULT.alpha / 2
"""A history is looked at often."""
_ENOUGH = 20
"""So many orders that are as clear are enough to know that it is chance."""
_AT_ONCE = 4_000_000
"""So many sums are held in memory."""

_ANY = Metric("", "", "", "higher", 0.0)


@dataclasses.dataclass(frozen=True)
class ChangePoint:
    """The run from which on a metric was at another level."""

    index: int
    """Its place in the series: the first run at the new level."""
    ratio: float
    """The level since then, until the next change point, to that before: 1.2 is 20 % higher."""
    low: float
    high: float
    """Bounds of the ratio's two-sided interval, of confidence 98 %."""
    p: float
    """Probability of so clear a stretch in a series without any change."""


def change_points(values: Sequence[float | None], alpha: float = ALPHA) -> list[ChangePoint]:
    """The change points of a series of runs, oldest first.

    `alpha` is the most probable it may be that a steady series has any: of several series that are
    looked at together, a part of it for each.
    Values that are None, not finite or below 0 are passed over; `index` counts them.
    """
    places = [
        place for place, each in enumerate(values)
        if each is not None and math.isfinite(each) and each >= 0
    ]  # fmt: skip
    known = [float(values[place] or 0.0) for place in places]
    positive = [each for each in known if each >= LEAST_VALUE]
    if not positive:
        return []
    offset = min(positive) / 2 if len(positive) < len(known) else 0.0
    logs = [math.log(max(each, LEAST_VALUE) + offset) for each in known]
    found: dict[int, float] = {}
    _split(logs, 0, alpha, found)
    kept = _between(logs, _confirmed(logs, found, alpha), DEFAULT.alpha)
    return [
        ChangePoint(
            index=places[edge], ratio=1 + relative(each.estimate), low=1 + relative(each.low),
            high=1 + relative(each.high), p=found[edge],
        )
        for edge, each in kept.items()
    ]  # fmt: skip


def _split(logs: Sequence[float], start: int, alpha: float, found: dict[int, float]) -> None:
    """Note the edges of the stretch that stands out most, if it does, and go on within."""
    if len(logs) < 2 * LEAST:
        return
    p, (first, last) = _clearest(logs, alpha)
    if p > alpha:
        return
    edges = [each for each in (first, last) if 0 < each < len(logs)]
    found.update((start + each, p) for each in edges)
    for begin, end in zip([0, *edges], [*edges, len(logs)], strict=True):
        _split(logs[begin:end], start + begin, alpha, found)


def _clearest(logs: Sequence[float], alpha: float) -> tuple[float, tuple[int, int]]:
    """The stretch that lies farthest from the rest, and how probable that is by chance.

    The series is dealt until that is told from `alpha`: not at all if it is clearly above it.
    """
    import numpy as np

    middle = statistics.median(logs)
    reach = PULLED_IN * scale(residuals(logs), 1)
    inner = np.clip(np.array(logs) - middle, -reach, reach)
    inner -= inner.mean()
    begins, ends = _stretches(len(logs))
    lengths = ends - begins
    weights = np.sqrt(lengths * (len(logs) - lengths) / len(logs))

    def apart(dealt: Any) -> Any:
        # A sum over a stretch is the difference of two sums from the start.
        sums = np.concatenate([np.zeros((len(dealt), 1)), np.cumsum(dealt, axis=1)], axis=1)
        return np.abs(sums[:, ends] - sums[:, begins]) / weights

    real = apart(inner[None, :])[0]
    place = int(real.argmax())
    stretch = int(begins[place]), int(ends[place])
    draws = np.random.default_rng(len(logs))
    # The order that is there is one of those that could have been.
    higher = dealt = 1
    while dealt < max(DEALT, 1 / alpha):
        orders = np.tile(inner, (min(DEALT, max(1, _AT_ONCE // len(begins))), 1))
        highest = apart(draws.permuted(orders, axis=1)).max(axis=1)
        higher += int(np.count_nonzero(highest >= real[place] - 1e-9))
        dealt += len(orders)
        if higher > _ENOUGH + alpha * max(DEALT, 1 / alpha):
            break
    return higher / dealt, stretch


@functools.cache
def _stretches(runs: int) -> tuple[Any, Any]:
    """First run and end of all stretches that leave LEAST runs, or none, on either side."""
    import numpy as np

    edges = [0, *range(LEAST, runs - LEAST + 1), runs]
    found = [
        (begin, end) for begin in edges for end in edges
        if LEAST <= end - begin <= runs - LEAST
    ]  # fmt: skip
    return np.array([each[0] for each in found]), np.array([each[1] for each in found])


def _confirmed(logs: Sequence[float], found: dict[int, float], alpha: float) -> list[int]:
    """The edges at which the stretches beside them differ; the least clear go first."""
    edges = sorted(found)
    while True:
        unclear = [
            (abs(each.estimate) / each.reach, edge)
            for edge, each in _between(logs, edges, alpha).items()
            if each.low <= 0 <= each.high
        ]
        if not unclear:
            return edges
        edges.remove(min(unclear)[1])


def _between(logs: Sequence[float], edges: Sequence[int], alpha: float) -> dict[int, Shift]:
    """The shift at each edge, from the stretch before it to the one after it."""
    bounds = [0, *edges, len(logs)]
    return {
        edge: _shift(logs[begin:edge], logs[edge:end], alpha)
        for begin, edge, end in zip(bounds, edges, bounds[2:], strict=False)
    }


def _shift(before: Sequence[float], after: Sequence[float], alpha: float) -> Shift:
    found = Sides(
        metric=_ANY, before=tuple(before), after=tuple(after), typical=(None, None), began=None,
        offset=0.0, rounding=0.0, odd=0,
    )  # fmt: skip
    measured = shift(found, None, Rules(alpha=alpha))
    assert measured is not None  # noqa: S101 - there are LEAST runs on each side
    return measured
