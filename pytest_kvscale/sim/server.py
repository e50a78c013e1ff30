"""The embedded API over HTTP: paths and query strings in, JSON out.

What a request means is decided in `api`; here stand parsing, content negotiation, watches as
streams of lines, the time a request takes, and the count of all requests by caller. Before and
after each request it is asked what trouble is to befall it (`faults`).
"""

from __future__ import annotations

import asyncio
import collections
import contextlib
from collections.abc import Awaitable, Callable

from aiohttp import web

from pytest_kvscale.errors import ConfigurationError
from pytest_kvscale.sim import discovery, errors, fault_kinds, resources, table, write_options
from pytest_kvscale.sim.api import Api, Page
from pytest_kvscale.sim.errors import Object, StatusError
from pytest_kvscale.sim.faults import Active, Faults, Stream, Trouble
from pytest_kvscale.sim.guard import Guard
from pytest_kvscale.sim.http import (
    VERBS,
    Target,
    answer,
    answer_raw,
    as_object,
    asked_of,
    body_of,
    bookmark,
    delete_options,
    deleted,
    encode_list,
    expired_event,
    internal_error,
    list_metadata,
    name_of,
    number,
    parse,
    query_of,
    status_of,
    verb_of,
)
from pytest_kvscale.sim.latency import Latency
from pytest_kvscale.sim.listener import CutError, Listener
from pytest_kvscale.sim.managed_fields import Writer
from pytest_kvscale.sim.metrics.apiserver import ApiAccount
from pytest_kvscale.sim.patch import APPLY_PATCH
from pytest_kvscale.sim.resources import Resource
from pytest_kvscale.sim.store import Stored, Watch, encode

BOOKMARK_SECONDS = 60
WATCH_SECONDS = 3600
CLIENT_CLOSED = 499
"""Stands for the status of a request whose client went away before it was answered."""
FAULTS = "/_sim/faults"

Door = Callable[[web.BaseRequest, str], Awaitable[web.StreamResponse | None]]
"""Answers a request of a path that is its own, and None to any other."""


