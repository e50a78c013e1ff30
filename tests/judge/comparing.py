"""Pairs for tests of verdicts."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from pytest_kvscale.judge.change import Change, Metric, Noise, Pair, Rules, Sample
from pytest_kvscale.judge.regression import judge_changes

P95 = Metric("Running.p95", "p95 creation to Running", "s", "higher", 0.5)
RATE = Metric("running_per_min", "VMIs a minute", "VMIs/min", "lower", 1.0)


def samples(values: Sequence[float | None], began: Sequence[float] | None = None) -> list[Sample]:
    return [
        Sample(value, None if began is None else began[place], f"r{place}")
        for place, value in enumerate(values)
    ]


def pair(
    before: Sequence[float | None],
    after: Sequence[float | None],
    *,
    metric: Metric = P95,
    noise: Noise | None = None,
    began: Sequence[float] | None = None,
) -> Pair:
    """`began`: of those before and then of those after."""
    split = len(before)
    return Pair(
        100, metric, tuple(samples(before, began and began[:split])),
        tuple(samples(after, began and began[split:])), noise,
    )  # fmt: skip


def judged(*args: Sequence[float | None], rules: Rules | None = None, **more: object) -> Change:
    (found,) = judge_changes([pair(*args, **more)], rules or Rules())  # type: ignore[arg-type]
    return found


def drawn(seed: int, runs: int, *, sd: float = 0.05, worse: float = 0.0) -> list[float]:
    """Runs around 20 with normal noise, keyed."""
    rng = np.random.default_rng(seed)
    return [20 * math.exp(sd * each) * (1 + worse) for each in rng.standard_normal(runs)]
