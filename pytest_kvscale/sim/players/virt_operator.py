"""virt-operator: rolls changes of the KubeVirt CR out to KubeVirt's components."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from pytest_kvscale.sim.client import Client
from pytest_kvscale.sim.errors import Object
from pytest_kvscale.sim.patch import merge
from pytest_kvscale.sim.players.settings import Effective, effective
from pytest_kvscale.sim.players.team import Team
from pytest_kvscale.sim.profile import Profile
from pytest_kvscale.sim.resources import DAEMON_SETS, DEPLOYMENTS, KUBEVIRTS, Resource
from pytest_kvscale.sim.store import Event

GENERATION = "kubevirt.io/generation"
_PARTS = (
    (DEPLOYMENTS, "virt-api", 2),
    (DEPLOYMENTS, "virt-controller", 2),
    (DAEMON_SETS, "virt-handler", 1),
)
"""Components: what they are, their names, their replicas."""


class VirtOperator:
    """The operator.

    `limits_changed` is called at once with the settings of a changed CR: components follow the
    rate limits there without a restart. `restarted` is called with a component's name and the
    settings once its new pods run.
    """

    def __init__(
        self,
        team: Team,
        client: Client,
        profile: Profile,
        limits_changed: Callable[[Effective], None],
        restarted: Callable[[str, Effective], None],
    ) -> None:
        self._client = client
        self._profile = profile
        self._limits_changed = limits_changed
        self._restarted = restarted
        self._wake = asyncio.Event()
        self._running = effective(profile, {"configuration": profile.kubevirt.configuration})
        self._install()
        client.listen(KUBEVIRTS, self._on_kubevirt)
        team.spawn(self._work(), "virt-operator")

    def _install(self) -> None:
        """KubeVirt as it is when the cluster starts: deployed, all its parts running."""
        api, kubevirt = self._client.api, self._profile.kubevirt
        spec = {"configuration": kubevirt.configuration}
        made = {"metadata": {"name": kubevirt.name}, "spec": spec}
        writer = self._client.writer
        cr = api.create(KUBEVIRTS, kubevirt.namespace, made, by=writer)
        version = self._profile.versions.kubevirt
        now = self._client.stamp()
        conditions = [
            {"type": "Available", "status": "True", "lastTransitionTime": now},
            {"type": "Progressing", "status": "False", "lastTransitionTime": now},
            {"type": "Degraded", "status": "False", "lastTransitionTime": now},
        ]
        status = {
            "phase": "Deployed",
            "observedGeneration": 1,
            "observedKubeVirtVersion": version,
            "targetKubeVirtVersion": version,
            "operatorVersion": version,
            "conditions": conditions,
        }
        deployed = {**cr, "status": status}
        api.replace(KUBEVIRTS, kubevirt.namespace, kubevirt.name, deployed, "status", by=writer)
        for resource, name, replicas in _PARTS:
            part = {
                "metadata": {"name": name, "annotations": {GENERATION: "1"}},
                "spec": {
                    **({"replicas": replicas} if resource is DEPLOYMENTS else {}),
                    **_pods_of(name, version),
                },
                "status": _part_status(resource, replicas, updated=replicas),
            }
            api.create(resource, kubevirt.namespace, part, by=writer)

    def _on_kubevirt(self, event: Event) -> None:
        if event.type != "DELETED":
            self._limits_changed(effective(self._profile, event.stored.obj["spec"]))
        self._wake.set()

    async def _work(self) -> None:
        kubevirt = self._profile.kubevirt
        while True:
            await self._wake.wait()
            self._wake.clear()
            stored = self._client.api.store.get(KUBEVIRTS, kubevirt.namespace, kubevirt.name)
            if stored is None:
                continue
            generation = stored.obj["metadata"]["generation"]
            if stored.obj["status"].get("observedGeneration") == generation:
                continue
            await self._roll_out(stored.obj, generation)
            change = {"status": {"observedGeneration": generation}}
            await self._client.patch(KUBEVIRTS, stored.obj, change, status=True)
            self._wake.set()

    async def _roll_out(self, cr: Object, generation: int) -> None:
        wanted = effective(self._profile, cr["spec"])
        before, self._running = self._running, wanted
        restarts = {
            "virt-controller": wanted.qemu_timeout != before.qemu_timeout,
            "virt-handler": wanted.max_devices != before.max_devices,
        }
        for resource, name, replicas in _PARTS:
            api = self._client.api
            part = api.get(resource, cr["metadata"]["namespace"], name).obj
            stamp = {"metadata": {"annotations": {GENERATION: str(generation)}}}
            if not restarts.get(name):
                await self._client.patch(resource, part, stamp)
                continue
            status = _part_status(resource, replicas, 0, part["metadata"]["generation"])
            part = await self._client.update(resource, merge(part, stamp))
            part = await self._client.patch(resource, part, {"status": status}, status=True)
            await asyncio.sleep(self._profile.times.rollout)
            self._restarted(name, wanted)
            if name == "virt-handler":
                await asyncio.sleep(self._profile.times.device_plugin)
            status = _part_status(resource, replicas, replicas, part["metadata"]["generation"])
            await self._client.patch(resource, part, {"status": status}, status=True)


def _pods_of(name: str, version: str) -> Object:
    """Which pods a component has, and of what they are made."""
    labels = {"kubevirt.io": name}
    container = {"name": name, "image": f"quay.io/kubevirt/{name}:{version}"}
    template = {"metadata": {"labels": labels}, "spec": {"containers": [container]}}
    return {"selector": {"matchLabels": labels}, "template": template}


def _part_status(resource: Resource, replicas: int, updated: int, generation: int = 1) -> Object:
    if resource is DEPLOYMENTS:
        return {
            "observedGeneration": generation,
            "replicas": replicas,
            "updatedReplicas": updated,
            "readyReplicas": updated,
            "availableReplicas": updated,
        }
    return {
        "observedGeneration": generation,
        "desiredNumberScheduled": replicas,
        "numberMisscheduled": 0,
        "currentNumberScheduled": replicas,
        "updatedNumberScheduled": updated,
        "numberReady": updated,
        "numberAvailable": updated,
    }