class Server:
    """Serves one API on the loopback; `version` is the answer to `/version`."""

    def __init__(
        self,
        api: Api,
        latency: Latency,
        version: Object,
        faults: Faults,
        account: ApiAccount,
        guard: Guard,
    ) -> None:
        self._api = api
        self._latency = latency
        self._version = version
        self._faults = faults
        self._guard = guard
        self._watches: dict[Watch, None] = {}
        self._account = account
        self.doors: list[Door] = []
        """What is served beside the API's objects: each is asked first."""
        self._listener = Listener(self._answer_and_count)
        self.requests: collections.Counter[tuple[str, str, str, int]] = collections.Counter()
        """How often (user agent, verb, resource, status code) was answered."""
        self.problem: BaseException | None = None
        """An exception that was answered with a 500: a bug in the embedded cluster."""

        faults.teach(fault_kinds.Restart, self._restart)

    async def start(self, host: str, port: int) -> str:
        """Begin to serve, with TLS if the gate has an authority; returns the server's URL."""
        authority = self._guard.gate.authority
        tls = authority.server_context(host) if authority is not None else None
        return await self._listener.start(host, port, tls)

    async def stop(self) -> None:
        """End all watches and stop serving."""
        for watch in list(self._watches):
            watch.close()
        await self._listener.stop()

    async def _restart(self, fault: fault_kinds.Restart, _: Active) -> None:
        if self._faults.down:
            return
        self._faults.down = True
        try:
            await self._listener.restart(fault.seconds)
        finally:
            self._faults.down = False

    # One request ----------------------------------------------------------------------------

    async def _answer_and_count(self, request: web.BaseRequest) -> web.StreamResponse:
        asked = asked_of(request)
        if asked is None:
            return await self._answer(request)
        began = asyncio.get_running_loop().time()
        with self._account.under_way(asked):
            response = await self._answer(request)
        self._account.answered(asked, response.status, began)
        return response

    async def _answer(self, request: web.BaseRequest) -> web.StreamResponse:
        verb, plural = VERBS.get(request.method, request.method.lower()), ""
        agent = request.headers.get("User-Agent", "")
        code = CLIENT_CLOSED
        response: web.StreamResponse
        try:
            self._guard.admit(request)
            path = request.path
            opened = await self._through_a_door(request, path)
            if opened is not None:
                code = opened.status
                return opened
            target = parse(path)
            if path == FAULTS or path.startswith(FAULTS + "/"):
                response = await self._answer_about_faults(request, path)
            elif target is None:
                response = self._answer_about_itself(request, path)
            else:
                plural = target.resource.plural
                verb = verb_of(request, target)
                with self._guard.in_flight.hold(verb):
                    response = await self._answer_about_objects(request, target, verb)
            code = response.status
        except StatusError as refusal:
            code = refusal.code
            response = answer(refusal.body, refusal.code, refusal.headers)
        except web.HTTPException as refusal:
            code = refusal.status
            response = answer(status_of(refusal), refusal.status)
        except ConnectionError:
            # The client has gone; aiohttp would log it as a failure of ours.
            raise asyncio.CancelledError from None
        except asyncio.CancelledError:
            raise
        except CutError as cut:
            await cut.carry_out(request)
            raise asyncio.CancelledError from None
        except Exception as problem:  # noqa: BLE001 - told to the client and to the cluster's owner
            self.problem = problem
            code = 500
            response = answer(internal_error(problem), 500)
        finally:
            if (verb, code) not in (("watch", 200), ("watch", CLIENT_CLOSED)):
                self.requests[agent, verb, plural, code] += 1
        return response

    async def _through_a_door(
        self, request: web.BaseRequest, path: str
    ) -> web.StreamResponse | None:
        for door in self.doors:
            response = await door(request, path)
            if response is not None:
                return response
        return None

    def _answer_about_itself(self, request: web.BaseRequest, path: str) -> web.Response:
        if path in ("/healthz", "/livez", "/readyz"):
            return web.Response(text="ok")
        if path == "/version":
            return answer(self._version)
        if path == "/_sim/served":
            rows = [
                {"agent": agent, "verb": verb, "resource": plural, "code": code, "count": count}
                for (agent, verb, plural, code), count in sorted(self.requests.items())
            ]
            return answer({"rows": rows})
        document = discovery.document(path) if request.method == "GET" else None
        if document is not None:
            return answer(document)
        return web.Response(status=404, text="404 page not found\n")

    async def _answer_about_faults(self, request: web.BaseRequest, path: str) -> web.Response:
        """`/_sim/faults`: ask for a fault, see all, take back one or all."""
        which = path[len(FAULTS) + 1 :]
        match request.method, which:
            case "POST", "":
                try:
                    active = self._faults.add(fault_kinds.read(as_object(await body_of(request))))
                except ConfigurationError as mistake:
                    raise errors.bad_request(str(mistake)) from None
                return answer(active.describe(asyncio.get_running_loop().time()), 201)
            case "GET", "":
                return answer({"faults": self._faults.describe()})
            case "DELETE", "":
                return answer({"removed": self._faults.remove()})
            case "DELETE", _ if which.isdecimal() and self._faults.remove(int(which)):
                return answer({"removed": 1})
            case "DELETE", _:
                raise StatusError(404, "NotFound", f"there is no fault {which!r}")
        raise errors.method_not_allowed()

    async def _answer_about_objects(
        self, request: web.BaseRequest, target: Target, verb: str
    ) -> web.StreamResponse:
        plural = target.resource.plural
        body = (
            await body_of(request) if request.method in ("POST", "PUT", "PATCH", "DELETE") else None
        )
        name = name_of(target, body)
        trouble = self._faults.trouble("clients", verb, plural, name)
        if verb == "watch":
            if trouble.delay:
                await asyncio.sleep(trouble.delay)
            _end_by(trouble)
            return await self._watch(request, target)
        await asyncio.sleep(self._latency.of(verb, plural, name) + trouble.delay)
        if not trouble.carried_out:
            _end_by(trouble)
        try:
            response = self._carry_out(request, target, verb, body)
        except StatusError as refusal:
            if trouble.answer is None and trouble.cut is None:
                raise
            response = answer(refusal.body, refusal.code, refusal.headers)
        _end_by(trouble, response)
        return response

    def _carry_out(  # noqa: PLR0911 - one for each verb
        self, request: web.BaseRequest, target: Target, verb: str, body: object
    ) -> web.Response:
        dry_run = "All" in request.query.getall("dryRun", [])
        api, kind, namespace, name = (
            self._api, target.resource, target.namespace, target.name,
        )  # fmt: skip
        as_table = "as=Table" in request.headers.get("Accept", "")
        agent, media_type = request.headers.get("User-Agent", ""), request.content_type
        applies = verb == "patch" and media_type == APPLY_PATCH
        if verb in ("create", "update", "patch"):
            asked = write_options.read(verb, request.query, agent, applies)
            by = Writer(asked.manager, target.subresource)
        match verb:
            case "list":
                return self._list(request, target, as_table)
            case "get":
                stored = api.get(kind, namespace, name)
                if as_table:
                    return answer(self._table(kind, Page([stored], stored.version)))
                return answer_raw(stored.raw)
            case "create" if self._guard.answers(kind, target.subresource):
                return answer(self._guard.answer(kind, namespace, name, as_object(body)), 201)
            case "create":
                obj = api.create(kind, namespace, as_object(body), dry_run, by)
                return self._written(kind, obj, 201, dry_run)
            case "update":
                obj = api.replace(
                    kind, namespace, name, as_object(body), target.subresource, dry_run, by
                )
                return self._written(kind, obj, 200, dry_run)
            case "patch" if applies:
                obj, made = api.apply(kind, namespace, name, body, by, asked.force, dry_run)
                return self._written(kind, obj, 201 if made else 200, dry_run)
            case "patch":
                obj = api.patch(
                    kind, namespace, name, body, media_type, target.subresource, dry_run, by
                )
                return self._written(kind, obj, 200, dry_run)
            case "delete":
                options = delete_options(request, body)
                obj, gone = api.delete(kind, namespace, name, options, dry_run)
                if gone and kind is not resources.PODS:
                    return answer(deleted(kind, obj))
                return self._written(kind, obj, 200, dry_run)
            case "deletecollection":
                page = api.delete_collection(
                    kind, query_of(request, target), delete_options(request, body), dry_run
                )
                return answer_raw(encode_list(kind, page))
        raise errors.method_not_allowed()

    def _written(self, kind: Resource, obj: Object, code: int, dry_run: bool) -> web.Response:
        metadata = obj["metadata"]
        stored = self._api.store.get(kind, metadata.get("namespace", ""), metadata["name"])
        if stored is not None and stored.obj is obj and not dry_run:
            return answer_raw(stored.raw, code)
        return answer(obj, code)

    # Lists and watches ----------------------------------------------------------------------

    def _list(self, request: web.BaseRequest, target: Target, as_table: bool) -> web.Response:
        query = request.query
        page = self._api.list(
            target.resource,
            query_of(request, target),
            number(query.get("limit", ""), "limit"),
            query.get("continue", ""),
            query.get("resourceVersion", ""),
            query.get("resourceVersionMatch") == "Exact",
        )
        if as_table:
            return answer(self._table(target.resource, page))
        return answer_raw(encode_list(target.resource, page))

    def _table(self, kind: Resource, page: Page, with_columns: bool = True) -> Object:
        rows = [table.row(kind, stored.obj, self._api.calendar) for stored in page.items]
        return {
            "kind": "Table",
            "apiVersion": "meta.k8s.io/v1",
            "metadata": list_metadata(page),
            "columnDefinitions": table.columns(kind) if with_columns else None,
            "rows": rows,
        }

    async def _watch(self, request: web.BaseRequest, target: Target) -> web.StreamResponse:
        query = request.query
        since_text = query.get("resourceVersion", "")
        initial = query.get("sendInitialEvents") == "true"
        since = number(since_text, "resourceVersion") if since_text else 0
        watch = self._api.watch(
            target.resource, query_of(request, target), None if initial or not since else since
        )
        self._watches[watch] = None
        stream = self._faults.opened(target.resource.plural, watch)
        agent = request.headers.get("User-Agent", "")
        self.requests[agent, "watch", target.resource.plural, 200] += 1
        try:
            return await self._stream(request, target.resource, watch, stream, initial)
        finally:
            watch.close()
            self._faults.closed(stream)
            self._watches.pop(watch, None)

    async def _stream(
        self,
        request: web.BaseRequest,
        kind: Resource,
        watch: Watch,
        stream: Stream,
        initial: bool,
    ) -> web.StreamResponse:
        query = request.query
        bookmarks = query.get("allowWatchBookmarks") in ("true", "1")
        as_table = "as=Table" in request.headers.get("Accept", "")
        loop = asyncio.get_running_loop()
        seconds = number(query.get("timeoutSeconds", ""), "timeoutSeconds") or WATCH_SECONDS
        end = loop.time() + seconds
        response = web.StreamResponse(headers={"Content-Type": "application/json"})
        response.enable_chunked_encoding()
        await response.prepare(request)
        first = True
        with contextlib.suppress(ConnectionError):
            while not watch.closed:
                lines = []
                for event, stored in stream.changes():
                    lines.append(self._line(kind, event, stored, as_table, first))
                    first = False
                if initial:
                    lines.append(bookmark(kind, watch.version, end_of_initial=True))
                    initial = False
                if stream.silent:
                    await watch.wait_for_end()
                    return response
                if lines:
                    await response.write(b"".join(lines))
                left = end - loop.time()
                if left <= 0:
                    break
                longest = min(left, BOOKMARK_SECONDS)
                patience = stream.patience(longest)
                quiet = not await watch.wait(patience) and patience == longest
                if quiet and bookmarks and left > BOOKMARK_SECONDS and not stream.silent:
                    watch.version = max(watch.version, self._api.store.version)
                    await response.write(bookmark(kind, watch.version))
            if stream.ending == "expired":
                await response.write(expired_event())
            if stream.ending == "reset":
                raise CutError
            await response.write_eof()
        return response

    def _line(
        self, kind: Resource, event: str, stored: Stored, as_table: bool, first: bool
    ) -> bytes:
        raw = stored.raw
        if as_table:
            raw = encode(self._table(kind, Page([stored], stored.version), with_columns=first))
        return b'{"type":"' + event.encode() + b'","object":' + raw + b"}\n"


def _end_by(trouble: Trouble, response: web.Response | None = None) -> None:
    """Let a request end in trouble, if it is to; `response` is what would be answered."""
    if trouble.cut is not None:
        if trouble.cut == "middle" and response is not None and isinstance(response.body, bytes):
            raise CutError(response.body, response.status)
        raise CutError
    if trouble.answer is not None:
        raise trouble.answer
