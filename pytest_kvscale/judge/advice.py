"""How many more runs would probably decide what is inconclusive."""

from __future__ import annotations

import bisect
import math
from collections.abc import Sequence

from pytest_kvscale.judge.change import Rules
from pytest_kvscale.judge.noise import (
    FOUND,
    LEAST_RUNS,
    MOST_RUNS,
    PASS_DESPITE,
    PASS_SHARE,
    SHARE,
    quantile,
)
from pytest_kvscale.judge.shift import Shift, ways


def more_runs(
    counts: tuple[int, int], found: Shift | None, limit: float, rules: Rules, family: int
) -> int | None:
    """How many more on each side, if the shift and the noise are as they seem; at least 1.

    None: the shift is so near to the threshold that no number of runs would do. Where nothing is
    known of the noise: what is needed to learn of it.
    """
    least = max(1, LEAST_RUNS - min(counts))
    if found is None:
        return least

    def decides(more: int) -> bool:
        return _decides(counts[0] + more, counts[1] + more, more, found, limit, rules, family)

    # What suffices goes on to suffice with more runs.
    more = bisect.bisect_left(range(MOST_RUNS), True, lo=least, key=decides)
    return more if more < MOST_RUNS else None


def more_runs_reaching(before: Sequence[float], after: Sequence[float], rules: Rules) -> int | None:
    """How many more on each side, where runs did not reach a metric (infinite).

    So many that a permutation (Fisher's exact test) would do if as large a share went on not to
    reach it. None: it is not worse after.
    """
    shares = [sum(map(math.isinf, each)) / len(each) for each in (before, after) if each]
    if len(shares) < 2 or shares[1] <= shares[0]:
        return None
    for more in range(1, MOST_RUNS):
        counts = [len(each) + more for each in (before, after)]
        missing = [round(share * count) for share, count in zip(shares, counts, strict=True)]
        if _by_chance(counts, missing) <= rules.alpha * SHARE:
            return more
    return None


def _by_chance(counts: Sequence[int], missing: Sequence[int]) -> float:
    """How probable so many missing after are, if all are dealt at random."""
    runs, gone = sum(counts), sum(missing)
    worse = sum(
        math.comb(gone, each) * math.comb(runs - gone, counts[1] - each)
        for each in range(missing[1], min(gone, counts[1]) + 1)
    )
    return worse / math.comb(runs, counts[1])


def _decides(
    before: int, after: int, more: int, found: Shift, limit: float, rules: Rules, family: int
) -> bool:
    df = found.noise.df + 2 * more
    error = found.noise.sd * math.sqrt(1 / before + 1 / after)
    if found.estimate > limit:
        if found.stands_out and not _can_be_permuted(before, after, rules):
            return False
        evidence = quantile(1 - rules.alpha * SHARE / max(family, 1), df)
        return found.estimate >= max(
            error * (evidence + quantile(FOUND, df)), limit + error * quantile(FOUND, df)
        )
    if found.stands_out and before + after < PASS_DESPITE:
        return False
    reach = error * quantile(1 - rules.alpha * PASS_SHARE, df)
    return max(found.estimate, 0.0) + reach + error * quantile(FOUND, df) < limit


def _can_be_permuted(before: int, after: int, rules: Rules) -> bool:
    return ways(before, after) * SHARE * rules.alpha >= 1
