"""Replica sets of VMIs, and what the garbage collector leaves of them and of other owners."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from pytest_kvscale.cluster.clock import VirtualClock
from pytest_kvscale.sim.api import Query
from pytest_kvscale.sim.cluster import EmbeddedCluster
from pytest_kvscale.sim.resources import CONFIG_MAPS, EVENTS, PODS, SECRETS, VMIRS, VMIS
from tests.sim.staging import (
    Json,
    change,
    collapsed,
    held,
    now,
    of_kind,
    play,
    replica_set,
    template,
    told,
)


def living(cluster: EmbeddedCluster) -> list[Json]:
    return [each for each in held(cluster, VMIS) if "deletionTimestamp" not in each["metadata"]]


def test_a_replica_set_makes_its_vmis_and_counts_them(clock: VirtualClock) -> None:
    async def script(cluster: EmbeddedCluster) -> None:
        cluster.api.create(VMIRS, "default", replica_set())
        await asyncio.sleep(10)

    seen = play(clock, script)
    made = [each.obj["metadata"] for each in of_kind(seen, VMIS) if each.type == "ADDED"]
    assert len(made) == 3
    owner = of_kind(seen, VMIRS)[0].obj["metadata"]["uid"]
    for metadata in made:
        assert re.fullmatch(r"set[a-z0-9]{5}", metadata["name"])
        assert metadata["generateName"] == "set"
        assert metadata["labels"] == {"rs": "r"}
        assert metadata["annotations"] == {"note": "mine"}
        assert [(e["kind"], e["uid"], e["controller"]) for e in metadata["ownerReferences"]] == [
            ("VirtualMachineInstanceReplicaSet", owner, True)
        ]
    statuses = collapsed([each.obj.get("status") for each in of_kind(seen, VMIRS)])
    assert statuses[:3] == [
        None, {"labelSelector": "rs=r"}, {"labelSelector": "rs=r", "replicas": 3},
    ]  # fmt: skip
    assert statuses[-1] == {"labelSelector": "rs=r", "replicas": 3, "readyReplicas": 3}
    assert {each.obj["metadata"]["generation"] for each in of_kind(seen, VMIRS)} == {1}


def test_a_replica_set_without_a_number_has_one_vmi(clock: VirtualClock) -> None:
    async def script(cluster: EmbeddedCluster) -> None:
        cluster.api.create(VMIRS, "default", replica_set(None))
        await asyncio.sleep(5)
        assert len(living(cluster)) == 1

    play(clock, script)


def test_a_replica_set_grows_shrinks_and_pauses(clock: VirtualClock) -> None:
    async def script(cluster: EmbeddedCluster) -> None:
        cluster.api.create(VMIRS, "default", replica_set())
        for wanted in (5, 2, 0, 1):
            change(cluster, VMIRS, "set", {"spec": {"replicas": wanted}})
            await asyncio.sleep(10)
            assert len(living(cluster)) == wanted
            assert now(cluster, VMIRS, "set")["status"].get("readyReplicas", 0) == wanted
        change(cluster, VMIRS, "set", {"spec": {"paused": True, "replicas": 4}})
        await asyncio.sleep(5)
        assert len(living(cluster)) == 1
        (condition,) = now(cluster, VMIRS, "set")["status"]["conditions"]
        assert (condition["type"], condition["reason"]) == ("Paused", "Paused")
        change(cluster, VMIRS, "set", {"spec": {"paused": False}})
        await asyncio.sleep(5)
        assert len(living(cluster)) == 4
        assert "conditions" not in now(cluster, VMIRS, "set")["status"]

    reasons = {reason for reason, _ in told(play(clock, script), VMIRS)}
    assert reasons == {
        "SuccessfulCreate", "SuccessfulDelete", "SuccessfulPaused", "SuccessfulResumed",
    }  # fmt: skip


def test_a_vmi_that_is_over_is_deleted_and_replaced(clock: VirtualClock) -> None:
    async def script(cluster: EmbeddedCluster) -> None:
        cluster.api.create(VMIRS, "default", replica_set(2))
        await asyncio.sleep(5)
        before = {each["metadata"]["uid"] for each in living(cluster)}
        victim = living(cluster)[0]["metadata"]["name"]
        change(cluster, VMIS, victim, {"status": {"phase": "Failed"}})
        await asyncio.sleep(10)
        after = {each["metadata"]["uid"] for each in living(cluster)}
        assert len(after) == 2
        assert len(before & after) == 1

    seen = play(clock, script)
    messages = [message for _, message in told(seen, VMIRS)]
    assert any(each.startswith("Deleted finished virtual machine: ") for each in messages)


def test_a_replica_set_takes_in_orphans_and_lets_strangers_go(clock: VirtualClock) -> None:
    async def script(cluster: EmbeddedCluster) -> None:
        orphan = template()
        orphan["metadata"]["name"] = "orphan"
        cluster.api.create(VMIS, "default", orphan)
        cluster.api.create(VMIRS, "default", replica_set(2))
        await asyncio.sleep(5)
        assert len(living(cluster)) == 2
        uid = now(cluster, VMIRS, "set")["metadata"]["uid"]
        adopted = now(cluster, VMIS, "orphan")["metadata"]["ownerReferences"]
        assert [each["uid"] for each in adopted] == [uid]
        change(cluster, VMIS, "orphan", {"metadata": {"labels": {"rs": "other"}}})
        await asyncio.sleep(5)
        assert len(living(cluster)) == 3
        assert now(cluster, VMIS, "orphan")["metadata"]["ownerReferences"] == []

    play(clock, script)


def test_a_refused_vmi_is_told_and_tried_less_and_less(
    clock: VirtualClock, profile_file: Callable[[str], Path]
) -> None:
    path = profile_file("faults: {create_rejected: 1}")

    async def script(cluster: EmbeddedCluster) -> None:
        cluster.api.create(VMIRS, "default", replica_set(1))
        await asyncio.sleep(600)
        (condition,) = now(cluster, VMIRS, "set")["status"]["conditions"]
        assert (condition["type"], condition["reason"]) == ("ReplicaFailure", "FailedCreate")
        assert "rejected on request" in condition["message"]
        asked = cluster.clients["virt-controller"].requests
        assert 10 <= asked["virt-controller", "create", VMIS.plural, 0] <= 20

    seen = play(clock, script, str(path))
    assert {reason for reason, _ in told(seen, VMIRS)} == {"FailedCreate"}


def test_many_similar_events_become_one_and_an_object_has_a_budget(clock: VirtualClock) -> None:
    async def script(cluster: EmbeddedCluster) -> None:
        cluster.api.create(VMIRS, "default", replica_set(40))
        await asyncio.sleep(30)

    seen = play(clock, script)
    about = [each.obj for each in of_kind(seen, EVENTS) if "ReplicaSet" in str(each.obj)]
    about = [each for each in about if each["involvedObject"]["name"] == "set"]
    assert len(about) == 25
    assert len({each["metadata"]["name"] for each in about}) == 10
    assert about[9]["message"].startswith("(combined from similar events): Started the virtual")
    assert about[-1]["count"] == 16
    assert {each["source"]["component"] for each in about} == {
        "virtualmachinereplicaset-controller"
    }


@pytest.mark.parametrize("policy", [None, "Background", "Foreground"])
def test_a_replica_set_that_is_deleted_takes_its_vmis_along(
    clock: VirtualClock, policy: str | None
) -> None:
    async def script(cluster: EmbeddedCluster) -> None:
        cluster.api.create(VMIRS, "default", replica_set())
        await asyncio.sleep(10)
        options = {} if policy is None else {"propagationPolicy": policy}
        cluster.api.delete_collection(VMIRS, Query("default", labels="mine=yes"), options)
        await asyncio.sleep(60)
        for kind in (VMIRS, VMIS, PODS):
            assert held(cluster, kind) == []

    gone = [each.kind for each in play(clock, script) if each.type == "DELETED"]
    assert gone.index("VirtualMachineInstanceReplicaSet") == (6 if policy == "Foreground" else 0)


def test_orphaned_vmis_stay(clock: VirtualClock) -> None:
    async def script(cluster: EmbeddedCluster) -> None:
        cluster.api.create(VMIRS, "default", replica_set())
        await asyncio.sleep(10)
        cluster.api.delete(VMIRS, "default", "set", {"propagationPolicy": "Orphan"})
        await asyncio.sleep(30)
        assert held(cluster, VMIRS) == []
        assert [each["metadata"].get("ownerReferences") for each in living(cluster)] == [None] * 3

    play(clock, script)


def test_the_collector_heeds_every_owner(clock: VirtualClock) -> None:
    def owned(name: str, *owners: Json) -> Json:
        references = [
            {"apiVersion": "v1", "kind": each["kind"], "name": each["metadata"]["name"],
             "uid": each["metadata"]["uid"]}
            for each in owners
        ]  # fmt: skip
        return {"metadata": {"name": name, "ownerReferences": references}}

    async def script(cluster: EmbeddedCluster) -> None:
        api = cluster.api
        one = api.create(SECRETS, "default", {"metadata": {"name": "one"}})
        two = api.create(SECRETS, "default", {"metadata": {"name": "two"}})
        nowhere = {"kind": "Secret", "metadata": {"name": "never", "uid": "never"}}
        stranger = {"kind": "Foreign", "metadata": {"name": "x", "uid": "x"}}
        api.create(CONFIG_MAPS, "default", owned("of-one", one))
        api.create(CONFIG_MAPS, "default", owned("of-both", one, two))
        api.create(CONFIG_MAPS, "default", owned("of-nobody", nowhere))
        api.create(CONFIG_MAPS, "default", owned("of-a-stranger", stranger))
        await asyncio.sleep(1)
        api.delete(SECRETS, "default", "one")
        await asyncio.sleep(1)
        left = {each["metadata"]["name"]: each for each in held(cluster, CONFIG_MAPS)}
        assert set(left) == {"of-both", "of-a-stranger"}
        references = left["of-both"]["metadata"]["ownerReferences"]
        assert [each["name"] for each in references] == ["two"]

    play(clock, script)
