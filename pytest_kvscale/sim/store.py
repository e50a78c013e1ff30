"""Where the embedded cluster keeps its objects: versions, history and watchers.

One counter numbers every change (the resource version). Objects are never changed in place: a
write puts a new one in its place, so whoever holds an object holds it as it was. The history of
each kind is kept for watches that resume, up to a bound, beyond which they get "too old" (410).
"""

from __future__ import annotations

import asyncio
import collections
import dataclasses
import json
from collections.abc import Callable, Iterator
from typing import Any, Literal

from pytest_kvscale.sim.errors import Object, expired
from pytest_kvscale.sim.ownership import NOBODY, Ownership
from pytest_kvscale.sim.resources import Resource

Key = tuple[str, str]
"""Namespace ('' where there is none) and name."""
EventType = Literal["ADDED", "MODIFIED", "DELETED"]


class Stored:
    """One version of one object, who owns its fields, and its JSON, encoded at most once."""

    __slots__ = ("_raw", "obj", "ownership", "version")

    def __init__(self, obj: Object, version: int, ownership: Ownership = NOBODY) -> None:
        self.obj = obj
        self.version = version
        self.ownership = ownership
        self._raw: bytes | None = None

    @property
    def raw(self) -> bytes:
        """The object as JSON, with its `managedFields`."""
        if self._raw is None:
            owners = self.ownership.raw
            self._raw = _encode_with(self.obj, owners) if owners else encode(self.obj)
        return self._raw


@dataclasses.dataclass(frozen=True, slots=True)
class Event:
    """One change: what it made of the object, and what was there before."""

    type: EventType
    version: int
    stored: Stored
    before: Object | None


_dumps = json.JSONEncoder(separators=(",", ":")).encode


def encode(value: Any) -> bytes:
    """JSON without spaces."""
    return _dumps(value).encode()


def _encode_with(obj: Object, owners: bytes) -> bytes:
    """An object as JSON, with its owners, which are JSON already, in their place."""
    rest = {key: value for key, value in obj.items() if key not in ("apiVersion", "kind")}
    metadata = encode(rest.pop("metadata"))[:-1]
    head = encode({"apiVersion": obj["apiVersion"], "kind": obj["kind"]})[:-1]
    tail = b"," + encode(rest)[1:] if rest else b"}"
    return b"".join((head, b',"metadata":', metadata, b',"managedFields":', owners, b"}", tail))


class Watch:
    """The changes of one kind from a version on, as one watcher sees them.

    `matches` decides which objects the watcher sees; an object that stops matching is DELETED to
    it, one that starts to is ADDED.
    """

    def __init__(self, matches: Callable[[Object], bool], close: Callable[[Watch], None]) -> None:
        self._matches = matches
        self._queue: collections.deque[tuple[EventType, Stored]] = collections.deque()
        self._wake = asyncio.Event()
        self._close = close
        self.version = 0
        """The version this watch has come to (for bookmarks)."""
        self.closed = False

    def offer(self, event: Event) -> None:
        """Take a change, if it concerns this watcher."""
        self.version = event.version
        now = event.type != "DELETED" and self._matches(event.stored.obj)
        before = event.before is not None and self._matches(event.before)
        if now:
            seen: EventType = "MODIFIED" if before else "ADDED"
        elif before:
            seen = "DELETED"
        else:
            return
        self._queue.append((seen, event.stored))
        self._wake.set()

    async def wait(self, timeout: float | None = None) -> bool:
        """Wait until there is something to take; False if the time ran out first."""
        if self._queue or self.closed:
            return True
        self._wake.clear()
        try:
            async with asyncio.timeout(timeout):
                await self._wake.wait()
        except TimeoutError:
            return False
        return True

    async def wait_for_end(self) -> None:
        """Wait until the watch is closed, and let what comes meanwhile go."""
        while not self.closed:
            self._queue.clear()
            await self.wait()

    def take(self) -> Iterator[tuple[EventType, Stored]]:
        """All that has come since the last time."""
        while self._queue:
            yield self._queue.popleft()

    def close(self) -> None:
        """End the watch; a waiter wakes up."""
        if not self.closed:
            self.closed = True
            self._close(self)
            self._wake.set()


