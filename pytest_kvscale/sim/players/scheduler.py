"""kube-scheduler: puts each pod on a node that has room for it, or says why none has."""

from __future__ import annotations

import asyncio
import collections
import dataclasses

from pytest_kvscale.sim import quantity
from pytest_kvscale.sim.client import Client, condition_of
from pytest_kvscale.sim.errors import Object, StatusError
from pytest_kvscale.sim.players.launcher_pod import requests_of
from pytest_kvscale.sim.players.team import Team
from pytest_kvscale.sim.profile import Profile
from pytest_kvscale.sim.resources import EVENTS, NODES, PODS
from pytest_kvscale.sim.store import Event

_FIRST_BACKOFF, _LONGEST_BACKOFF = 1.0, 10.0
"""Seconds until a refused pod is looked at again, if something changes: doubled each time."""
_SERIES = 360.0
"""Seconds after which the same event is told anew."""
_GENERATIONS_SINCE = 34
"""Kubernetes' minor version whose scheduler says in a refusal which generation it looked at."""
_NAME = "default-scheduler"


@dataclasses.dataclass
class _Refused:
    """A pod that was refused: how often, and from when on it may be looked at again."""

    pod: Object
    attempts: int = 0
    ready: float = 0.0
    told: tuple[str, str, float] = ("", "", -_SERIES)
    """The event of its refusal: the pod's version, the message, when."""
    event: Object | None = None


