"""The one way the players act: a small client of the embedded API, with its own rate limit.

It does what client-go does for a real controller: it waits for its token, takes the time a
request takes, and tells listeners of every change. Objects it hands out are shared and must not
be changed; `patch.merge` makes changed copies.
"""

from __future__ import annotations

import asyncio
import collections
import contextlib
from collections.abc import AsyncIterator, Callable
from typing import Any

from pytest_kvscale.sim.api import Api
from pytest_kvscale.sim.draws import Draws
from pytest_kvscale.sim.errors import Object, StatusError
from pytest_kvscale.sim.faults import Faults
from pytest_kvscale.sim.latency import Latency
from pytest_kvscale.sim.managed_fields import Writer
from pytest_kvscale.sim.metrics.apiserver import ApiAccount, Asked
from pytest_kvscale.sim.metrics.traffic import LOST, Traffic
from pytest_kvscale.sim.patch import MERGE_PATCH, STRATEGIC_MERGE_PATCH
from pytest_kvscale.sim.process import Process
from pytest_kvscale.sim.profile import RateLimit
from pytest_kvscale.sim.resources import EVENTS, PODS, Resource
from pytest_kvscale.sim.store import Event

_FIRST_PAUSE, _LONGEST_PAUSE = 0.1, 5.0
"""Seconds between attempts of a request the API sheds, or while it is down."""

Requests = collections.Counter[tuple[str, str, str, int]]


class RateLimiter:
    """A token bucket; those who wait are served in the order they came."""

    def __init__(self, limit: RateLimit) -> None:
        self.limit = limit
        self._tokens = float(limit.burst)
        self._at: float | None = None

    def change(self, limit: RateLimit) -> None:
        """Set another limit; it is in force at once, with a full bucket, as in KubeVirt."""
        if limit != self.limit:
            self.limit = limit
            self._tokens = float(limit.burst)

    async def wait(self) -> float:
        """Wait for a token; returns the seconds that took."""
        now = asyncio.get_running_loop().time()
        if self._at is not None:
            gained = (now - self._at) * self.limit.qps
            self._tokens = min(float(self.limit.burst), self._tokens + gained)
        self._at = now
        self._tokens -= 1
        if self._tokens >= 0:
            return 0.0
        seconds = -self._tokens / self.limit.qps
        await asyncio.sleep(seconds)
        return seconds


