"""The embedded API over HTTP: paths and query strings in, JSON out.

What a request means is decided in `api`; here stand parsing, content negotiation, watches as
streams of lines, the time a request takes, and the count of all requests by caller.
"""

from __future__ import annotations

import asyncio
import collections
import contextlib
import dataclasses
import json
from typing import Any

import yaml
from aiohttp import web

from pytest_kvscale.sim import discovery, errors, resources, table
from pytest_kvscale.sim.api import Api, Page, Query
from pytest_kvscale.sim.errors import Object, StatusError
from pytest_kvscale.sim.latency import Latency
from pytest_kvscale.sim.resources import Resource
from pytest_kvscale.sim.store import Stored, Watch, encode

MAX_BODY = 3 * 1024 * 1024
BOOKMARK_SECONDS = 60
WATCH_SECONDS = 3600
KEEP_ALIVE_SECONDS = 7 * 24 * 3600

_VERBS = {
    "GET": "get", "POST": "create", "PUT": "update", "PATCH": "patch", "DELETE": "delete",
}  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Target:
    """What a path names."""

    resource: Resource
    namespace: str
    name: str
    subresource: str


class Server:
    """Serves one API on the loopback; `simulated` is the answer to `/version`."""

    def __init__(self, api: Api, latency: Latency, version: Object) -> None:
        self._api = api
        self._latency = latency
        self._version = version
        self._watches: dict[Watch, None] = {}
        self._runner: web.ServerRunner | None = None
        self.requests: collections.Counter[tuple[str, str, str, int]] = collections.Counter()
        """How often (user agent, verb, resource, status code) was answered."""
        self.problem: BaseException | None = None
        """An exception that was answered with a 500: a bug in the embedded cluster."""

    async def start(self, host: str, port: int) -> str:
        """Begin to serve; returns the server's URL."""
        server = web.Server(
            self._answer,  # type: ignore[arg-type]
            handler_cancellation=True,
            keepalive_timeout=KEEP_ALIVE_SECONDS,
            access_log=None,
        )
        self._runner = web.ServerRunner(server, shutdown_timeout=1)
        await self._runner.setup()
        await web.TCPSite(self._runner, host, port).start()
        address = self._runner.addresses[0]
        return f"http://{address[0]}:{address[1]}"

    async def stop(self) -> None:
        """End all watches and stop serving."""
        for watch in list(self._watches):
            watch.close()
        if self._runner is not None:
            await self._runner.cleanup()

    # One request ----------------------------------------------------------------------------

    async def _answer(self, request: web.BaseRequest) -> web.StreamResponse:
        verb, plural = _VERBS.get(request.method, request.method.lower()), ""
        agent = request.headers.get("User-Agent", "")
        code = 499
        try:
            path = request.path
            target = parse(path)
            if target is None:
                response = self._answer_about_itself(request, path)
            else:
                plural = target.resource.plural
                verb = _verb(request, target)
                response = await self._answer_about_objects(request, target, verb)
            code = response.status
        except StatusError as refusal:
            code = refusal.code
            response = _json(refusal.body, refusal.code, refusal.headers)
        except web.HTTPException as refusal:
            code = refusal.status
            response = _json(_status_of(refusal), refusal.status)
        except (ConnectionError, asyncio.CancelledError):
            raise
        except Exception as problem:  # noqa: BLE001 - told to the client and to the cluster's owner
            self.problem = problem
            code = 500
            response = _json(_internal_error(problem), 500)
        finally:
            if verb != "watch" or code != 200:
                self.requests[agent, verb, plural, code] += 1
        return response

    def _answer_about_itself(self, request: web.BaseRequest, path: str) -> web.Response:
        if path in ("/healthz", "/livez", "/readyz"):
            return web.Response(text="ok")
        if path == "/version":
            return _json(self._version)
        if path == "/_sim/requests":
            return _json(
                [
                    {"agent": agent, "verb": verb, "resource": plural, "code": code, "count": count}
                    for (agent, verb, plural, code), count in sorted(self.requests.items())
                ]
            )
        document = discovery.document(path) if request.method == "GET" else None
        if document is not None:
            return _json(document)
        return web.Response(status=404, text="404 page not found\n")

    async def _answer_about_objects(
        self, request: web.BaseRequest, target: Target, verb: str
    ) -> web.StreamResponse:
        if verb == "watch":
            return await self._watch(request, target)
        body = await _body(request) if request.method in ("POST", "PUT", "PATCH", "DELETE") else None
        await asyncio.sleep(self._latency.of(verb, target.resource.plural, _name(target, body)))
        dry_run = "All" in request.query.getall("dryRun", [])
        api, kind, namespace, name = (
            self._api, target.resource, target.namespace, target.name,
        )  # fmt: skip
        as_table = "as=Table" in request.headers.get("Accept", "")
        match verb:
            case "list":
                return self._list(request, target, as_table)
            case "get":
                stored = api.get(kind, namespace, name)
                if as_table:
                    return _json(self._table(kind, Page([stored], stored.version)))
                return _raw(stored.raw)
            case "create":
                obj = api.create(kind, namespace, _object(body), dry_run)
                return self._written(kind, obj, 201, dry_run)
            case "update":
                obj = api.replace(
                    kind, namespace, name, _object(body), target.subresource, dry_run
                )
                return self._written(kind, obj, 200, dry_run)
            case "patch":
                media_type = request.content_type
                obj = api.patch(
                    kind, namespace, name, body, media_type, target.subresource, dry_run
                )
                return self._written(kind, obj, 200, dry_run)
            case "delete":
                options = _delete_options(request, body)
                obj, gone = api.delete(kind, namespace, name, options, dry_run)
                return _json(_deleted(kind, obj) if gone and kind is not resources.PODS else obj)
            case "deletecollection":
                page = api.delete_collection(
                    kind, _query(request, target), _delete_options(request, body), dry_run
                )
                return _raw(_encode_list(kind, page))
        raise errors.method_not_allowed()

    def _written(self, kind: Resource, obj: Object, code: int, dry_run: bool) -> web.Response:
        metadata = obj["metadata"]
        stored = self._api.store.get(kind, metadata.get("namespace", ""), metadata["name"])
        if stored is not None and stored.obj is obj and not dry_run:
            return _raw(stored.raw, code)
        return _json(obj, code)

    # Lists and watches ----------------------------------------------------------------------

    def _list(self, request: web.BaseRequest, target: Target, as_table: bool) -> web.Response:
        query = request.query
        page = self._api.list(
            target.resource,
            _query(request, target),
            _number(query.get("limit", ""), "limit"),
            query.get("continue", ""),
            query.get("resourceVersion", ""),
            query.get("resourceVersionMatch") == "Exact",
        )
        if as_table:
            return _json(self._table(target.resource, page))
        return _raw(_encode_list(target.resource, page))

    def _table(self, kind: Resource, page: Page, with_columns: bool = True) -> Object:
        rows = [table.row(kind, stored.obj, self._api.calendar) for stored in page.items]
        return {
            "kind": "Table",
            "apiVersion": "meta.k8s.io/v1",
            "metadata": _list_metadata(page),
            "columnDefinitions": table.columns(kind) if with_columns else None,
            "rows": rows,
        }

    async def _watch(self, request: web.BaseRequest, target: Target) -> web.StreamResponse:
        query = request.query
        since_text = query.get("resourceVersion", "")
        initial = query.get("sendInitialEvents") == "true"
        since = _number(since_text, "resourceVersion") if since_text else 0
        watch = self._api.watch(
            target.resource, _query(request, target), None if initial or not since else since
        )
        self._watches[watch] = None
        agent = request.headers.get("User-Agent", "")
        self.requests[agent, "watch", target.resource.plural, 200] += 1
        try:
            return await self._stream(request, target.resource, watch, initial)
        finally:
            watch.close()
            self._watches.pop(watch, None)

    async def _stream(
        self, request: web.BaseRequest, kind: Resource, watch: Watch, initial: bool
    ) -> web.StreamResponse:
        query = request.query
        bookmarks = query.get("allowWatchBookmarks") in ("true", "1")
        as_table = "as=Table" in request.headers.get("Accept", "")
        loop = asyncio.get_running_loop()
        seconds = _number(query.get("timeoutSeconds", ""), "timeoutSeconds") or WATCH_SECONDS
        end = loop.time() + seconds
        response = web.StreamResponse(headers={"Content-Type": "application/json"})
        response.enable_chunked_encoding()
        await response.prepare(request)
        first = True
        with contextlib.suppress(ConnectionError):
            while not watch.closed:
                lines = []
                for event, stored in watch.take():
                    lines.append(self._line(kind, event, stored, as_table, first))
                    first = False
                if initial:
                    lines.append(_bookmark(kind, watch.version, end_of_initial=True))
                    initial = False
                if lines:
                    await response.write(b"".join(lines))
                left = end - loop.time()
                if left <= 0:
                    break
                if not await watch.wait(min(left, BOOKMARK_SECONDS)) and bookmarks:
                    watch.version = max(watch.version, self._api.store.version)
                    await response.write(_bookmark(kind, watch.version))
            await response.write_eof()
        return response

    def _line(
        self, kind: Resource, event: str, stored: Stored, as_table: bool, first: bool
    ) -> bytes:
        raw = stored.raw
        if as_table:
            raw = encode(self._table(kind, Page([stored], stored.version), with_columns=first))
        return b'{"type":"' + event.encode() + b'","object":' + raw + b"}\n"


