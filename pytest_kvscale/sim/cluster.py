"""One embedded cluster: its API, its players and its hardware, put together."""

from __future__ import annotations

import datetime
from pathlib import Path

import yaml

from pytest_kvscale.sim import definitions, discovery, pods, rbac
from pytest_kvscale.sim.api import Api
from pytest_kvscale.sim.authentication import Gate
from pytest_kvscale.sim.client import Client
from pytest_kvscale.sim.clock import Calendar
from pytest_kvscale.sim.draws import Draws
from pytest_kvscale.sim.errors import Object
from pytest_kvscale.sim.faults import Faults
from pytest_kvscale.sim.guard import Guard
from pytest_kvscale.sim.in_flight import InFlight
from pytest_kvscale.sim.latency import Latency
from pytest_kvscale.sim.machine import Machine
from pytest_kvscale.sim.players import garbage_collector, virt_api_kinds
from pytest_kvscale.sim.players.cluster_roles import ClusterRoleAggregation
from pytest_kvscale.sim.players.garbage_collector import GarbageCollector
from pytest_kvscale.sim.players.kubelet import LEASE_NAMESPACE, Kubelet
from pytest_kvscale.sim.players.namespaces import NamespaceController
from pytest_kvscale.sim.players.node_lifecycle import NodeLifecycle
from pytest_kvscale.sim.players.replica_sets import ReplicaSetController
from pytest_kvscale.sim.players.scheduler import Scheduler
from pytest_kvscale.sim.players.service_accounts import ServiceAccountController
from pytest_kvscale.sim.players.settings import Effective, effective
from pytest_kvscale.sim.players.team import Team
from pytest_kvscale.sim.players.virt_api import check_kubevirt, keep_status, vmi_admission
from pytest_kvscale.sim.players.virt_controller import VirtController
from pytest_kvscale.sim.players.virt_handler import VirtHandler
from pytest_kvscale.sim.players.virt_nodes import VirtNodes
from pytest_kvscale.sim.players.virt_operator import VirtOperator
from pytest_kvscale.sim.players.vm_controller import VmController
from pytest_kvscale.sim.profile import Profile, RateLimit
from pytest_kvscale.sim.resources import KUBEVIRTS, NAMESPACES, PODS, VMIRS, VMIS, VMS
from pytest_kvscale.sim.server import Server
from pytest_kvscale.sim.store import Store

_UNLIMITED = RateLimit(qps=1e9, burst=10**9)
NAMESPACES_AT_START = ("default", "kube-system", "kube-public", LEASE_NAMESPACE)


