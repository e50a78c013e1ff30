"""Following one collection: list it once, then watch it, and never lose the place.

A watch that ends is taken up again at the last version seen. Only where the API no longer has
that version (410) the collection is listed again, and the receiver is told since when it may
have missed something. An event that the API never sent cannot be missed: who must be sure has
the collection listed again (`Follower.look_again`).
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Mapping
from typing import Any, Protocol

from pytest_kvscale.cluster.client import (
    ApiError,
    Client,
    LostConnectionError,
    Object,
    Resource,
)
from pytest_kvscale.cluster.clock import now

WATCH_SECONDS = 1800
"""How long the API is asked to keep a watch open."""
BOOKMARK_PATIENCE = 150.0
"""Silence after which a watch that sent bookmarks before (about one a minute) is given up."""
PATIENCE = 330.0
"""Silence after which any watch is given up: it may be half open. Taking it up again is cheap."""
_FIRST_PAUSE, _LONGEST_PAUSE = 0.1, 10.0
_LONGEST_ASKED = 60.0
"""The API may ask for a longer pause; it gets this one, because a watch is worth one request."""
_SHORT = 1.0
"""A watch that ended sooner and told nothing is as good as none."""


class Receiver(Protocol):
    """Whoever wants to know what happens in a collection; times are the loop's."""

    def listed(self, objects: list[Object], version: str, at: float, since: float | None) -> None:
        """All there is; `since` is when all was known last (None: the first list)."""
        ...

    def resumed(self, since: float, at: float) -> None:
        """A lost watch, last heard of at `since`, is taken up: what was missed comes now."""
        ...

    def changed(self, kind: str, obj: Object, at: float) -> None:
        """One event: ADDED, MODIFIED or DELETED, and the object as received."""
        ...


class Follower:
    """Lists and watches one collection until it is cancelled."""

    def __init__(
        self,
        client: Client,
        resource: Resource,
        namespace: str,
        receiver: Receiver,
        labels: str = "",
        fields: str = "",
    ) -> None:
        self._client = client
        self._resource = resource
        self._namespace = namespace
        self._receiver = receiver
        self._labels = labels
        self._fields = fields
        self._version = ""
        self._heard = 0.0
        self._told = False
        """Whether the watch that is open, or was last, has told anything."""
        self._listed_at = 0.0
        self._lost_since: float | None = None
        """When a watch that was lost was last heard of; None while it is not lost."""
        self._bookmarks = False
        self._asked: list[asyncio.Future[None]] = []
        """Who waits for a list."""
        self._scope: asyncio.Timeout | None = None
        """What ends the open watch before its time."""
        self.watching = asyncio.Event()
        """Set once the first list is in and the watch has been asked for."""

    async def look_again(self) -> None:
        """Have the collection listed again, now; returns when the receiver has been told of it.

        The watch goes on from the list, so that nothing is told that is older than what was.
        """
        listed = asyncio.get_running_loop().create_future()
        self._asked.append(listed)
        if self._scope is not None and not self._scope.expired():
            self._scope.reschedule(asyncio.get_running_loop().time())
        await listed

    async def run(self) -> None:
        """Follow the collection. Raises `ApiError` for an answer that waiting does not change."""
        failures = 0
        while True:
            self._told, pause, began = False, None, now()
            try:
                while not self._version or self._asked:
                    await self._list()
                self.watching.set()
                await self._watch()
                if self._told or now() - began >= _SHORT:
                    failures = 0
                    continue
            except ApiError as problem:
                if problem.code == 410:
                    self._version = ""
                elif not problem.passing:
                    raise
                pause = problem.retry_after
            except LostConnectionError:
                pass
            except TimeoutError:
                if self._asked and self._version:
                    continue  # Not lost: somebody wants a list.
            failures = 1 if self._told else failures + 1
            grown = min(_LONGEST_PAUSE, _FIRST_PAUSE * 2 ** (failures - 1))
            await asyncio.sleep(grown if pause is None else min(pause, _LONGEST_ASKED))

    async def _list(self) -> None:
        since, asked = None, list(self._asked)
        if self.watching.is_set():
            lost = self._heard if self._lost_since is None else self._lost_since
            since = self._listed_at if asked else lost
        answer = await self._client.list(
            self._resource, self._namespace, self._labels, self._fields
        )
        self._heard = self._listed_at = now()
        self._lost_since = None
        version = str(answer["metadata"]["resourceVersion"])
        self._receiver.listed(answer.get("items") or [], version, self._heard, since)
        self._version = version
        for each in asked:
            self._asked.remove(each)
            if not each.done():
                each.set_result(None)

    async def _watch(self) -> None:
        idle = BOOKMARK_PATIENCE if self._bookmarks else PATIENCE
        opened: float | None = None

        def take_up() -> None:
            nonlocal opened
            opened = now()
            if self._lost_since is not None:
                self._receiver.resumed(self._lost_since, opened)

        events = self._client.watch(self._resource, self._namespace, self._query(), idle, take_up)
        try:
            async with asyncio.timeout(None) as self._scope, contextlib.aclosing(events):
                async for event in events:
                    self._heard, self._told = now(), True
                    self._take(event)
        finally:
            self._scope = None
            # One that was open for a moment only may not have told all that was missed.
            if self._lost_since is None or (opened is not None and now() - opened >= _SHORT):
                self._lost_since = self._heard

    def _take(self, event: Object) -> None:
        kind, obj = event.get("type"), event.get("object") or {}
        if kind == "ERROR":
            raise ApiError(int(obj.get("code") or 500), obj)
        if kind == "BOOKMARK":
            self._bookmarks = True
        elif kind in ("ADDED", "MODIFIED", "DELETED"):
            self._receiver.changed(kind, obj, self._heard)
        self._version = (obj.get("metadata") or {}).get("resourceVersion") or self._version

    def _query(self) -> Mapping[str, str]:
        query: dict[str, Any] = {
            "resourceVersion": self._version,
            "allowWatchBookmarks": "true",
            "timeoutSeconds": str(WATCH_SECONDS),
        }
        if self._labels:
            query["labelSelector"] = self._labels
        if self._fields:
            query["fieldSelector"] = self._fields
        return query