# Paths and queries ------------------------------------------------------------------------------


def parse(path: str) -> Target | None:
    """What a path names, if it names objects of a kind that is served."""
    steps = [step for step in path.split("/") if step]
    match steps:
        case ["api", version, *rest]:
            group = ""
        case ["apis", group, version, *rest]:
            pass
        case _:
            return None
    namespace = ""
    if len(rest) >= 3 and rest[0] == "namespaces" and rest[2] not in ("status", "finalize"):
        namespace, rest = rest[1], rest[2:]
    if not rest or len(rest) > 3:
        return None
    resource = resources.find(group, version, rest[0])
    if resource is None or (namespace and not resource.namespaced):
        return None
    name = rest[1] if len(rest) > 1 else ""
    subresource = rest[2] if len(rest) > 2 else ""
    if subresource and not (subresource == "status" and resource.status_subresource):
        return None
    if resource.namespaced and name and not namespace:
        return None
    return Target(resource, namespace, name, subresource)


def _verb(request: web.BaseRequest, target: Target) -> str:
    verb = _VERBS.get(request.method)
    if verb is None or (verb == "create") is bool(target.name) and verb in ("create", "update"):
        raise errors.method_not_allowed()
    if verb == "create" and target.resource.namespaced and not target.namespace:
        raise errors.method_not_allowed()
    if target.name:
        return verb
    if verb == "get":
        return "watch" if request.query.get("watch") in ("true", "1") else "list"
    if verb == "delete":
        return "deletecollection"
    if verb != "create":
        raise errors.method_not_allowed()
    return verb


