"""A stage for the embedded cluster's players: run a script on it, and keep what a client sees."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Awaitable, Callable
from typing import Any

from pytest_kvscale.cluster.clock import VirtualClock
from pytest_kvscale.sim import profile
from pytest_kvscale.sim.cluster import EmbeddedCluster
from pytest_kvscale.sim.resources import EVENTS, PODS, VMIRS, VMIS, VMS, Resource
from pytest_kvscale.sim.store import Event

Json = dict[str, Any]
Script = Callable[[EmbeddedCluster], Awaitable[None]]
WATCHED = (VMS, VMIRS, VMIS, PODS, EVENTS)


@dataclasses.dataclass(frozen=True)
class Change:
    """One change of one object, at so many seconds."""

    at: float
    type: str
    obj: Json

    @property
    def kind(self) -> str:
        return str(self.obj["kind"])

    @property
    def name(self) -> str:
        return str(self.obj["metadata"]["name"])


def play(clock: VirtualClock, script: Script, chosen: str = "fast", seed: int = 0) -> list[Change]:
    """Run the script on a cluster of this profile; returns every change, in order."""
    seen: list[Change] = []

    async def whole() -> None:
        cluster = EmbeddedCluster(profile.load(chosen), "test", seed)
        loop = asyncio.get_running_loop()

        kubevirt = cluster.profile.kubevirt.namespace

        def note(event: Event) -> None:
            if event.stored.obj["metadata"].get("namespace") == kubevirt:
                return  # KubeVirt's own pods.
            seen.append(Change(loop.time(), event.type, event.stored.obj))

        for kind in WATCHED:
            cluster.store.listen(kind, note)
        await script(cluster)
        failure = cluster.team.failure
        await cluster.stop()
        if failure.done():
            failure.result()

    clock.run(whole())
    return seen


def template(**spec: Any) -> Json:
    """A VMI as VMs and replica sets have it in their spec."""
    requests = {"cpu": "10m", "memory": "10Mi"}
    volumes = [{"name": "disk", "containerDisk": {"image": "cirros"}}]
    return {
        "metadata": {"labels": {"rs": "r"}, "annotations": {"note": "mine"}},
        "spec": {
            "domain": {"devices": {}, "resources": {"requests": requests}},
            "volumes": volumes,
            "terminationGracePeriodSeconds": 0,
            **spec,
        },
    }


def vm(name: str = "one", strategy: str = "Always", **spec: Any) -> Json:
    """A VirtualMachine."""
    return {
        "apiVersion": "kubevirt.io/v1",
        "kind": "VirtualMachine",
        "metadata": {"name": name, "labels": {"mine": "yes"}},
        "spec": {"runStrategy": strategy, "template": template(), **spec},
    }


def replica_set(replicas: int | None = 3, name: str = "set", **spec: Any) -> Json:
    """A VirtualMachineInstanceReplicaSet."""
    return {
        "apiVersion": "kubevirt.io/v1",
        "kind": "VirtualMachineInstanceReplicaSet",
        "metadata": {"name": name, "labels": {"mine": "yes"}},
        "spec": {
            **({} if replicas is None else {"replicas": replicas}),
            "selector": {"matchLabels": {"rs": "r"}},
            "template": template(),
            **spec,
        },
    }


def pod(name: str = "plain", **spec: Any) -> Json:
    """A plain pod."""
    container = {"name": "main", "image": "registry.k8s.io/pause:3.9"}
    return {"metadata": {"name": name}, "spec": {"containers": [container], **spec}}


def of_kind(seen: list[Change], kind: Resource, name: str = "") -> list[Change]:
    """The changes of one kind, of one object or ('') of all."""
    return [each for each in seen if each.kind == kind.kind and name in ("", each.name)]


def last(seen: list[Change], kind: Resource, name: str = "") -> Json:
    """The object as it was seen last."""
    return of_kind(seen, kind, name)[-1].obj


def collapsed(values: list[Any]) -> list[Any]:
    """Values in order, each run of equal ones once."""
    return [each for index, each in enumerate(values) if index == 0 or values[index - 1] != each]


def printed(seen: list[Change], name: str = "one") -> list[str]:
    """What `kubectl get vm` showed as status, in order."""
    statuses = [each.obj.get("status") or {} for each in of_kind(seen, VMS, name)]
    return collapsed([each["printableStatus"] for each in statuses if "printableStatus" in each])


def told(seen: list[Change], about: Resource) -> list[tuple[str, str]]:
    """Reason and message of the events about one kind, in order."""
    events = [each.obj for each in of_kind(seen, EVENTS) if each.type != "DELETED"]
    return [
        (each["reason"], each["message"])
        for each in events
        if each["involvedObject"]["kind"] == about.kind
    ]


def held(cluster: EmbeddedCluster, kind: Resource) -> list[Json]:
    """All objects of a kind, now."""
    return [stored.obj for stored in cluster.store.all(kind, "default")]


def now(cluster: EmbeddedCluster, kind: Resource, name: str) -> Json:
    """One object, now."""
    return cluster.api.get(kind, "default", name).obj


def change(
    cluster: EmbeddedCluster, kind: Resource, name: str, patch: Json, subresource: str = ""
) -> Json:
    """Merge a change into an object."""
    media_type = "application/merge-patch+json"
    return cluster.api.patch(kind, "default", name, patch, media_type, subresource)
