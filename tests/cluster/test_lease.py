"""Taking turns by a Lease, in virtual time."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from pytest_kvscale.cluster import guard, lease, system
from pytest_kvscale.cluster.choose import Connection
from pytest_kvscale.cluster.client import NAMESPACES, VMIS, ApiError, Client, Object
from pytest_kvscale.cluster.lease import DURATION, LEASES, NAME, Turn
from pytest_kvscale.cluster.system import NAMESPACE
from pytest_kvscale.errors import ConfigurationError
from pytest_kvscale.sim import fault_kinds
from tests.cluster.scripted import answering, status


@pytest.fixture
def connection(connect: Callable[..., Connection]) -> Connection:
    return connect()


async def take(client: Client, run: str, *, wait: bool = True) -> tuple[Turn, float, list[str]]:
    """Take a turn; also how long it took and what was told."""
    told: list[str] = []
    turn, loop = Turn(client, run), asyncio.get_running_loop()
    before = loop.time()
    await turn.take(wait, told.append)
    return turn, loop.time() - before, told


async def held(client: Client) -> Object:
    spec: Object = (await client.get(LEASES, NAMESPACE, NAME))["spec"]
    return spec


def test_a_turn_nobody_has_is_taken_at_once_and_kept(connection: Connection) -> None:
    async def work() -> None:
        turn, took, told = await take(connection.client, "one")
        assert took < 1
        assert not told
        first = await held(connection.client)
        assert first["holderIdentity"] == "one"
        await asyncio.sleep(3600)
        later = await held(connection.client)
        assert later["renewTime"] > first["renewTime"]
        assert later["acquireTime"] == first["acquireTime"]
        assert not turn.lost.done()
        await turn.give_back()
        assert (await held(connection.client))["holderIdentity"] == ""

    connection.run(work())


def test_the_second_waits_until_the_first_is_done_and_says_for_whom(connection: Connection) -> None:
    async def work() -> None:
        first, _, _ = await take(connection.client, "one")
        waiting = asyncio.create_task(take(connection.client, "two"))
        await asyncio.sleep(600)
        assert not waiting.done()
        await first.give_back()
        second, took, told = await waiting
        assert 600 <= took < 606
        assert told[0].startswith("waiting for run one (")
        assert "@" in told[0]
        assert " so far" not in told[0]  # It is told at once.
        assert " so far; if it is dead, its turn ends " in told[1]
        assert 5 <= len(told) <= 11
        await second.give_back()

    connection.run(work())


def test_who_does_not_wait_fails_at_once(connection: Connection) -> None:
    async def work() -> None:
        await take(connection.client, "one")
        with pytest.raises(ConfigurationError, match=r"is in use by run one \(.*since .* UTC\)"):
            await take(connection.client, "two", wait=False)

    connection.run(work())


def test_a_dead_holder_is_taken_over_when_its_lease_ran_out_never_before(
    connection: Connection,
) -> None:
    async def work() -> None:
        dead, _, _ = await take(connection.client, "dead")
        await asyncio.sleep(130)
        await dead.stop()
        turn, took, _ = await take(connection.client, "heir")
        assert DURATION <= took <= DURATION + 1
        spec = await held(connection.client)
        assert (spec["holderIdentity"], spec["leaseTransitions"]) == ("heir", 2)
        await turn.stop()

    connection.run(work())


def test_processes_of_one_run_hold_one_turn(connection: Connection) -> None:
    async def work() -> None:
        controller, _, _ = await take(connection.client, "run")
        worker, took, told = await take(connection.client, "run", wait=False)
        assert took < 1
        assert not told
        await asyncio.sleep(1000)
        assert not controller.lost.done()
        assert not worker.lost.done()
        await worker.stop()
        await asyncio.sleep(1000)
        assert not controller.lost.done()
        await controller.give_back()
        assert (await held(connection.client))["holderIdentity"] == ""

    connection.run(work())


async def take_away(client: Client, holder: str) -> None:
    found = await client.get(LEASES, NAMESPACE, NAME)
    found["spec"]["holderIdentity"] = holder
    await client.request("update", "PUT", LEASES.path(NAMESPACE, NAME), body=found)


def test_a_holder_that_lost_its_turn_knows(connection: Connection) -> None:
    async def work() -> None:
        turn, _, _ = await take(connection.client, "one")
        await take_away(connection.client, "thief")
        reason = await asyncio.wait_for(turn.lost, 30)
        assert reason.startswith("our turn on the cluster is lost to run thief (")
        await turn.give_back()
        assert (await held(connection.client))["holderIdentity"] == "thief"

    connection.run(work())


def test_a_removed_lease_is_a_lost_turn(connection: Connection) -> None:
    async def work() -> None:
        turn, _, _ = await take(connection.client, "one")
        await connection.client.delete(LEASES, NAMESPACE, NAME)
        assert "somebody removed the Lease density" in await asyncio.wait_for(turn.lost, 30)

    connection.run(work())


def test_a_turn_that_cannot_be_renewed_is_lost_before_another_may_begin(
    connection: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def work() -> None:
        turn, _, _ = await take(connection.client, "one")
        loop = asyncio.get_running_loop()
        begin = loop.time()
        monkeypatch.setattr(turn._client, "server", "http://127.0.0.1:9")
        reason = await turn.lost
        assert "could not be renewed" in reason
        assert loop.time() - begin < DURATION

    connection.run(work())


FAULTS: dict[str, dict[str, Any]] = {
    "refused": {"kind": "answer", "status": 503, "share": 1.0},
    "silent": {"kind": "delay", "seconds": 10_000},
    "cut": {"kind": "cut", "when": "after"},
}


def disturb(connection: Connection, **fault: Any) -> None:
    """Let something go wrong with all that has to do with leases."""
    assert connection._embedded is not None
    connection._embedded.faults.add(fault_kinds.read({"resources": ["leases"], **fault}))


@pytest.mark.parametrize("name", FAULTS)
def test_whoever_waits_begins_only_after_a_cut_off_holder_has_stopped(
    connection: Connection, name: str
) -> None:
    """The holder's renewals are lost, and the other sees the lease all the while."""

    async def work() -> None:
        first, _, _ = await take(connection.client, "one")
        waiting = asyncio.create_task(take(connection.client, "two"))
        await asyncio.sleep(600)
        disturb(connection, **FAULTS[name], verbs=["update"], lasts=59, after=0)
        stopped: list[float] = []
        loop = asyncio.get_running_loop()
        first.lost.add_done_callback(lambda _: stopped.append(loop.time()))
        second, _, _ = await waiting
        assert stopped
        assert stopped[0] < loop.time()
        await second.give_back()

    connection.run(work())


