"""Following one collection: list it once, then watch it, and never lose the place.

A watch that ends is taken up again at the last version seen. Only where the API no longer has
that version (410) the collection is listed again, and the receiver is told since when it may
have missed something.
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


class Receiver(Protocol):
    """Whoever wants to know what happens in a collection; times are the loop's."""

    def listed(self, objects: list[Object], version: str, at: float, since: float | None) -> None:
        """All there is; `since` is when a lost watch was last heard of (None: the first list)."""
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
        self._bookmarks = False
        self.watching = asyncio.Event()
        """Set once the first list is in and the watch has been asked for."""

    async def run(self) -> None:
        """Follow the collection. Raises `ApiError` for an answer that waiting does not change."""
        failures = 0
        while True:
            before = self._heard
            try:
                if not self._version:
                    await self._list()
                self.watching.set()
                await self._watch()
                continue
            except ApiError as problem:
                if problem.code == 410:
                    self._version = ""
                    continue
                if not problem.passing:
                    raise
                pause = problem.retry_after
            except (LostConnectionError, TimeoutError):
                pause = None
            failures = 1 if self._heard > before else failures + 1
            grown = min(_LONGEST_PAUSE, _FIRST_PAUSE * 2 ** (failures - 1))
            await asyncio.sleep(grown if pause is None else pause)

    async def _list(self) -> None:
        since = self._heard if self.watching.is_set() else None
        answer = await self._client.list(
            self._resource, self._namespace, self._labels, self._fields
        )
        self._heard = now()
        version = str(answer["metadata"]["resourceVersion"])
        self._receiver.listed(answer.get("items") or [], version, self._heard, since)
        self._version = version

    async def _watch(self) -> None:
        idle = BOOKMARK_PATIENCE if self._bookmarks else PATIENCE
        events = self._client.watch(self._resource, self._namespace, self._query(), idle)
        async with contextlib.aclosing(events):
            async for event in events:
                self._heard = now()
                self._take(event)

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