class Scheduler:
    """The scheduler; one pod at a time, first come, first served."""

    def __init__(self, team: Team, client: Client, profile: Profile) -> None:
        self._team = team
        self._client = client
        self._profile = profile
        self._nodes: dict[str, Object] = {}
        self._free: dict[str, collections.Counter[str]] = {}
        self._placed: dict[str, tuple[str, dict[str, int]]] = {}
        """What each pod (by uid) takes, and where."""
        self._waiting: dict[str, Object] = {}
        self._refused: dict[str, _Refused] = {}
        """Those that were refused and are still there, also while they are looked at again."""
        self._retry: asyncio.TimerHandle | None = None
        self._requests: dict[str, dict[str, int]] = {}
        self._wake = asyncio.Event()
        client.listen(NODES, self._on_node)
        client.listen(PODS, self._on_pod)
        team.spawn(self._work(), "scheduler")

    def _on_node(self, event: Event) -> None:
        node = event.stored.obj
        name = node["metadata"]["name"]
        if event.type == "DELETED":
            self._nodes.pop(name, None)
            self._free.pop(name, None)
            return
        before = self._nodes.get(name)
        self._nodes[name] = node
        if before is not None and (before["spec"], before["metadata"].get("labels")) != (
            node["spec"], node["metadata"].get("labels"),
        ):  # fmt: skip
            self._try_again()
        allocatable = node["status"]["allocatable"]
        if before is None or before["status"]["allocatable"] != allocatable:
            free = collections.Counter(
                {
                    key: quantity.milli(value) if key == "cpu" else quantity.whole(value)
                    for key, value in allocatable.items()
                }
            )
            for where, taken in self._placed.values():
                if where == name:
                    free.subtract(taken)
            self._free[name] = free
            self._try_again()

    def _on_pod(self, event: Event) -> None:
        pod = event.stored.obj
        if pod["spec"].get("schedulerName", _NAME) != _NAME and not pod["spec"].get("nodeName"):
            return
        uid = pod["metadata"]["uid"]
        phase = (pod.get("status") or {}).get("phase")
        if event.type == "DELETED" or phase in ("Succeeded", "Failed"):
            self._waiting.pop(uid, None)
            self._refused.pop(uid, None)
            self._requests.pop(uid, None)
            placed = self._placed.pop(uid, None)
            if placed is not None and placed[0] in self._free:
                self._free[placed[0]].update(placed[1])
                self._try_again()
        elif pod["spec"].get("nodeName"):
            self._waiting.pop(uid, None)
            self._refused.pop(uid, None)
            self._place(pod, pod["spec"]["nodeName"])
        elif uid in self._placed or "deletionTimestamp" in pod["metadata"]:
            return
        elif uid in self._refused and uid not in self._waiting:
            self._refused[uid].pod = pod
        else:
            self._waiting[uid] = pod
            self._wake.set()

    def _wanted(self, pod: Object) -> dict[str, int]:
        uid = pod["metadata"]["uid"]
        wanted = self._requests.get(uid)
        if wanted is None:
            wanted = self._requests[uid] = requests_of(pod)
        return wanted

    def _place(self, pod: Object, node: str) -> None:
        uid = pod["metadata"]["uid"]
        if uid not in self._placed:
            taken = self._wanted(pod)
            self._placed[uid] = (node, taken)
            if node in self._free:
                self._free[node].subtract(taken)

    def _try_again(self) -> None:
        """Something was freed or has changed: refused pods are looked at after their pause."""
        if self._refused and self._retry is None:
            loop = asyncio.get_running_loop()
            self._retry = loop.call_later(_FIRST_BACKOFF, self._requeue)

    def _requeue(self) -> None:
        self._retry = None
        loop = asyncio.get_running_loop()
        later = []
        for uid, refused in self._refused.items():
            if refused.ready > loop.time():
                later.append(refused.ready)
            elif uid not in self._waiting:
                self._waiting[uid] = refused.pod
        if later:
            self._retry = loop.call_at(min(later), self._requeue)
        self._wake.set()

    async def _work(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            while self._waiting:
                uid = next(iter(self._waiting))
                await self._client.process.work(self._profile.times.schedule)
                pod = self._waiting.pop(uid, None)
                if pod is None:
                    continue
                node, why = self._choose(pod)
                if node is not None:
                    self._place(pod, node)
                    self._team.spawn(self._bind(pod, node), "scheduler binds")
                    continue
                refused = self._refused.setdefault(uid, _Refused(pod))
                refused.pod = pod
                pause = min(_FIRST_BACKOFF * 2.0**refused.attempts, _LONGEST_BACKOFF)
                refused.ready = loop.time() + pause
                refused.attempts = min(refused.attempts + 1, 10)
                self._team.spawn(self._refuse(refused, why), "scheduler refuses")
            self._wake.clear()
            await self._wake.wait()

    def _choose(self, pod: Object) -> tuple[str | None, str]:
        """The node with most room, or why there is none, in the scheduler's words."""
        reasons: collections.Counter[str] = collections.Counter()
        best: tuple[int, str] | None = None
        wanted = self._wanted(pod)
        for name, node in self._nodes.items():
            refused = self._refusals(pod, wanted, node, self._free[name])
            if not refused:
                room = (self._free[name]["memory"], name)
                best = max(best, room) if best else room
            reasons.update(refused)
        if best is not None:
            return best[1], ""
        counted = ", ".join(sorted(f"{count} {reason}" for reason, count in reasons.items()))
        head = f"0/{len(self._nodes)} nodes are available: {counted}."
        return None, head + self._profile.scheduler.preemption_note.format(nodes=len(self._nodes))

    @staticmethod
    def _refusals(
        pod: Object, wanted: dict[str, int], node: Object, free: collections.Counter[str]
    ) -> list[str]:
        spec = pod["spec"]
        labels = node["metadata"]["labels"]
        if (node.get("spec") or {}).get("unschedulable"):
            return ["node(s) were unschedulable"]
        selector = spec.get("nodeSelector") or {}
        if any(labels.get(key) != value for key, value in selector.items()):
            return ["node(s) didn't match Pod's node affinity/selector"]
        for taint in (node.get("spec") or {}).get("taints") or []:
            if taint["effect"] != "PreferNoSchedule" and not _tolerates(spec, taint):
                return [
                    f"node(s) had untolerated taint {{{taint['key']}: {taint.get('value', '')}}}"
                ]
        return [
            "Too many pods" if key == "pods" else f"Insufficient {key}"
            for key, value in wanted.items()
            if value > free[key]
        ]

    async def _bind(self, pod: Object, node: str) -> None:
        metadata = pod["metadata"]
        condition = {
            "type": "PodScheduled",
            "status": "True",
            "lastProbeTime": None,
            "lastTransitionTime": self._client.stamp(),
        }
        try:
            await self._client.bind(pod, node, condition)
            where = f"{metadata['namespace']}/{metadata['name']}"
            message = f"Successfully assigned {where} to {node}"
            await self._client.note(pod, "Binding", "Scheduled", message)
        except StatusError as refusal:
            # Somebody else was faster, or the pod is gone, or its namespace is ending.
            if refusal.code not in (403, 404, 409):
                raise

    async def _refuse(self, refused: _Refused, why: str) -> None:
        pod = refused.pod
        condition = {
            "type": "PodScheduled",
            "status": "False",
            "lastProbeTime": None,
            "lastTransitionTime": self._client.stamp(),
            "reason": "Unschedulable",
            "message": why,
        }
        if self._profile.versions.minor >= _GENERATIONS_SINCE:
            condition["observedGeneration"] = pod["metadata"].get("generation", 1)
        held = condition_of(pod, "PodScheduled") or {}
        try:
            await self._tell(refused, why)
            if held.get("message") != why and pod["metadata"]["uid"] in self._refused:
                change = {"status": {"conditions": [condition]}}
                await self._client.patch(PODS, pod, change, status=True)
        except StatusError as refusal:
            if refusal.code not in (403, 404, 409):
                raise

    async def _tell(self, refused: _Refused, why: str) -> None:
        """Tell of a refusal; the same one again is a series: it is noted once, then it is quiet."""
        pod, now = refused.pod, asyncio.get_running_loop().time()
        version, message, when = refused.told
        same = (version, message) == (pod["metadata"]["resourceVersion"], why)
        if not same or now - when > _SERIES:
            refused.told = (pod["metadata"]["resourceVersion"], why, now)
            refused.event = await self._client.note(
                pod, "Scheduling", "FailedScheduling", why, warning=True
            )
        elif refused.event is not None:
            moment = self._client.api.calendar.micro_stamp()
            series = {"series": {"count": 2, "lastObservedTime": moment}}
            event, refused.event = refused.event, None
            await self._client.patch(EVENTS, event, series)


def _tolerates(spec: Object, taint: Object) -> bool:
    for each in spec.get("tolerations") or []:
        if each.get("effect") not in (None, "", taint["effect"]):
            continue
        key = each.get("key")
        if each.get("operator") == "Exists" and key in (None, "", taint["key"]):
            return True
        if key == taint["key"] and each.get("value", "") == taint.get("value", ""):
            return True
    return False
