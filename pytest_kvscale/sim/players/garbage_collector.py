"""The garbage collector: deletes what is left of owners that are gone, by owner reference."""

from __future__ import annotations

import dataclasses

from pytest_kvscale.sim import resources
from pytest_kvscale.sim.client import Client
from pytest_kvscale.sim.deletion import FOREGROUND, ORPHAN
from pytest_kvscale.sim.errors import Object
from pytest_kvscale.sim.players.team import Team, WorkQueue
from pytest_kvscale.sim.profile import RateLimit
from pytest_kvscale.sim.resources import Resource
from pytest_kvscale.sim.store import Event

LIMIT = RateLimit(qps=20, burst=30)
"""kube-controller-manager's default client limit, which each of its controllers has for itself."""
_WORKERS = 20
_KINDS = {
    (f"{each.group}/{version}" if each.group else version, each.kind)
    for each in resources.SERVED
    for version in each.versions
}


@dataclasses.dataclass(frozen=True)
class _Node:
    """An object, as far as ownership goes."""

    resource: Resource
    obj: Object

    @property
    def owners(self) -> list[Object]:
        return self.obj["metadata"].get("ownerReferences") or []

    @property
    def deleting(self) -> bool:
        return "deletionTimestamp" in self.obj["metadata"]

    def holds(self, finalizer: str) -> bool:
        return finalizer in (self.obj["metadata"].get("finalizers") or [])


class GarbageCollector:
    """Keeps the graph of owners and dependents, and deletes those without an owner."""

    def __init__(self, team: Team, client: Client) -> None:
        self._client = client
        self._nodes: dict[str, _Node] = {}
        self._dependents: dict[str, dict[str, None]] = {}
        """By the owner's uid: the uids of what it owns."""
        self._queue = WorkQueue(team, "garbage_collector_attempt_to_delete", self._sync, _WORKERS)
        for each in resources.SERVED:
            if each is not resources.EVENTS:
                self._listen(each)

    def _listen(self, resource: Resource) -> None:
        self._client.listen(resource, lambda event: self._on_change(resource, event))

    def _on_change(self, resource: Resource, event: Event) -> None:
        node = _Node(resource, event.stored.obj)
        uid = node.obj["metadata"]["uid"]
        before = self._nodes.pop(uid, None)
        for owner in before.owners if before else ():
            self._dependents.get(owner["uid"], {}).pop(uid, None)
        if event.type == "DELETED":
            for dependent in self._dependents.pop(uid, ()):
                self._queue.add(dependent)
            for owner in node.owners:
                self._wake_owner(owner["uid"])
            return
        self._nodes[uid] = node
        for owner in node.owners:
            self._dependents.setdefault(owner["uid"], {})[uid] = None
        if node.owners and not node.deleting and any(self._absent(each) for each in node.owners):
            self._queue.add(uid)
        self._wake_owner(uid)

    def _wake_owner(self, uid: str) -> None:
        """Look at an owner whose deletion waits for its dependents."""
        node = self._nodes.get(uid)
        if node is not None and node.deleting and (node.holds(ORPHAN) or node.holds(FOREGROUND)):
            self._queue.add(uid)

    def _absent(self, owner: Object) -> bool:
        """Whether an owner is certainly gone; one of a kind that is not served may be anywhere."""
        known = (owner.get("apiVersion"), owner.get("kind")) in _KINDS
        return known and owner["uid"] not in self._nodes

    async def _sync(self, uid: str) -> None:
        node = self._nodes.get(uid)
        if node is None:
            return
        if node.deleting:
            if node.holds(ORPHAN):
                await self._orphan(uid, node)
            elif node.holds(FOREGROUND):
                await self._wait_for_dependents(uid, node)
            return
        left = [each for each in node.owners if not self._absent(each)]
        if left == node.owners:
            return
        metadata = node.obj["metadata"]
        namespace = metadata.get("namespace", "")
        now = await self._client.get(node.resource, namespace, metadata["name"])
        if now["metadata"]["uid"] != uid:
            return
        if left:
            await self._own(_Node(node.resource, now), left)
        else:
            await self._client.delete(node.resource, now, propagation="Background")

    async def _orphan(self, uid: str, node: _Node) -> None:
        for dependent in list(self._dependents.get(uid, ())):
            owned = self._nodes[dependent]
            await self._own(owned, [each for each in owned.owners if each["uid"] != uid])
        await self._let_go(uid, node, ORPHAN)

    async def _wait_for_dependents(self, uid: str, node: _Node) -> None:
        blocking = [
            owned
            for owned in (self._nodes[each] for each in self._dependents.get(uid, ()))
            if any(e["uid"] == uid and e.get("blockOwnerDeletion") for e in owned.owners)
        ]
        for owned in blocking:
            if not owned.deleting:
                await self._client.delete(owned.resource, owned.obj, propagation="Foreground")
        if not blocking:
            await self._let_go(uid, node, FOREGROUND)

    async def _own(self, node: _Node, owners: list[Object]) -> None:
        metadata = {**node.obj["metadata"], "ownerReferences": owners}
        if not owners:
            del metadata["ownerReferences"]
        await self._client.update(node.resource, {**node.obj, "metadata": metadata})

    async def _let_go(self, uid: str, node: _Node, finalizer: str) -> None:
        obj = self._nodes.get(uid, node).obj
        left = [each for each in obj["metadata"]["finalizers"] if each != finalizer]
        metadata = {**obj["metadata"], "finalizers": left}
        await self._client.update(node.resource, {**obj, "metadata": metadata})
