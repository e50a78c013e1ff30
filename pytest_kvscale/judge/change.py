"""The words of a comparison: what is compared, by which rules, and what came of it.

The sample is a run: one burst of one level. Its VMIs share their fate, so that a burst of 400 is
one value of each metric, not 400.
"""

from __future__ import annotations

import dataclasses
from typing import Literal

Verdict = Literal["pass", "fail", "inconclusive"]


@dataclasses.dataclass(frozen=True)
class Metric:
    """One number of a run that can become worse."""

    key: str
    """As in files: `Running.p95`, `deletion.p95`, `requests_per_vmi`."""
    title: str
    """As people say it: `p95 creation to Running`."""
    unit: str
    """`s`, `VMIs/min`, or "" for a plain number."""
    worse: Literal["higher", "lower"]
    practical: float
    """The least change that anybody would care about, in `unit`."""
    resolution: float = 0.0
    """The steps it is told in, in `unit`, where noise may hide in them: 1 for whole seconds."""


@dataclasses.dataclass(frozen=True)
class Sample:
    """A metric's value in one run of a level."""

    value: float | None
    """None: too many VMIs never got there; it is worse than any value."""
    began: float | None = None
    """When the run began, POSIX seconds; None: not known."""
    run: str = ""
    """Which run: its id and the level's label."""


@dataclasses.dataclass(frozen=True)
class Noise:
    """How far equal runs of a cluster lie apart, from an A/A calibration."""

    sd: float
    """Standard deviation of the natural logarithm of the metric, from run to run."""
    df: int
    """Degrees of freedom it was estimated with; above 0."""


@dataclasses.dataclass(frozen=True)
class Pair:
    """One metric of one level, on both sides."""

    level: int
    metric: Metric
    before: tuple[Sample, ...]
    after: tuple[Sample, ...]
    noise: Noise | None = None
    """What a calibration of this cluster found, if there is one."""


@dataclasses.dataclass(frozen=True)
class Rules:
    """When a change fails: it is larger than both thresholds, and the evidence suffices."""

    alpha: float = 0.01
    """The most probable it may be that anything of a whole family of pairs fails by chance."""
    relative: float = 0.05
    """The least relative change that fails: 0.05 is 5 %. A metric has its own absolute one."""


DEFAULT = Rules()
"""The rules where none are given."""


@dataclasses.dataclass(frozen=True)
class Change:
    """What came of one pair."""

    pair: Pair
    verdict: Verdict
    before: float | None
    """A typical value before (the median); None: it was not reached."""
    after: float | None
    shift: float | None
    """Relative change, 0.23: 23 % higher; None: it cannot be told."""
    low: float | None
    high: float | None
    """Bounds of the shift's two-sided interval, of confidence `1 - 2 * alpha`."""
    p: float | None
    """Probability of so much evidence for worse without any change, adjusted for the family."""
    more_runs: int | None
    """How many more runs on each side would probably do; None: no number of them, or none."""
    detectable: float | None
    """The smallest worsening (relative) that so many runs find in nine of ten cases."""
    reason: str
    """Why this verdict, in a sentence."""
