"""KubeVirt's own pods and services, as far as clients reach metrics through them.

They are on no Node of this cluster and take nothing of any: what a node has beside its VMIs is the
profile's `reserved_…`. A virt-handler's pod names its node in its affinity, as a DaemonSet's does.
Pods are replaced when their Deployment or DaemonSet has rolled out, and when one is deleted. One
whose image cannot be pulled is there beside the old ones of a Deployment, and in the place of an
old one of a DaemonSet.
"""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Callable

from pytest_kvscale.sim.api import Api
from pytest_kvscale.sim.client import owned_by
from pytest_kvscale.sim.draws import Draws
from pytest_kvscale.sim.errors import Object, StatusError
from pytest_kvscale.sim.profile import Profile
from pytest_kvscale.sim.resources import DAEMON_SETS, DEPLOYMENTS, PODS, REPLICA_SETS, SERVICES
from pytest_kvscale.sim.store import Event

PORT = 8443
COMPONENTS = ("virt-api", "virt-controller", "virt-handler")
METRICS_SERVICE = "kubevirt-prometheus-metrics"
_METRICS_LABEL = "prometheus.kubevirt.io"
_CONTROL_PLANE = "control-plane"


@dataclasses.dataclass(frozen=True)
class Runs:
    """What a pod runs."""

    component: str
    node: str = ""
    leads: bool = True
    """Of several, the one that does the work."""


