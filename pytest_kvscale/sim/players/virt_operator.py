"""virt-operator: rolls changes of the KubeVirt CR out to KubeVirt's components.

Settings, and versions too: `spec.imageTag` and `spec.imageRegistry` name the images. Upwards the
nodes come first, then the controllers, then the API, so that nothing is let in that a node does
not know yet; back it is the other way round. Each waits for the one before it. A component whose
images cannot be pulled is waited for until the CR is changed again; what the old pods did, they go
on doing.
"""

from __future__ import annotations

import asyncio
import dataclasses
import re
from typing import Protocol

from pytest_kvscale.sim import releases
from pytest_kvscale.sim.client import Client
from pytest_kvscale.sim.errors import Object
from pytest_kvscale.sim.patch import merge
from pytest_kvscale.sim.players import kubevirt_status
from pytest_kvscale.sim.players.launcher_pod import image
from pytest_kvscale.sim.players.settings import Effective, effective
from pytest_kvscale.sim.players.team import Team
from pytest_kvscale.sim.profile import Profile
from pytest_kvscale.sim.resources import DAEMON_SETS, DEPLOYMENTS, KUBEVIRTS, Resource
from pytest_kvscale.sim.store import Event

GENERATION = "kubevirt.io/generation"
_PARTS = {
    "virt-api": (DEPLOYMENTS, 2),
    "virt-controller": (DEPLOYMENTS, 2),
    "virt-handler": (DAEMON_SETS, 1),
}
"""Components: what they are, their replicas; in the order of an installation."""


class Components(Protocol):
    """The components, as far as virt-operator changes them."""

    def limits_changed(self, component: str, settings: Effective) -> None:
        """Follow the rate limits of a changed CR: that needs no restart."""
        ...

    def restarted(self, component: str, settings: Effective, release: Profile) -> None:
        """Do as a version and its settings say, from now on: the new pods run."""
        ...

    def stuck(self, component: str, image: str) -> None:
        """Have a pod that does not come to run: its image cannot be pulled."""
        ...


@dataclasses.dataclass(frozen=True)
class _Runs:
    """What a component's pods are."""

    release: Profile
    settings: Effective
    stuck: bool = False
    """Others were to take their place, and did not come to run."""