def _query(request: web.BaseRequest, target: Target) -> Query:
    query = request.query
    return Query(
        target.namespace, query.get("labelSelector", ""), query.get("fieldSelector", "")
    )


def _number(text: str, name: str) -> int:
    if not text:
        return 0
    if not text.isdecimal():
        raise errors.bad_request(f"invalid {name}: Invalid value: {text!r}: not a whole number")
    return int(text)


def _name(target: Target, body: Any) -> str:
    if target.name or not isinstance(body, dict):
        return target.name
    metadata = body.get("metadata")
    return str(metadata.get("name", "")) if isinstance(metadata, dict) else ""


# Bodies -----------------------------------------------------------------------------------------

_BODY_TYPES = ["application/json", "application/yaml"]
_PATCH_TYPES = [
    "application/json-patch+json",
    "application/merge-patch+json",
    "application/strategic-merge-patch+json",
]


async def _body(request: web.BaseRequest) -> Any:
    if not request.can_read_body:
        return None
    if request.content_length is not None and request.content_length > MAX_BODY:
        raise web.HTTPRequestEntityTooLarge(MAX_BODY, request.content_length)
    raw = await request.content.read(MAX_BODY + 1)
    while len(raw) <= MAX_BODY and not request.content.at_eof():
        raw += await request.content.read(MAX_BODY + 1 - len(raw))
    if len(raw) > MAX_BODY:
        raise web.HTTPRequestEntityTooLarge(MAX_BODY, len(raw))
    if not raw:
        return None
    accepted = _PATCH_TYPES if request.method == "PATCH" else _BODY_TYPES
    if request.content_type not in accepted and request.method != "DELETE":
        raise errors.unsupported_media_type(accepted)
    try:
        if request.content_type == "application/yaml":
            return yaml.safe_load(raw)
        return json.loads(raw)
    except (ValueError, yaml.YAMLError) as problem:
        raise errors.bad_request(f"the object provided is unrecognized: {problem}") from None


