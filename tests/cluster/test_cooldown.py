"""The rest before a level: how long it takes, and what it waits for; in virtual time."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from decimal import Decimal
from typing import Any

import pytest
from aiohttp import web

from pytest_kvscale.cluster import cooldown, system
from pytest_kvscale.cluster.busy import IN_FLIGHT, in_flight, queued, total
from pytest_kvscale.cluster.choose import Connection
from pytest_kvscale.cluster.client import NAMESPACES, VMIS
from pytest_kvscale.cluster.clock import VirtualClock
from pytest_kvscale.cluster.cooldown import (
    LOOK_EVERY,
    TELL_EVERY,
    NotSettledError,
    Rest,
    Rested,
    Sight,
    last_level,
    moving,
    remember,
)
from pytest_kvscale.cluster.system import CONFIG_MAPS, NAMESPACE
from pytest_kvscale.options import Settings
from pytest_kvscale.session import Run
from tests.cluster.scripted import answering, status

CALM = Sight((), (), {"pods": Decimal(3)})
BEFORE = {"pods": Decimal(3)}


@pytest.mark.parametrize(
    ("sight", "before", "said"),
    [
        (CALM, BEFORE, []),
        (CALM, None, []),
        (CALM, {"pods": Decimal(9)}, []),
        (CALM, {"pods": Decimal(2)}, ["the node carries 3 of pods, 2 before"]),
        (CALM, {}, ["the node carries 3 of pods, 0 before"]),
        (Sight(["pods a", "pods b", "pods c", "pods d"], (), {}), None,
         ["of runs there is still pods a, pods b, pods c and 1 more"]),
        (Sight((), ["x"], {}), None, ["pods are going: x"]),
        (Sight((), (), {}, Decimal(3)), None, ["virt-controller's work queues hold 3"]),
        (Sight((), (), {}, Decimal(0), Decimal(40)), None, []),
        (Sight((), (), {}, Decimal(0), Decimal(7)), {IN_FLIGHT: Decimal(2)}, []),
        (Sight((), (), {}, Decimal(0), Decimal(40)), {IN_FLIGHT: Decimal(2)},
         ["the API works on 40 requests, 2 before"]),
    ],
)  # fmt: skip
def test_what_moves_is_named(sight: Sight, before: Mapping[str, Decimal] | None, said: Any) -> None:
    assert moving(sight, before) == said


class Moving:
    """A cluster that comes to rest after so many seconds, or moves again at some."""

    def __init__(self, until: float, also: tuple[float, float] = (0, 0)) -> None:
        self._until = until
        self._also = also
        self.looks: list[float] = []

    async def __call__(self) -> Sight:
        moment = asyncio.get_running_loop().time()
        self.looks.append(moment)
        moves = moment < self._until or self._also[0] <= moment < self._also[1]
        return Sight(["pods x"] if moves else [], (), {})


def rest(
    clock: VirtualClock, see: Any, least: float = 3600, latest: float = 7200, stretch: float = 60,
    told: list[str] | None = None,
) -> Rested:  # fmt: skip
    async def work() -> Rested:
        lines: list[str] = [] if told is None else told
        return await Rest(see, None, least, latest, stretch, 0.0, lines.append).take()

    return clock.run(work())


def test_a_settled_cluster_rests_for_exactly_the_least_time(clock: VirtualClock) -> None:
    see = Moving(0)
    assert rest(clock, see) == Rested(3600, settled=True)
    # It is looked at only towards the end.
    assert see.looks[0] == 3600 - 60 - LOOK_EVERY
    assert len(see.looks) <= 8


def test_settling_late_takes_longer_and_the_whole_stretch(clock: VirtualClock) -> None:
    told: list[str] = []
    found = rest(clock, Moving(5000), told=told)
    assert found.settled
    assert 5060 <= found.waited <= 5060 + LOOK_EVERY
    resting, moved = told[:3], told[3:]
    assert resting == [f"resting: {left} left" for left in ("45m", "30m", "15m")]
    assert set(moved) == {"not settled yet: of runs there is still pods x"}
    assert len(moved) <= (5000 - 3600) // TELL_EVERY + 1


def test_what_moves_again_begins_the_stretch_anew(clock: VirtualClock) -> None:
    found = rest(clock, Moving(0, (3590, 3610)))
    assert 3670 <= found.waited <= 3670 + 2 * LOOK_EVERY


def test_as_soon_as_settled_needs_no_least_time(clock: VirtualClock) -> None:
    found = rest(clock, Moving(100), least=0)
    assert 160 <= found.waited <= 160 + LOOK_EVERY


def test_not_settled_in_time_says_what_still_moves(clock: VirtualClock) -> None:
    with pytest.raises(NotSettledError) as caught:
        rest(clock, Moving(1e9))
    assert str(caught.value) == (
        "the cluster had not settled after 2h (--kvscale-cooldown-max): of runs there is still "
        "pods x"
    )
    assert clock.loop.time() == 7200


def test_where_nothing_can_be_seen_only_time_counts(clock: VirtualClock) -> None:
    async def work() -> Rested:
        async def refuse(_: Any) -> Any:
            return status(403, "Forbidden")

        async with answering(refuse) as (client, _):
            see = lambda: cooldown.look(client, "node")  # noqa: E731
            return await Rest(see, None, 3600, 7200, 60, 0.0, print).take()

    found = clock.run(work())
    assert (found.waited, found.settled) == (3600, None)
    assert "may not be listed" in found.unknown


def test_an_api_that_does_not_answer_is_not_settled(clock: VirtualClock) -> None:
    async def work() -> Rested:
        async def answer(_: Any) -> Any:
            return status(503, "ServiceUnavailable")

        async with answering(answer) as (client, _):
            see = lambda: cooldown.look(client, "node")  # noqa: E731
            return await Rest(see, None, 60, 600, 60, 0.0, print).take()

    with pytest.raises(NotSettledError, match="the API answers HTTP 503"):
        clock.run(work())


def test_the_last_level_is_remembered_whoever_ran_it(connect: Callable[..., Connection]) -> None:
    connection = connect()

    async def work() -> None:
        client = connection.client
        assert await last_level(client) is None
        await system.ensure(client)
        assert await last_level(client) is None
        await remember(client, "one", "node", BEFORE)
        await asyncio.sleep(100)
        await remember(client, "two", "node", BEFORE)
        await asyncio.sleep(1234)
        found = await last_level(client)
        assert found is not None
        assert (found.run, found.node, found.before) == ("two", "node", BEFORE)
        assert 1232 <= found.ago <= 1236
        # One note is enough.
        assert len((await client.list(CONFIG_MAPS, NAMESPACE))["items"]) == 1

    connection.run(work())


def test_where_nothing_may_be_noted_nothing_is_remembered(
    connect: Callable[..., Connection],
) -> None:
    connection = connect()

    async def work() -> None:
        await remember(connection.client, "one", "node", None)
        assert await last_level(connection.client) is None

    connection.run(work())


@pytest.mark.parametrize("namespaces", [True, False])
def test_what_may_not_be_made_or_listed_keeps_nobody_from_resting(
    clock: VirtualClock, namespaces: bool
) -> None:
    """A role for a namespace that is there lists no namespaces; another may write no notes."""
    note = {
        "metadata": {"name": "last-level-1", "creationTimestamp": "2026-01-01T00:00:00Z"},
        "data": {"level": '{"run": "one", "node": "n", "before": {}}'},
    }
    pod = {"metadata": {"name": "p", "namespace": "n"}, "spec": {}}

    async def answer(request: Any) -> Any:
        if request.method == "POST" or (request.path.endswith("/namespaces") and not namespaces):
            return status(403, "Forbidden")
        if request.path.endswith("/configmaps"):
            return web.json_response({"items": [note]})
        return web.json_response({"items": [pod], "metadata": {}})

    async def work() -> tuple[object, Sight]:
        async with answering(answer) as (client, _):
            return await last_level(client), await cooldown.look(client, "node")

    last, seen = clock.run(work())
    assert last is None
    assert len(seen.ours) == (3 if namespaces else 2)


def test_a_cluster_with_something_of_a_run_is_seen_to_move(
    connect: Callable[..., Connection],
) -> None:
    connection = connect()

    async def work() -> tuple[Sight, Sight]:
        client, label = connection.client, {"kvscale.io/run": "r"}
        before = await cooldown.look(client, "node")
        await client.create(NAMESPACES, "", {"metadata": {"name": "n", "labels": label}})
        await client.create(
            VMIS, "n",
            {
                "apiVersion": "kubevirt.io/v1", "kind": "VirtualMachineInstance",
                "metadata": {"name": "a", "labels": label}, "spec": {"domain": {}},
            },
        )  # fmt: skip
        await asyncio.sleep(60)
        return before, await cooldown.look(client, "node")

    before, during = connection.run(work())
    assert moving(before, before.carried) == []
    assert len(during.ours) == 3
    said = moving(during, before.carried)
    assert any("of memory" in each for each in said)
    assert any("of devices.kubevirt.io/kvm" in each for each in said)


METRICS = """# HELP kubevirt_workqueue_depth Current depth of workqueue
# TYPE kubevirt_workqueue_depth gauge
kubevirt_workqueue_depth{name="virt-controller-vmi"} 3
kubevirt_workqueue_depth{name="virt-controller-pods"} 1.5
kubevirt_workqueue_depth_seconds{name="other"} 9
apiserver_current_inflight_requests{request_kind="mutating"} 2
apiserver_current_inflight_requests{request_kind="readOnly"} 1
"""


def test_metrics_are_summed() -> None:
    assert total(METRICS, "workqueue_depth") == Decimal("4.5")
    assert total(METRICS, "absent") is None


@pytest.mark.parametrize("allowed", [True, False])
def test_metrics_are_read_where_they_may_be(clock: VirtualClock, allowed: bool) -> None:
    pods = [{"metadata": {"name": f"virt-controller-{each}", "namespace": "kubevirt"}}
            for each in "ab"]  # fmt: skip

    async def answer(request: Any) -> Any:
        if request.path == "/api/v1/pods":
            assert request.query["labelSelector"] == "kubevirt.io=virt-controller"
            return web.json_response({"items": pods})
        if not allowed:
            return status(403, "Forbidden")
        known = ("/metrics", *(
            f"/api/v1/namespaces/kubevirt/pods/https:virt-controller-{each}:8443/proxy/metrics"
            for each in "ab"
        ))  # fmt: skip
        return web.Response(text=METRICS) if request.path in known else status(404)

    async def work() -> tuple[Decimal | None, Decimal | None]:
        async with answering(answer) as (client, _):
            return await queued(client), await in_flight(client)

    assert clock.run(work()) == ((Decimal(9), Decimal(3)) if allowed else (None, None))


def test_another_runs_last_level_is_rested_from(connect: Callable[..., Connection]) -> None:
    connection, told = connect(), list[str]()

    def run(name: str) -> Run:
        made = Run(Settings(cluster="sim"), name)
        made._connection, made._identity = connection, connection.identity
        made.tell = told.append
        return made

    first, second = run("first"), run("second")
    first.levels.cool_down(3)
    assert first.levels._resting.as_json()["waited"] == 0
    connection.run(system.ensure(connection.client))
    first.levels._resting.ended(connection.run(moment()))
    connection.run(asyncio.sleep(600))
    second.levels.cool_down(3)
    found = second.levels._resting.as_json()
    assert (found["required"], found["settled"]) == (3600, True)
    assert 2995 < found["waited"] < 3005
    assert told[0] == "the last level on this cluster ended 10m ago (run first)"
    assert told[1].startswith("resting 50m before level 3")
    third = run("third")
    connection.run(asyncio.sleep(7200))
    third.levels.cool_down(3)
    assert third.levels._resting.as_json()["waited"] == 0


async def moment() -> float:
    return asyncio.get_running_loop().time()