class VirtOperator:
    """The operator."""

    def __init__(
        self, team: Team, client: Client, profile: Profile, components: Components
    ) -> None:
        self._client = client
        self._profile = profile
        self._components = components
        self._wake = asyncio.Event()
        settings = effective(profile, {"configuration": profile.kubevirt.configuration})
        self._runs = dict.fromkeys(_PARTS, _Runs(profile, settings))
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
        release = (version, kubevirt.registry)
        which = (*release, kubevirt_status.deployment_id(*release, spec))
        status = {
            "phase": "Deployed",
            "observedGeneration": 1,
            **kubevirt_status.observed(*which),
            "operatorVersion": version,
            "outdatedVirtualMachineInstanceWorkloads": 0,
            "conditions": kubevirt_status.available(self._client.stamp()),
        }
        deployed = {**cr, "status": status}
        api.replace(KUBEVIRTS, kubevirt.namespace, kubevirt.name, deployed, "status", by=writer)
        marks = kubevirt_status.marks(*which)
        for name, (resource, replicas) in _PARTS.items():
            part = {
                "metadata": {"name": name, "annotations": {GENERATION: "1", **marks}},
                "spec": {
                    **({"replicas": replicas} if resource is DEPLOYMENTS else {}),
                    "selector": {"matchLabels": {"kubevirt.io": name}},
                    "template": _template(name, self._profile, marks),
                },
                "status": _part_status(resource, replicas, updated=replicas),
            }
            api.create(resource, kubevirt.namespace, part, by=writer)

    def _on_kubevirt(self, event: Event) -> None:
        if event.type != "DELETED":
            spec = event.stored.obj["spec"]
            for name, runs in self._runs.items():
                self._components.limits_changed(name, effective(runs.release, spec))
        self._wake.set()

    async def _work(self) -> None:
        while True:
            await self._wake.wait()
            self._wake.clear()
            cr = self._look()
            if cr is None:
                continue
            generation = cr["metadata"]["generation"]
            if cr["status"].get("observedGeneration") == generation:
                continue
            which = releases.wanted(self._profile, cr["spec"])
            identifier = kubevirt_status.deployment_id(*which, cr["spec"])
            had = cr["status"]
            changes = which != (had["observedKubeVirtVersion"], had["observedKubeVirtRegistry"])
            if changes or had["targetDeploymentID"] != had["observedDeploymentID"]:
                stamp = self._client.stamp()
                await self._say(
                    cr,
                    **kubevirt_status.targeted(*which, identifier),
                    conditions=kubevirt_status.updating(had, *which, stamp),
                )
                changes = True
            if await self._roll_out(cr, which, identifier):
                more = {"conditions": kubevirt_status.available(self._client.stamp())}
                await self._say(
                    cr,
                    observedGeneration=generation,
                    **kubevirt_status.observed(*which, identifier),
                    **(more if changes else {}),
                )
            self._wake.set()

    def _look(self) -> Object | None:
        kubevirt = self._profile.kubevirt
        stored = self._client.api.store.get(KUBEVIRTS, kubevirt.namespace, kubevirt.name)
        return None if stored is None else stored.obj

    async def _say(self, cr: Object, **status: object) -> None:
        await self._client.patch(KUBEVIRTS, cr, {"status": status}, status=True)

    async def _roll_out(self, cr: Object, which: tuple[str, str], identifier: str) -> bool:
        """Bring all components to what the CR says; False: it says something else by now."""
        release = releases.find(self._profile, *which)
        # Of a version without images its components are all that is ever seen.
        made_of = release or _unknown(self._profile, *which)
        settings = effective(made_of, cr["spec"])
        generation = cr["metadata"]["generation"]
        marks = kubevirt_status.marks(*which, identifier)
        stamp = {"metadata": {"annotations": {GENERATION: str(generation), **marks}}}
        had = cr["status"]["observedKubeVirtVersion"]
        order = [*_PARTS] if _number(which[0]) <= _number(had) else [*reversed(_PARTS)]
        for name in order:
            resource, replicas = _PARTS[name]
            part = self._client.api.get(resource, cr["metadata"]["namespace"], name).obj
            if not self._is_to_restart(name, made_of, settings):
                await self._client.patch(resource, part, stamp)
                continue
            made = merge(part, stamp)
            if image(made_of, name) != _image_of(part):
                made = merge(made, {"spec": {"template": _template(name, made_of, marks)}})
            part = await self._client.update(resource, made)
            its_generation = part["metadata"]["generation"]
            if release is None or name in release.kubevirt.never_ready:
                self._runs[name] = dataclasses.replace(self._runs[name], stuck=True)
                self._components.stuck(name, image(made_of, name))
                status = _stuck_status(resource, replicas, its_generation)
                await self._client.patch(resource, part, {"status": status}, status=True)
                await self._until_changed(generation)
                return False
            status = _part_status(resource, replicas, 0, its_generation)
            part = await self._client.patch(resource, part, {"status": status}, status=True)
            await asyncio.sleep(self._profile.times.rollout)
            self._runs[name] = _Runs(release, settings)
            self._components.restarted(name, settings, release)
            if name == "virt-handler":
                await asyncio.sleep(self._profile.times.device_plugin)
            status = _part_status(resource, replicas, replicas, its_generation)
            await self._client.patch(resource, part, {"status": status}, status=True)
        return True

    def _is_to_restart(self, name: str, release: Profile, settings: Effective) -> bool:
        runs = self._runs[name]
        if runs.stuck or image(runs.release, name) != image(release, name):
            return True
        if name == "virt-controller":
            return settings.qemu_timeout != runs.settings.qemu_timeout
        return name == "virt-handler" and settings.max_devices != runs.settings.max_devices

    async def _until_changed(self, generation: int) -> None:
        """Wait until the CR says something else, or is gone."""
        while (cr := self._look()) is not None and cr["metadata"]["generation"] == generation:
            self._wake.clear()
            await self._wake.wait()


def _unknown(profile: Profile, version: str, registry: str) -> Profile:
    """The cluster's own KubeVirt under the name of a version that there is not."""
    return profile.model_copy(
        update={
            "versions": profile.versions.model_copy(update={"kubevirt": version}),
            "kubevirt": profile.kubevirt.model_copy(update={"registry": registry}),
        }
    )


def _number(version: str) -> tuple[int, ...]:
    """What versions are compared by; one that has no numbers is newer than all."""
    found = re.fullmatch(r"v?(\d+)\.(\d+)\.(\d+).*", version)
    return tuple(map(int, found.groups())) if found else (10**9,)


def _template(name: str, release: Profile, marks: dict[str, str]) -> Object:
    """Of what a component's pods are made."""
    container = {"name": name, "image": image(release, name)}
    return {
        "metadata": {"labels": {"kubevirt.io": name}, "annotations": marks},
        "spec": {"containers": [container]},
    }


def _image_of(part: Object) -> str:
    return str(part["spec"]["template"]["spec"]["containers"][0]["image"])


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


def _stuck_status(resource: Resource, replicas: int, generation: int) -> Object:
    """One new pod does not come to run: a Deployment has it beside the old ones."""
    if resource is DEPLOYMENTS:
        return {
            "observedGeneration": generation,
            "replicas": replicas + 1,
            "updatedReplicas": 1,
            "readyReplicas": replicas,
            "availableReplicas": replicas,
        }
    return {
        **_part_status(resource, replicas, replicas - 1, generation),
        "updatedNumberScheduled": 1,
    }
