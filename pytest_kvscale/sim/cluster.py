"""One embedded cluster: its API, its players and its hardware, put together."""

from __future__ import annotations

import datetime
from collections.abc import Callable
from pathlib import Path

import yaml

from pytest_kvscale.sim import definitions, discovery, pods, rbac
from pytest_kvscale.sim.api import Api
from pytest_kvscale.sim.authentication import Gate
from pytest_kvscale.sim.changes import NAME_LABEL
from pytest_kvscale.sim.client import Client
from pytest_kvscale.sim.clock import Calendar
from pytest_kvscale.sim.component import Component
from pytest_kvscale.sim.component_faults import ComponentFaults
from pytest_kvscale.sim.component_pods import COMPONENTS, ComponentPods
from pytest_kvscale.sim.draws import Draws
from pytest_kvscale.sim.errors import Object
from pytest_kvscale.sim.faults import Faults
from pytest_kvscale.sim.guard import Guard
from pytest_kvscale.sim.in_flight import InFlight
from pytest_kvscale.sim.latency import Latency
from pytest_kvscale.sim.logs import Logs
from pytest_kvscale.sim.machine import Machine
from pytest_kvscale.sim.metrics.served import Metrics
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
from pytest_kvscale.sim.players.workload_updater import WorkloadUpdater
from pytest_kvscale.sim.profile import Profile, RateLimit
from pytest_kvscale.sim.proxy import Proxies
from pytest_kvscale.sim.recorder_door import RecorderDoor
from pytest_kvscale.sim.resources import KUBEVIRTS, NAMESPACES, PODS, VMIRS, VMIS, VMS
from pytest_kvscale.sim.server import Server
from pytest_kvscale.sim.store import Store

