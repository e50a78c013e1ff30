"""kube-scheduler: puts each pod on a node that has room for it, or says why none has."""

from __future__ import annotations

import asyncio
import collections

from pytest_kvscale.sim import quantity
from pytest_kvscale.sim.client import Client
from pytest_kvscale.sim.errors import Object, StatusError
from pytest_kvscale.sim.players.launcher_pod import requests_of
from pytest_kvscale.sim.players.team import Team
from pytest_kvscale.sim.profile import Profile
from pytest_kvscale.sim.resources import NODES, PODS
from pytest_kvscale.sim.store import Event

_BACKOFF = 1.0
_NAME = "default-scheduler"


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
        self._refused: dict[str, Object] = {}
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
            placed = self._placed.pop(uid, None)
            if placed is not None and placed[0] in self._free:
                self._free[placed[0]].update(placed[1])
                self._try_again()
        elif pod["spec"].get("nodeName"):
            self._waiting.pop(uid, None)
            self._refused.pop(uid, None)
            self._place(pod, pod["spec"]["nodeName"])
        elif uid in self._refused:
            self._refused[uid] = pod
        elif "deletionTimestamp" not in pod["metadata"]:
            self._waiting[uid] = pod
            self._wake.set()

    def _place(self, pod: Object, node: str) -> None:
        uid = pod["metadata"]["uid"]
        if uid not in self._placed:
            taken = requests_of(pod)
            self._placed[uid] = (node, taken)
            if node in self._free:
                self._free[node].subtract(taken)

    def _try_again(self) -> None:
        """Something was freed: the refused pods get another chance after a pause."""
        if self._refused:
            asyncio.get_running_loop().call_later(_BACKOFF, self._requeue, list(self._refused))

    def _requeue(self, uids: list[str]) -> None:
        for uid in uids:
            pod = self._refused.pop(uid, None)
            if pod is not None:
                self._waiting[uid] = pod
        self._wake.set()

    async def _work(self) -> None:
        while True:
            while self._waiting:
                uid = next(iter(self._waiting))
                pod = self._waiting.pop(uid)
                await self._client.process.work(self._profile.times.schedule)
                node, why = self._choose(pod)
                if node is not None:
                    self._place(pod, node)
                    self._team.spawn(self._bind(pod, node), "scheduler binds")
                else:
                    self._refused[uid] = pod
                    self._team.spawn(self._refuse(pod, why), "scheduler refuses")
            self._wake.clear()
            await self._wake.wait()

    def _choose(self, pod: Object) -> tuple[str | None, str]:
        """The node with most room, or why there is none, in the scheduler's words."""
        reasons: collections.Counter[str] = collections.Counter()
        best: tuple[int, str] | None = None
        for name, node in self._nodes.items():
            refused = self._refusals(pod, node, self._free[name])
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
    def _refusals(pod: Object, node: Object, free: collections.Counter[str]) -> list[str]:
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
            for key, wanted in requests_of(pod).items()
            if wanted > free[key]
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
            bound = await self._client.bind(pod, node, condition)
            where = f"{metadata['namespace']}/{metadata['name']}"
            await self._client.event(bound, "Scheduled", f"Successfully assigned {where} to {node}")
        except StatusError as refusal:
            # Somebody else was faster, or the pod is gone, or its namespace is ending.
            if refusal.code not in (403, 404, 409):
                raise

    async def _refuse(self, pod: Object, why: str) -> None:
        condition = {
            "type": "PodScheduled",
            "status": "False",
            "lastProbeTime": None,
            "lastTransitionTime": self._client.stamp(),
            "reason": "Unschedulable",
            "message": why,
        }
        known = (pod["status"].get("conditions")) or []
        if any(each.get("message") == why for each in known):
            return
        try:
            await self._client.event(pod, "FailedScheduling", why, warning=True)
            now = self._refused.get(pod["metadata"]["uid"])
            if now is not None:
                change = {"status": {"conditions": [condition]}}
                await self._client.patch(PODS, now, change, status=True)
        except StatusError as refusal:
            if refusal.code not in (403, 404, 409):
                raise


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