class ComponentPods:
    """Makes and replaces the pods; `replaced` is told of each component that starts anew."""

    def __init__(
        self,
        api: Api,
        profile: Profile,
        draws: Draws,
        nodes: list[str],
        replaced: Callable[[str], None],
    ) -> None:
        self._api = api
        self._profile = profile
        self._draws = draws
        self._nodes = nodes
        self._replaced = replaced
        self.namespace = profile.kubevirt.namespace
        self._owners: dict[str, Object] = {}
        self._rolling: set[str] = set()
        self._stuck: dict[str, list[str]] = {}
        """The uids of pods that do not come to run, by component."""
        self._addresses = 0
        self._installed = False
        self.running: dict[str, Runs] = {}
        """By the pod's uid."""
        for service in self._services():
            api.create(SERVICES, self.namespace, service)
        for kind in (DEPLOYMENTS, DAEMON_SETS):
            api.store.listen(kind, self._on_owner)
        api.store.listen(PODS, self._on_pod)
        self._installed = True

    # What happens to owners and pods --------------------------------------------------------

    def _on_owner(self, event: Event) -> None:
        obj = event.stored.obj
        name = obj["metadata"]["name"]
        if obj["metadata"]["namespace"] != self.namespace or name not in COMPONENTS:
            return
        if event.type == "DELETED":
            self._owners.pop(name, None)
            return
        known = name in self._owners
        self._owners[name] = obj
        status = obj.get("status") or {}
        updated = status.get("updatedReplicas", status.get("updatedNumberScheduled", 0))
        wanted = status.get("replicas", status.get("desiredNumberScheduled", 0))
        if not known:
            self._soon(self._start, name)
        elif not updated:
            self._rolling.add(name)
        elif updated >= wanted and name in self._rolling:
            self._rolling.discard(name)
            self._soon(self._start, name)

    def _on_pod(self, event: Event) -> None:
        metadata = event.stored.obj["metadata"]
        runs = self.running.get(metadata["uid"])
        if runs is None:
            return
        if event.type == "DELETED":
            del self.running[metadata["uid"]]
            self._soon(self._start, runs.component)
        elif "deletionTimestamp" in metadata:
            self._soon(self._remove, metadata["uid"], metadata["name"])

    def _soon(self, act: Callable[..., None], *arguments: str) -> None:
        """Act after all who listen have been told of what is the reason for it."""
        if not self._installed:
            act(*arguments)
            return
        asyncio.get_running_loop().call_soon(act, *arguments)

    # Pods -----------------------------------------------------------------------------------

    def _start(self, component: str) -> None:
        """Have new pods in the place of a component's old ones."""
        owner = self._owners.get(component)
        for uid in [uid for uid, runs in self.running.items() if runs.component == component]:
            del self.running[uid]
            self._delete(uid)
        for uid in self._stuck.pop(component, []):
            self._delete(uid)
        if owner is None:
            return
        try:
            if component == "virt-handler":
                for node in self._nodes:
                    self._make(owner, Runs(component, node))
            else:
                for nth in range(owner["spec"].get("replicas", 1)):
                    self._make(owner, Runs(component, leads=nth == 0))
        except StatusError as refusal:
            if refusal.code not in (403, 404):  # The namespace is ending, or has ended.
                raise
        if self._installed:
            self._replaced(component)

    def stick(self, component: str, image: str) -> None:
        """Have a pod that does not come to run, because its image cannot be pulled."""
        owner = self._owners.get(component)
        if owner is None:
            return
        runs = Runs(component, leads=False)
        if component == "virt-handler":
            uid, runs = next((uid, each) for uid, each in self.running.items()
                             if each.component == component)  # fmt: skip
            del self.running[uid]
            self._delete(uid)
        made, container = self._create(owner, runs, image, beside=True)
        self._stuck.setdefault(component, []).append(made["metadata"]["uid"])
        self._api.store.put(PODS, {**made, "status": self._waiting(container)})

    def _waiting(self, container: Object) -> Object:
        now = self._api.calendar.stamp()
        conditions = {"Initialized": "True", "Ready": "False", "ContainersReady": "False",
                      "PodScheduled": "True"}  # fmt: skip
        pull = {
            "reason": "ImagePullBackOff",
            "message": f'Back-off pulling image "{container["image"]}"',
        }
        return {
            "phase": "Pending",
            "qosClass": "BestEffort",
            "startTime": now,
            "conditions": [
                {"type": kind, "status": status, "lastProbeTime": None, "lastTransitionTime": now}
                for kind, status in conditions.items()
            ],
            "containerStatuses": [
                {
                    "name": container["name"],
                    "image": container["image"],
                    "imageID": "",
                    "lastState": {},
                    "ready": False,
                    "restartCount": 0,
                    "started": False,
                    "state": {"waiting": pull},
                }
            ],
        }

    def _delete(self, uid: str) -> None:
        for stored in self._api.store.all(PODS, self.namespace):
            if stored.obj["metadata"]["uid"] == uid:
                self._api.store.remove(PODS, stored.obj)

    def _remove(self, uid: str, name: str) -> None:
        """Let a pod go that is to be deleted: its process has ended."""
        stored = self._api.store.get(PODS, self.namespace, name)
        if stored is not None and stored.obj["metadata"]["uid"] == uid:
            self._api.store.remove(PODS, stored.obj)

    def _make(self, owner: Object, runs: Runs) -> None:
        template = owner["spec"]["template"]
        made, container = self._create(owner, runs, template["spec"]["containers"][0]["image"])
        self.running[made["metadata"]["uid"]] = runs
        self._api.store.put(PODS, {**made, "status": self._status(runs, container)})

    def _create(
        self, owner: Object, runs: Runs, image: str, beside: bool = False
    ) -> tuple[Object, Object]:
        """A pod that has been stored, without its status, and its container.

        `beside`: those of the template before stay.
        """
        component = runs.component
        nth = self._draws.nth("component pod", component, runs.node)
        suffix = self._draws.suffix("component pod", component, runs.node, nth)
        reference = self._reference(owner, beside)
        name = f"{reference['name']}-{suffix}"
        container = {
            "name": component,
            "image": image,
            "ports": [{"name": "metrics", "containerPort": PORT, "protocol": "TCP"}],
        }
        marks = (owner["spec"]["template"].get("metadata") or {}).get("annotations") or {}
        pod = {
            "metadata": {
                "name": name,
                "labels": {"kubevirt.io": component, _METRICS_LABEL: self._label_value()},
                "annotations": dict(marks),
                "ownerReferences": [reference],
            },
            "spec": {"containers": [container], **_placed(runs)},
        }
        return self._api.create(PODS, self.namespace, pod), container

    def _reference(self, owner: Object, beside: bool) -> Object:
        """The owner reference of a pod: a DaemonSet, or the ReplicaSet of a Deployment."""
        metadata = owner["metadata"]
        common = {"apiVersion": "apps/v1", "blockOwnerDeletion": True, "controller": True}
        if owner["kind"] == DAEMON_SETS.kind:
            return {
                **common, "kind": DAEMON_SETS.kind, "name": metadata["name"],
                "uid": metadata["uid"],
            }  # fmt: skip
        template = metadata["generation"]
        name = metadata["name"]
        digest = self._draws.suffix("template", name, template)
        digest += self._draws.suffix("template", name, template, "rest")
        made = self._replica_set(f"{name}-{digest}", owner, beside)["metadata"]
        return {**common, "kind": REPLICA_SETS.kind, "name": made["name"], "uid": made["uid"]}

    def _replica_set(self, name: str, owner: Object, beside: bool) -> Object:
        """The ReplicaSet of a Deployment's present template, beside or instead of those before."""
        store, found = self._api.store, None
        for stored in store.all(REPLICA_SETS, self.namespace):
            if stored.obj["metadata"]["name"] == name:
                found = stored.obj
            elif not beside and owner["metadata"]["uid"] in _owners(stored.obj):
                store.remove(REPLICA_SETS, stored.obj)
        if found is not None:
            return found
        replicas = 1 if beside else owner["spec"].get("replicas", 1)
        made = {
            "metadata": {"name": name, "ownerReferences": [owned_by(owner)]},
            "spec": {"replicas": replicas},
        }
        made = self._api.create(REPLICA_SETS, self.namespace, made)
        ready = 0 if beside else replicas
        status = {"replicas": replicas, "readyReplicas": ready, "availableReplicas": ready}
        return store.put(REPLICA_SETS, {**made, "status": status})

    def _status(self, runs: Runs, container: Object) -> Object:
        now = self._api.calendar.stamp()
        self._addresses += 1
        address = f"10.245.0.{self._addresses % 250 + 1}"
        return {
            "phase": "Running",
            "qosClass": "BestEffort",
            "startTime": now,
            "hostIP": "192.0.2.10" if runs.node else "192.0.2.1",
            "podIP": address,
            "podIPs": [{"ip": address}],
            "conditions": [
                {"type": kind, "status": "True", "lastProbeTime": None, "lastTransitionTime": now}
                for kind in ("Initialized", "Ready", "ContainersReady", "PodScheduled")
            ],
            "containerStatuses": [
                {
                    "name": container["name"],
                    "image": container["image"],
                    "imageID": "",
                    "lastState": {},
                    "ready": True,
                    "restartCount": 0,
                    "started": True,
                    "state": {"running": {"startedAt": now}},
                }
            ],
        }

    # Services -------------------------------------------------------------------------------

    def _services(self) -> list[Object]:
        label = {_METRICS_LABEL: self._label_value()}
        return [
            {
                "metadata": {"name": METRICS_SERVICE, "labels": {"kubevirt.io": "", **label}},
                "spec": {
                    "type": "ClusterIP",
                    "clusterIP": "None",
                    "selector": label,
                    "ports": [_port("metrics", "metrics")],
                },
            },
            {
                "metadata": {"name": "virt-api", "labels": {"kubevirt.io": "virt-api"}},
                "spec": {
                    "type": "ClusterIP",
                    "clusterIP": "10.96.11.7",
                    "selector": {"kubevirt.io": "virt-api"},
                    "ports": [_port("", PORT)],
                },
            },
        ]

    def _label_value(self) -> str:
        """Empty in KubeVirt's versions of 2021, `true` today."""
        return "" if self._profile.versions.kubevirt.startswith("v0.4") else "true"


def _port(name: str, target: str | int) -> Object:
    named = {"name": name} if name else {}
    return {**named, "port": 443, "protocol": "TCP", "targetPort": target}


def _placed(runs: Runs) -> Object:
    if not runs.node:
        return {"nodeName": _CONTROL_PLANE}
    field = {"key": "metadata.name", "operator": "In", "values": [runs.node]}
    terms = {"nodeSelectorTerms": [{"matchFields": [field]}]}
    return {
        "affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": terms}},
        "schedulerName": "none",
    }


def _owners(obj: Object) -> list[str]:
    """The uids of an object's owners."""
    return [each["uid"] for each in obj["metadata"].get("ownerReferences") or []]
