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
from pytest_kvscale.cluster.nodes import amount, choose_node, node_facts, node_selector
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


def choose(clock: VirtualClock, nodes: list[Json], name: str | None = None, **selector: str) -> str:
    async def listing(request: web.BaseRequest) -> web.Response:
        return web.json_response({"items": nodes, "metadata": {"resourceVersion": "1"}})

    async def work() -> str:
        async with answering(listing) as (client, _):
            return str((await choose_node(client, name, selector))["metadata"]["name"])

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
    found = connection.run(facts.gather(connection.client, None, {}))
    assert found.node["devices"] == 110
    assert (found.kubevirt, found.qemu_timeout) == ("v0.46.1", 240.0)
    assert found.selector == {"kubernetes.io/hostname": "node"}


def test_a_fingerprint_is_of_what_it_is_told() -> None:
    assert facts.fingerprint(a=1, b=[2]) == facts.fingerprint(b=[2], a=1)
    assert facts.fingerprint(a=1) != facts.fingerprint(a=2)
