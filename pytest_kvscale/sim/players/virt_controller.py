"""virt-controller: makes the launcher pod of a VMI and follows it until virt-handler takes over."""

from __future__ import annotations

from pytest_kvscale.sim import quantity
from pytest_kvscale.sim.client import Client, condition_of, with_condition
from pytest_kvscale.sim.draws import Draws
from pytest_kvscale.sim.errors import Object
from pytest_kvscale.sim.patch import merge
from pytest_kvscale.sim.players.launcher_pod import (
    NODE_LABEL,
    UNPAUSED,
    VMI_LABEL,
    image,
    launcher_pod,
    overhead,
)
from pytest_kvscale.sim.players.recorder import Recorder
from pytest_kvscale.sim.players.settings import Effective
from pytest_kvscale.sim.players.team import Team, WorkQueue
from pytest_kvscale.sim.players.virt_api import FINALIZERS
from pytest_kvscale.sim.profile import Profile
from pytest_kvscale.sim.resources import PODS, VMIS
from pytest_kvscale.sim.store import Event

_WORKERS = 10
SOURCE = "virtualmachine-controller"
"""What all controllers of virt-controller call themselves in events."""
OBSERVED = ("kubevirt.io/latest-observed-api-version", "kubevirt.io/storage-observed-api-version")
"""Annotations virt-controller sets on whatever it looks at, before anything else."""
VM_FINALIZER = "kubevirt.io/virtualMachineControllerFinalize"
"""On VMs and their VMIs: the VM controller has to see them before they go."""
FINAL = ("Succeeded", "Failed")
OUTDATED = "kubevirt.io/outdatedLauncherImage"
"""The label of a VMI whose launcher is of another version than new ones are."""