@pytest.mark.parametrize("name", FAULTS)
def test_whoever_waits_bears_an_api_that_is_away_for_a_while(
    connection: Connection, name: str
) -> None:
    async def work() -> None:
        first, _, _ = await take(connection.client, "one")
        waiting = asyncio.create_task(take(connection.client, "two"))
        await asyncio.sleep(60)
        disturb(connection, **FAULTS[name], verbs=["get"], lasts=120, after=0)
        await asyncio.sleep(300)
        assert not waiting.done()
        await first.give_back()
        second, _, _ = await waiting
        await second.give_back()

    connection.run(work())


def test_whoever_waits_does_not_wait_for_an_api_that_is_gone(connection: Connection) -> None:
    async def work() -> None:
        await take(connection.client, "one")
        waiting = asyncio.create_task(take(connection.client, "two"))
        await asyncio.sleep(60)
        disturb(connection, kind="answer", status=503, verbs=["get"], after=0)
        with pytest.raises(ApiError, match="503"):
            await asyncio.wait_for(waiting, 600)

    connection.run(work())


def test_an_api_that_never_says_whose_turn_it_is_is_told_in_time(connection: Connection) -> None:
    async def work() -> None:
        disturb(connection, kind="delay", seconds=10_000, verbs=["get"], after=0)
        loop = asyncio.get_running_loop()
        begin = loop.time()
        with pytest.raises(TimeoutError):
            await take(connection.client, "one")
        assert loop.time() - begin <= 15

    connection.run(work())


@pytest.mark.parametrize("code", [403])
def test_where_no_lease_may_be_there_are_no_turns(code: int) -> None:
    from pytest_kvscale.cluster.clock import VirtualClock

    clock = VirtualClock()

    async def refuse(request: Any) -> Any:
        return status(code, "Forbidden")

    async def work() -> None:
        async with answering(refuse) as (client, _):
            turn, _, told = await take(client, "one")
            assert "runs cannot take turns" in turn.off
            assert not told
            assert not turn.lost.done()
            await turn.give_back()

    clock.run(work())
    clock.close()


def vmi(name: str, run: str = "") -> Object:
    labels = {"kvscale.io/run": run} if run else {}
    return {
        "apiVersion": "kubevirt.io/v1",
        "kind": "VirtualMachineInstance",
        "metadata": {"name": name, "labels": labels},
        "spec": {"domain": {}, "terminationGracePeriodSeconds": 5},
    }


def test_a_system_namespace_that_is_being_removed_is_no_reason_to_go_without_a_turn(
    connection: Connection,
) -> None:
    """Whoever comes after it is gone would make it anew, and have the turn at the same time."""

    async def work() -> None:
        client = connection.client
        await system.ensure(client)
        kept = {"metadata": {"name": "kept", "finalizers": ["example.com/mine"]}}
        await client.create(system.CONFIG_MAPS, NAMESPACE, kept)
        await client.delete(NAMESPACES, "", NAMESPACE)
        with pytest.raises(ApiError, match="because it is being terminated"):
            await take(client, "one")

    connection.run(work())


def test_vmis_of_others_on_the_node_are_told(connection: Connection) -> None:
    async def work() -> None:
        client = connection.client
        await guard.check_alone(client, "node", "mine")
        await client.create(VMIS, "default", vmi("stranger"))
        await client.create(VMIS, "default", vmi("own", "mine"))
        await asyncio.sleep(60)
        await guard.check_alone(client, "another-node", "mine")
        with pytest.raises(ConfigurationError) as caught:
            await guard.check_alone(client, "node", "mine")
        assert str(caught.value).startswith(
            "the node node has 1 VMIs that are not of this run (default/stranger): test another"
        )
        with pytest.raises(ConfigurationError, match=r"kubectl delete vmi -A -l kvscale.io/run=mi"):
            await guard.check_alone(client, "node", "next")

    connection.run(work())


def test_the_lease_is_given_up_in_time() -> None:
    assert lease.GIVE_UP_AFTER + lease.RENEW_EVERY <= DURATION
