"""The node under test."""

from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal
from typing import Any

import pytest
from aiohttp import web
from hypothesis import given
from hypothesis import strategies as st

from pytest_kvscale.cluster import facts
from pytest_kvscale.cluster.choose import Connection
from pytest_kvscale.cluster.clock import VirtualClock
from pytest_kvscale.cluster.nodes import Demands, amount, choose_node, node_facts, node_selector
from pytest_kvscale.cluster.templates import Templates
from pytest_kvscale.errors import ConfigurationError
from pytest_kvscale.sim import quantity
from tests.cluster.scripted import answering

Json = dict[str, Any]


def node(name: str, memory: str = "64Gi", ready: str = "True", **more: Any) -> Json:
    labels = {"kubernetes.io/hostname": f"{name}.example.com", "kubevirt.io/schedulable": "true"}
    return {
        "metadata": {"name": name, "labels": {**labels, **more.pop("labels", {})}},
        "spec": more.pop("spec", {}),
        "status": {
            "allocatable": {"memory": memory, "cpu": "4", "pods": "110", **more},
            "capacity": {"memory": memory, "cpu": "4"},
            "conditions": [{"type": "Ready", "status": ready}],
            "nodeInfo": {"containerRuntimeVersion": "containerd://2"},
        },
    }


def choose(
    clock: VirtualClock,
    nodes: list[Json],
    name: str | None = None,
    *,
    machine: Json | None = None,
    architecture: str = "",
    kubevirt: bool = True,
    **selector: str,
) -> str:
    demands = Demands([machine or {}], kubevirt, architecture)

    async def listing(request: web.BaseRequest) -> web.Response:
        return web.json_response({"items": nodes, "metadata": {"resourceVersion": "1"}})

    async def work() -> str:
        async with answering(listing) as (client, _):
            return str((await choose_node(client, name, selector, demands))["metadata"]["name"])

    return clock.run(work())


def test_the_one_with_most_memory_is_taken(clock: VirtualClock) -> None:
    assert choose(clock, [node("a", "64Gi"), node("b", "128Gi"), node("c", "99000Mi")]) == "b"


def test_a_node_can_be_named_or_selected(clock: VirtualClock) -> None:
    nodes = [node("a"), node("b", "128Gi"), node("c", labels={"zone": "x"})]
    assert choose(clock, nodes, "a") == "a"
    assert choose(clock, nodes, zone="x") == "c"


@pytest.mark.parametrize(
    ("unfit", "why"),
    [
        (node("a", ready="False"), "a: is not ready"),
        (node("a", ready="Unknown"), "a: is not ready"),
        (node("a", spec={"unschedulable": True}), "a: is cordoned"),
        (node("a", labels={"kubevirt.io/schedulable": "false"}), "not schedulable for KubeVirt"),
        (
            node("a", spec={"taints": [{"key": "gpu", "value": "yes", "effect": "NoSchedule"}]}),
            "a: has the taint gpu=yes:NoSchedule, which the template does not tolerate",
        ),
    ],
)
def test_a_node_that_cannot_take_vmis_is_not_taken(
    clock: VirtualClock, unfit: Json, why: str
) -> None:
    assert choose(clock, [unfit, node("b", "1Gi")]) == "b"
    with pytest.raises(ConfigurationError, match=why):
        choose(clock, [unfit])
    with pytest.raises(ConfigurationError, match=why):
        choose(clock, [unfit], "a")


@pytest.mark.parametrize(
    ("toleration", "fits"),
    [
        ({"key": "gpu", "operator": "Exists"}, True),
        ({"key": "gpu", "operator": "Exists", "effect": "NoSchedule"}, True),
        ({"key": "gpu", "value": "yes"}, True),
        ({"key": "gpu", "operator": "Equal", "value": "yes", "effect": ""}, True),
        ({"operator": "Exists"}, True),
        ({"key": "gpu", "value": "no"}, False),
        ({"key": "gpu"}, False),
        ({"key": "other", "operator": "Exists"}, False),
        ({"key": "gpu", "operator": "Exists", "effect": "NoExecute"}, False),
        ({"value": "yes"}, False),
    ],
)
def test_what_the_template_tolerates_is_no_hindrance(
    clock: VirtualClock, toleration: Json, fits: bool
) -> None:
    taint = {"key": "gpu", "value": "yes", "effect": "NoSchedule"}
    nodes = [node("a", "128Gi", spec={"taints": [taint]}), node("b")]
    assert choose(clock, nodes, machine={"tolerations": [toleration]}) == ("a" if fits else "b")


