"""How far a level is, in one line for people who wait for it."""

from __future__ import annotations

import collections

from pytest_kvscale import durations
from pytest_kvscale.measure.observe import Observer
from pytest_kvscale.measure.timeline import Timeline


class Progress:
    """The lines of one level; each tells what has changed since the one before."""

    def __init__(self, level: int, observer: Observer, label: str = "") -> None:
        self._level = level
        self._label = label or str(level)
        self._observer = observer
        self._ran = 0
        """How many ran when the last line was written."""
        self._at = 0.0

    def line(self, passed: float, moment: float) -> str:
        """Where it stands `passed` seconds after it began; `moment` is the loop's time."""
        return f"level {self._label}, {durations.write(round(passed))}: " + (
            self._creating(passed, moment)
            if self._observer.level_end is None
            else self._deleting(moment)
        )

    def _creating(self, passed: float, moment: float) -> str:
        timelines = self._observer.timelines.values()
        running = sum(each.running for each in timelines)
        rate = 60 * (running - self._ran) / (passed - self._at) if passed > self._at else 0.0
        self._ran, self._at = running, passed
        others = collections.Counter(_state(each) for each in timelines if not each.running)
        rest = "".join(f", {number} {state}" for state, number in sorted(others.items()))
        last = self._observer.last_progress
        quiet = (
            "" if last is None else f"; last progress {durations.write(round(moment - last))} ago"
        )
        return f"{running}/{self._level} running ({rate:.0f} a minute){rest}{quiet}"

    def _deleting(self, moment: float) -> str:
        since = moment - (self._observer.level_end or moment)
        left = self._observer.present
        return f"{left} objects still there, deleting for {durations.write(round(since))}"


def _state(timeline: Timeline) -> str:
    if timeline.creation.refusal is not None:
        return "not created"
    if timeline.hopeless:
        return "failed"
    return timeline.phase or ("created" if timeline.uid else "not yet seen")