class Client:
    """One component's access to the API."""

    def __init__(
        self,
        api: Api,
        latency: Latency,
        draws: Draws,
        faults: Faults,
        component: str,
        limit: RateLimit,
        process: Process,
        account: ApiAccount,
        traffic: Traffic,
    ) -> None:
        self.api = api
        self.component = component
        self.process = process
        self.account = account
        self.traffic = traffic
        self._informed: set[Resource] = set()
        self.writer = Writer(_manager(component), player=True)
        self._status_writer = Writer(_manager(component), "status", player=True)
        self.limiter = RateLimiter(limit)
        self.requests: Requests = collections.Counter()
        self._latency = latency
        self._draws = draws
        self._faults = faults

    @property
    def reachable(self) -> bool:
        """Whether the API answers."""
        return not self._faults.down

    def stamp(self) -> str:
        """The date, as objects have it."""
        return self.api.calendar.stamp()

    def listen(self, resource: Resource, listener: Callable[[Event], None]) -> None:
        """Call the listener with every change of a kind (at first: all that is there)."""
        if resource not in self._informed:
            # One informer for each kind, as client-go shares it.
            self._informed.add(resource)
            self.traffic.informed(resource)
        self.api.store.listen(resource, lambda event: self.process.tell(listener, event))

    async def get(self, resource: Resource, namespace: str, name: str) -> Object:
        """Ask the API for an object as it is now; 404 if there is none."""
        async with self._sent("get", resource, name):
            return self.api.get(resource, namespace, name).obj

    async def create(self, resource: Resource, namespace: str, obj: Object) -> Object:
        """Make an object."""
        name = obj["metadata"].get("name") or obj["metadata"].get("generateName", "")
        async with self._sent("create", resource, name):
            return self.api.create(resource, namespace, obj, by=self.writer)

    async def update(
        self, resource: Resource, obj: Object, status: bool = False, limited: bool = True
    ) -> Object:
        """Replace an object by a changed copy of it; 409 if it was changed meanwhile.

        Without `limited` it does not wait for a token, as kubelet's heartbeats do not.
        """
        metadata = obj["metadata"]
        namespace, sub = metadata.get("namespace", ""), "status" if status else ""
        by = self._status_writer if status else self.writer
        async with self._sent("update", resource, metadata["name"], sub, limited):
            return self.api.replace(resource, namespace, metadata["name"], obj, sub, by=by)

    async def patch(
        self, resource: Resource, obj: Object, change: Object, status: bool = False
    ) -> Object:
        """Merge a change into an object, whatever its version.

        Built-in kinds join lists by their keys (conditions by type), so that two writers of
        conditions do not undo each other; custom ones replace them.
        """
        metadata = obj["metadata"]
        media_type = MERGE_PATCH
        if not resource.custom:
            media_type, change = STRATEGIC_MERGE_PATCH, _in_order(obj, change)
        namespace, sub = metadata.get("namespace", ""), "status" if status else ""
        by, name = self._status_writer if status else self.writer, metadata["name"]
        async with self._sent("patch", resource, name, sub):
            return self.api.patch(resource, namespace, name, change, media_type, sub, by=by)

    async def delete(
        self, resource: Resource, obj: Object, grace: int | None = None, propagation: str = ""
    ) -> None:
        """Delete exactly this object (its uid is a precondition)."""
        metadata = obj["metadata"]
        options: Object = {"preconditions": {"uid": metadata["uid"]}}
        if grace is not None:
            options["gracePeriodSeconds"] = grace
        if propagation:
            options["propagationPolicy"] = propagation
        async with self._sent("delete", resource, metadata["name"]):
            self.api.delete(resource, metadata.get("namespace", ""), metadata["name"], options)

    async def bind(self, pod: Object, node: str, condition: Object) -> Object:
        """Bind a pod to a node (`pods/binding`), with its PodScheduled condition."""
        metadata = pod["metadata"]
        async with self._sent("create", PODS, metadata["name"], "binding"):
            now = self.api.get(PODS, metadata["namespace"], metadata["name"]).obj
            kept = [
                each
                for each in (now.get("status") or {}).get("conditions") or []
                if each["type"] != condition["type"]
            ]
            bound = {
                **now,
                "spec": {**now["spec"], "nodeName": node},
                "status": {**(now.get("status") or {}), "conditions": [*kept, condition]},
            }
            return self.api.store.put(PODS, bound)

    async def event(
        self,
        about: Object,
        reason: str,
        message: str,
        warning: bool = False,
        source: str = "",
        reporting: bool = True,
        host: str = "",
    ) -> Object:
        """Tell of something that happened to an object (`kubectl get events`).

        `source` is who tells, where that is a part of the component, and `host` the node it is
        on; `reporting` says whether it is named as the reporting component as well.
        """
        source = source or self.component
        now = self.stamp()
        return await self._tell(about, source, {
            "reason": reason,
            "message": message,
            "source": {"component": source, **({"host": host} if host else {})},
            "firstTimestamp": now,
            "lastTimestamp": now,
            "count": 1,
            "type": "Warning" if warning else "Normal",
            "eventTime": None,
            "reportingComponent": source if reporting else "",
            "reportingInstance": host if reporting else "",
        })  # fmt: skip

    async def note(
        self, about: Object, action: str, reason: str, message: str, warning: bool = False
    ) -> Object:
        """Tell the way of `events.k8s.io`, as the scheduler does: with the action and one time."""
        return await self._tell(about, self.component, {
            "reason": reason,
            "message": message,
            "source": {},
            "firstTimestamp": None,
            "lastTimestamp": None,
            "type": "Warning" if warning else "Normal",
            "eventTime": self.api.calendar.micro_stamp(),
            "action": action,
            "reportingComponent": self.component,
            "reportingInstance": f"{self.component}-0",
        })  # fmt: skip

    async def _tell(self, about: Object, source: str, content: Object) -> Object:
        metadata = about["metadata"]
        key = (source, metadata["name"], content["reason"])
        # client-go names events by the moment in nanoseconds; two of one moment must differ.
        fraction = self._draws.integer(0, 999_999, "event", *key, self._draws.nth("event", *key))
        moment = self.api.calendar.microseconds() * 1000 + fraction
        event: Object = {
            "metadata": {"name": f"{metadata['name']}.{moment:x}"},
            "involvedObject": {
                "kind": about["kind"],
                "namespace": metadata.get("namespace", ""),
                "name": metadata["name"],
                "uid": metadata["uid"],
                "apiVersion": about["apiVersion"],
                "resourceVersion": metadata["resourceVersion"],
            },
            **content,
        }
        return await self.create(EVENTS, metadata.get("namespace") or "default", event)

    @contextlib.asynccontextmanager
    async def _sent(
        self, verb: str, resource: Resource, name: str, sub: str = "", limited: bool = True
    ) -> AsyncIterator[None]:
        """Send a request, carry it out in the block, and count how it was answered."""
        kind, key = (verb, resource, sub), (self.component, verb, resource.plural, 0)
        pause = _FIRST_PAUSE
        loop = asyncio.get_running_loop()
        asked = Asked(verb, resource, sub, name)
        while True:
            await self.process.stand()
            self.requests[key] += 1
            if limited:
                self.traffic.limited(kind, await self.limiter.wait())
            seconds = self._latency.of(verb, resource.plural, name, self.component)
            await self.process.dawdle(seconds)
            began = loop.time()
            with self.account.under_way(asked):
                lost = await self._take_time(verb, resource.plural, name, seconds)
            if lost is None:
                break
            self.traffic.answered(kind, lost or LOST, loop.time() - began)
            if lost:
                self.account.answered(asked, int(lost), began)
            # One that fails for now is sent again, as often as needed: a real controller would
            # put what it is at back into its queue and come to the same again.
            await asyncio.sleep(pause)
            pause = min(_LONGEST_PAUSE, 2 * pause)
        code = 201 if verb == "create" else 200
        try:
            yield
        except StatusError as refusal:
            code = refusal.code
            raise
        finally:
            self.traffic.answered(kind, str(code), loop.time() - began)
            self.account.answered(asked, code, began)

    async def _take_time(self, verb: str, plural: str, name: str, seconds: float) -> str | None:
        """Take the time a request takes; returns the status it fails with ("": none came)."""
        trouble = self._faults.trouble("players", verb, plural, name)
        await asyncio.sleep(seconds + trouble.delay)
        # A process that was frozen meanwhile reads the answer later, but the API has acted.
        if self.reachable and trouble.carried_out:
            return None
        return str(trouble.answer.code) if trouble.answer is not None and self.reachable else ""


