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
"""How often a series is dealt."""
CAREFUL = 0.5
"""A stretch's probability must be below so many times `alpha`: a history is looked at often."""

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
    """Bounds of the ratio's two-sided interval, of confidence `1 - 2 * alpha`."""
    p: float
    """Probability of so clear a stretch in a series without any change, `1 / DEALT` at least."""


def change_points(
    values: Sequence[float | None], alpha: float = DEFAULT.alpha
) -> list[ChangePoint]:
    """The change points of a series of runs, oldest first.

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
    kept = _confirmed(logs, found, alpha)
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
    p, (first, last) = _clearest(logs)
    if p > alpha * CAREFUL:
        return
    edges = [each for each in (first, last) if 0 < each < len(logs)]
    found.update((start + each, p) for each in edges)
    for begin, end in zip([0, *edges], [*edges, len(logs)], strict=True):
        _split(logs[begin:end], start + begin, alpha, found)


def _clearest(logs: Sequence[float]) -> tuple[float, tuple[int, int]]:
    """The stretch that lies farthest from the rest, and how probable that is by chance."""
    import numpy as np

    middle = statistics.median(logs)
    reach = PULLED_IN * scale(residuals(logs), 1)
    inner = np.clip(np.array(logs) - middle, -reach, reach)
    begins, ends = _stretches(len(logs))
    # A sum over a stretch is the difference of two sums from the start.
    dealt = inner[_orders(len(logs))]
    sums = np.cumsum(dealt - dealt.mean(axis=1, keepdims=True), axis=1)
    sums = np.concatenate([np.zeros((len(sums), 1)), sums], axis=1)
    lengths = ends - begins
    weights = np.sqrt(lengths * (len(logs) - lengths) / len(logs))
    apart = np.abs(sums[:, ends] - sums[:, begins]) / weights
    highest = apart.max(axis=1)
    place = int(apart[0].argmax())
    p = float(np.mean(highest >= highest[0] - 1e-9))
    return p, (int(begins[place]), int(ends[place]))


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


@functools.cache
def _orders(runs: int) -> Any:
    """The real order, and others drawn at random, the same ones each time."""
    import numpy as np

    orders = np.tile(np.arange(runs), (DEALT, 1))
    orders[1:] = np.random.default_rng(runs).permuted(orders[1:], axis=1)
    return orders


def _confirmed(
    logs: Sequence[float], found: Sequence[int] | dict[int, float], alpha: float
) -> dict[int, Shift]:
    """The edges at which the stretches beside them differ; the least clear go first."""
    edges = sorted(found)
    while True:
        bounds = [0, *edges, len(logs)]
        shifts = {
            edge: _between(logs[begin:edge], logs[edge:end], alpha)
            for begin, edge, end in zip(bounds, edges, bounds[2:], strict=False)
        }
        unclear = [
            (abs(each.estimate) / each.reach, edge) for edge, each in shifts.items()
            if each.low <= 0 <= each.high
        ]  # fmt: skip
        if not unclear:
            return shifts
        edges.remove(min(unclear)[1])


def _between(before: Sequence[float], after: Sequence[float], alpha: float) -> Shift:
    found = Sides(
        metric=_ANY, before=tuple(before), after=tuple(after), typical=(None, None), began=None,
        offset=0.0, rounding=0.0, odd=0,
    )  # fmt: skip
    measured = shift(found, None, Rules(alpha=alpha))
    assert measured is not None  # noqa: S101 - there are LEAST runs on each side
    return measured