_LIMIT_OF = {"virt-controller": "controller", "virt-handler": "handler"}
"""The rate limits of components that are clients of their own here."""
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
        self.faults = Faults(self.store, draws, self.team.spawn)
        latency = Latency(profile.api, draws, self.faults.pace)
        self.metrics = Metrics(profile, self.store)
        version = discovery.version(profile.versions.kubernetes, name, seed)
        in_flight = InFlight(
            profile.api.max_requests_inflight, profile.api.max_mutating_requests_inflight
        )
        guard = Guard(self.api, self.gate, in_flight)
        self.server = Server(self.api, latency, version, self.faults, self.metrics.api, guard)
        self.clients: dict[str, Client] = {}
        self.components: list[Component] = []
        self.machines: dict[str, Machine] = {}
        self.pods: ComponentPods | None = None
        self.url = ""
        self._draws = draws
        self._latency = latency
        self._set_up_api()
        if not api_only:
            self._set_up()
        self.api.store.opened = self.api.store.version
        self._open_doors()

    def _component(
        self,
        name: str,
        make: Callable[[Component], None],
        node: str = "",
        forgets: bool = True,
    ) -> Component:
        account, pace = self.metrics.account(name, node), self.faults.pace
        component = Component(self.team, name, make, account, pace, node, forgets)
        self.components.append(component)
        return component

    def _client(self, name: str, limit: RateLimit, of: Component) -> Client:
        client = self.clients[name] = Client(
            self.api, self._latency, self._draws, self.faults, name, limit, of.process,
            self.metrics.api, of.account.traffic,
        )  # fmt: skip
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
        self._component("kube-controller-manager", self._make_controller_manager)

    def _set_up(self) -> None:
        profile = self.profile
        self.api.create(NAMESPACES, "", {"metadata": {"name": profile.kubevirt.namespace}})
        self.api.admission[VMIS] = vmi_admission(profile, self.api.calendar, self._draws)
        self.api.restrictions[VMIS] = keep_status
        self.api.admission[VMS] = virt_api_kinds.fill_vm
        self.api.rules[KUBEVIRTS] = check_kubevirt
        self.api.rules[VMS] = virt_api_kinds.check_vm
        self.api.rules[VMIRS] = virt_api_kinds.check_replica_set
        self._settings = effective(profile, {"configuration": profile.kubevirt.configuration})
        self._releases = dict.fromkeys(COMPONENTS, profile)
        self._limits = self._settings.rate_limits
        self.faults.webhooks = self._component("virt-api", lambda _: None, forgets=False).process
        self._handlers: list[VirtHandler] = []
        for index in range(profile.node.count):
            node = profile.node.name if profile.node.count == 1 else f"{profile.node.name}-{index}"
            machine = Machine(profile, self._draws, index)
            machine.run_in(self.api.calendar, self.faults.pace)
            machine.devices = self._settings.max_devices
            self.machines[node] = machine
            self._component("kubelet", self._make_kubelet, node, forgets=False)
            self._component("virt-handler", self._make_handler, node, forgets=False)
        self._component("kube-scheduler", self._make_scheduler)
        self._component("virt-controller", self._make_controller)
        self._component("virt-operator", self._make_operator, forgets=False)
        nodes = list(self.machines)
        self.pods = ComponentPods(self.api, profile, self._draws, nodes, self._reset)

    def _open_doors(self) -> None:
        """What is served beside the API's objects, and who carries out faults of components."""
        ComponentFaults(self.faults, self.components, self.api.calendar)
        proxies = Proxies(
            self.api, self._latency, self.profile, self._draws, self.metrics, self.components,
            self.pods,
        )  # fmt: skip
        logs = Logs(self.api, self._latency, self.machines)
        recorder = RecorderDoor(self.team, self.api, self.metrics, self.components, self.pods)
        self.server.doors = [proxies.door, logs.door, recorder.door]

    def _reset(self, name: str) -> None:
        """A component's new pods begin to count at zero."""
        for each in self.components:
            if each.name == name:
                each.account.reset()

    def _make_controller_manager(self, component: Component) -> None:
        process = component.process
        NamespaceController(process, self._client("namespace-controller", _UNLIMITED, component))
        accounts = self._client("service-account-controller", _UNLIMITED, component)
        ServiceAccountController(process, accounts)
        aggregation = self._client("clusterrole-aggregation-controller", _UNLIMITED, component)
        ClusterRoleAggregation(process, aggregation)
        collector = self._client("generic-garbage-collector", garbage_collector.LIMIT, component)
        GarbageCollector(process, collector)
        lifecycle = self._client("node-controller", _UNLIMITED, component)
        NodeLifecycle(process, lifecycle, self.profile)

    def _make_kubelet(self, component: Component) -> None:
        node, account = component.node, component.account
        client = self._client(f"kubelet-{node}", self.profile.rate_limits.kubelet, component)
        machine = self.machines[node]
        Kubelet(component.process, client, self.profile, self._draws, machine, node).register()
        client.listen(PODS, lambda event: account.starts.on_pod(node, event))

    def _make_handler(self, component: Component) -> None:
        node = component.node
        client = self._client(f"virt-handler-{node}", self._limits["handler"], component)
        machine = self.machines[node]
        self._handlers.append(
            VirtHandler(component.process, client, self.profile, self._draws, machine, node)
        )

    def _make_scheduler(self, component: Component) -> None:
        client = self._client("default-scheduler", self.profile.rate_limits.scheduler, component)
        Scheduler(component.process, client, self.profile)

    def _make_controller(self, component: Component) -> None:
        process, profile = component.process, self._releases["virt-controller"]
        client = self._client("virt-controller", self._limits["controller"], component)
        client.listen(VMIS, component.account.phases.on_vmi)
        self._controller = VirtController(process, client, profile, self._draws, self._settings)
        VirtNodes(process, client)
        WorkloadUpdater(process, client)
        VmController(process, client, profile, self._draws)
        ReplicaSetController(process, client, profile)

    def _make_operator(self, component: Component) -> None:
        client = self._client("virt-operator", _UNLIMITED, component)
        VirtOperator(component.process, client, self.profile, self)

    # What virt-operator changes -------------------------------------------------------------

    def limits_changed(self, component: str, settings: Effective) -> None:
        """See `virt_operator.Components`."""
        limit = _LIMIT_OF.get(component)
        if limit is None:
            return
        self._limits = {**self._limits, limit: settings.rate_limits[limit]}
        for name, client in self.clients.items():
            if name == component or name.startswith(f"{component}-"):
                client.limiter.change(self._limits[limit])

    def restarted(self, component: str, settings: Effective, release: Profile) -> None:
        """See `virt_operator.Components`."""
        self._releases[component] = release
        self.limits_changed(component, settings)
        if component == "virt-controller":
            self._settings = settings
            for machine in self.machines.values():
                machine.launch_as(release.times)
            self._controller.restart(settings, release)
        elif component == "virt-handler":
            for handler in self._handlers:
                handler.restart(settings, release)

    def stuck(self, component: str, image: str) -> None:
        """See `virt_operator.Components`."""
        if self.pods is not None:
            self.pods.stick(component, image)

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
    labels = {**(metadata.get("labels") or {}), NAME_LABEL: metadata["name"]}
    return {
        **namespace,
        "metadata": {**metadata, "labels": labels},
        "spec": {"finalizers": ["kubernetes"]},
        "status": {"phase": "Active"},
    }
