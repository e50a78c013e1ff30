"""The embedded cluster's date: its epoch plus the time of the loop it runs in."""

from __future__ import annotations

import asyncio
import datetime


def this_moment() -> datetime.datetime:
    """The machine's date and time (UTC): the epoch of a cluster that runs at the wall's pace."""
    return datetime.datetime.now(datetime.UTC)


class Calendar:
    """Dates for the loop's time; made at the moment the epoch stands for."""

    def __init__(self, epoch: datetime.datetime) -> None:
        self._epoch = epoch
        self._start = asyncio.get_running_loop().time()
        self._jumped = 0.0
        self._last_second = -1
        self._last_text = ""

    def elapsed(self) -> float:
        """Seconds since the epoch of this cluster, by its clock."""
        return asyncio.get_running_loop().time() - self._start + self._jumped

    def jump(self, seconds: float) -> None:
        """Set the clock forward, or back; what is timed by the loop does not notice."""
        self._jumped += seconds

    def true_time(self) -> float:
        """Unix time by a clock that was never set: the epoch and the loop's time since."""
        return self._epoch.timestamp() + self.elapsed() - self._jumped

    def now(self) -> datetime.datetime:
        """The cluster's date and time."""
        return self._epoch + datetime.timedelta(seconds=self.elapsed())

    def stamp(self, ahead: float = 0) -> str:
        """The date as metav1.Time has it: UTC, whole seconds (cut off, not rounded)."""
        second = int((self._epoch.timestamp() + self.elapsed()) + ahead)
        if second != self._last_second:
            moment = datetime.datetime.fromtimestamp(second, datetime.UTC)
            self._last_second, self._last_text = second, moment.strftime("%Y-%m-%dT%H:%M:%SZ")
        return self._last_text

    def until(self, stamp: str) -> float:
        """Seconds until the date of a stamp; negative once it is past."""
        moment = datetime.datetime.fromisoformat(stamp)
        return (moment - self._epoch).total_seconds() - self.elapsed()

    def microseconds(self) -> int:
        """The date in microseconds since 1970."""
        return int(self._epoch.timestamp()) * 1_000_000 + int(self.elapsed() * 1_000_000)

    def micro_stamp(self) -> str:
        """The date as metav1.MicroTime has it."""
        return self.now().strftime("%Y-%m-%dT%H:%M:%S.%fZ")
