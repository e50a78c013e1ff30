"""How a controller tells of what it does: events, written in the background and not too many.

As client-go's event recorder does it: an event that was told before is counted up; from the tenth
similar one on (same object and reason, other words) they are combined in one; and each object has
a budget, beyond which events are dropped. What the API refuses is dropped too: an event must not
stop the work it tells of.
"""

from __future__ import annotations

import asyncio
import collections
import dataclasses

from pytest_kvscale.sim.client import Client
from pytest_kvscale.sim.errors import Object, StatusError
from pytest_kvscale.sim.players.team import Team
from pytest_kvscale.sim.resources import EVENTS

SIMILAR = 10
"""So many similar events, and they are combined."""
WINDOW = 600.0
"""Seconds after which similar events are new ones."""
BUDGET = 25
"""Events at once about one object; one more every `REFILL` seconds."""
REFILL = 300.0
_COMBINED = "(combined from similar events): "


@dataclasses.dataclass(frozen=True)
class _Told:
    about: Object
    reason: str
    message: str
    warning: bool


@dataclasses.dataclass
class _Similar:
    messages: dict[str, None] = dataclasses.field(default_factory=dict)
    last: float = 0.0


@dataclasses.dataclass
class _About:
    """What was told about one object."""

    at: float
    """When its budget was looked at last."""
    tokens: float = float(BUDGET)
    similar: dict[tuple[str, bool], _Similar] = dataclasses.field(default_factory=dict)
    """By reason and whether it is a warning."""
    written: dict[tuple[str, str], Object] = dataclasses.field(default_factory=dict)
    """Events as they were stored, by reason and message."""

    def combine(self, told: _Told, now: float) -> tuple[str, bool]:
        """The message to write, and whether it is one for many."""
        key = (told.reason, told.warning)
        similar = self.similar.setdefault(key, _Similar(last=now))
        if now - similar.last > WINDOW:
            similar = self.similar[key] = _Similar()
        similar.last = now
        similar.messages[told.message] = None
        if len(similar.messages) < SIMILAR:
            return told.message, False
        similar.messages.popitem()
        return _COMBINED + told.message, True

    def afford(self, now: float) -> bool:
        """Take one from the budget, if there is one."""
        self.tokens = min(BUDGET, self.tokens + (now - self.at) / REFILL)
        self.at = now
        if self.tokens < 1:
            return False
        self.tokens -= 1
        return True


class Recorder:
    """The event recorder of one controller; `source` is the name it goes by."""

    def __init__(self, team: Team, client: Client, source: str, host: str = "") -> None:
        self._team = team
        self._client = client
        self._source = source
        self._host = host
        self._waiting: collections.deque[_Told] = collections.deque()
        self._busy = False
        self._told: dict[str, _About] = {}
        """By the uid of what is told about."""

    def tell(self, about: Object, reason: str, message: str, warning: bool = False) -> None:
        """Have an event written; returns at once."""
        self._waiting.append(_Told(about, reason, message, warning))
        if not self._busy:
            self._busy = True
            self._team.spawn(self._write_all(), f"{self._source} tells")

    def forget(self, obj: Object) -> None:
        """An object is gone: nothing more will be told of it."""
        self._told.pop(obj["metadata"]["uid"], None)

    async def _write_all(self) -> None:
        try:
            while self._waiting:
                await self._write(self._waiting.popleft())
        finally:
            self._busy = False

    async def _write(self, told: _Told) -> None:
        now = asyncio.get_running_loop().time()
        about = self._told.setdefault(told.about["metadata"]["uid"], _About(at=now))
        message, combined = about.combine(told, now)
        if not about.afford(now):
            return
        key = (told.reason, "" if combined else message)
        before = about.written.get(key)
        try:
            if before is None:
                about.written[key] = await self._client.event(
                    told.about,
                    told.reason,
                    message,
                    told.warning,
                    self._source,
                    # client-go forgets the reporting component when it combines events.
                    reporting=not combined,
                    host=self._host,
                )
            else:
                change = {
                    "count": before["count"] + 1,
                    "message": message,
                    "lastTimestamp": self._client.stamp(),
                }
                about.written[key] = await self._client.patch(EVENTS, before, change)
        except StatusError as refusal:
            if refusal.code >= 500:
                raise
            about.written.pop(key, None)
