"""The namespace controller: empties a namespace that is being deleted, then lets it go."""

from __future__ import annotations

import asyncio
import collections

from pytest_kvscale.sim import resources
from pytest_kvscale.sim.api import Query
from pytest_kvscale.sim.client import Client
from pytest_kvscale.sim.errors import Object
from pytest_kvscale.sim.players.team import Team
from pytest_kvscale.sim.resources import NAMESPACES
from pytest_kvscale.sim.store import Event

_PAUSE = 0.5


class NamespaceController:
    """Ends namespaces."""

    def __init__(self, team: Team, client: Client) -> None:
        self._team = team
        self._client = client
        self._ending: set[str] = set()
        client.listen(NAMESPACES, self._on_namespace)

    def _on_namespace(self, event: Event) -> None:
        metadata = event.stored.obj["metadata"]
        name = metadata["name"]
        if event.type == "DELETED":
            self._ending.discard(name)
        elif "deletionTimestamp" in metadata and name not in self._ending:
            self._ending.add(name)
            self._team.spawn(self._empty(name), f"namespace controller ends {name}")

    async def _empty(self, name: str) -> None:
        api = self._client.api
        kinds = [each for each in resources.SERVED if each.namespaced]
        while True:
            await asyncio.sleep(_PAUSE)
            if not self._client.reachable:
                continue
            left: collections.Counter[str] = collections.Counter()
            held: collections.Counter[str] = collections.Counter()
            for kind in kinds:
                if not api.store.all(kind, name):
                    continue
                api.delete_collection(kind, Query(name))
                for each in api.store.all(kind, name):
                    left[kind.full_name if kind.group else f"{kind.plural}."] += 1
                    held.update(each.obj["metadata"].get("finalizers") or [])
            stored = api.store.get(NAMESPACES, "", name)
            if stored is None:
                return
            if left:
                self._tell(stored.obj, left, held)
                continue
            if (stored.obj.get("spec") or {}).get("finalizers"):
                done = {**stored.obj, "spec": {}}
                api.replace(NAMESPACES, "", name, done, "finalize", by=self._client.writer)
            return

    def _tell(
        self, namespace: Object, left: collections.Counter[str], held: collections.Counter[str]
    ) -> None:
        """Say in the namespace's status what it still waits for."""
        status = namespace.get("status") or {}
        told = [(each["type"], each["message"]) for each in status.get("conditions") or []]
        conditions = [
            {"type": kind, "status": value, "reason": reason, "message": message}
            for kind, value, reason, message in _conditions(left, held)
        ]
        if told == [(each["type"], each["message"]) for each in conditions]:
            return
        now = self._client.stamp()
        conditions = [
            {
                "type": each["type"], "status": each["status"], "lastTransitionTime": now,
                "reason": each["reason"], "message": each["message"],
            }
            for each in conditions
        ]  # fmt: skip
        changed = {**namespace, "status": {**status, "conditions": conditions}}
        self._client.api.store.put(NAMESPACES, changed)


def _conditions(
    left: collections.Counter[str], held: collections.Counter[str]
) -> list[tuple[str, str, str, str]]:
    remain = ", ".join(f"{kind} has {left[kind]} resource instances" for kind in sorted(left))
    finalizers = ", ".join(f"{each} in {held[each]} resource instances" for each in sorted(held))
    none_held = ("False", "ContentHasNoFinalizers", "All content-preserving finalizers finished")
    some_held = (
        "True",
        "SomeFinalizersRemain",
        f"Some content in the namespace has finalizers remaining: {finalizers}",
    )
    return [
        (
            "NamespaceDeletionDiscoveryFailure", "False", "ResourcesDiscovered",
            "All resources successfully discovered",
        ),
        (
            "NamespaceDeletionGroupVersionParsingFailure", "False", "ParsedGroupVersions",
            "All legacy kube types successfully parsed",
        ),
        (
            "NamespaceDeletionContentFailure", "False", "ContentDeleted",
            "All content successfully deleted, may be waiting on finalization",
        ),
        (
            "NamespaceContentRemaining", "True", "SomeResourcesRemain",
            f"Some resources are remaining: {remain}",
        ),
        ("NamespaceFinalizersRemaining", *(some_held if held else none_held)),
    ]  # fmt: skip
