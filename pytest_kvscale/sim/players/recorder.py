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
class _Budget:
    tokens: float = float(BUDGET)
    at: float = 0.0


class Recorder:
    """The event recorder of one controller; `source` is the name it goes by."""

    def __init__(self, team: Team, client: Client, source: str) -> None:
        self._team = team
        self._client = client
        self._source = source
        self._waiting: collections.deque[_Told] = collections.deque()
        self._busy = False
        self._similar: dict[tuple[str, str, bool], _Similar] = {}
        self._budgets: dict[str, _Budget] = {}
        self._written: dict[tuple[str, str, str], Object] = {}

    def tell(self, about: Object, reason: str, message: str, warning: bool = False) -> None:
        """Have an event written; returns at once."""
        self._waiting.append(_Told(about, reason, message, warning))
        if not self._busy:
            self._busy = True
            self._team.spawn(self._write_all(), f"{self._source} tells")

    def forget(self, obj: Object) -> None:
        """An object is gone: nothing more will be told of it."""
        uid = obj["metadata"]["uid"]
        self._budgets.pop(uid, None)
        for kept in (self._similar, self._written):
            for key in [key for key in kept if key[0] == uid]:
                del kept[key]  # type: ignore[arg-type]

    async def _write_all(self) -> None:
        try:
            while self._waiting:
                await self._write(self._waiting.popleft())
        finally:
            self._busy = False

    async def _write(self, told: _Told) -> None:
        uid = told.about["metadata"]["uid"]
        message, combined = self._combine(told, uid)
        if not self._afford(uid):
            return
        key = (uid, told.reason, "" if combined else message)
        before = self._written.get(key)
        try:
            if before is None:
                self._written[key] = await self._client.event(
                    told.about,
                    told.reason,
                    message,
                    told.warning,
                    self._source,
                    # client-go forgets the reporting component when it combines events.
                    reporting=not combined,
                )
            else:
                now = self._client.stamp()
                change = {"count": before["count"] + 1, "message": message, "lastTimestamp": now}
                self._written[key] = await self._client.patch(EVENTS, before, change)
        except StatusError as refusal:
            if refusal.code >= 500:
                raise
            self._written.pop(key, None)

    def _combine(self, told: _Told, uid: str) -> tuple[str, bool]:
        now = asyncio.get_running_loop().time()
        key = (uid, told.reason, told.warning)
        similar = self._similar.setdefault(key, _Similar(last=now))
        if now - similar.last > WINDOW:
            similar = self._similar[key] = _Similar()
        similar.last = now
        similar.messages[told.message] = None
        if len(similar.messages) < SIMILAR:
            return told.message, False
        similar.messages.popitem()
        return _COMBINED + told.message, True

    def _afford(self, uid: str) -> bool:
        now = asyncio.get_running_loop().time()
        budget = self._budgets.setdefault(uid, _Budget(at=now))
        budget.tokens = min(BUDGET, budget.tokens + (now - budget.at) / REFILL)
        budget.at = now
        if budget.tokens < 1:
            return False
        budget.tokens -= 1
        return True
