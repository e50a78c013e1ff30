"""The embedded API over HTTP: paths and query strings in, JSON out.

What a request means is decided in `api`; here stand the way of a request through the server, the
time it takes, and the count of all requests by caller. Before and after each request it is asked
what trouble is to befall it (`faults`).
"""

from __future__ import annotations

import asyncio
import collections
from collections.abc import Awaitable, Callable

from aiohttp import web

from pytest_kvscale.errors import ConfigurationError
from pytest_kvscale.sim import (
    discovery,
    errors,
    fault_kinds,
    health,
    lists,
    openapi_answers,
    options,
    subresources,
    write_options,
)
from pytest_kvscale.sim.answers import (
    Writer,
    answer,
    deleted,
    internal_error,
    not_served,
    status_of,
    success,
)
from pytest_kvscale.sim.api import Api
from pytest_kvscale.sim.errors import Object, StatusError
from pytest_kvscale.sim.faults import Active, Faults, Trouble
from pytest_kvscale.sim.field_check import FieldCheck
from pytest_kvscale.sim.guard import Guard
from pytest_kvscale.sim.http import (
    DOUBLED,
    NoSuchPathError,
    Target,
    as_object,
    asked_of,
    body_of,
    name_of,
    parse,
    query_of,
    verb_of,
)
from pytest_kvscale.sim.latency import Latency
from pytest_kvscale.sim.listener import CutError, Listener
from pytest_kvscale.sim.managed_fields import Writer as By
from pytest_kvscale.sim.metrics.apiserver import ApiAccount
from pytest_kvscale.sim.patch import APPLY_PATCH
from pytest_kvscale.sim.request_info import VERBS
from pytest_kvscale.sim.resources import NODES
from pytest_kvscale.sim.store import Stored
from pytest_kvscale.sim.validation import check_said
from pytest_kvscale.sim.watches import Plan, Watches

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
        self._watches = Watches(api, faults)
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

    @property
    def open_watches(self) -> int:
        """How many watches are open."""
        return len(self._watches)

    async def stop(self) -> None:
        """End all watches and stop serving."""
        self._watches.close()
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
                response = opened
            elif (target := parse(path)) is None:
                response = self._answer_about_itself(request, path)
            else:
                plural = target.resource.plural
                verb = verb_of(request, target)
                with self._guard.in_flight.hold(verb):
                    response = await self._answer_about_objects(request, target, verb)
            code = response.status
        except NoSuchPathError:
            response = not_served()
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
        if path == FAULTS or path.startswith(FAULTS + "/"):
            return await self._answer_about_faults(request, path)
        for door in self.doors:
            response = await door(request, path)
            if response is not None:
                return response
        return None

    def _answer_about_itself(self, request: web.BaseRequest, path: str) -> web.Response:
        about_health = health.answer(request)
        if about_health is not None:
            return about_health
        if path.rstrip("/") == "/version":
            return answer(self._version)
        if path == "/_sim/served":
            rows = [
                {"agent": agent, "verb": verb, "resource": plural, "code": code, "count": count}
                for (agent, verb, plural, code), count in sorted(self.requests.items())
            ]
            return answer({"rows": rows})
        about_kinds = openapi_answers.answer(request, str(self._version["gitVersion"]))
        return about_kinds or discovery.answer(request) or not_served()

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
        writer = Writer(request, self._api.calendar, streamed=verb == "watch")
        if target.version not in ("", target.resource.version):
            writer.warn(
                f"{target.api_version} is now deprecated and will be removed in a future release."
            )
        body = (
            await body_of(request) if request.method in ("POST", "PUT", "PATCH", "DELETE") else None
        )
        name = name_of(target, body)
        trouble = self._faults.trouble("clients", verb, plural, name)
        if verb == "watch":
            plan = Plan(
                target, query_of(request, target), options.list_options(request.query, True)
            )
            if trouble.delay:
                await asyncio.sleep(trouble.delay)
            _end_by(trouble)
            agent = request.headers.get("User-Agent", "")
            self.requests[agent, "watch", plural, 200] += 1
            return await self._watches.serve(request, plan, writer)
        await asyncio.sleep(self._latency.of(verb, plural, name) + trouble.delay)
        if not trouble.carried_out:
            _end_by(trouble)
        response: web.Response
        try:
            response = self._carry_out(request, target, verb, body, writer)
        except StatusError as refusal:
            if trouble.answer is None and trouble.cut is None:
                raise
            response = answer(refusal.body, refusal.code, refusal.headers)
        _end_by(trouble, response)
        return response

    def _carry_out(  # noqa: PLR0911 - one for each verb
        self, request: web.BaseRequest, target: Target, verb: str, body: object, writer: Writer
    ) -> web.Response:
        api, kind, namespace, name = (
            self._api, target.resource, target.namespace, target.name,
        )  # fmt: skip
        query = request.query
        if target.subresource in ("scale", "binding", "eviction"):
            return self._carry_out_beside(request, target, verb, body, writer)
        media_type = request.content_type
        applies = verb == "patch" and media_type == APPLY_PATCH
        if verb in ("create", "update", "patch"):
            asked = write_options.read(verb, request, applies)
            dry_run, by = asked.dry_run, By(asked.manager, target.subresource)
            fields = FieldCheck(query.get("fieldValidation", ""), request.get(DOUBLED, []))
        match verb:
            case "list":
                paging = options.list_options(query, watch=False).paging
                return writer.page(target, api.list(kind, query_of(request, target), paging))
            case "get":
                lists.check_reached(api.store, query.get("resourceVersion", ""))
                return writer.stored(target, api.get(kind, namespace, name))
            case "create" if self._guard.answers(kind, target.subresource):
                reply = self._guard.answer(kind, namespace, name, as_object(body))
                return writer.value(reply, 201)
            case "create":
                obj = api.create(kind, namespace, self._given(target, body), dry_run, by, fields)
                return self._written(target, writer, obj, 201, fields)
            case "update":
                missing = api.store.get(kind, namespace, name) is None
                obj = api.replace(
                    kind, namespace, name, self._given(target, body), target.subresource, dry_run,
                    by, fields,
                )  # fmt: skip
                return self._written(target, writer, obj, 201 if missing else 200, fields)
            case "patch" if applies:
                obj, made = api.apply(kind, namespace, name, body, by, asked.force, dry_run)
                return self._written(target, writer, obj, 201 if made else 200)
            case "patch":
                obj = api.patch(
                    kind, namespace, name, body, media_type, target.subresource, dry_run, by,
                    fields,
                )  # fmt: skip
                return self._written(target, writer, obj, 200, fields)
            case "delete":
                return self._delete(request, target, body, writer)
            case "deletecollection":
                paging = options.list_options(query, watch=False).paging
                chosen = options.delete_options(query, body)
                page = api.delete_collection(
                    kind, query_of(request, target), chosen, bool(chosen.get("dryRun")), paging
                )
                return writer.page(target, page)
        raise errors.method_not_allowed()

    def _delete(
        self, request: web.BaseRequest, target: Target, body: object, writer: Writer
    ) -> web.Response:
        kind = target.resource
        chosen = options.delete_options(request.query, body)
        dry_run = bool(chosen.get("dryRun"))
        obj, gone = self._api.delete(kind, target.namespace, target.name, chosen, dry_run)
        if gone and not kind.returns_deleted:
            return writer.value(deleted(kind, obj))
        waits = not gone and chosen.get("orphanDependents") is False
        return self._written(target, writer, obj, 202 if waits else 200)

    def _carry_out_beside(
        self, request: web.BaseRequest, target: Target, verb: str, body: object, writer: Writer
    ) -> web.Response:
        """A request to a subresource that is an object of another kind."""
        api, at = self._api, (target.resource, target.namespace, target.name)
        dry_run = verb != "get" and write_options.read(verb, request, applies=False).dry_run
        match target.subresource, verb:
            case "scale", "get":
                return writer.value(subresources.scale(api, *at))
            case "scale", "update":
                scale = subresources.change_scale(api, *at, as_object(body), dry_run)
                return writer.value(scale)
            case "scale", _:
                scale = subresources.patch_scale(api, *at, body, request.content_type, dry_run)
                return writer.value(scale)
            case "binding", _:
                subresources.bind(api, *at[1:], as_object(body), dry_run)
            case _:
                subresources.evict(api, *at[1:], as_object(body), dry_run)
        return writer.value(success(201), 201)

    @staticmethod
    def _given(target: Target, body: object) -> Object:
        """The object of a body, in the version its path says; its status only where it may say."""
        obj = as_object(body)
        version = obj.get("apiVersion")
        if version not in (None, "", target.api_version):
            raise errors.bad_request(
                f"the API version in the data ({version}) does not match the expected API "
                f"version ({target.api_version})"
            )
        kind = target.resource
        check_said(kind, obj)
        if kind.status_subresource and not target.subresource and kind is not NODES:
            return {key: value for key, value in obj.items() if key != "status"}
        return obj

    def _written(
        self, target: Target, writer: Writer, obj: Object, code: int,
        fields: FieldCheck | None = None,
    ) -> web.Response:  # fmt: skip
        for text in fields.warnings if fields is not None else ():
            writer.warn(text)
        metadata = obj["metadata"]
        stored = self._api.store.get(
            target.resource, metadata.get("namespace", ""), metadata["name"]
        )
        if stored is None or stored.obj is not obj:
            stored = Stored(obj, 0)
        return writer.stored(target, stored, code)


def _end_by(trouble: Trouble, response: web.Response | None = None) -> None:
    """Let a request end in trouble, if it is to; `response` is what would be answered."""
    if trouble.cut is not None:
        if trouble.cut == "middle" and response is not None and isinstance(response.body, bytes):
            raise CutError(response.body, response.status)
        raise CutError
    if trouble.answer is not None:
        raise trouble.answer