class VirtController:
    """The VMI controller."""

    def __init__(
        self, team: Team, client: Client, profile: Profile, draws: Draws, settings: Effective
    ) -> None:
        self._client = client
        self._profile = profile
        self._draws = draws
        self._recorder = Recorder(team, client, SOURCE)
        self._new = profile.kubevirt.objects == "1.9"
        self._image = image(profile, "virt-launcher")
        self._qemu_timeout = settings.qemu_timeout
        self._vmis: dict[str, Object] = {}
        self._pods: dict[str, Object] = {}
        self._expected: set[str] = set()
        """VMIs (by uid) whose pod has been asked for and not seen yet."""
        self._queue = WorkQueue(team, "virt-controller-vmi", self._sync, _WORKERS)
        client.listen(VMIS, self._on_vmi)
        client.listen(PODS, self._on_pod)

    def restart(self, settings: Effective, release: Profile) -> None:
        """Take over what only a restart brings: command-line flags, and another version.

        Launchers that run keep their image: they are outdated, and marked so.
        """
        self._qemu_timeout = settings.qemu_timeout
        self._profile = release
        if image(release, "virt-launcher") != self._image:
            self._image = image(release, "virt-launcher")
            for uid in list(self._vmis):
                self._queue.add(uid)

    def _on_vmi(self, event: Event) -> None:
        vmi = event.stored.obj
        uid = vmi["metadata"]["uid"]
        if event.type == "DELETED":
            self._vmis.pop(uid, None)
            self._recorder.forget(vmi)
        else:
            self._vmis[uid] = vmi
            self._queue.add(uid)

    def _on_pod(self, event: Event) -> None:
        pod = event.stored.obj
        uid = (pod["metadata"].get("labels") or {}).get(VMI_LABEL)
        if uid is None:
            return
        self._expected.discard(uid)
        if event.type == "DELETED":
            self._pods.pop(uid, None)
        else:
            self._pods[uid] = pod
        self._queue.add(uid)

    async def _sync(self, uid: str) -> None:
        await self._client.process.work(self._profile.times.sync)
        vmi, pod = self._vmis.get(uid), self._pods.get(uid)
        if vmi is None or uid in self._expected:
            return
        phase = vmi["status"].get("phase") or "Pending"
        if "deletionTimestamp" in vmi["metadata"]:
            await self._end(vmi, pod, phase)
        elif phase == "Pending":
            await self._begin(vmi, pod)
        elif phase == "Scheduling":
            await self._follow(vmi, pod)
        elif phase not in FINAL and pod is not None:
            await self._keep(vmi, pod, phase)
        elif phase not in FINAL:
            await self._fail(vmi, None)

    # Pending: until there is a pod ----------------------------------------------------------

    async def _begin(self, vmi: Object, pod: Object | None) -> None:
        annotations = vmi["metadata"].get("annotations") or {}
        if not all(key in annotations for key in OBSERVED):
            seen = dict.fromkeys(OBSERVED, "v1")
            await self._client.update(VMIS, merge(vmi, {"metadata": {"annotations": seen}}))
        elif pod is None:
            await self._make_pod(vmi)
        else:
            if condition_of(pod, UNPAUSED) is None:
                await self._mark_unpaused(pod)
            needs = quantity.binary(overhead(self._profile, vmi))
            status = {
                **self._ready(vmi, pod, "Scheduling"),
                "launcherContainerImageVersion": self._image,
                **({"memory": {"memoryOverhead": needs}} if self._new else {}),
            }
            await self._client.update(VMIS, in_phase(vmi, "Scheduling", self._client, status))

    def _ready(self, vmi: Object, pod: Object | None, phase: str) -> Object:
        """The conditions with Ready as the pod and the phase have it."""
        if pod is None:
            reason = ("PodNotExists", "virt-launcher pod has not yet been scheduled")
        elif ended(pod) or "deletionTimestamp" in pod["metadata"]:
            reason = ("PodTerminating", "virt-launcher pod is terminating")
        elif phase != "Running":
            reason = ("GuestNotRunning", "Guest VM is not reported as running")
        else:
            return {"conditions": (vmi["status"].get("conditions")) or []}
        held = condition_of(vmi, "Ready") or {}
        if (held.get("reason"), held.get("message")) == reason:
            return {"conditions": vmi["status"]["conditions"]}
        now = self._client.stamp()
        ready = {
            "lastProbeTime": now,
            "lastTransitionTime": now,
            "message": reason[1],
            "reason": reason[0],
            "status": "False",
            "type": "Ready",
        }
        return {"conditions": with_condition(vmi, ready)}

    async def _fail(self, vmi: Object, pod: Object | None) -> None:
        status = self._ready(vmi, pod, "Failed")
        await self._client.update(VMIS, in_phase(vmi, "Failed", self._client, status))

    async def _make_pod(self, vmi: Object) -> None:
        metadata = vmi["metadata"]
        spread = self._profile.kubevirt.qemu_timeout_spread
        patience = self._qemu_timeout + self._draws.integer(0, spread, "qemu", metadata["name"])
        self._expected.add(metadata["uid"])
        try:
            pod = launcher_pod(self._profile, vmi, patience)
            made = await self._client.create(PODS, metadata["namespace"], pod)
        except BaseException:
            self._expected.discard(metadata["uid"])
            raise
        message = f"Created virtual machine pod {made['metadata']['name']}"
        self._recorder.tell(vmi, "SuccessfulCreate", message)

    async def _mark_unpaused(self, pod: Object) -> None:
        condition = {
            "type": UNPAUSED,
            "status": "True",
            "lastProbeTime": self._client.stamp(),
            "lastTransitionTime": self._client.stamp(),
            "reason": "NotPaused",
            "message": "the virtual machine is not paused",
        }
        change = {"status": {"conditions": [condition]}}
        await self._client.patch(PODS, pod, change, status=True)

    # Scheduling: until the launcher is ready ------------------------------------------------

    async def _follow(self, vmi: Object, pod: Object | None) -> None:
        if pod is None or ended(pod):
            await self._fail(vmi, pod)
            return
        node = pod["spec"].get("nodeName", "")
        if condition_of(pod, UNPAUSED) is None:
            await self._mark_unpaused(pod)
            return
        conditions = vmi["status"].get("conditions") or []
        if _containers_ready(pod):
            labelled = merge(vmi, {"metadata": {"labels": {NODE_LABEL: node}}})
            address = {"ipAddress": pod["status"].get("podIP")}
            status = {
                "activePods": {pod["metadata"]["uid"]: node},
                "conditions": [e for e in conditions if e["type"] != "PodScheduled"],
                "interfaces": [{
                    "name": "default", **({"podInterfaceName": "eth0"} if self._new else address),
                }],
                "nodeName": node,
            }  # fmt: skip
            if self._new:
                volumes = [
                    {"name": each["name"], "target": ""} for each in vmi["spec"].get("volumes", [])
                ]
                status["migrationTransport"] = "Unix"
                status["volumeStatus"] = volumes
            await self._client.update(VMIS, in_phase(labelled, "Scheduled", self._client, status))
            return
        status = {
            "activePods": {pod["metadata"]["uid"]: node},
            "qosClass": pod["status"].get("qosClass"),
        }
        changed = merge(vmi, {"status": status})
        scheduled = condition_of(pod, "PodScheduled")
        kept = [each for each in conditions if each["type"] != "PodScheduled"]
        if scheduled is not None and scheduled["status"] == "False":
            kept.append({k: v for k, v in scheduled.items() if k != "observedGeneration"})
        changed = merge(changed, {"status": {"conditions": kept}})
        if changed != vmi:
            await self._client.update(VMIS, changed)

    # Scheduled and Running: virt-handler owns the VMI ---------------------------------------

    async def _keep(self, vmi: Object, pod: Object, phase: str) -> None:
        if phase == "Scheduled" and ended(pod):
            await self._fail(vmi, pod)
        elif NODE_LABEL not in pod["metadata"]["labels"]:
            label = {NODE_LABEL: vmi["status"]["nodeName"]}
            await self._client.patch(PODS, pod, {"metadata": {"labels": label}})
        elif self._is_outdated(vmi) != (OUTDATED in (vmi["metadata"].get("labels") or {})):
            mark = {OUTDATED: "" if self._is_outdated(vmi) else None}
            await self._client.patch(VMIS, vmi, {"metadata": {"labels": mark}})

    def _is_outdated(self, vmi: Object) -> bool:
        """Whether its launcher is not of the version that launchers are of now."""
        return bool(vmi["status"].get("launcherContainerImageVersion", self._image) != self._image)

    # Deleted --------------------------------------------------------------------------------

    async def _end(self, vmi: Object, pod: Object | None, phase: str) -> None:
        if pod is not None and "deletionTimestamp" not in pod["metadata"]:
            await self._client.delete(PODS, pod)
            message = f"Deleted virtual machine pod {pod['metadata']['name']}"
            self._recorder.tell(vmi, "SuccessfulDelete", message)
        elif phase in ("Pending", "Scheduling"):
            await self._fail(vmi, pod)
        elif pod is not None:
            ready = self._ready(vmi, pod, phase)
            if phase in FINAL and ready["conditions"] != vmi["status"].get("conditions"):
                await self._client.update(VMIS, merge(vmi, {"status": ready}))
        elif phase not in FINAL:
            await self._fail(vmi, pod)
        elif VM_FINALIZER not in (vmi["metadata"].get("finalizers") or []):
            own = FINALIZERS.values()
            left = [each for each in vmi["metadata"].get("finalizers") or [] if each not in own]
            await self._client.patch(VMIS, vmi, {"metadata": {"finalizers": left}})


def in_phase(vmi: Object, phase: str, client: Client, status: Object) -> Object:
    """The VMI in another phase, stamped, with more changes to its status."""
    stamps = vmi["status"].get("phaseTransitionTimestamps") or []
    stamp = {"phase": phase, "phaseTransitionTimestamp": client.stamp()}
    change = {**status, "phase": phase, "phaseTransitionTimestamps": [*stamps, stamp]}
    moved: Object = merge(vmi, {"status": change})
    return moved


def ended(pod: Object) -> bool:
    """Whether the launcher is over."""
    status = pod.get("status") or {}
    statuses = status.get("containerStatuses") or []
    compute: Object = next((each for each in statuses if each["name"] == "compute"), {})
    return status.get("phase") in FINAL or "terminated" in (compute.get("state") or {})


def _containers_ready(pod: Object) -> bool:
    ready = condition_of(pod, "ContainersReady")
    return ready is not None and ready["status"] == "True"