class EmbeddedCluster:
    """A cluster of this profile; make and start it inside the loop it shall live in.

    `epoch` is its date at the start: the profile's own in virtual time, the machine's date for a
    cluster that runs at the wall's pace. `gate` decides who is let in; by default everybody is.
    With `api_only` there is the API alone, with namespaces that end and garbage that is collected:
    no node, no KubeVirt and no webhook, so that objects stay as clients write them.
    """

    def __init__(
        self,
        profile: Profile,
        name: str,
        seed: int,
        epoch: datetime.datetime | None = None,
        gate: Gate | None = None,
        api_only: bool = False,
    ) -> None:
        self.profile = profile
        self.gate = gate or Gate()
        draws = Draws(seed)
        calendar = Calendar(epoch or profile.epoch)
        self.store = Store()
        self.api = Api(self.store, calendar, draws)
        self.team = Team()
        latency = Latency(profile.api, draws)
        self.faults = Faults(self.store, draws, self.team.spawn)
        version = discovery.version(profile.versions.kubernetes, name, seed)
        in_flight = InFlight(
            profile.api.max_requests_inflight, profile.api.max_mutating_requests_inflight
        )
        guard = Guard(self.api, self.gate, in_flight)
        self.server = Server(self.api, latency, version, self.faults, guard)
        self.clients: dict[str, Client] = {}
        self.url = ""
        self._draws = draws
        self._latency = latency
        self._set_up_api()
        if not api_only:
            self._set_up()

    def _client(self, component: str, limit: RateLimit) -> Client:
        client = Client(self.api, self._latency, self._draws, self.faults, component, limit)
        self.clients[component] = client
        return client

    def _set_up_api(self) -> None:
        """What every cluster has."""
        self.api.admission[NAMESPACES] = _namespace_admission
        self.api.admission[PODS] = pods.admit
        self.api.restrictions[PODS] = pods.refill
        definitions.install(self.api)
        rbac.make_defaults(self.api)
        for name in NAMESPACES_AT_START:
            self.api.create(NAMESPACES, "", {"metadata": {"name": name}})
        NamespaceController(self.team, self._client("namespace-controller", _UNLIMITED))
        accounts = self._client("service-account-controller", _UNLIMITED)
        ServiceAccountController(self.team, accounts)
        aggregation = self._client("clusterrole-aggregation-controller", _UNLIMITED)
        ClusterRoleAggregation(self.team, aggregation)
        collector = self._client("generic-garbage-collector", garbage_collector.LIMIT)
        GarbageCollector(self.team, collector)

    def _set_up(self) -> None:
        profile, team, limits = self.profile, self.team, self.profile.rate_limits
        self.api.create(NAMESPACES, "", {"metadata": {"name": profile.kubevirt.namespace}})
        self.api.admission[VMIS] = vmi_admission(profile, self.api.calendar, self._draws)
        self.api.restrictions[VMIS] = keep_status
        self.api.admission[VMS] = virt_api_kinds.fill_vm
        self.api.rules[KUBEVIRTS] = check_kubevirt
        self.api.rules[VMS] = virt_api_kinds.check_vm
        self.api.rules[VMIRS] = virt_api_kinds.check_replica_set
        settings = effective(profile, {"configuration": profile.kubevirt.configuration})
        self._handlers: list[VirtHandler] = []
        for index in range(profile.node.count):
            node = profile.node.name if profile.node.count == 1 else f"{profile.node.name}-{index}"
            machine = Machine(profile, self._draws, index)
            machine.devices = settings.max_devices
            kubelet = self._client(f"kubelet-{node}", limits.kubelet)
            Kubelet(team, kubelet, profile, self._draws, machine, node).register()
            handler = self._client(f"virt-handler-{node}", settings.rate_limits["handler"])
            self._handlers.append(VirtHandler(team, handler, profile, self._draws, machine, node))
        Scheduler(team, self._client("default-scheduler", limits.scheduler), profile)
        NodeLifecycle(team, self._client("node-controller", _UNLIMITED), profile)
        controller = self._client("virt-controller", settings.rate_limits["controller"])
        self._controller = VirtController(team, controller, profile, self._draws, settings)
        VirtNodes(team, controller)
        VmController(team, controller, profile, self._draws)
        ReplicaSetController(team, controller, profile)
        operator = self._client("virt-operator", _UNLIMITED)
        VirtOperator(team, operator, profile, self._limits_changed, self._restarted)

    def _limits_changed(self, settings: Effective) -> None:
        for component, client in self.clients.items():
            if component == "virt-controller":
                client.limiter.change(settings.rate_limits["controller"])
            elif component.startswith("virt-handler-"):
                client.limiter.change(settings.rate_limits["handler"])

    def _restarted(self, component: str, settings: Effective) -> None:
        if component == "virt-controller":
            self._controller.restart(settings)
        elif component == "virt-handler":
            for handler in self._handlers:
                handler.restart(settings)

    async def start(self, host: str = "127.0.0.1", port: int = 0) -> str:
        """Serve the API; returns its URL."""
        self.url = await self.server.start(host, port)
        return self.url

    async def stop(self) -> None:
        """End the players and the server."""
        await self.team.stop()
        await self.server.stop()

    def kubeconfig(self) -> str:
        """A kubeconfig for this cluster, as YAML."""
        name = "kvscale-sim"
        cluster = {"server": self.url, **self.gate.cluster_entry()}
        return yaml.safe_dump(
            {
                "apiVersion": "v1",
                "kind": "Config",
                "clusters": [{"name": name, "cluster": cluster}],
                "users": [{"name": name, "user": self.gate.user_entry()}],
                "contexts": [{"name": name, "context": {"cluster": name, "user": name}}],
                "current-context": name,
            },
            sort_keys=False,
        )

    def write_kubeconfig(self, path: Path) -> None:
        """Write the kubeconfig, readable for its owner only."""
        path.touch(mode=0o600)
        path.chmod(0o600)  # One that was there before may have been open to others.
        path.write_text(self.kubeconfig(), encoding="utf-8")


def _namespace_admission(namespace: Object) -> Object:
    metadata = namespace["metadata"]
    labels = {"kubernetes.io/metadata.name": metadata["name"], **(metadata.get("labels") or {})}
    return {
        **namespace,
        "metadata": {**metadata, "labels": labels},
        "spec": {"finalizers": ["kubernetes"]},
        "status": {"phase": "Active"},
    }
