"""VirtualMachines: what their run strategies keep, and what a client sees of it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pytest_kvscale.cluster.clock import VirtualClock
from pytest_kvscale.sim.api import Query
from pytest_kvscale.sim.cluster import EmbeddedCluster
from pytest_kvscale.sim.players import vm_strategy
from pytest_kvscale.sim.players.vm_strategy import Step, next_step
from pytest_kvscale.sim.resources import (
    CONTROLLER_REVISIONS,
    EVENTS,
    NAMESPACES,
    PODS,
    VMIS,
    VMS,
)
from tests.sim.staging import (
    Change,
    Json,
    change,
    held,
    last,
    now,
    of_kind,
    play,
    printed,
    told,
    vm,
)

FINALIZER = "kubevirt.io/virtualMachineControllerFinalize"


def run_one(obj: Json, wait: float = 10) -> Callable[[EmbeddedCluster], Any]:
    """Create a VM, wait, delete it, wait."""

    async def script(cluster: EmbeddedCluster) -> None:
        made = cluster.api.create(VMS, "default", obj)
        await asyncio.sleep(wait)
        cluster.api.delete(VMS, "default", made["metadata"]["name"])
        await asyncio.sleep(60)

    return script


def conditions(obj: Json) -> dict[str, tuple[str, str | None]]:
    listed = obj["status"].get("conditions") or []
    return {each["type"]: (each["status"], each.get("reason")) for each in listed}


def starts(seen: list[Change]) -> list[float]:
    return [each.at for each in of_kind(seen, VMIS) if each.type == "ADDED"]


def test_a_vm_runs_its_vmi_and_takes_it_along(clock: VirtualClock) -> None:
    seen = play(clock, run_one(vm()))
    assert printed(seen) == ["Stopped", "Starting", "Running", "Terminating"]
    assert [each.kind for each in seen if each.type == "DELETED"] == [
        "Pod", "VirtualMachineInstance", "VirtualMachine",
    ]  # fmt: skip
    owner = last(seen, VMS)["metadata"]
    made = of_kind(seen, VMIS, "one")[0].obj["metadata"]
    assert made["labels"] == {"rs": "r"}
    assert made["annotations"] == {"note": "mine", "kubevirt.io/vm-generation": "1"}
    assert made["finalizers"][0] == FINALIZER
    assert made["ownerReferences"] == [
        {
            "apiVersion": "kubevirt.io/v1",
            "blockOwnerDeletion": True,
            "controller": True,
            "kind": "VirtualMachine",
            "name": "one",
            "uid": owner["uid"],
        }
    ]
    assert owner["finalizers"] == [FINALIZER]
    uid = made["uid"]
    assert told(seen, VMS) == [
        (
            "SuccessfulCreate",
            "Started the virtual machine by creating the new virtual machine instance one",
        ),
        (
            "SuccessfulDelete",
            f"Stopped the virtual machine by deleting the virtual machine instance {uid}",
        ),
    ]


def test_a_running_vm_says_so(clock: VirtualClock) -> None:
    async def script(cluster: EmbeddedCluster) -> None:
        cluster.api.create(VMS, "default", vm())
        await asyncio.sleep(10)
        found = now(cluster, VMS, "one")
        assert found["metadata"]["generation"] == 1
        status = found["status"]
        assert (status["created"], status["ready"]) == (True, True)
        assert status["printableStatus"] == "Running"
        assert status["runStrategy"] == "Always"
        assert (status["observedGeneration"], status["desiredGeneration"]) == (1, 1)
        assert conditions(found) == {"Ready": ("True", None)}
        vmi = now(cluster, VMIS, "one")
        (revision,) = held(cluster, CONTROLLER_REVISIONS)
        assert revision["metadata"]["name"] == vmi["status"]["virtualMachineRevisionName"]
        assert revision["data"]["spec"] == found["spec"]

    play(clock, script)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"runStrategy": "Always"}, True),
        ({"runStrategy": "RerunOnFailure"}, True),
        ({"runStrategy": "Once"}, True),
        ({"runStrategy": "Halted"}, False),
        ({"runStrategy": "Manual"}, False),
        ({"running": True, "runStrategy": None}, True),
        ({"running": False, "runStrategy": None}, False),
    ],
)
def test_a_run_strategy_decides_whether_a_new_vm_starts(
    clock: VirtualClock, given: Json, expected: bool
) -> None:
    obj = vm(**given)
    obj["spec"] = {key: value for key, value in obj["spec"].items() if value is not None}
    seen = play(clock, run_one(obj))
    assert bool(starts(seen)) is expected
    assert printed(seen)[-2 if expected else -1] == ("Running" if expected else "Stopped")
    assert seen[-1].kind == "VirtualMachine"
    assert seen[-1].type == "DELETED"


def test_a_vm_is_halted_and_started_again(clock: VirtualClock) -> None:
    async def script(cluster: EmbeddedCluster) -> None:
        cluster.api.create(VMS, "default", vm())
        await asyncio.sleep(10)
        change(cluster, VMS, "one", {"spec": {"runStrategy": "Halted"}})
        await asyncio.sleep(10)
        assert held(cluster, VMIS) == []
        stopped = now(cluster, VMS, "one")
        assert stopped["status"]["printableStatus"] == "Stopped"
        assert "created" not in stopped["status"]
        assert conditions(stopped) == {"Ready": ("False", "VMINotExists")}
        change(cluster, VMS, "one", {"spec": {"runStrategy": "Always"}})
        await asyncio.sleep(10)
        (revision,) = held(cluster, CONTROLLER_REVISIONS)
        assert revision["revision"] == 3

    seen = play(clock, script)
    assert printed(seen) == [
        "Stopped", "Starting", "Running", "Stopping", "Stopped", "Starting", "Running",
    ]  # fmt: skip


def test_requests_start_and_stop_a_vm_that_is_run_by_hand(clock: VirtualClock) -> None:
    async def script(cluster: EmbeddedCluster) -> None:
        cluster.api.create(VMS, "default", vm(strategy="Manual"))
        await asyncio.sleep(5)
        assert held(cluster, VMIS) == []
        start = {"status": {"stateChangeRequests": [{"action": "Start"}]}}
        change(cluster, VMS, "one", start, "status")
        await asyncio.sleep(5)
        (vmi,) = held(cluster, VMIS)
        assert "stateChangeRequests" not in now(cluster, VMS, "one")["status"]
        request = {"action": "Stop", "uid": vmi["metadata"]["uid"]}
        change(cluster, VMS, "one", {"status": {"stateChangeRequests": [request]}}, "status")
        await asyncio.sleep(5)
        assert held(cluster, VMIS) == []
        assert "stateChangeRequests" not in now(cluster, VMS, "one")["status"]

    play(clock, script)


def test_a_halted_vm_that_is_asked_to_start_becomes_one_that_runs(clock: VirtualClock) -> None:
    async def script(cluster: EmbeddedCluster) -> None:
        cluster.api.create(VMS, "default", vm(strategy="Halted"))
        await asyncio.sleep(5)
        start = {"status": {"stateChangeRequests": [{"action": "Start"}]}}
        change(cluster, VMS, "one", start, "status")
        await asyncio.sleep(5)
        assert now(cluster, VMS, "one")["spec"]["runStrategy"] == "Always"
        assert now(cluster, VMIS, "one")["status"]["phase"] == "Running"

    play(clock, script)


@pytest.fixture
def crashing(profile_file: Callable[[str], Path]) -> str:
    path = profile_file("faults: {launcher_crash: 1}")
    path.write_text(path.read_text().replace("blog-2021", "fast"))
    return str(path)


@pytest.mark.parametrize("strategy", ["Always", "RerunOnFailure"])
def test_a_vm_whose_vmi_fails_is_started_again_later_and_later(
    clock: VirtualClock, crashing: str, strategy: str
) -> None:
    seen = play(clock, run_one(vm(strategy=strategy), wait=1000), crashing)
    pauses = [b - a for a, b in zip(starts(seen), starts(seen)[1:], strict=False)]
    for number, pause in enumerate(pauses[:4], 1):
        least = min(10 * number**2, 300)
        assert least - 1 <= pause <= min(least * 1.5, 300) + 3, pauses
    assert "CrashLoopBackOff" in printed(seen)
    failures = [
        each.obj["status"]["startFailure"]["consecutiveFailCount"]
        for each in of_kind(seen, VMS)
        if "startFailure" in (each.obj.get("status") or {})
    ]
    assert failures[0] == 1
    assert max(failures) == len(starts(seen))
    reasons = {reason for reason, _ in told(seen, VMS)}
    assert reasons == {"SuccessfulCreate", "SuccessfulDelete"}
    assert [each.kind for each in seen[-3:] if each.type == "DELETED"][-1] == "VirtualMachine"


def test_a_vm_that_runs_once_is_not_started_again(clock: VirtualClock, crashing: str) -> None:
    seen = play(clock, run_one(vm(strategy="Once"), wait=1000), crashing)
    assert len(starts(seen)) == 1
    assert printed(seen)[-2:] == ["CrashLoopBackOff", "Terminating"]


def test_a_vm_whose_vmi_somebody_deletes_gets_a_new_one(clock: VirtualClock) -> None:
    async def script(cluster: EmbeddedCluster) -> None:
        cluster.api.create(VMS, "default", vm())
        await asyncio.sleep(5)
        cluster.api.delete(VMIS, "default", "one")
        await asyncio.sleep(10)
        assert now(cluster, VMS, "one")["status"]["printableStatus"] == "Running"

    seen = play(clock, script)
    assert len(starts(seen)) == 2


def test_a_vm_whose_vmi_is_refused_says_why_and_tries_less_and_less(
    clock: VirtualClock, profile_file: Callable[[str], Path]
) -> None:
    path = profile_file("faults: {create_rejected: 1}")

    async def script(cluster: EmbeddedCluster) -> None:
        cluster.api.create(VMS, "default", vm())
        await asyncio.sleep(600)
        found = now(cluster, VMS, "one")
        assert conditions(found)["Failure"] == ("True", "FailedCreate")
        assert "rejected on request" in found["status"]["conditions"][1]["message"]
        asked = cluster.clients["virt-controller"].requests
        key = ("virt-controller", "create", VMIS.plural, 0)
        assert 10 <= asked[key] <= 20

    seen = play(clock, script, str(path))
    assert {reason for reason, _ in told(seen, VMS)} == {"FailedCreate"}
    assert [each.obj["count"] for each in of_kind(seen, EVENTS)][-1] > 5


def test_a_vm_whose_pod_fits_nowhere_says_so(clock: VirtualClock) -> None:
    obj = vm()
    obj["spec"]["template"]["spec"]["nodeSelector"] = {"kubernetes.io/hostname": "another"}
    seen = play(clock, run_one(obj))
    assert "ErrorUnschedulable" in printed(seen)
    assert conditions(of_kind(seen, VMS)[-2].obj)["PodScheduled"] == ("False", "Unschedulable")


def test_a_vm_deleted_at_any_moment_goes_with_all_it_made(clock: VirtualClock) -> None:
    for wait in (0, 0.03, 0.05, 0.06, 0.08, 0.1, 0.3, 0.5, 0.8, 3):
        seen = play(clock, run_one(vm(), wait=wait))
        added = {each.obj["metadata"]["uid"] for each in seen if each.type == "ADDED"}
        gone = {each.obj["metadata"]["uid"] for each in seen if each.type == "DELETED"}
        left = {each.kind for each in seen if each.obj["metadata"]["uid"] in added - gone}
        assert left <= {"Event"}, wait


def test_all_vms_with_a_label_are_deleted_at_once(clock: VirtualClock) -> None:

    async def script(cluster: EmbeddedCluster) -> None:
        for name in ("one", "two", "three"):
            cluster.api.create(VMS, "default", vm(name))
        await asyncio.sleep(10)
        cluster.api.delete_collection(VMS, Query("default", labels="mine=yes"))
        await asyncio.sleep(30)
        for kind in (VMS, VMIS, PODS, CONTROLLER_REVISIONS):
            assert held(cluster, kind) == []

    play(clock, script)


def test_a_vm_deleted_without_its_dependents_leaves_a_vmi_that_can_be_deleted(
    clock: VirtualClock,
) -> None:
    async def script(cluster: EmbeddedCluster) -> None:
        cluster.api.create(VMS, "default", vm())
        await asyncio.sleep(5)
        cluster.api.delete(VMS, "default", "one", {"propagationPolicy": "Orphan"})
        await asyncio.sleep(10)
        assert held(cluster, VMS) == []
        left = now(cluster, VMIS, "one")
        assert left["status"]["phase"] == "Running"
        assert not left["metadata"].get("ownerReferences")
        cluster.api.create(VMS, "default", vm())
        await asyncio.sleep(5)
        owner = now(cluster, VMS, "one")["metadata"]["uid"]
        adopted = now(cluster, VMIS, "one")["metadata"]
        assert adopted["uid"] == left["metadata"]["uid"]
        assert [each["uid"] for each in adopted["ownerReferences"]] == [owner]
        cluster.api.delete(VMS, "default", "one")
        await asyncio.sleep(30)
        for kind in (VMS, VMIS, PODS):
            assert held(cluster, kind) == []

    play(clock, script)


def test_a_namespace_takes_its_vms_along(clock: VirtualClock) -> None:

    async def script(cluster: EmbeddedCluster) -> None:
        cluster.api.create(NAMESPACES, "", {"metadata": {"name": "mine"}})
        for index in range(5):
            cluster.api.create(VMS, "mine", vm(f"vm-{index}"))
        await asyncio.sleep(0.1)
        cluster.api.delete(NAMESPACES, "", "mine")
        await asyncio.sleep(60)
        assert cluster.store.get(NAMESPACES, "", "mine") is None

    play(clock, script)


# The decisions alone ----------------------------------------------------------------------------


def a_vmi(phase: str, uid: str = "u", deleting: bool = False) -> Json:
    metadata = {"uid": uid, **({"deletionTimestamp": "now"} if deleting else {})}
    return {"metadata": metadata, "status": {"phase": phase}}


@pytest.mark.parametrize(
    ("strategy", "vmi", "expected"),
    [
        ("Always", None, Step.START),
        ("Always", a_vmi("Running"), Step.NOTHING),
        ("Always", a_vmi("Succeeded"), Step.STOP),
        ("Always", a_vmi("Failed", deleting=True), Step.NOTHING),
        ("Halted", None, Step.NOTHING),
        ("Halted", a_vmi("Scheduling"), Step.STOP),
        ("Manual", None, Step.NOTHING),
        ("Manual", a_vmi("Failed"), Step.NOTHING),
        ("Once", a_vmi("Failed"), Step.NOTHING),
        ("RerunOnFailure", None, Step.START),
        ("RerunOnFailure", a_vmi("Failed"), Step.STOP_AND_REQUEST_START),
        ("RerunOnFailure", a_vmi("Succeeded"), Step.STOP),
    ],
)
def test_the_next_step_follows_from_strategy_and_vmi(
    strategy: str, vmi: Json | None, expected: Step
) -> None:
    assert next_step(vm(strategy=strategy), vmi) is expected


def test_a_vm_that_reruns_failures_stays_off_once_it_has_succeeded() -> None:
    off = {**vm(strategy="RerunOnFailure"), "status": {"runStrategy": "RerunOnFailure"}}
    assert next_step(off, None) is Step.NOTHING


@pytest.mark.parametrize(
    ("failures", "least", "most"), [(0, 10, 15), (1, 10, 15), (2, 40, 60), (5, 250, 300)]
)
def test_the_backoff_grows_with_the_square_of_the_failures(
    failures: int, least: int, most: int
) -> None:
    seconds, more = vm_strategy.backoff(failures)
    assert vm_strategy.longest(seconds) == least
    assert vm_strategy.longest(seconds + more) == most