_PROGRAMS = {
    "default-scheduler": "kube-scheduler",
    "generic-garbage-collector": "kube-controller-manager",
    "namespace-controller": "kube-controller-manager",
}
"""The programs that some components are parts of."""


def _manager(component: str) -> str:
    """The name under which a component owns fields: its program's, without the node's."""
    for per_node in ("kubelet", "virt-handler"):
        if component.startswith(per_node):
            return per_node
    return _PROGRAMS.get(component, component)


def _in_order(obj: Object, change: Object) -> Object:
    """A strategic merge patch that leaves the conditions in their order, new ones last."""
    status = change.get("status") or {}
    if "conditions" not in status:
        return change
    held = (obj.get("status") or {}).get("conditions") or []
    kinds = dict.fromkeys(each["type"] for each in [*held, *status["conditions"]])
    order = [{"type": kind} for kind in kinds]
    return {**change, "status": {**status, "$setElementOrder/conditions": order}}


def condition_of(obj: Object, kind: str) -> Object | None:
    """The object's condition of that type, if it has one."""
    held: list[Any] = (obj.get("status") or {}).get("conditions") or []
    return next((each for each in held if each["type"] == kind), None)


def controller_of(obj: Object) -> Object | None:
    """The owner reference of the controller that manages the object, if one does."""
    owners: list[Any] = obj["metadata"].get("ownerReferences") or []
    return next((each for each in owners if each.get("controller")), None)


def owned_by(owner: Object) -> Object:
    """The owner reference of an object that this one makes and manages."""
    return {
        "apiVersion": owner["apiVersion"],
        "blockOwnerDeletion": True,
        "controller": True,
        "kind": owner["kind"],
        "name": owner["metadata"]["name"],
        "uid": owner["metadata"]["uid"],
    }


def with_condition(obj: Object, condition: Object) -> list[Object]:
    """The object's conditions with this one in the place of the one of its type."""
    held: list[Any] = (obj.get("status") or {}).get("conditions") or []
    if any(each["type"] == condition["type"] for each in held):
        return [condition if each["type"] == condition["type"] else each for each in held]
    return [*held, condition]