def _object(body: Any) -> Object:
    if not isinstance(body, dict):
        raise errors.bad_request("the object provided is unrecognized: it must be a JSON object")
    return body


def _delete_options(request: web.BaseRequest, body: Any) -> Object:
    options = dict(body) if isinstance(body, dict) else {}
    if "gracePeriodSeconds" in request.query:
        options["gracePeriodSeconds"] = _number(
            request.query["gracePeriodSeconds"], "gracePeriodSeconds"
        )
    return options


def _json(value: Any, code: int = 200, headers: dict[str, str] | None = None) -> web.Response:
    return _raw(encode(value), code, headers)


def _raw(raw: bytes, code: int = 200, headers: dict[str, str] | None = None) -> web.Response:
    return web.Response(
        body=raw, status=code, headers=headers, content_type="application/json"
    )


def _list_metadata(page: Page) -> Object:
    metadata: Object = {"resourceVersion": str(page.version)}
    if page.proceed:
        metadata["continue"] = page.proceed
        if page.remaining is not None:
            metadata["remainingItemCount"] = page.remaining
    return metadata


def _encode_list(kind: Resource, page: Page) -> bytes:
    items = b",".join(stored.raw for stored in page.items)
    head = encode(
        {
            "kind": f"{kind.kind}List",
            "apiVersion": kind.api_version,
            "metadata": _list_metadata(page),
        }
    )
    return head[:-1] + b',"items":[' + items + b"]}\n"


def _bookmark(kind: Resource, version: int, end_of_initial: bool = False) -> bytes:
    metadata: Object = {"resourceVersion": str(version), "creationTimestamp": None}
    if end_of_initial:
        metadata["annotations"] = {"k8s.io/initial-events-end": "true"}
    obj = {"kind": kind.kind, "apiVersion": kind.api_version, "metadata": metadata}
    return encode({"type": "BOOKMARK", "object": obj}) + b"\n"


def _deleted(kind: Resource, obj: Object) -> Object:
    group = {"group": kind.group} if kind.group else {}
    metadata = obj["metadata"]
    return {
        "kind": "Status",
        "apiVersion": "v1",
        "metadata": {},
        "status": "Success",
        "details": {
            "name": metadata["name"], **group, "kind": kind.plural, "uid": metadata["uid"],
        },
    }  # fmt: skip


def _internal_error(problem: BaseException) -> Object:
    message = f"Internal error occurred: {type(problem).__name__}: {problem}"
    return StatusError(500, "InternalError", message).body


def _status_of(refusal: web.HTTPException) -> Object:
    reason = "RequestEntityTooLarge" if refusal.status == 413 else "Unknown"
    return StatusError(refusal.status, reason, refusal.text or refusal.reason).body
