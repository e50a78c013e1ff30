"""kubelet: registers its node, runs the pods bound to it, and reports on both."""

from __future__ import annotations

import asyncio

from pytest_kvscale.sim import ownership, quantity
from pytest_kvscale.sim.client import Client
from pytest_kvscale.sim.draws import Draws
from pytest_kvscale.sim.errors import Object, StatusError
from pytest_kvscale.sim.machine import Machine
from pytest_kvscale.sim.patch import merge
from pytest_kvscale.sim.players import pod_status
from pytest_kvscale.sim.players.launcher_pod import DEVICES, MACHINE_LABEL, QEMU_TIMEOUT_ARGUMENT
from pytest_kvscale.sim.players.recorder import Recorder
from pytest_kvscale.sim.players.team import Team
from pytest_kvscale.sim.profile import Profile
from pytest_kvscale.sim.resources import LEASES, NODES, PODS
from pytest_kvscale.sim.store import Event

LEASE_NAMESPACE = "kube-node-lease"
_DEADLINE = "rpc error: code = DeadlineExceeded desc = context deadline exceeded"


class Kubelet:
    """The kubelet of one node."""

    def __init__(
        self,
        team: Team,
        client: Client,
        profile: Profile,
        draws: Draws,
        machine: Machine,
        node: str,
    ) -> None:
        self._team = team
        self._client = client
        self._profile = profile
        self._draws = draws
        self._machine = machine
        self._node = node
        self._recorder = Recorder(team, client, "kubelet", node)
        self._reports = pod_status.Reports(profile.versions.minor, machine.address)
        self._pods: dict[str, Object] = {}
        self._ending: dict[str, asyncio.Event] = {}
        """Set once a pod (by uid) is to end."""

    def register(self) -> None:
        """Make the Node object, and go on from there."""
        api = self._client.api
        node, writer = self._make_node(), self._client.writer
        api.store.put(NODES, node, ownership.of_new(NODES, node, writer, self._client.stamp()))
        lease = {"metadata": {"name": self._node}, "spec": self._lease_spec()}
        api.create(LEASES, LEASE_NAMESPACE, lease, by=writer)
        self._machine.devices_changed = self._report_devices
        self._client.listen(PODS, self._on_pod)
        self._team.spawn(self._beat(), f"kubelet of {self._node}: heartbeat")

    # The node -------------------------------------------------------------------------------

    def _make_node(self) -> Object:
        node, versions = self._profile.node, self._profile.versions
        capacity = {
            "cpu": node.cpu,
            "memory": str(quantity.whole(node.memory)),
            "ephemeral-storage": str(quantity.whole(node.disk)),
            "pods": str(node.max_pods),
            **self._devices(),
        }
        free_cpu = quantity.milli(node.cpu) - quantity.milli(node.reserved_cpu)
        free_memory = quantity.whole(node.memory) - quantity.whole(node.reserved_memory)
        now = self._client.stamp()
        ready = {
            "type": "Ready",
            "status": "True",
            "lastHeartbeatTime": now,
            "lastTransitionTime": now,
            "reason": "KubeletReady",
            "message": "kubelet is posting ready status",
        }
        network = str(self._machine.network)
        return {
            "apiVersion": NODES.api_version,
            "kind": NODES.kind,
            "metadata": {
                "name": self._node,
                "uid": self._draws.uid("nodes", self._node),
                "creationTimestamp": now,
                "labels": {
                    "kubernetes.io/hostname": self._node,
                    "kubernetes.io/arch": "amd64",
                    "kubernetes.io/os": "linux",
                    "node-role.kubernetes.io/worker": "",
                    "kubevirt.io/schedulable": "true",
                    f"{MACHINE_LABEL}q35": "true",
                    **node.labels,
                },
            },
            "spec": {"podCIDR": network, "podCIDRs": [network]},
            "status": {
                "capacity": capacity,
                "allocatable": {**capacity, "cpu": f"{free_cpu}m", "memory": str(free_memory)},
                "conditions": [ready],
                "addresses": [
                    {"type": "InternalIP", "address": self._machine.address},
                    {"type": "Hostname", "address": self._node},
                ],
                "nodeInfo": {
                    "architecture": "amd64",
                    "bootID": self._draws.uid("boot", self._node),
                    "containerRuntimeVersion": versions.runtime,
                    "kernelVersion": "4.18.0",
                    "kubeProxyVersion": versions.kubernetes,
                    "kubeletVersion": versions.kubernetes,
                    "machineID": self._draws.uid("machine", self._node).replace("-", ""),
                    "operatingSystem": "linux",
                    "osImage": "embedded by pytest-kvscale",
                    "systemUUID": self._draws.uid("system", self._node),
                },
            },
        }

    def _devices(self) -> dict[str, str]:
        return {
            f"devices.kubevirt.io/{each}": quantity.canonical(self._machine.devices)
            for each in DEVICES
        }

    def _report_devices(self) -> None:
        self._team.spawn(self._patch_devices(), f"kubelet of {self._node}: devices")

    async def _patch_devices(self) -> None:
        node = self._client.api.get(NODES, "", self._node).obj
        change = {"status": {"capacity": self._devices(), "allocatable": self._devices()}}
        await self._client.patch(NODES, node, change, status=True)

    def _lease_spec(self) -> Object:
        return {
            "holderIdentity": self._node,
            "leaseDurationSeconds": 40,
            "renewTime": self._client.api.calendar.micro_stamp(),
        }

    async def _beat(self) -> None:
        while True:
            await asyncio.sleep(self._profile.node.heartbeat)
            lease = self._client.api.get(LEASES, LEASE_NAMESPACE, self._node).obj
            renewed = merge(lease, {"spec": self._lease_spec()})
            await self._client.update(LEASES, renewed, limited=False)

    # Its pods -------------------------------------------------------------------------------

    def _on_pod(self, event: Event) -> None:
        pod = event.stored.obj
        if pod["spec"].get("nodeName") != self._node:
            return
        uid, name = pod["metadata"]["uid"], pod["metadata"]["name"]
        if event.type == "DELETED":
            self._pods.pop(uid, None)
            self._recorder.forget(pod)
            self._ending.pop(uid, asyncio.Event()).set()
            return
        self._pods[uid] = pod
        if uid not in self._ending:
            self._ending[uid] = asyncio.Event()
            self._team.spawn(self._run(uid), f"kubelet runs {name}")
        if "deletionTimestamp" in pod["metadata"]:
            self._ending[uid].set()

    async def _run(self, uid: str) -> None:
        """A pod's life: sandbox, containers, their end, its end."""
        ending, pod = self._ending.get(uid), self._pods.get(uid)
        if ending is None or pod is None:
            return
        address = None
        try:
            address = await self._until_started(uid, ending)
            if address is not None:
                await self._until_over(uid, ending)
            await ending.wait()
            if uid in self._pods:
                await self._terminate(uid)
        finally:
            self._machine.clean_up(uid)
            if address is not None:
                self._machine.sandboxes -= 1
                self._machine.free_address(address)
        pod = self._pods.get(uid, pod)
        if uid in self._pods:
            try:
                await self._client.delete(PODS, pod, grace=0)
            except StatusError as refusal:
                if refusal.code != 404:
                    raise

    async def _until_started(self, uid: str, ending: asyncio.Event) -> str | None:
        """Make the sandbox and start the containers; None if the pod is to end before."""
        name, times = self._name(uid), self._profile.times
        if self._befalls(uid, "stuck"):
            await ending.wait()
            return None
        if not self._is_launcher(uid):
            await self._patch(uid, self._reports.creating(self._pods[uid], self._client.stamp()))
        kill = self._befalls(uid, "kill_pod_sandbox")
        hang = kill or self._befalls(uid, "sandbox_timeout")
        while not ending.is_set():
            if hang:
                await _either(ending, times.sandbox_deadline)
                if not ending.is_set():
                    await self._report_stuck_sandbox(uid, kill)
            elif not await self._machine.make_sandbox(name):
                if not ending.is_set():
                    await self._report_stuck_sandbox(uid, not times.late_sandbox_killed)
            else:
                address = self._machine.take_address()
                if address is not None and not ending.is_set():
                    await self._start_containers(uid, address)
                    return address
                self._machine.sandboxes -= 1
                if address is not None:
                    self._machine.free_address(address)
                    return None
                await self._report_no_address(uid)
            await _either(ending, times.sandbox_retry)
        return None

    async def _start_containers(self, uid: str, address: str) -> None:
        pod = self._pods[uid]
        status = self._reports.running(pod, self._client.stamp(), address)
        if self._is_launcher(uid):
            self._machine.start_launcher(uid, _qemu_timeout(pod))
        await self._patch(uid, status)
        if self._befalls(uid, "launcher_crash"):
            self._machine.end_launcher(uid, 1, "panic: on request (profile: faults.launcher_crash)")

    async def _until_over(self, uid: str, ending: asyncio.Event) -> None:
        """Wait until a launcher ends by itself, and report that; or until the pod is to end.

        The containers of other pods go on for ever: no restart policy has anything to do.
        """
        launcher = self._machine.launcher(uid)
        if launcher is None:
            return
        waiting = asyncio.ensure_future(ending.wait())
        try:
            await asyncio.wait((launcher.exited, waiting), return_when=asyncio.FIRST_COMPLETED)
        finally:
            waiting.cancel()
        if ending.is_set() or not launcher.exited.done():
            return
        code, words = launcher.exited.result()
        over = self._reports.over(self._pods[uid], self._client.stamp(), code, words)
        await self._patch(uid, over)

    async def _terminate(self, uid: str) -> None:
        """Let the launcher end within the pod's grace period, then tear all down.

        The processes of other pods heed SIGTERM at once.
        """
        pod = self._pods[uid]
        if self._befalls(uid, "stuck_terminating"):
            await asyncio.get_running_loop().create_future()
        launcher = self._machine.launcher(uid)
        if launcher is not None and not launcher.defined:
            # Without a guest there is nothing to shut down: the launcher heeds SIGTERM at once.
            self._machine.end_launcher(uid, 0)
        if launcher is not None and not launcher.exited.done():
            grace = pod["metadata"].get("deletionGracePeriodSeconds", 30)
            await asyncio.wait((launcher.exited,), timeout=grace)
        await self._client.process.work(self._profile.times.tear_down)

    # What it reports ------------------------------------------------------------------------

    async def _report_stuck_sandbox(self, uid: str, kill: bool) -> None:
        pod = self._pods[uid]
        await self._report_creating(uid)
        message = f"Failed to create pod sandbox: {_DEADLINE}"
        self._warn(pod, "FailedCreatePodSandBox", message)
        if kill:
            message = (
                f'error killing pod: failed to "KillPodSandbox" for "{uid}" with '
                f'KillPodSandboxError: "{_DEADLINE}"'
            )
            self._warn(pod, "FailedKillPod", message)

    def _warn(self, pod: Object, reason: str, message: str) -> None:
        self._recorder.tell(pod, reason, message, warning=True)

    async def _report_no_address(self, uid: str) -> None:
        pod = self._pods.get(uid)
        if pod is None:
            return
        await self._report_creating(uid)
        network = self._machine.network
        message = (
            "Failed to create pod sandbox: rpc error: code = Unknown desc = failed to setup "
            f'network for sandbox "{uid}": plugin type="bridge" failed (add): failed to allocate '
            f"for range 0: no IP addresses available in range set: {network[1]}-{network[-2]}"
        )
        self._warn(pod, "FailedCreatePodSandBox", message)

    async def _report_creating(self, uid: str) -> None:
        pod = self._pods[uid]
        if "containerStatuses" in pod["status"]:
            return
        await self._patch(uid, self._reports.waiting(pod, self._client.stamp()))

    async def _patch(self, uid: str, status: Object) -> None:
        """Report on a pod; one that is gone already (deleted by force) needs no report."""
        pod = self._pods.get(uid)
        if pod is None:
            return
        try:
            await self._client.patch(PODS, pod, {"status": status}, status=True)
        except StatusError as refusal:
            if refusal.code != 404:
                raise

    def _is_launcher(self, uid: str) -> bool:
        labels = self._pods[uid]["metadata"].get("labels") or {}
        return labels.get("kubevirt.io") == "virt-launcher"

    def _befalls(self, uid: str, fault: str) -> bool:
        """Whether a fault of the profile befalls a pod: faults are shares of the VMIs."""
        if uid not in self._pods or not self._is_launcher(uid):
            return False
        name = self._name(uid)
        return self._draws.chance(self._profile.faults.share(fault, name), fault, name)

    def _name(self, uid: str) -> str:
        """What draws for a pod are keyed by: its VMI's name, or its own."""
        metadata = self._pods[uid]["metadata"]
        return str((metadata.get("labels") or {}).get("vm.kubevirt.io/name") or metadata["name"])


def _qemu_timeout(pod: Object) -> float | None:
    for container in pod["spec"]["containers"]:
        arguments = container.get("args") or []
        if container["name"] == "compute" and QEMU_TIMEOUT_ARGUMENT in arguments:
            return float(arguments[arguments.index(QEMU_TIMEOUT_ARGUMENT) + 1].removesuffix("s"))
    return None


async def _either(event: asyncio.Event, seconds: float) -> None:
    """Wait so long, or until the event."""
    try:
        async with asyncio.timeout(seconds):
            await event.wait()
    except TimeoutError:
        return
