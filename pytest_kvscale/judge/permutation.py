"""Evidence from runs dealt to the sides at random: what max-T permutation finds in a family.

If nothing changed, a run could as well have been on the other side. How rarely runs dealt at random
lie as far apart as the real sides do is evidence that needs no idea of how runs are distributed.
Pairs of a family are dealt together, the first run of each level with the first of the others, and
each pair is held against the farthest of all (Westfall and Young): that allows for as many pairs as
there are, and costs less the more alike their metrics behave.
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Sequence
from typing import Any

from pytest_kvscale.judge.noise import FLOOR
from pytest_kvscale.judge.shift import PULLED_IN, Sides, ways

MOST = 2000
"""Of more arrangements so many are drawn, the same ones each time."""


def probabilities(family: Sequence[Sides]) -> list[float]:
    """How probable it is without any change that a pair of the family lies so far apart.

    All pairs have as many runs before, and as many after.
    """
    import numpy as np

    runs = np.array([each.all_runs() for each in family])
    floors = np.array([max(FLOOR, each.rounding) for each in family])
    before, after = _dealt(len(family[0].before), len(family[0].after))
    highest = np.full(len(before), -math.inf)
    real = []
    for values, floor in zip(runs, floors, strict=True):
        apart = _apart(values[before], values[after], floor)
        real.append(apart[0])
        highest = np.maximum(highest, apart)
    return [float(np.mean(highest >= each - 1e-9)) for each in real]


def _apart(before: Any, after: Any, floor: float) -> Any:
    """How far sides lie apart, in standard errors, with runs that stand out pulled in."""
    import numpy as np

    middles = [np.median(side, axis=1, keepdims=True) for side in (before, after)]
    off = [side - middle for side, middle in zip((before, after), middles, strict=True)]
    both = np.abs(np.concatenate(off, axis=1))
    runs = both.shape[1]
    small = math.sqrt(runs / (runs - 2))
    reach = PULLED_IN * np.maximum(
        1.4826 * small * np.median(both, axis=1, keepdims=True), floor
    )  # fmt: skip
    inner = [np.clip(each, -reach, reach) for each in off]
    squares = sum(each.var(axis=1) * each.shape[1] for each in inner)
    sd = np.sqrt(np.maximum(squares / (runs - 2), floor**2))
    first, second = (
        middle[:, 0] + each.mean(axis=1) for middle, each in zip(middles, inner, strict=True)
    )
    error = sd * math.sqrt(1 / before.shape[1] + 1 / after.shape[1])
    return (second - first) / error


@functools.cache
def _dealt(before: int, after: int) -> tuple[Any, Any]:
    """Which runs are on which side, one row an arrangement; the first one is the real one."""
    import numpy as np

    runs = before + after
    if ways(before, after) <= MOST:
        firsts = np.array(list(itertools.combinations(range(runs), before)))
        on_first = np.zeros((len(firsts), runs), dtype=bool)
        np.put_along_axis(on_first, firsts, values=True, axis=1)
    else:
        drawn = np.random.default_rng((before, after))
        on_first = np.zeros((MOST, runs), dtype=bool)
        on_first[:, :before] = True
        on_first[1:] = drawn.permuted(on_first[1:], axis=1)
    order = np.argsort(~on_first, axis=1, kind="stable")
    return order[:, :before], order[:, before:]
