"""VMs and replica sets, recorded on a real control plane and played: the same seen by a client.

Both are reduced to one form. Left out is what a recording has by chance (names, uids, times, which
of two concurrent writers came first), what its stand-ins for kubelet and virt-handler did, and
what the model does not claim: defaults that virt-api fills into the templates of VMs.
"""

from __future__ import annotations

import asyncio
import itertools
import re
from typing import Any

import pytest

from pytest_kvscale.cluster.clock import VirtualClock
from pytest_kvscale.sim.api import Query
from pytest_kvscale.sim.cluster import EmbeddedCluster
from pytest_kvscale.sim.resources import VMIRS, VMIS, VMS
from tests.sim.recordings import recorded
from tests.sim.staging import Change, Json, collapsed, of_kind, play, replica_set, vm

SIZE = 10
_UID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")


def about(seen: list[Change], vmi: str) -> list[Change]:
    """The changes that concern one VM: itself, its VMI, its pod, and what is told of them."""

    def concerns(obj: Json) -> bool:
        name = (obj.get("involvedObject") or obj["metadata"])["name"]
        return bool(name == vmi or re.fullmatch(rf"virt-launcher-{vmi}-[a-z0-9]{{5}}", name))

    return [each for each in seen if concerns(each.obj)]


def ready(obj: Json) -> tuple[str, str | None] | None:
    listed = (obj.get("status") or {}).get("conditions") or []
    found = [each for each in listed if each["type"] == "Ready"]
    return (found[0]["status"], found[0].get("reason")) if found else None


def story(seen: list[Change]) -> Json:
    """What a client sees of one VM or VMI, in a form without accidents."""
    vmis = [each.obj for each in of_kind(seen, VMIS)]
    first = vmis[0]["metadata"]
    annotations = set(first.get("annotations") or {}) - {"note"}
    return {
        "phases": collapsed([each["status"]["phase"] for each in vmis]),
        "stamped": [
            each["phase"] for each in vmis[-1]["status"]["phaseTransitionTimestamps"]
        ],
        "labels": set(first["labels"]) - {"kvscale/run"},
        "labels at the end": set(vmis[-1]["metadata"]["labels"]) - {"kvscale/run"},
        "annotations": annotations,
        "finalizers": first["finalizers"],
        "owner": [
            (each["kind"], each["controller"], each["blockOwnerDeletion"])
            for each in first["ownerReferences"]
        ],
        "events": sorted(told(seen)),
        "made": [each.kind for each in seen if each.type == "ADDED" and each.kind != "Event"],
        "gone": [each.kind for each in seen if each.type == "DELETED"],
        "marked": collapsed([
            each.kind
            for each, marked in _first_marked(seen)
            if marked
        ]),
    }  # fmt: skip


def _first_marked(seen: list[Change]) -> list[tuple[Change, bool]]:
    known: set[str] = set()
    found = []
    for each in seen:
        uid = each.obj["metadata"].get("uid", "")
        new = "deletionTimestamp" in each.obj["metadata"] and uid not in known
        if new:
            known.add(uid)
        found.append((each, new))
    return found


def told(seen: list[Change]) -> list[tuple[str, str, str]]:
    """Events of the control plane: about which kind, reason, message."""
    return [
        (
            each.obj["involvedObject"]["kind"],
            each.obj["reason"],
            _without_names(each.obj["message"]),
        )
        for each in seen
        if each.kind == "Event" and not str(each.obj.get("source")).count("virt-handler")
    ]


def _without_names(message: str) -> str:
    message = _UID.sub("<uid>", message)
    message = re.sub(r"\S*virt-launcher-\S+", "<pod>", message)
    message = re.sub(r"(instance) [a-z]+(-\d+|[a-z0-9]{5})$", r"\1 <name>", message)
    return re.sub(r" to \S+$", " to <node>", message)


# VirtualMachines --------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def vms() -> list[Change]:
    return recorded("e-vm-10")


@pytest.fixture
def played_vms(clock: VirtualClock) -> list[Change]:
    async def script(cluster: EmbeddedCluster) -> None:
        for index in range(SIZE):
            obj = vm(f"density-{index:04}")
            del obj["spec"]["template"]["metadata"]["annotations"]
            cluster.api.create(VMS, "default", obj)
        await asyncio.sleep(60)
        cluster.api.delete_collection(VMS, Query("default"))
        await asyncio.sleep(60)

    return play(clock, script, "modern")


def names(seen: list[Change], kind: Any) -> list[str]:
    return sorted({each.name for each in of_kind(seen, kind)})


def test_vms_have_the_story_that_was_recorded(vms: list[Change], played_vms: list[Change]) -> None:
    assert names(vms, VMS) == names(played_vms, VMS)
    expected = [story(about(vms, name)) for name in names(vms, VMS)]
    assert all(each == expected[0] for each in expected)
    for name in names(played_vms, VMS):
        assert story(about(played_vms, name)) == expected[0]


