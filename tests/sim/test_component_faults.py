"""Faults of components, nodes and the clock: what they do, and that runs survive them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pytest_kvscale.cluster.clock import VirtualClock
from pytest_kvscale.sim.resources import EVENTS, LEASES, NODES, PODS, VMIS
from pytest_kvscale.sim.store import Event
from tests.sim.asker import Asker
from tests.sim.test_metrics import FROM_CREATION, create, of_component, run

Json = dict[str, Any]


async def ask_for(ask: Asker, **fault: Any) -> Json:
    status, told = await ask("POST", "/_sim/faults", fault)
    assert status == 201, told
    assert isinstance(told, dict)
    return told


def phases(ask: Asker, prefix: str = "") -> list[str]:
    found = [stored.obj for stored in ask.cluster.store.all(VMIS)]
    return [
        each["status"]["phase"] for each in found if each["metadata"]["name"].startswith(prefix)
    ]


async def all_run(ask: Asker, prefix: str) -> None:
    """Wait until all VMIs of these names run."""
    done = asyncio.Event()

    def look(_: Event) -> None:
        if set(phases(ask, prefix)) == {"Running"}:
            done.set()

    ask.cluster.store.listen(VMIS, look)
    async with asyncio.timeout(600):
        await done.wait()


def events(ask: Asker, reason: str) -> int:
    return sum(stored.obj["reason"] == reason for stored in ask.cluster.store.all(EVENTS))


@pytest.mark.parametrize(
    ("component", "stays"),
    [
        ("virt-controller", "Pending"),
        ("kube-scheduler", "Scheduling"),
        ("kubelet", "Scheduling"),
        ("virt-handler", "Scheduled"),
    ],
)
@pytest.mark.parametrize("kind", ["freeze", "kill"])
def test_without_a_component_vmis_wait_for_it(
    clock: VirtualClock, kind: str, component: str, stays: str
) -> None:
    async def work(ask: Asker) -> None:
        await ask_for(ask, kind=kind, component=component, seconds=60)
        await asyncio.sleep(1)
        create(ask, 5)
        await asyncio.sleep(50)
        assert phases(ask) == [stays] * 5
        await asyncio.sleep(60)
        assert phases(ask) == ["Running"] * 5
        assert events(ask, "SuccessfulCreate") == 5
        assert events(ask, "Started") == 5

    run(clock, work)


@pytest.mark.parametrize("component", ["virt-controller", "kube-scheduler", "kubelet",
                                       "virt-handler", "kube-controller-manager"])  # fmt: skip
@pytest.mark.parametrize("kind", ["freeze", "kill"])
def test_a_component_lost_in_the_middle_loses_no_vmi(
    clock: VirtualClock, kind: str, component: str
) -> None:
    async def work(ask: Asker) -> None:
        await ask_for(ask, kind=kind, component=component, seconds=3, after=0.2, times=4, every=0.3)
        for wave in range(5):
            create(ask, 6, f"w{wave}-")
            await asyncio.sleep(0.5)
        await asyncio.sleep(200)
        assert phases(ask) == ["Running"] * 30
        assert len(ask.cluster.store.all(PODS, "default")) == 30
        for stored in ask.cluster.store.all(VMIS):
            ask.cluster.api.delete(VMIS, "default", stored.obj["metadata"]["name"])
            await asyncio.sleep(0.05)
        await asyncio.sleep(200)
        assert ask.cluster.store.all(VMIS) == []
        assert ask.cluster.store.all(PODS, "default") == []
        machine = ask.cluster.machines["node"]
        assert machine.sandboxes == 0

    run(clock, work)


def test_a_killed_virt_controller_counts_from_zero(clock: VirtualClock) -> None:
    async def work(ask: Asker) -> None:
        create(ask, 4)
        await asyncio.sleep(60)
        await ask_for(ask, kind="kill", component="virt-controller", seconds=10)
        await asyncio.sleep(60)
        create(ask, 2, "w")
        await asyncio.sleep(60)
        told = await of_component(ask, "virt-controller")
        assert told.value(f"{FROM_CREATION}_count", phase="Running") == 2
        listed = "rest_client_requests_total"
        assert told.value(listed, verb="LIST", resource="virtualmachineinstances") == 1

    run(clock, work)


def test_a_dead_component_is_not_scraped_and_a_frozen_one_not_in_time(clock: VirtualClock) -> None:
    async def work(ask: Asker) -> None:
        path = "/api/v1/nodes/node/proxy/metrics"
        await ask_for(ask, kind="kill", component="kubelet", seconds=20)
        await asyncio.sleep(1)
        status, told = await ask("GET", path)
        assert (status, told["message"]) == (
            503,
            "error trying to reach service: dial tcp 192.0.2.10:10250: connect: connection refused",
        )
        await asyncio.sleep(30)
        assert (await ask("GET", path))[0] == 200
        await ask_for(ask, kind="freeze", component="kubelet", seconds=20)
        await asyncio.sleep(1)
        status, told = await ask("GET", path)
        assert status == 503
        assert told["message"].endswith("net/http: TLS handshake timeout")
        status, _ = await ask("GET", path)
        assert status == 200  # It went on while we waited.

    run(clock, work)


@pytest.mark.parametrize(
    ("kind", "why", "least"),
    [("kill", "connection refused", 0.0), ("freeze", "context deadline exceeded", 10.0)],
)
def test_without_virt_api_no_vmi_is_let_in(
    clock: VirtualClock, kind: str, why: str, least: float
) -> None:
    async def work(ask: Asker) -> None:
        await ask_for(ask, kind=kind, component="virt-api", seconds=30)
        await asyncio.sleep(1)
        loop = asyncio.get_running_loop()
        before = loop.time()
        body = {
            "apiVersion": "kubevirt.io/v1", "kind": "VirtualMachineInstance",
            "metadata": {"name": "v"}, "spec": {"domain": {}},
        }  # fmt: skip
        path = "/apis/kubevirt.io/v1/namespaces/default/virtualmachineinstances"
        status, told = await ask("POST", path, body)
        assert status == 500
        assert told["message"].startswith("Internal error occurred: failed calling webhook")
        assert why in told["message"]
        assert least <= loop.time() - before < least + 1
        await asyncio.sleep(40)
        assert (await ask("POST", path, body))[0] == 201

    run(clock, work)


def test_a_lost_node_beats_no_more(
    clock: VirtualClock, profile_file: Callable[[str], Path]
) -> None:
    async def work(ask: Asker) -> None:
        def renewed(node: str) -> str:
            lease = ask.cluster.api.get(LEASES, "kube-node-lease", node).obj
            return str(lease["spec"]["renewTime"])

        await asyncio.sleep(30)
        fault = await ask_for(ask, kind="lose-node", node="node-1")
        await asyncio.sleep(1)
        before = {node: renewed(node) for node in ("node-0", "node-1", "node-2")}
        await asyncio.sleep(30)
        still = {node for node, stamp in before.items() if renewed(node) == stamp}
        assert still == {"node-1"}
        await ask("DELETE", f"/_sim/faults/{fault['id']}")
        await asyncio.sleep(30)
        assert renewed("node-1") > before["node-1"]
        assert len(ask.cluster.store.all(NODES)) == 3

    run(clock, work, str(profile_file("extends: fast\nnode: {count: 3}\n")))


def test_a_share_of_the_nodes_is_lost_by_seed(
    clock: VirtualClock, profile_file: Callable[[str], Path]
) -> None:
    lost: list[set[str]] = []

    async def work(ask: Asker) -> None:
        for seed in (0, 0, 1):
            await ask_for(ask, kind="lose-node", share=0.4, seed=seed, seconds=5)
            await asyncio.sleep(1)
            lost.append({e.node for e in ask.cluster.components if e.process.frozen})
            await ask("DELETE", "/_sim/faults")
            await asyncio.sleep(1)
            assert not any(each.process.frozen for each in ask.cluster.components)

    chosen = str(profile_file("extends: fast\nnode: {count: 20}\n"))
    run(clock, work, chosen)
    other = VirtualClock()
    run(other, work, chosen)
    other.close()
    assert lost[:3] == lost[3:]
    assert lost[0] != lost[2]
    assert all(0 < len(each) < 20 for each in lost)


@pytest.mark.parametrize("jump", [3600.0, -3600.0])
def test_a_jump_of_the_clock_moves_stamps_and_nothing_else(
    clock: VirtualClock, jump: float
) -> None:
    async def work(ask: Asker) -> None:
        await ask_for(ask, kind="jump-clock", seconds=jump, after=1)
        create(ask, 1, "before")
        await asyncio.sleep(2)
        loop = asyncio.get_running_loop()
        began = loop.time()
        create(ask, 1, "after")
        await all_run(ask, "after")
        assert loop.time() - began < 3
        first, second = (
            ask.cluster.api.get(VMIS, "default", name).obj["metadata"]["creationTimestamp"]
            for name in ("before0", "after0")
        )
        assert (second > first) is (jump > 0)
        assert abs(int(second[11:13]) - int(first[11:13])) in (1, 23)

    run(clock, work)


def test_a_clock_set_back_never_makes_a_phase_shorter_than_nothing(clock: VirtualClock) -> None:
    async def work(ask: Asker) -> None:
        await ask_for(ask, kind="jump-clock", seconds=-600, after=0.3)
        create(ask, 10)
        await asyncio.sleep(60)
        told = await of_component(ask, "virt-controller")
        assert told.value(f"{FROM_CREATION}_count", phase="Running") == 10
        assert told.value(f"{FROM_CREATION}_sum", phase="Running") == 0

    run(clock, work)


SLOWED = {
    "virt-controller": 1.1, "kube-scheduler": 1.1, "virt-handler": 1.1,
    "kube-apiserver": 1.1, "container-runtime": 1.1, "virt-launcher": 1.1, None: 1.8,
}  # fmt: skip
"""How many times as long 20 VMIs take at least, with one at a third of its speed; None: all."""
QUICK = ("kube-scheduler", "virt-handler")
"""These take so little of it that they are slowed thirtyfold."""


@pytest.mark.parametrize("component", SLOWED)
def test_what_is_slow_takes_longer(clock: VirtualClock, component: str | None) -> None:
    async def work(ask: Asker) -> None:
        loop = asyncio.get_running_loop()
        took = []
        for wave, factor in enumerate((None, 30.0 if component in QUICK else 3.0)):
            if factor is not None:
                await ask_for(ask, kind="slow", component=component, factor=factor)
            began = loop.time()
            create(ask, 20, f"w{wave}-")
            await all_run(ask, f"w{wave}-")
            took.append(loop.time() - began)
        assert took[1] > took[0] * SLOWED[component]
        await ask("DELETE", "/_sim/faults")
        began = loop.time()
        create(ask, 20, "last")
        await all_run(ask, "last")
        assert loop.time() - began == pytest.approx(took[0], rel=0.2)

    run(clock, work)


def test_slowness_ends_when_its_time_is_up(clock: VirtualClock) -> None:
    async def work(ask: Asker) -> None:
        await ask_for(ask, kind="slow", factor=3, lasts=10, after=5)
        await ask_for(ask, kind="slow", component="kubelet", factor=2)
        pace = ask.cluster.faults.pace
        assert (pace("kubelet"), pace("virt-handler")) == (2, 1)
        await asyncio.sleep(6)
        assert (pace("kubelet"), pace("virt-handler")) == (6, 3)
        await asyncio.sleep(10)
        assert (pace("kubelet"), pace("virt-handler")) == (2, 1)
        _, told = await ask("GET", "/_sim/faults")
        assert [each["over"] for each in told["faults"]] == [True, False]

    run(clock, work)


@pytest.mark.parametrize(
    ("fault", "why"),
    [
        ({"kind": "freeze", "component": "virt-controler", "seconds": 1}, "component"),
        ({"kind": "freeze", "component": "kubelet"}, "seconds"),
        ({"kind": "kill", "component": "virt-controller", "node": "node", "seconds": 1},
         "there is only one virt-controller"),
        ({"kind": "lose-node", "node": "nod"}, "no such node 'nod' (did you mean 'node'?)"),
        ({"kind": "jump-clock"}, "seconds"),
        ({"kind": "slow", "factor": 0}, "factor"),
        ({"kind": "slow", "component": "moon", "factor": 2}, "component"),
    ],
)  # fmt: skip
def test_a_wrong_wish_is_told(clock: VirtualClock, fault: Json, why: str) -> None:
    async def work(ask: Asker) -> None:
        status, told = await ask("POST", "/_sim/faults", fault)
        assert status == 400
        assert why in told["message"]

    run(clock, work)
