"""Where the embedded cluster keeps its objects: versions, history and watchers.

One counter numbers every change (the resource version). Objects are never changed in place: a
write puts a new one in its place, so whoever holds an object holds it as it was. The history of
each kind is kept for lists of the past and for watches that resume, up to a bound, beyond which
they get "too old" (410).
"""

from __future__ import annotations

import asyncio
import bisect
import collections
import dataclasses
import heapq
import json
from collections.abc import Callable, Iterator
from typing import Any, Literal

import orjson

from pytest_kvscale.sim.errors import Object, expired
from pytest_kvscale.sim.ownership import NOBODY, Ownership, shown
from pytest_kvscale.sim.resources import Resource

EventType = Literal["ADDED", "MODIFIED", "DELETED"]
Matcher = Callable[[Object], bool]
MOST_WAITING = 100_000
"""Changes a watcher may leave waiting before its watch is ended: it reads too slowly."""


class Stored:
    """One version of one object, who owns its fields, and its JSON, encoded at most once."""

    __slots__ = ("_raw", "obj", "ownership", "version")

    def __init__(self, obj: Object, version: int, ownership: Ownership = NOBODY) -> None:
        self.obj = obj
        self.version = version
        self.ownership = ownership
        self._raw: bytes | None = None

    @property
    def shown(self) -> Object:
        """The object with its `managedFields`."""
        return shown(self.obj, self.ownership)

    @property
    def raw(self) -> bytes:
        """The object as JSON, with its `managedFields`."""
        if self._raw is None:
            owners = self.ownership.raw
            self._raw = _encode_with(self.obj, owners) if owners else encode(self.obj)
        return self._raw

    def forget_raw(self) -> None:
        """Keep the JSON no longer: nobody is likely to ask for it again."""
        self._raw = None


@dataclasses.dataclass(slots=True)
class Event:
    """One change: what it made of the object, and what was there before."""

    type: EventType
    version: int
    stored: Stored
    before: Stored | None
    _parting: Stored | None = None

    @property
    def parting(self) -> Stored:
        """The object as one sees it last who sees it no more: as it was, in the new version."""
        if self._parting is None:
            was = self.before or self.stored
            metadata = {**was.obj["metadata"], "resourceVersion": str(self.version)}
            obj = {**was.obj, "metadata": metadata}
            self._parting = Stored(obj, self.version, was.ownership)
        return self._parting


def encode(value: Any) -> bytes:
    """JSON without spaces."""
    try:
        return orjson.dumps(value)
    except orjson.JSONEncodeError:
        # Numbers that are too large for it, or more levels than it goes down.
        return json.dumps(value, separators=(",", ":")).encode()


def _encode_with(obj: Object, owners: bytes) -> bytes:
    """An object as JSON, with its owners, which are JSON already, in their place."""
    keys = list(obj)
    place = keys.index("metadata")
    head = encode({key: obj[key] for key in keys[:place]})[:-1]
    tail = encode({key: obj[key] for key in keys[place + 1 :]})[1:]
    return b"".join(
        (
            head, b"," if place else b"", b'"metadata":', encode(obj["metadata"])[:-1],
            b',"managedFields":', owners, b"}", b"," if tail != b"}" else b"", tail,
        )
    )  # fmt: skip


class Watch:
    """The changes of one kind from a version on, as one watcher sees them.

    `matches` decides which objects the watcher sees (None: all); an object that stops matching is
    DELETED to it, one that starts to is ADDED.
    """

    def __init__(self, matches: Matcher | None, close: Callable[[Watch], None]) -> None:
        self._matches = matches
        self._queue: collections.deque[tuple[EventType, Stored]] = collections.deque()
        self._wake = asyncio.Event()
        self._close = close
        self.after = 0
        """Changes up to this version do not concern the watcher."""
        self.version = 0
        """The version this watch has come to (for bookmarks)."""
        self.closed = False
        self.lagging: Callable[[], None] = lambda: None
        """Called when too much waits to be taken; the watch is closed then."""

    def begin(self, stored: Stored) -> None:
        """Take an object that is there when the watch begins, if it concerns this watcher."""
        if self._matches is None or self._matches(stored.obj):
            self._queue.append(("ADDED", stored))

    def offer(self, event: Event) -> None:
        """Take a change, if it concerns this watcher."""
        if event.version <= self.after:
            return
        self.version = event.version
        matches, was = self._matches, event.before
        now = event.type != "DELETED" and (matches is None or matches(event.stored.obj))
        before = was is not None and (matches is None or matches(was.obj))
        if now:
            self._queue.append(("MODIFIED" if before else "ADDED", event.stored))
        elif before:
            last = event.stored if event.type == "DELETED" else event.parting
            self._queue.append(("DELETED", last))
        else:
            return
        if len(self._queue) > MOST_WAITING:
            self.close()
            self.lagging()
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
    """The objects of one kind, by their path.

    That is `namespace/name`, with nothing before the `/` where there is no namespace. In the order
    of paths a namespace's objects stand side by side.
    """

    def __init__(self, history: int) -> None:
        self.objects: dict[str, Stored] = {}
        self.paths: list[str] = []
        """The keys of `objects`, sorted."""
        self.history: collections.deque[Event] = collections.deque(maxlen=history)
        self.forgotten = 0
        """The newest version that is no longer in the history."""
        self.watches: dict[Watch, None] = {}
        self.listeners: list[Callable[[Event], None]] = []

    def span(self, namespace: str, after: str) -> tuple[int, int]:
        """Where in `paths` those of a namespace ('': of all) stand that come after a path."""
        low, high = 0, len(self.paths)
        if namespace:
            low = bisect.bisect_left(self.paths, f"{namespace}/")
            high = bisect.bisect_left(self.paths, f"{namespace}0")  # '0' follows '/'
        if after:
            low = min(max(low, bisect.bisect_right(self.paths, after)), high)
        return low, high

    def undone(self, version: int) -> dict[str, Stored | None]:
        """What was at the paths that have changed since a version; None: nothing."""
        found: dict[str, Stored | None] = {}
        for event in reversed(self.history):
            if event.version <= version:
                break
            found[path_of(event.stored.obj)] = event.before
        return found