def steps(seen: list[Change], name: str) -> tuple[list[Any], list[Any]]:
    """A VM's own states while it starts, and from its deletion on."""
    states = [
        (
            "deletionTimestamp" in each.obj["metadata"],
            (
                (status := each.obj.get("status") or {}).get("printableStatus"),
                status.get("created"),
                status.get("ready"),
                ready(each.obj),
                status.get("runStrategy"),
                status.get("observedGeneration"),
                status.get("desiredGeneration"),
                sorted(status),
                each.obj["metadata"].get("finalizers"),
                sorted(each.obj["metadata"].get("annotations") or {}),
                each.obj["metadata"]["generation"],
            ),
        )
        for each in of_kind(seen, VMS, name)
    ]
    parts = {marked: [s for m, s in states if m is marked] for marked in (False, True)}
    return collapsed(parts[False]), collapsed(parts[True])


def test_a_vms_own_states_come_as_some_recorded_vms_did(
    vms: list[Change], played_vms: list[Change]
) -> None:
    # Which of two concurrent writers comes first differs between VMs of one recording.
    recorded_steps = [steps(vms, name) for name in names(vms, VMS)]
    for name in names(played_vms, VMS):
        start, end = steps(played_vms, name)
        assert start in [each[0] for each in recorded_steps]
        assert end in [each[1] for each in recorded_steps]


def test_snapshots_and_conditions_of_a_vm_read_as_recorded(
    vms: list[Change], played_vms: list[Change]
) -> None:
    def words(seen: list[Change]) -> set[str]:
        statuses = [each.obj.get("status") or {} for each in of_kind(seen, VMS)]
        conditions = itertools.chain(*(each.get("conditions") or [] for each in statuses))
        snapshots = itertools.chain(
            *(each.get("volumeSnapshotStatuses") or [] for each in statuses)
        )
        said = {each.get("message", "") for each in conditions}
        return said | {re.sub(r"\[.*\]", "[<disk>]", each["reason"]) for each in snapshots}

    by_chance = {"virt-launcher pod has not yet been scheduled", "virt-launcher pod is terminating"}
    assert words(played_vms) - by_chance <= words(vms)
    assert "VMI does not exist" in words(played_vms)


# A replica set ----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def sets() -> list[Change]:
    return recorded("f-vmirs-10")


@pytest.fixture
def played_sets(clock: VirtualClock) -> list[Change]:
    async def script(cluster: EmbeddedCluster) -> None:
        obj = replica_set(SIZE, "density")
        del obj["spec"]["template"]["metadata"]["annotations"]
        cluster.api.create(VMIRS, "default", obj)
        await asyncio.sleep(60)
        cluster.api.delete_collection(VMIRS, Query("default"))
        await asyncio.sleep(60)

    return play(clock, script, "modern")


def test_a_replica_sets_vmis_have_the_story_that_was_recorded(
    sets: list[Change], played_sets: list[Change]
) -> None:
    for seen in (sets, played_sets):
        assert len(names(seen, VMIS)) == SIZE
        assert all(re.fullmatch(r"density[a-z0-9]{5}", each) for each in names(seen, VMIS))
    expected = [story(about(sets, name)) for name in names(sets, VMIS)]
    assert all(each == expected[0] for each in expected)
    for name in names(played_sets, VMIS):
        assert story(about(played_sets, name)) == expected[0]


def test_a_replica_sets_own_states_come_as_recorded(
    sets: list[Change], played_sets: list[Change]
) -> None:
    def own(seen: list[Change]) -> Any:
        states = []
        for each in of_kind(seen, VMIRS):
            status = each.obj.get("status") or {}
            counts = (status.get("labelSelector"), status.get("replicas"))
            metadata = each.obj["metadata"]
            known = sorted(metadata.get("annotations") or {})
            states.append((each.type, counts, known, metadata.get("finalizers"),
                           metadata["generation"], bool(status.get("readyReplicas"))))  # fmt: skip
        return collapsed(states)

    assert own(played_sets) == own(sets)
    for seen in (sets, played_sets):
        counts = [(each.obj.get("status") or {}).get("readyReplicas", 0)
                  for each in of_kind(seen, VMIRS)]  # fmt: skip
        assert counts == sorted(counts)
        assert counts[-1] == SIZE


def test_a_replica_set_tells_what_it_did_as_recorded(
    sets: list[Change], played_sets: list[Change]
) -> None:
    def own(seen: list[Change]) -> list[Any]:
        events = [
            each.obj
            for each in seen
            if each.kind == "Event"
            and each.obj["involvedObject"]["kind"] == "VirtualMachineInstanceReplicaSet"
        ]
        return [
            (each["reason"], each["type"], each["source"], each["count"],
             each["reportingComponent"], _without_names(each["message"]))
            for each in events
        ]  # fmt: skip

    assert own(played_sets) == own(sets)


def test_a_replica_set_goes_before_its_vmis_are_marked(
    sets: list[Change], played_sets: list[Change]
) -> None:
    def order(seen: list[Change]) -> list[str]:
        endings = [
            (each, "gone" if each.type == "DELETED" else "marked")
            for each, marked in _first_marked(seen)
            if marked or each.type == "DELETED"
        ]
        firsts = dict.fromkeys(f"{each.kind} {how}" for each, how in endings)
        return list(firsts)

    for seen in (sets, played_sets):
        assert order(seen)[:3] == [
            "VirtualMachineInstanceReplicaSet gone", "VirtualMachineInstance marked", "Pod marked",
        ]  # fmt: skip
        assert order(seen)[-1] == "VirtualMachineInstance gone"