@pytest.mark.parametrize(
    "taint",
    [
        {"key": "busy", "effect": "PreferNoSchedule"},
        {"key": "node.kubernetes.io/memory-pressure", "effect": "NoSchedule"},
    ],
)
def test_some_taints_keep_no_launcher_away(clock: VirtualClock, taint: Json) -> None:
    assert choose(clock, [node("a", spec={"taints": [taint]})]) == "a"


def test_the_architecture_must_be_the_nodes(clock: VirtualClock) -> None:
    nodes = [node("a", labels={"kubernetes.io/arch": "arm64"})]
    assert choose(clock, nodes) == "a"
    assert choose(clock, nodes, machine={"architecture": "arm64"}, architecture="amd64") == "a"
    with pytest.raises(ConfigurationError, match="a: is arm64, but the VMIs are to be amd64"):
        choose(clock, nodes, architecture="amd64")
    with pytest.raises(ConfigurationError, match="a: is arm64, but the VMIs are to be s390x"):
        choose(clock, nodes, machine={"architecture": "s390x"})


def test_a_control_plane_node_is_taken_only_if_it_is_named_or_alone(clock: VirtualClock) -> None:
    control = node("a", "256Gi", labels={"node-role.kubernetes.io/control-plane": ""})
    assert choose(clock, [control, node("b")]) == "b"
    assert choose(clock, [control, node("b")], "a") == "a"
    assert choose(clock, [control]) == "a"


def test_plain_pods_need_no_kubevirt_on_the_node(clock: VirtualClock) -> None:
    bare = node("a", labels={"kubevirt.io/schedulable": "false"})
    assert choose(clock, [bare], kubevirt=False) == "a"


def test_a_node_that_is_not_there_is_told(clock: VirtualClock) -> None:
    with pytest.raises(ConfigurationError, match="there is no node 'x'"):
        choose(clock, [node("a")], "x")
    with pytest.raises(ConfigurationError, match="a: has no label zone=x"):
        choose(clock, [node("a")], zone="x")
    with pytest.raises(ConfigurationError, match="the cluster has none"):
        choose(clock, [])


def test_what_a_node_has_is_read_from_it() -> None:
    made = node("a", spec={"podCIDR": "10.0.0.0/24"}, **{"devices.kubevirt.io/kvm": "110"})
    assert node_facts(made) == {
        "name": "a", "cpu": 4.0, "memory": 64 * 2**30, "max_pods": 110, "devices": 110,
        "pod_ips": 254, "runtime": "containerd://2",
    }  # fmt: skip
    assert node_selector(made) == {"kubernetes.io/hostname": "a.example.com"}


def test_what_is_not_known_is_none() -> None:
    bare: Json = {"metadata": {"name": "a"}, "status": {}}
    assert node_facts(bare) == {
        "name": "a", "cpu": None, "memory": None, "max_pods": None, "devices": None,
        "pod_ips": None, "runtime": "",
    }  # fmt: skip
    assert node_selector(bare) == {"kubernetes.io/hostname": "a"}


@given(st.integers(0, 10**9), st.sampled_from(["", "m", "k", "M", "G", "Ki", "Mi", "Gi", "Ti"]))
def test_quantities_agree_with_the_embedded_clusters(number: int, unit: str) -> None:
    found = amount(f"{number}{unit}")
    assert found is not None
    assert found.as_integer_ratio() == quantity.parse(f"{number}{unit}").as_integer_ratio()


def test_what_is_no_quantity_is_none() -> None:
    assert [amount(each) for each in (None, "", "x", "5GiB")] == [None] * 4
    assert amount("1.5Gi") == Decimal(3 * 2**29)


def test_the_embedded_clusters_facts(connect: Callable[..., Connection]) -> None:
    connection = connect()
    found = connection.run(facts.gather(connection.client, None, {}, Templates([], {})))
    assert found.node["devices"] == 110
    assert (found.kubevirt, found.qemu_timeout) == ("v0.46.1", 240.0)
    assert found.selector == {"kubernetes.io/hostname": "node"}