def path_of(obj: Object) -> str:
    """The path of an object among those of its kind."""
    metadata = obj["metadata"]
    return f"{metadata.get('namespace', '')}/{metadata['name']}"


class Store:
    """All objects of one embedded cluster."""

    def __init__(self, history: int = 40_000) -> None:
        self._history = history
        self._tables: dict[Resource, _Table] = {}
        self.version = 1
        """The newest resource version."""
        self.opened = 0
        """The version at which the API began to be served: no watch can go back beyond it."""

    def get(self, resource: Resource, namespace: str, name: str) -> Stored | None:
        """The object of that name, or None."""
        return self._table(resource).objects.get(f"{namespace}/{name}")

    def all(self, resource: Resource, namespace: str = "") -> list[Stored]:
        """The objects of a kind, in one namespace or ('') in all, sorted by namespace and name."""
        table = self._table(resource)
        low, high = table.span(namespace, "")
        return [table.objects[path] for path in table.paths[low:high]]

    def select(
        self, resource: Resource, namespace: str = "", after: str = "", version: int | None = None
    ) -> Iterator[Stored]:
        """The objects after a path, sorted by path, as they were at a version (None: are now).

        Raises `StatusError` (410) if that is no longer known.
        """
        table = self._table(resource)
        low, high = table.span(namespace, after)
        paths: Iterator[str] = (table.paths[index] for index in range(low, high))
        if version is None or version >= self.version:
            return (table.objects[path] for path in paths)
        if version < table.forgotten:
            raise expired("The resourceVersion for the provided list is too old.")
        undone = table.undone(version)
        start = max(after, f"{namespace}/" if namespace else "")
        gone = sorted(
            path
            for path, was in undone.items()
            if was is not None and path not in table.objects and path > start
            and (not namespace or path.startswith(f"{namespace}/"))
        )  # fmt: skip
        merged = heapq.merge(paths, gone)
        then = (undone[path] if path in undone else table.objects[path] for path in merged)
        return (stored for stored in then if stored is not None)

    def count(self, resource: Resource, namespace: str, after: str) -> int:
        """How many objects there are after a path, now."""
        low, high = self._table(resource).span(namespace, after)
        return high - low

    def put(self, resource: Resource, obj: Object, ownership: Ownership | None = None) -> Object:
        """Write an object, new or changed; returns it with its new version.

        Without an ownership of its own it keeps that of the version before.
        """
        path = path_of(obj)
        table = self._table(resource)
        before = table.objects.get(path)
        self.version += 1
        metadata = {**obj["metadata"], "resourceVersion": str(self.version)}
        obj = {**obj, "metadata": metadata}
        if ownership is None:
            ownership = before.ownership if before else NOBODY
        stored = table.objects[path] = Stored(obj, self.version, ownership)
        if before is None:
            bisect.insort(table.paths, path)
        self._tell(table, Event("MODIFIED" if before else "ADDED", self.version, stored, before))
        return obj

    def remove(self, resource: Resource, obj: Object) -> Object:
        """Take an object away; returns it as its watchers see it last, in a version of its own."""
        path = path_of(obj)
        table = self._table(resource)
        before = table.objects.pop(path)
        del table.paths[bisect.bisect_left(table.paths, path)]
        self.version += 1
        metadata = {**obj["metadata"], "resourceVersion": str(self.version)}
        obj = {**obj, "metadata": metadata}
        last = Stored(obj, self.version, before.ownership)
        self._tell(table, Event("DELETED", self.version, last, before))
        return obj

    def watch(self, resource: Resource, since: int | None, matches: Matcher | None = None) -> Watch:
        """Changes after a version; from None on, first all that is there now, as ADDED.

        From a version that is still to come the watch is silent until then. Raises `StatusError`
        (410) if the changes after that version are no longer kept.
        """
        table = self._table(resource)
        watch = Watch(matches, lambda ended: table.watches.pop(ended, None))
        if since is None:
            for stored in self.select(resource):
                watch.begin(stored)
        elif since < max(table.forgotten, self.opened):
            oldest = max(table.forgotten, self.opened)
            raise expired(f"too old resource version: {since} ({oldest})")
        else:
            watch.after = since
            missed = []
            for event in reversed(table.history):
                if event.version <= since:
                    break
                missed.append(event)
            for event in reversed(missed):
                watch.offer(event)
        watch.version = max(self.version, watch.after)
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
        if event.before is not None:
            event.before.forget_raw()
        for listener in table.listeners:
            listener(event)
        for watch in list(table.watches):
            watch.offer(event)
