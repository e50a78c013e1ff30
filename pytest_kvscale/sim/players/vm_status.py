"""The status of a VirtualMachine, as virt-controller derives it from the VM and its VMI."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

from pytest_kvscale.sim.client import condition_of
from pytest_kvscale.sim.errors import Object
from pytest_kvscale.sim.players import vm_strategy
from pytest_kvscale.sim.players.vm_strategy import FINAL, phase_of

GENERATION = "kubevirt.io/vm-generation"
"""The VMI's annotation that says which generation of its VM it was started from."""
_OWN_CONDITIONS = ("Ready", "Failure")
_STARTING = ("", "Pending", "Scheduling", "Scheduled")


@dataclasses.dataclass(frozen=True)
class Trouble:
    """Why virt-controller could not do what the VM asks for."""

    reason: str
    message: str


def snapshots(vm: Object) -> list[Object]:
    """`volumeSnapshotStatuses`: container disks cannot be snapshotted."""
    spec = vm["spec"]["template"].get("spec") or {}
    return [
        {
            "enabled": False,
            "name": each["name"],
            "reason": f"Snapshot is not supported for this volumeSource type [{each['name']}]",
        }
        for each in spec.get("volumes") or []
    ]


def status_of(
    vm: Object,
    vmi: Object | None,
    trouble: Trouble | None,
    now: str,
    retry_at: Callable[[int], str],
) -> Object:
    """The VM's new status; `retry_at` tells when to start again after so many failures."""
    status: Object = {**(vm.get("status") or {})}
    for key in ("created", "ready"):
        status.pop(key, None)
    if vmi is not None:
        status["created"] = True
        ready = condition_of(vmi, "Ready")
        if ready is not None and ready["status"] == "True":
            status["ready"] = True
        generation = (vmi["metadata"].get("annotations") or {}).get(GENERATION)
        if generation is not None:
            status["observedGeneration"] = int(generation)
            status["desiredGeneration"] = vm["metadata"]["generation"]
    if status.get("runStrategy") or vmi is not None:
        status["runStrategy"] = vm_strategy.strategy(vm)
    if vm_strategy.request_is_done(vm, vmi):
        left = status["stateChangeRequests"][1:]
        status.pop("stateChangeRequests")
        if left:
            status["stateChangeRequests"] = left
    _count_failures(status, vm, vmi, retry_at)
    status["conditions"] = _conditions(vm, vmi, trouble, now)
    status["printableStatus"] = _printable(vm, vmi, status)
    return status


def _count_failures(
    status: Object, vm: Object, vmi: Object | None, retry_at: Callable[[int], str]
) -> None:
    if _ran(vmi) or not vm_strategy.counts_failures(vm):
        status.pop("startFailure", None)
        return
    if vmi is None or phase_of(vmi) not in FINAL:
        return
    before = status.get("startFailure") or {}
    if before.get("lastFailedVMIUID") == vmi["metadata"]["uid"]:
        return
    count = before.get("consecutiveFailCount", 0) + 1
    status["startFailure"] = {
        "consecutiveFailCount": count,
        "lastFailedVMIUID": vmi["metadata"]["uid"],
        "retryAfterTimestamp": retry_at(count),
    }


def _ran(vmi: Object | None) -> bool:
    stamps = (vmi or {}).get("status", {}).get("phaseTransitionTimestamps") or []
    return any(each["phase"] == "Running" for each in stamps)


def _conditions(vm: Object, vmi: Object | None, trouble: Trouble | None, now: str) -> list[Object]:
    wanted = [_ready(vmi, now)]
    if trouble is not None:
        wanted.append(
            {
                "lastProbeTime": None,
                "lastTransitionTime": now,
                "message": trouble.message,
                "reason": trouble.reason,
                "status": "True",
                "type": "Failure",
            }
        )
    if vmi is not None:
        mirrored = (vmi.get("status") or {}).get("conditions") or []
        wanted += [
            {"lastProbeTime": None, **e} for e in mirrored if e["type"] not in _OWN_CONDITIONS
        ]
    else:
        held = (vm.get("status") or {}).get("conditions") or []
        wanted += [each for each in held if each["type"] not in _OWN_CONDITIONS]
    return [_unless_same(vm, each) for each in wanted]


def _ready(vmi: Object | None, now: str) -> Object:
    if vmi is None:
        reason, message = "VMINotExists", "VMI does not exist"
    else:
        held = condition_of(vmi, "Ready")
        if held is not None:
            return {"lastProbeTime": None, **held}
        reason, message = "VMIConditionMissing", "VMI is missing the Ready condition"
    return {
        "lastProbeTime": now,
        "lastTransitionTime": now,
        "message": message,
        "reason": reason,
        "status": "False",
        "type": "Ready",
    }


def _unless_same(vm: Object, wanted: Object) -> Object:
    """The condition the VM has already, times and all, unless the new one says something else."""
    held = condition_of(vm, wanted["type"])
    same = held is not None and all(
        held.get(key) == wanted.get(key) for key in ("status", "reason", "message")
    )
    return held if held is not None and same else wanted


def _printable(vm: Object, vmi: Object | None, status: Object) -> str:  # noqa: PLR0911
    """The word for `kubectl get vm`: the first that fits."""
    if "deletionTimestamp" in vm["metadata"]:
        return "Terminating"
    phase = phase_of(vmi) if vmi is not None else None
    if vmi is not None and phase not in FINAL and "deletionTimestamp" in vmi["metadata"]:
        return "Stopping"
    if phase == "Running":
        return "Running"
    if _refused(vmi, "PodScheduled") == "Unschedulable":
        return "ErrorUnschedulable"
    pull = _refused(vmi, "Synchronized")
    if pull in ("ErrImagePull", "ImagePullBackOff"):
        return pull
    if phase in _STARTING:
        return "Starting"
    return "CrashLoopBackOff" if status.get("startFailure") else "Stopped"


def _refused(vmi: Object | None, kind: str) -> str:
    """The reason of a condition that is False."""
    held = condition_of(vmi, kind) if vmi is not None else None
    return str(held.get("reason", "")) if held is not None and held["status"] == "False" else ""