class _Table:
    """The objects of one kind."""

    def __init__(self, history: int) -> None:
        self.objects: dict[Key, Stored] = {}
        self.history: collections.deque[Event] = collections.deque(maxlen=history)
        self.forgotten = 0
        """The newest version that is no longer in the history."""
        self.watches: dict[Watch, None] = {}
        self.listeners: list[Callable[[Event], None]] = []


class Store:
    """All objects of one embedded cluster."""

    def __init__(self, history: int = 100_000) -> None:
        self._history = history
        self._tables: dict[Resource, _Table] = {}
        self.version = 1
        """The newest resource version."""

    def get(self, resource: Resource, namespace: str, name: str) -> Stored | None:
        """The object of that name, or None."""
        return self._table(resource).objects.get((namespace, name))

    def all(self, resource: Resource, namespace: str = "") -> list[Stored]:
        """The objects of a kind, in one namespace or ('') in all, sorted by namespace and name."""
        objects = self._table(resource).objects
        keys = sorted(key for key in objects if not namespace or key[0] == namespace)
        return [objects[key] for key in keys]

    def count(self, resource: Resource) -> int:
        """How many objects of a kind there are."""
        return len(self._table(resource).objects)

    def put(self, resource: Resource, obj: Object, ownership: Ownership | None = None) -> Object:
        """Write an object, new or changed; returns it with its new version.

        Without an ownership of its own it keeps that of the version before.
        """
        metadata = obj["metadata"]
        key = (metadata.get("namespace", ""), metadata["name"])
        table = self._table(resource)
        before = table.objects.get(key)
        self.version += 1
        obj = {**obj, "metadata": {**metadata, "resourceVersion": str(self.version)}}
        if ownership is None:
            ownership = before.ownership if before else NOBODY
        stored = table.objects[key] = Stored(obj, self.version, ownership)
        kind: EventType = "MODIFIED" if before else "ADDED"
        self._tell(table, Event(kind, self.version, stored, before.obj if before else None))
        return obj

    def remove(self, resource: Resource, obj: Object) -> Object:
        """Take an object away; returns it as its watchers see it last, in a version of its own."""
        metadata = obj["metadata"]
        key = (metadata.get("namespace", ""), metadata["name"])
        table = self._table(resource)
        before = table.objects.pop(key)
        self.version += 1
        obj = {**obj, "metadata": {**metadata, "resourceVersion": str(self.version)}}
        last = Stored(obj, self.version, before.ownership)
        event = Event("DELETED", self.version, last, before.obj)
        self._tell(table, event)
        return obj

    def watch(
        self, resource: Resource, since: int | None, matches: Callable[[Object], bool]
    ) -> Watch:
        """Changes after a version; from None on, first all that is there now, as ADDED.

        Raises `StatusError` (410) if the changes after that version are no longer kept.
        """
        table = self._table(resource)
        watch = Watch(matches, lambda ended: table.watches.pop(ended, None))
        if since is None:
            for stored in self.all(resource):
                watch.offer(Event("ADDED", stored.version, stored, None))
        elif since < table.forgotten:
            raise expired(f"too old resource version: {since} ({table.forgotten})")
        else:
            for event in table.history:
                if event.version > since:
                    watch.offer(event)
        watch.version = self.version
        table.watches[watch] = None
        return watch

    def listen(self, resource: Resource, listener: Callable[[Event], None]) -> None:
        """Call a function at every change of a kind, and once for each object that is there."""
        for stored in self.all(resource):
            listener(Event("ADDED", stored.version, stored, None))
        self._table(resource).listeners.append(listener)

    def compact(self) -> None:
        """Forget all history: watches from before now get 410."""
        for table in self._tables.values():
            table.history.clear()
            table.forgotten = self.version

    def _table(self, resource: Resource) -> _Table:
        table = self._tables.get(resource)
        if table is None:
            table = self._tables[resource] = _Table(self._history)
        return table

    def _tell(self, table: _Table, event: Event) -> None:
        if len(table.history) == table.history.maxlen:
            table.forgotten = table.history[0].version
        table.history.append(event)
        for listener in table.listeners:
            listener(event)
        for watch in list(table.watches):
            watch.offer(event)
