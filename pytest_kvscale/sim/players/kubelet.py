"""kubelet: registers its node, runs the pods bound to it, and reports on both."""

from __future__ import annotations

import asyncio

from pytest_kvscale.sim import quantity
from pytest_kvscale.sim.client import Client
from pytest_kvscale.sim.draws import Draws
from pytest_kvscale.sim.errors import Object, StatusError
from pytest_kvscale.sim.machine import Machine
from pytest_kvscale.sim.patch import merge
from pytest_kvscale.sim.players.launcher_pod import DEVICES, QEMU_TIMEOUT_ARGUMENT
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
        self._pods: dict[str, Object] = {}
        self._ending: dict[str, asyncio.Event] = {}
        """Set once a pod (by uid) is to end."""

    def register(self) -> None:
        """Make the Node object, and go on from there."""
        api = self._client.api
        api.store.put(NODES, self._make_node())
        lease = {"metadata": {"name": self._node}, "spec": self._lease_spec()}
        api.create(LEASES, LEASE_NAMESPACE, lease)
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
                },
            },
            "spec": {"podCIDR": network, "podCIDRs": [network]},
            "status": {
                "capacity": capacity,
                "allocatable": {**capacity, "cpu": f"{free_cpu}m", "memory": str(free_memory)},
                "conditions": [ready],
                "addresses": [
                    {"type": "InternalIP", "address": "192.0.2.10"},
                    {"type": "Hostname", "address": self._node},
                ],
                "nodeInfo": {
                    "architecture": "amd64",
                    "containerRuntimeVersion": versions.runtime,
                    "kernelVersion": "4.18.0",
                    "kubeletVersion": versions.kubernetes,
                    "operatingSystem": "linux",
                    "osImage": "embedded by pytest-kvscale",
                },
            },
        }

    def _devices(self) -> dict[str, str]:
        return {f"devices.kubevirt.io/{each}": str(self._machine.devices) for each in DEVICES}

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
            await self._client.update(LEASES, merge(lease, {"spec": self._lease_spec()}))

    # Its pods -------------------------------------------------------------------------------

    def _on_pod(self, event: Event) -> None:
        pod = event.stored.obj
        if pod["spec"].get("nodeName") != self._node:
            return
        uid, name = pod["metadata"]["uid"], pod["metadata"]["name"]
        if event.type == "DELETED":
            self._pods.pop(uid, None)
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
        ending = self._ending[uid]
        pod = self._pods[uid]
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
        name, times, faults = self._vmi_name(uid), self._profile.times, self._profile.faults
        if self._draws.chance(faults.share("stuck", name), "stuck", name):
            await ending.wait()
            return None
        kill = self._draws.chance(faults.share("kill_pod_sandbox", name), "kill_pod_sandbox", name)
        hang = kill or self._draws.chance(
            faults.share("sandbox_timeout", name), "sandbox_timeout", name
        )
        while not ending.is_set():
            if hang:
                await _either(ending, times.sandbox_deadline)
                if not ending.is_set():
                    await self._report_stuck_sandbox(uid, kill)
            else:
                await self._machine.make_sandbox(name)
                address = self._machine.take_address()
                if address is not None and not ending.is_set():
                    await self._start_containers(uid, name, address)
                    return address
                self._machine.sandboxes -= 1
                if address is not None:
                    self._machine.free_address(address)
                    return None
                await self._report_no_address(uid)
            await _either(ending, times.sandbox_retry)
        return None

    async def _start_containers(self, uid: str, name: str, address: str) -> None:
        pod = self._pods[uid]
        now = self._client.stamp()
        running = {"running": {"startedAt": now}}
        status: Object = {
            "phase": "Running",
            "startTime": now,
            "podIP": address,
            "podIPs": [{"ip": address}],
            "hostIP": "192.0.2.10",
            "containerStatuses": [
                _container(each, running, True) for each in pod["spec"]["containers"]
            ],
            "conditions": [
                _condition(kind, "True", now)
                for kind in ("Initialized", "Ready", "ContainersReady")
            ],
        }
        started = [
            _container(
                each,
                running if each.get("restartPolicy") == "Always" else _finished(now, 0),
                True,
            )
            for each in pod["spec"].get("initContainers") or []
        ]
        if started:
            status["initContainerStatuses"] = started
        seconds = _qemu_timeout(pod)
        self._machine.start_launcher(uid, seconds)
        await self._client.patch(PODS, pod, {"status": status}, status=True)
        if self._draws.chance(
            self._profile.faults.share("launcher_crash", name), "launcher_crash", name
        ):
            self._machine.end_launcher(uid, 1, "panic: on request (profile: faults.launcher_crash)")

    async def _until_over(self, uid: str, ending: asyncio.Event) -> None:
        """Wait until the launcher ends by itself, and report that; or until the pod is to end."""
        launcher = self._machine.launcher(uid)
        if launcher is None:
            return
        waiting = asyncio.ensure_future(ending.wait())
        await asyncio.wait((launcher.exited, waiting), return_when=asyncio.FIRST_COMPLETED)
        waiting.cancel()
        if ending.is_set() or not launcher.exited.done():
            return
        code, words = launcher.exited.result()
        pod, now = self._pods[uid], self._client.stamp()
        statuses = [
            {**each, "ready": False, "state": _finished(now, code, words)}
            for each in pod["status"]["containerStatuses"]
        ]
        status: Object = {
            "phase": "Failed" if code else "Succeeded",
            "containerStatuses": statuses,
            "conditions": [
                {**_condition(kind, "False", now), "reason": "PodFailed"}
                for kind in ("Ready", "ContainersReady")
            ],
        }
        await self._client.patch(PODS, pod, {"status": status}, status=True)

    async def _terminate(self, uid: str) -> None:
        """Let the launcher end within the pod's grace period, then tear all down."""
        pod = self._pods[uid]
        name = self._vmi_name(uid)
        if self._draws.chance(
            self._profile.faults.share("stuck_terminating", name), "stuck_terminating", name
        ):
            await asyncio.get_running_loop().create_future()
        launcher = self._machine.launcher(uid)
        if launcher is not None and not launcher.defined:
            # Without a guest there is nothing to shut down: the launcher heeds SIGTERM at once.
            self._machine.end_launcher(uid, 0)
        if launcher is not None and not launcher.exited.done():
            grace = pod["metadata"].get("deletionGracePeriodSeconds", 30)
            await asyncio.wait((launcher.exited,), timeout=grace)
        await asyncio.sleep(self._profile.times.tear_down)

    # What it reports ------------------------------------------------------------------------

    async def _report_stuck_sandbox(self, uid: str, kill: bool) -> None:
        pod = self._pods[uid]
        await self._report_creating(uid)
        message = f"Failed to create pod sandbox: {_DEADLINE}"
        await self._client.event(pod, "FailedCreatePodSandBox", message, warning=True)
        if kill:
            message = (
                f'error killing pod: failed to "KillPodSandbox" for "{uid}" with '
                f'KillPodSandboxError: "{_DEADLINE}"'
            )
            await self._client.event(pod, "FailedKillPod", message, warning=True)

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
        await self._client.event(pod, "FailedCreatePodSandBox", message, warning=True)

    async def _report_creating(self, uid: str) -> None:
        pod = self._pods[uid]
        if "containerStatuses" in pod["status"]:
            return
        waiting = {"waiting": {"reason": "ContainerCreating"}}
        status = {
            "startTime": self._client.stamp(),
            "containerStatuses": [
                _container(each, waiting, False) for each in pod["spec"]["containers"]
            ],
        }
        await self._client.patch(PODS, pod, {"status": status}, status=True)

    def _vmi_name(self, uid: str) -> str:
        metadata = self._pods[uid]["metadata"]
        return str((metadata.get("labels") or {}).get("vm.kubevirt.io/name") or metadata["name"])


def _container(container: Object, state: Object, ready: bool) -> Object:
    return {
        "name": container["name"],
        "state": state,
        "lastState": {},
        "ready": ready,
        "restartCount": 0,
        "image": container["image"],
        "imageID": "",
        "started": ready,
    }


def _finished(now: str, code: int, words: str = "") -> Object:
    over: Object = {
        "exitCode": code,
        "reason": "Error" if code else "Completed",
        "startedAt": now,
        "finishedAt": now,
    }
    return {"terminated": {**over, **({"message": words} if words else {})}}


def _condition(kind: str, status: str, now: str) -> Object:
    return {"type": kind, "status": status, "lastProbeTime": None, "lastTransitionTime": now}


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
