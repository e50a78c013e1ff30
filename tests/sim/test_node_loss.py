"""A node that is not heard of any more: what its objects say, and what becomes of its VMIs."""

from __future__ import annotations

import asyncio

import pytest

from pytest_kvscale.cluster.clock import VirtualClock
from pytest_kvscale.sim import fault_kinds
from pytest_kvscale.sim.cluster import EmbeddedCluster
from pytest_kvscale.sim.resources import EVENTS, NODES, PODS, VMIS
from tests.sim.level import vmi
from tests.sim.staging import held, now, play


def befall(cluster: EmbeddedCluster, **fault: object) -> None:
    """Ask for a fault of components."""
    cluster.faults.add(fault_kinds.read(fault))


def ready(cluster: EmbeddedCluster) -> tuple[str, str]:
    node = cluster.api.get(NODES, "", "node").obj
    (found,) = [each for each in node["status"]["conditions"] if each["type"] == "Ready"]
    return found["status"], found["reason"]


@pytest.mark.parametrize(("chosen", "grace"), [("fast", 40), ("modern", 50)])
def test_a_lost_node_is_tainted_its_pods_evicted_and_its_vmis_fail(
    clock: VirtualClock, chosen: str, grace: int
) -> None:
    async def script(cluster: EmbeddedCluster) -> None:
        for index in range(3):
            cluster.api.create(VMIS, "default", vmi(f"vmi-{index}"))
        await asyncio.sleep(30)
        assert {each["status"]["phase"] for each in held(cluster, VMIS)} == {"Running"}
        befall(cluster, kind="lose-node")
        await asyncio.sleep(grace - 11)
        assert ready(cluster) == ("True", "KubeletReady")
        await asyncio.sleep(22)
        assert ready(cluster) == ("Unknown", "NodeStatusUnknown")
        node = cluster.api.get(NODES, "", "node").obj
        assert [(each["key"], each["effect"]) for each in node["spec"]["taints"]] == [
            ("node.kubernetes.io/unreachable", "NoSchedule"),
            ("node.kubernetes.io/unreachable", "NoExecute"),
        ]
        reasons = {(e["involvedObject"]["kind"], e["reason"]) for e in held(cluster, EVENTS)}
        assert ("Pod", "NodeNotReady") in reasons
        assert {each["status"]["phase"] for each in held(cluster, VMIS)} == {"Running"}
        await asyncio.sleep(270)
        assert not any("deletionTimestamp" in each["metadata"] for each in held(cluster, PODS))
        await asyncio.sleep(120)
        for each in held(cluster, VMIS):
            assert (each["status"]["phase"], each["status"]["reason"]) == (
                "Failed", "NodeUnresponsive",
            )  # fmt: skip
        # Marked, and left: nobody is there to end them.
        assert len(held(cluster, PODS)) == 3
        assert all("deletionTimestamp" in each["metadata"] for each in held(cluster, PODS))
        reasons = {(e["involvedObject"]["kind"], e["reason"]) for e in held(cluster, EVENTS)}
        assert {
            ("Pod", "TaintManagerEviction"),
            ("VirtualMachineInstance", "NodeUnresponsive"),
        } <= (reasons)
        labels = cluster.api.get(NODES, "", "node").obj["metadata"]["labels"]
        assert labels["kubevirt.io/schedulable"] == "false"

    play(clock, script, chosen)


def test_a_node_that_is_back_in_time_keeps_its_vmis(clock: VirtualClock) -> None:
    async def script(cluster: EmbeddedCluster) -> None:
        cluster.api.create(VMIS, "default", vmi("one"))
        await asyncio.sleep(30)
        befall(cluster, kind="freeze", component="kubelet", seconds=105)
        await asyncio.sleep(100)
        assert ready(cluster)[0] == "Unknown"
        await asyncio.sleep(30)
        assert ready(cluster) == ("True", "KubeletReady")
        assert not cluster.api.get(NODES, "", "node").obj["spec"].get("taints")
        await asyncio.sleep(600)
        assert now(cluster, VMIS, "one")["status"]["phase"] == "Running"
        (pod,) = held(cluster, PODS)
        (state,) = [e for e in pod["status"]["conditions"] if e["type"] == "Ready"]
        assert state["status"] == "True"

    play(clock, script)


def test_a_silent_virt_handler_alone_fails_its_vmis(clock: VirtualClock) -> None:
    async def script(cluster: EmbeddedCluster) -> None:
        cluster.api.create(VMIS, "default", vmi("one"))
        await asyncio.sleep(30)
        befall(cluster, kind="freeze", component="virt-handler", seconds=1e6)
        await asyncio.sleep(250)
        assert now(cluster, VMIS, "one")["status"]["phase"] == "Running"
        await asyncio.sleep(200)
        assert now(cluster, VMIS, "one")["status"]["phase"] == "Failed"
        assert ready(cluster) == ("True", "KubeletReady")

    play(clock, script)
