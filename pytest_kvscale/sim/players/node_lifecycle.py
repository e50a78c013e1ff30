"""The node lifecycle and taint eviction controllers: what becomes of a node that is not heard of.

A kubelet is heard of by its lease. One that has been silent for the grace period has an unknown
node: it is tainted, its pods are not ready, and those that do not tolerate the taint for longer
are evicted. Evicted pods stay until their kubelet is back, or somebody deletes them by force.
"""

from __future__ import annotations

import asyncio

from pytest_kvscale.sim.client import Client, condition_of
from pytest_kvscale.sim.errors import Object, StatusError
from pytest_kvscale.sim.patch import merge
from pytest_kvscale.sim.players.recorder import Recorder
from pytest_kvscale.sim.players.team import RETRY_SECONDS, Team
from pytest_kvscale.sim.profile import Profile
from pytest_kvscale.sim.resources import LEASES, NODES, PODS
from pytest_kvscale.sim.store import Event

PERIOD = 5.0
"""Seconds between two looks at all nodes."""
GRACE, LONGER_GRACE, _LONGER_SINCE = 40.0, 50.0, 32
"""Seconds of silence that are put up with, and from which minor version of Kubernetes on."""
UNREACHABLE = "node.kubernetes.io/unreachable"


class NodeLifecycle:
    """Both controllers."""

    def __init__(self, team: Team, client: Client, profile: Profile) -> None:
        self._team = team
        self._client = client
        self._recorder = Recorder(team, client, "node-controller")
        self._evictions = Recorder(team, client, "taint-eviction-controller")
        new = profile.versions.minor >= _LONGER_SINCE
        self._grace = LONGER_GRACE if new else GRACE
        self._nodes: dict[str, Object] = {}
        self._heard: dict[str, float] = {}
        """When the lease of each node was renewed, by our own clock."""
        self._pods: dict[str, dict[str, Object]] = {}
        """By node, by uid."""
        self._lost: set[str] = set()
        client.listen(NODES, self._on_node)
        client.listen(LEASES, self._on_lease)
        client.listen(PODS, self._on_pod)
        team.spawn(self._watch(), "node lifecycle controller")

    def _on_node(self, event: Event) -> None:
        node = event.stored.obj
        if event.type == "DELETED":
            self._nodes.pop(node["metadata"]["name"], None)
        else:
            self._nodes[node["metadata"]["name"]] = node

    def _on_lease(self, event: Event) -> None:
        metadata = event.stored.obj["metadata"]
        if metadata["name"] in self._nodes and event.type != "DELETED":
            self._heard[metadata["name"]] = asyncio.get_running_loop().time()

    def _on_pod(self, event: Event) -> None:
        pod = event.stored.obj
        node, uid = pod["spec"].get("nodeName"), pod["metadata"]["uid"]
        if not node:
            return
        held = self._pods.setdefault(node, {})
        if event.type == "DELETED":
            held.pop(uid, None)
            self._recorder.forget(pod)
            self._evictions.forget(pod)
        else:
            held[uid] = pod

    async def _watch(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(PERIOD)
            for name, node in list(self._nodes.items()):
                silent = loop.time() - self._heard.setdefault(name, loop.time())
                if silent > self._grace and name not in self._lost:
                    self._lost.add(name)
                    self._team.spawn(self._lose(node), f"node controller loses {name}")
                elif silent <= self._grace and name in self._lost:
                    self._lost.discard(name)
                    self._team.spawn(self._find(node), f"node controller finds {name}")

    async def _lose(self, node: Object) -> None:
        name = node["metadata"]["name"]
        await self._report(node, "Unknown", "NodeStatusUnknown", _SILENT)
        await self._taint(name, ("NoSchedule", "NoExecute"))
        self._recorder.tell(node, "NodeNotReady", f"Node {name} status is now: NodeNotReady")
        for pod in list(self._pods.get(name, {}).values()):
            self._team.spawn(self._lose_pod(name, pod), "node controller marks a pod")

    async def _lose_pod(self, node: str, pod: Object) -> None:
        ready = condition_of(pod, "Ready")
        if ready is not None and ready["status"] == "True":
            now = self._client.stamp()
            unready = {"type": "Ready", "status": "False", "lastTransitionTime": now}
            await self._try(
                self._client.patch(PODS, pod, {"status": {"conditions": [unready]}}, status=True)
            )
        self._recorder.tell(pod, "NodeNotReady", "Node is not ready", warning=True)
        seconds = _tolerated(pod)
        if seconds is None:
            return
        await asyncio.sleep(seconds)
        metadata = pod["metadata"]
        held = self._pods.get(node, {}).get(metadata["uid"])
        if node not in self._lost or held is None or "deletionTimestamp" in held["metadata"]:
            return
        where = f"{metadata['namespace']}/{metadata['name']}"
        self._evictions.tell(pod, "TaintManagerEviction", f"Marking for deletion Pod {where}")
        await self._try(self._client.delete(PODS, pod))

    async def _find(self, node: Object) -> None:
        await self._report(node, "True", "KubeletReady", "kubelet is posting ready status")
        name = node["metadata"]["name"]
        await self._taint(name, ())
        self._recorder.tell(node, "NodeReady", f"Node {name} status is now: NodeReady")
        for pod in list(self._pods.get(name, {}).values()):
            if pod["status"].get("phase") == "Running":
                now = self._client.stamp()
                ready = {"type": "Ready", "status": "True", "lastTransitionTime": now}
                await self._try(
                    self._client.patch(PODS, pod, {"status": {"conditions": [ready]}}, status=True)
                )

    async def _taint(self, name: str, effects: tuple[str, ...]) -> None:
        """Give the node the taint of an unreachable one, with these effects."""
        while (node := self._nodes.get(name)) is not None:
            added = self._client.stamp()
            taints = [
                *(e for e in node["spec"].get("taints") or [] if e["key"] != UNREACHABLE),
                *({"key": UNREACHABLE, "effect": e, "timeAdded": added} for e in effects),
            ]
            change = {"spec": {"taints": taints or None}}
            try:
                await self._client.update(NODES, merge(node, change))
            except StatusError as refusal:
                if refusal.code not in (404, 409):
                    raise
                await asyncio.sleep(RETRY_SECONDS)
            else:
                return

    async def _report(self, node: Object, status: str, reason: str, message: str) -> None:
        now = self._client.stamp()
        ready = {
            "type": "Ready", "status": status, "lastTransitionTime": now,
            "reason": reason, "message": message,
        }  # fmt: skip
        await self._client.patch(NODES, node, {"status": {"conditions": [ready]}}, status=True)

    @staticmethod
    async def _try(request: object) -> None:
        """Somebody else may have been faster: then there is nothing to do."""
        try:
            await request  # type: ignore[misc]
        except StatusError as refusal:
            if refusal.code not in (404, 409):
                raise


_SILENT = "Kubelet stopped posting node status."


def _tolerated(pod: Object) -> float | None:
    """Seconds a pod puts up with an unreachable node; None: for ever."""
    for each in pod["spec"].get("tolerations") or []:
        of_all = not each.get("key") and each.get("operator") == "Exists"
        if each.get("effect") in (None, "", "NoExecute") and (
            of_all or each.get("key") == UNREACHABLE
        ):
            seconds = each.get("tolerationSeconds")
            return None if seconds is None else float(seconds)
    return 0.0
