"""Watches as streams of lines, from the first object to the last bookmark."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses

from aiohttp import web

from pytest_kvscale.sim import errors
from pytest_kvscale.sim.answers import Writer, bookmark, error_event, history_gone
from pytest_kvscale.sim.api import Api
from pytest_kvscale.sim.errors import StatusError
from pytest_kvscale.sim.faults import Faults, Stream
from pytest_kvscale.sim.http import Target
from pytest_kvscale.sim.listener import CutError, reset
from pytest_kvscale.sim.lists import Query, version_of
from pytest_kvscale.sim.options import ListOptions
from pytest_kvscale.sim.store import Watch

BOOKMARK_SECONDS = 60.0
LAST_BOOKMARK_SECONDS = 2.0
"""How long before its end a watch tells how far it has come."""
WATCH_SECONDS = 3600


@dataclasses.dataclass(frozen=True)
class Plan:
    """What a watch is to tell: objects, from when on, for how long."""

    target: Target
    query: Query
    options: ListOptions

    @property
    def seconds(self) -> float:
        """How long it lasts; one that is asked to last less than no time ends at once."""
        asked = self.options.seconds
        return WATCH_SECONDS if not asked else max(0, asked)

    @property
    def since(self) -> int | None:
        """The version after which it tells of changes; None: it begins with what is there."""
        version = version_of(self.options.paging.version)
        if self.options.initial:
            return None
        return version or None

    def begin(self, api: Api) -> Watch:
        """Begin to collect changes. `StatusError`: it cannot begin there."""
        current = api.store.version
        version = version_of(self.options.paging.version)
        if self.options.initial and version > current:
            raise errors.too_large_version(version, current)
        since = self.since
        if since is None and self.options.initial is False:
            since = current
        return api.watch(self.target.resource, self.query, since)


class Watches:
    """The watches that are open."""

    def __init__(self, api: Api, faults: Faults) -> None:
        self._api = api
        self._faults = faults
        self._open: dict[Watch, None] = {}

    def __len__(self) -> int:
        return len(self._open)

    def close(self) -> None:
        """End all watches."""
        for watch in list(self._open):
            watch.close()

    async def serve(
        self, request: web.BaseRequest, plan: Plan, writer: Writer
    ) -> web.StreamResponse:
        """Answer one watch, until it ends."""
        try:
            watch = plan.begin(self._api)
        except StatusError as refusal:
            if refusal.code not in (410, 504):
                raise
            # As the real one: by then it is a watch, and what goes wrong is told as an event.
            response = await _begin(request)
            with contextlib.suppress(ConnectionError):
                await response.write(error_event(refusal))
                await response.write_eof()
            return response
        self._open[watch] = None
        # A reader that is too slow may never be ready for another line.
        watch.lagging = lambda: reset(request.transport)
        stream = self._faults.opened(plan.target.resource.plural, watch)
        try:
            return await self._stream(request, plan, writer, watch, stream)
        finally:
            watch.close()
            self._faults.closed(stream)
            self._open.pop(watch, None)

    async def _stream(
        self, request: web.BaseRequest, plan: Plan, writer: Writer, watch: Watch, stream: Stream
    ) -> web.StreamResponse:
        target, loop = plan.target, asyncio.get_running_loop()
        initial = bool(plan.options.initial) and plan.options.bookmarks
        begun = loop.time()
        end = begun + plan.seconds
        response = await _begin(request)
        told, first = _Bookmarks(begun, end, plan.options.bookmarks), True
        with contextlib.suppress(ConnectionError):
            while not watch.closed:
                lines = []
                for event, stored in stream.changes():
                    lines.append(writer.event(target, event, stored, first))
                    first = False
                if initial:
                    last = bookmark(target, watch.version, end_of_initial=True)
                    lines.append(writer.event(target, "BOOKMARK", last, first))
                    initial = first = False
                if stream.silent:
                    await watch.wait_for_end()
                    return response
                if lines:
                    await response.write(b"".join(lines))
                now = loop.time()
                if now >= end:
                    break
                due = told.due
                patience = stream.patience(min(end, due) - now)
                if await watch.wait(max(0.0, patience)) or stream.silent:
                    continue
                if loop.time() < due:
                    continue
                told.next()
                if not stream.holds_back:
                    # Nothing waits to be taken, so it has come as far as the store.
                    watch.version = max(watch.version, self._api.store.version)
                    line = writer.event(target, "BOOKMARK", bookmark(target, watch.version), first)
                    await response.write(line)
                    first = False
            if stream.ending == "expired":
                await response.write(error_event(history_gone()))
            if stream.ending == "reset":
                raise CutError
            await response.write_eof()
        return response


class _Bookmarks:
    """When bookmarks are due: every minute, and shortly before the end."""

    def __init__(self, begun: float, end: float, wanted: bool) -> None:
        self._last = end - LAST_BOOKMARK_SECONDS
        self.due = float("inf")
        """Loop time of the next one."""
        if wanted and begun < self._last:
            self.due = min(begun + BOOKMARK_SECONDS, self._last)

    def next(self) -> None:
        """One has been sent."""
        ended = self.due >= self._last
        self.due = float("inf") if ended else min(self.due + BOOKMARK_SECONDS, self._last)


async def _begin(request: web.BaseRequest) -> web.StreamResponse:
    response = web.StreamResponse(headers={"Content-Type": "application/json"})
    response.enable_chunked_encoding()
    await response.prepare(request)
    return response
