"""Series of a metric: samples with their times, and what a counter counted between two moments.

Increases are worked out of the samples as they were taken, not by PromQL's `increase()`: that
extrapolates, and misses what a series counted before its first sample.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Iterable, Mapping, Sequence

Sample = tuple[float, float]
"""When (POSIX seconds) and what."""


@dataclasses.dataclass(frozen=True)
class Series:
    """One series, in the order of time."""

    labels: Mapping[str, str]
    samples: Sequence[Sample]

    @property
    def name(self) -> str:
        """The metric's name."""
        return self.labels.get("__name__", "")


@dataclasses.dataclass(frozen=True)
class Window:
    """A stretch of time, in POSIX seconds of the server's date."""

    start: float
    end: float


def within(series: Series, window: Window) -> list[Sample]:
    """The samples that tell of a window: the last one before it, those in it, and the first after.

    A counter is only seen when it is scraped: what happened in the window's last seconds is in the
    sample after them.
    """
    samples = [each for each in series.samples if math.isfinite(each[1])]
    before = [each for each in samples if each[0] <= window.start]
    inside = [each for each in samples if window.start < each[0] < window.end]
    after = [each for each in samples if each[0] >= window.end and each[0] > window.start]
    return [*before[-1:], *inside, *after[:1]]


def increase(series: Series, window: Window) -> float:
    """What a counter counted in a window.

    One that falls was reset (its process began anew) and counts from 0 again; one that was not
    there before the window began at 0.
    """
    samples = within(series, window)
    there_before = bool(samples) and samples[0][0] <= window.start
    last, total = (samples[0][1], 0.0) if there_before else (0.0, 0.0)
    for _, value in samples[1:] if there_before else samples:
        total += value - last if value >= last else value
        last = value
    return total


def covers(series: Series, window: Window) -> bool:
    """Whether it was scraped after the window's end."""
    return any(at >= window.end for at, _ in series.samples)


def begins_unknown(
    series: Series, window: Window, up: Iterable[Series], started: Iterable[Series]
) -> bool:
    """Whether it is not known what a counter stood at when the window began.

    A series without a sample before the window is a new one, counted from 0, if its target was
    scraped before (`up`), or its process began later (`started`: process_start_time_seconds).
    Where nobody tells of the target, it is taken for new.
    """
    if any(at <= window.start for at, _ in series.samples):
        return False
    target = _target(series)
    of_target = [each for each in up if _target(each) == target]
    if not of_target:
        return False
    if any(at <= window.start and value for each in of_target for at, value in each.samples):
        return False
    begun = [value for each in started if _target(each) == target for _, value in each.samples]
    return not begun or min(begun) < window.start


def _target(series: Series) -> tuple[str | None, str | None]:
    return series.labels.get("job"), series.labels.get("instance")


def total_by(
    series: Iterable[Series], window: Window, *labels: str
) -> dict[tuple[str, ...], float]:
    """What counters counted together, by these labels."""
    found: dict[tuple[str, ...], float] = {}
    for each in series:
        key = tuple(each.labels.get(label, "") for label in labels)
        found[key] = found.get(key, 0.0) + increase(each, window)
    return found


def most(series: Iterable[Series], window: Window) -> float | None:
    """The most a gauge showed, all its series at one time together; None without samples.

    Targets are scraped at different times: between two samples a series has the first one's value.
    """
    changes: dict[tuple[float, bool], float] = {}
    for each in series:
        shown, at = 0.0, 0.0
        for at, value in within(each, window):
            changes[at, False] = changes.get((at, False), 0.0) + value - shown
            shown = value
        if shown:
            # It is there until its last sample, and with what begins then.
            changes[at, True] = changes.get((at, True), 0.0) - shown
    return max(itertools.accumulate(changes[each] for each in sorted(changes)), default=None)
