"""Ways in which equal runs lie apart, for `error_rates`: logarithms of metrics, run by run.

What is drawn has the shape (sessions, levels, metrics, runs). Metrics of a run correlate (0.5),
since they are of one burst; levels are independent of each other but for a drift, which is the
cluster's.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import math
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Logs = NDArray[np.float64]
Shape = tuple[int, int, int, int]
Draw = Callable[[np.random.Generator, Shape], Logs]
Order = Literal["in turns", "one after the other"]

CORRELATION = 0.5
BAD, SLOWER = 0.1, (1.5, 3.0)
"""How often a run is a bad one, and how many times slower it is then."""
MEASURED = Path(__file__).parent / "data" / "equal-runs.json"


@dataclasses.dataclass(frozen=True)
class Scenario:
    """How a cluster's runs vary though nothing changed."""

    name: str
    draw: Draw
    sd: float | None = None
    """Standard deviation, where the noise is a normal one: what a bound can know."""
    order: Order = "in turns"
    drifts: bool = False

    def places(self, before: int, after: int) -> list[int]:
        """When each run was, those before first: as a place in the session."""
        runs = before + after
        if self.order == "one after the other":
            return list(range(runs))
        # before, after, after, before; and so on
        firsts = [place for place in range(runs) if place % 4 in (0, 3)]
        lasts = [place for place in range(runs) if place % 4 in (1, 2)]
        while len(firsts) > before:
            lasts.append(firsts.pop())
        while len(lasts) > after:
            firsts.append(lasts.pop())
        return [*firsts, *lasts]


def normal(sd: float, rng: np.random.Generator, shape: Shape) -> Logs:
    """Of a normal distribution."""
    return sd * _shared(rng.standard_normal, shape)


def heavy(sd: float, rng: np.random.Generator, shape: Shape) -> Logs:
    """Of Student's distribution with 3 degrees of freedom, scaled to a standard deviation."""
    return sd / math.sqrt(3) * _shared(lambda size: rng.standard_t(3, size), shape)


def with_bad_runs(sd: float, rng: np.random.Generator, shape: Shape) -> Logs:
    """Normal, but one run in ten is slower in all its metrics."""
    once = (shape[0], shape[1], 1, shape[3])
    bad = rng.random(once) < BAD
    return normal(sd, rng, shape) + bad * np.log(rng.uniform(*SLOWER, once))


def drifting(sd: float, over_session: float, rng: np.random.Generator, shape: Shape) -> Logs:
    """Normal around a steady climb from the session's first run to its last."""
    return normal(sd, rng, shape) + np.linspace(0.0, math.log1p(over_session), shape[3])


def walking(sd: float, step: float, rng: np.random.Generator, shape: Shape) -> Logs:
    """Normal around a random walk, the same for all levels and metrics."""
    steps = step * rng.standard_normal((shape[0], 1, 1, shape[3]))
    return normal(sd, rng, shape) + np.cumsum(steps, axis=3)


def resampled(rng: np.random.Generator, shape: Shape) -> Logs:
    """Of equal runs of the embedded cluster: levels 50 and 100 in turns, all metrics of a run."""
    sessions, levels, metrics, runs = shape
    found = []
    for level in range(levels):
        kept = _measured()
        values = kept[level % len(kept)][:metrics]
        drawn = rng.integers(0, values.shape[1], (sessions, runs))
        found.append(np.moveaxis(values[:, drawn], 0, 1))
    return np.stack(found, axis=1)


@functools.cache
def _measured() -> list[Logs]:
    """For each level, metrics by runs."""
    content = json.loads(MEASURED.read_text(encoding="utf-8"))
    return [np.log(np.array(list(each.values()))) for each in content["levels"].values()]


def _shared(draw: Callable[[tuple[int, ...]], Logs], shape: Shape) -> Logs:
    once = (shape[0], shape[1], 1, shape[3])
    return math.sqrt(CORRELATION) * draw(once) + math.sqrt(1 - CORRELATION) * draw(shape)


STEADY = (
    Scenario("normal 2 %", partial(normal, 0.02), 0.02),
    Scenario("normal 5 %", partial(normal, 0.05), 0.05),
    Scenario("normal 10 %", partial(normal, 0.10), 0.10),
    Scenario("Student t, 3 df, 5 %", partial(heavy, 0.05)),
    Scenario("one bad run in ten, else 5 %", partial(with_bad_runs, 0.05)),
    Scenario("embedded cluster, resampled", resampled),
)
DRIFTING = tuple(
    Scenario(f"{name}, {order}", draw, order=order, drifts=True)
    for order in ("in turns", "one after the other")
    for name, draw in (
        ("climb of 10 % over the session, noise 5 %", partial(drifting, 0.05, 0.10)),
        ("climb of 30 % over the session, noise 5 %", partial(drifting, 0.05, 0.30)),
        ("climb of 30 % over the session, noise 2 %", partial(drifting, 0.02, 0.30)),
        ("random walk, 1 % a run, noise 5 %", partial(walking, 0.05, 0.01)),
        ("random walk, 3 % a run, noise 2 %", partial(walking, 0.02, 0.03)),
    )
)  # type: tuple[Scenario, ...]
