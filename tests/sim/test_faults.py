"""The embedded cluster makes trouble on request: each kind of fault, as clients see it."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable, Coroutine
from typing import Any

import aiohttp
import pytest

from pytest_kvscale.cluster.clock import VirtualClock
from pytest_kvscale.sim.resources import NAMESPACES, PODS
from tests.sim.asker import CONFIG_MAPS, VMIS, Asker, a_cluster
from tests.sim.test_server import config_map, vmi

Work = Callable[[Asker], Coroutine[Any, Any, None]]
FAULTS = "/_sim/faults"
WATCH = f"{CONFIG_MAPS}?watch=true&allowWatchBookmarks=true&resourceVersion="


async def ask_for(ask: Asker, kind: str, **more: Any) -> int:
    status, told = await ask("POST", FAULTS, {"kind": kind, **more})
    assert status == 201, told
    number: int = told["id"]
    return number


async def happened(ask: Asker) -> list[int]:
    return [each["happened"] for each in (await ask("GET", FAULTS))[1]["faults"]]


async def follow(ask: Asker, since: str = "") -> tuple[list[Any], asyncio.Task[str]]:
    """Watch config maps in the background: (time, type, name), and how it ended."""
    seen: list[Any] = []
    since = since or str(ask.cluster.api.store.opened)

    async def work() -> str:
        try:
            async for event in ask.watch(WATCH + since):
                now = round(asyncio.get_running_loop().time(), 1)
                metadata = event["object"].get("metadata", {})
                seen.append((now, event["type"], metadata.get("name")))
        except aiohttp.ClientError:
            return "reset"
        return "end"

    task = asyncio.create_task(work())
    await asyncio.sleep(0.2)
    return seen, task


def told(seen: list[Any]) -> list[Any]:
    return [(kind, name) for _, kind, name in seen if kind != "BOOKMARK"]


# The endpoint ---------------------------------------------------------------------------------


def test_faults_are_asked_for_shown_and_taken_back(run: Callable[[Work], None]) -> None:
    async def work(ask: Asker) -> None:
        first = await ask_for(ask, "answer", status=503, verbs=["get"], after=10)
        second = await ask_for(ask, "restart", seconds=5, after=100)
        _, shown = await ask("GET", FAULTS)
        assert [each["id"] for each in shown["faults"]] == [first, second]
        assert shown["faults"][0]["fault"]["status"] == 503
        assert (shown["faults"][0]["begins_in"], shown["faults"][0]["over"]) == (10, False)
        assert await ask("DELETE", f"{FAULTS}/{first}") == (200, {"removed": 1})
        assert (await ask("DELETE", f"{FAULTS}/{first}"))[0] == 404
        assert (await ask("DELETE", f"{FAULTS}/x"))[0] == 404
        assert await ask("DELETE", FAULTS) == (200, {"removed": 1})
        assert (await ask("GET", FAULTS))[1] == {"faults": []}
        assert (await ask("PUT", FAULTS, {}))[0] == 405
        await asyncio.sleep(120)
        assert (await ask("GET", "/version"))[0] == 200

    run(work)


@pytest.mark.parametrize(
    ("body", "sentence"),
    [
        ({}, "kind: None: expected one of answer, delay, cut, drop-events"),
        ({"kind": "restrat"}, "kind: 'restrat' (did you mean 'restart'?)"),
        ({"kind": "restart"}, "the key 'seconds' is missing"),
        ({"kind": "restart", "seconds": "5"}, "seconds: input should be a valid number, got '5'"),
        ({"kind": "restart", "secnds": 5}, "unknown key 'secnds' (did you mean 'seconds'?)"),
        ({"kind": "restart", "seconds": 5, "resources": []}, "unknown key 'resources'"),
        ({"kind": "answer", "status": 200}, "status: input should be greater than or equal to 400"),
        ({"kind": "answer", "status": 429, "verbs": ["post"]}, "verbs.0: input should be 'get'"),
        ({"kind": "cut", "resources": ["pod"]}, "no such resource 'pod' (did you mean 'pods'?)"),
        ({"kind": "cut", "share": 0}, "share: input should be greater than 0"),
        ({"kind": "cut", "when": "after", "callers": "all"}, "when: after is for callers: clients"),
        ({"kind": "answer", "status": 403, "callers": "players"}, "status 403 is for callers"),
        (
            {"kind": "answer", "status": 503, "callers": "all", "carried_out": True},
            "carried_out is for callers: clients only",
        ),
        ({"kind": "compact", "times": 3}, "times: more than one needs every"),
        ([], "it must be a JSON object"),
    ],
)
def test_a_mistake_is_told(run: Callable[[Work], None], body: Any, sentence: str) -> None:
    async def work(ask: Asker) -> None:
        status, refusal = await ask("POST", FAULTS, body)
        assert (status, refusal["reason"]) == (400, "BadRequest")
        assert sentence in refusal["message"]
        assert (await ask("GET", FAULTS))[1] == {"faults": []}

    run(work)


# Requests -------------------------------------------------------------------------------------


def test_the_next_requests_are_answered_and_not_carried_out(run: Callable[[Work], None]) -> None:
    async def work(ask: Asker) -> None:
        await ask_for(ask, "answer", status=429, retry_after=7, verbs=["create"], times=2)
        for _ in range(2):
            async with ask.session.post(
                ask.cluster.url + CONFIG_MAPS, json=config_map("one")
            ) as answer:
                assert (answer.status, answer.headers["Retry-After"]) == (429, "7")
                assert (await answer.json())["reason"] == "TooManyRequests"
        assert (await ask("GET", CONFIG_MAPS + "/one"))[0] == 404
        assert (await ask("POST", CONFIG_MAPS, config_map("one")))[0] == 201
        assert await happened(ask) == [2]

    run(work)


def test_an_answer_may_hide_that_a_request_was_carried_out(run: Callable[[Work], None]) -> None:
    async def work(ask: Asker) -> None:
        await ask_for(ask, "answer", status=504, carried_out=True, times=1)
        assert (await ask("POST", CONFIG_MAPS, config_map("one")))[0] == 504
        assert (await ask("GET", CONFIG_MAPS + "/one"))[0] == 200
        await ask_for(ask, "answer", status=500, carried_out=True, times=1)
        assert (await ask("POST", CONFIG_MAPS, config_map("one")))[0] == 500

    run(work)


@pytest.mark.parametrize(
    ("when", "problem", "is_there"),
    [
        ("before", aiohttp.ClientOSError, False),
        ("middle", aiohttp.ClientPayloadError, True),
        ("after", aiohttp.ClientOSError, True),
    ],
)
def test_a_connection_is_cut(
    run: Callable[[Work], None], when: str, problem: type[Exception], is_there: bool
) -> None:
    async def work(ask: Asker) -> None:
        await ask_for(ask, "cut", when=when, times=1)
        with pytest.raises(problem):
            await ask("POST", CONFIG_MAPS, config_map("one"))
        assert (await ask("GET", CONFIG_MAPS + "/one"))[0] == (200 if is_there else 404)

    run(work)


def test_a_request_waits(run: Callable[[Work], None]) -> None:
    async def work(ask: Asker) -> None:
        loop = asyncio.get_running_loop()
        await ask_for(ask, "delay", seconds=30, resources=["configmaps"], times=1)
        start = loop.time()
        assert (await ask("GET", "/api/v1/nodes"))[0] == 200
        assert loop.time() - start < 1
        assert (await ask("GET", CONFIG_MAPS))[0] == 200
        assert 30 < loop.time() - start < 31

    run(work)


def test_a_fault_begins_later_and_ends(run: Callable[[Work], None]) -> None:
    async def work(ask: Asker) -> None:
        await ask_for(ask, "answer", status=500, verbs=["list"], after=10, lasts=20)
        found = []
        for _ in range(5):
            found.append((await ask("GET", CONFIG_MAPS))[0])
            await asyncio.sleep(8)
        assert found == [200, 200, 500, 500, 200]

    run(work)


def test_a_share_is_drawn_by_seed(run: Callable[[Work], None]) -> None:
    async def befallen(ask: Asker, seed: int) -> list[int]:
        await ask("DELETE", FAULTS)
        await ask_for(ask, "answer", status=500, verbs=["get"], share=0.3, seed=seed)
        paths = [f"{CONFIG_MAPS}/m{index}" for index in range(100)]
        return [index for index, path in enumerate(paths) if (await ask("GET", path))[0] == 500]

    found: dict[str, list[int]] = {}

    def note(name: str, seed: int) -> Work:
        async def work(ask: Asker) -> None:
            found[name] = await befallen(ask, seed)

        return work

    for name, seed in (("first", 1), ("again", 1), ("other", 2)):
        run(note(name, seed))
    assert found["first"] == found["again"] != found["other"]
    assert 15 <= len(found["first"]) <= 45


def test_players_are_spared_unless_they_are_meant(run: Callable[[Work], None]) -> None:
    async def work(ask: Asker) -> None:
        await ask_for(ask, "answer", status=503, resources=["pods"])
        await ask("POST", VMIS, vmi("one"))
        await asyncio.sleep(30)
        assert (await ask("GET", VMIS + "/one"))[1]["status"]["phase"] == "Running"
        number = await ask_for(ask, "answer", status=503, resources=["pods"], callers="players")
        await ask("POST", VMIS, vmi("two"))
        await asyncio.sleep(30)
        assert (await ask("GET", VMIS + "/two"))[1]["status"]["phase"] == "Pending"
        await ask("DELETE", f"{FAULTS}/{number}")
        await asyncio.sleep(30)
        assert (await ask("GET", VMIS + "/two"))[1]["status"]["phase"] == "Running"
        assert len(ask.cluster.store.all(PODS, "default")) == 2

    run(work)


# Watches --------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["end", "reset"])
def test_open_watches_are_closed(run: Callable[[Work], None], how: str) -> None:
    async def work(ask: Asker) -> None:
        await ask("POST", CONFIG_MAPS, config_map("one"))
        seen, task = await follow(ask)
        await ask_for(ask, "close-watches", how=how, after=5, resources=["configmaps"])
        await asyncio.sleep(4)
        assert not task.done()
        await asyncio.sleep(2)
        assert await task == how
        assert told(seen) == [("ADDED", "one")]
        _, again = await follow(ask)
        assert not again.done()
        again.cancel()

    run(work)


def test_a_moment_comes_again(run: Callable[[Work], None]) -> None:
    async def work(ask: Asker) -> None:
        await ask_for(ask, "close-watches", after=5, times=3, every=10)
        ends = []
        for _ in range(3):
            _, task = await follow(ask)
            assert await task == "end"
            ends.append(round(asyncio.get_running_loop().time()))
        assert ends == [5, 15, 25]
        assert await happened(ask) == [3]

    run(work)


def test_a_watch_becomes_half_open(run: Callable[[Work], None]) -> None:
    async def work(ask: Asker) -> None:
        seen, task = await follow(ask)
        await ask_for(ask, "silence-watches", after=1)
        await asyncio.sleep(2)
        await ask("POST", CONFIG_MAPS, config_map("one"))
        await asyncio.sleep(7200)
        assert (seen, task.done()) == ([], False)
        later, other = await follow(ask)
        assert told(later) == [("ADDED", "one")]
        for each in (task, other):
            each.cancel()

    run(work)


@pytest.mark.parametrize("running", [False, True])
def test_a_compacted_store_no_longer_knows_the_past(
    run: Callable[[Work], None], running: bool
) -> None:
    async def work(ask: Asker) -> None:
        _, listed = await ask("GET", CONFIG_MAPS)
        since = listed["metadata"]["resourceVersion"]
        await ask("POST", CONFIG_MAPS, config_map("one"))
        seen, task = await follow(ask, since)
        await ask_for(ask, "compact", running_watches=running)
        await asyncio.sleep(1)
        await ask("POST", CONFIG_MAPS, config_map("two"))
        await asyncio.sleep(1)
        last = ("ERROR", None) if running else ("ADDED", "two")
        assert told(seen) == [("ADDED", "one"), last]
        assert task.done() is running
        _, event = await ask("GET", WATCH + since)
        assert (event["type"], event["object"]["code"]) == ("ERROR", 410)
        task.cancel()

    run(work)


def test_events_are_dropped(run: Callable[[Work], None]) -> None:
    async def work(ask: Asker) -> None:
        seen, task = await follow(ask)
        await ask_for(ask, "drop-events", times=2)
        for name in ("one", "two", "three"):
            await ask("POST", CONFIG_MAPS, config_map(name))
        await asyncio.sleep(1)
        assert told(seen) == [("ADDED", "three")]
        task.cancel()

    run(work)


def test_events_come_twice(run: Callable[[Work], None]) -> None:
    async def work(ask: Asker) -> None:
        seen, task = await follow(ask)
        await ask_for(ask, "duplicate-events", times=1)
        for name in ("one", "two"):
            await ask("POST", CONFIG_MAPS, config_map(name))
        await asyncio.sleep(1)
        assert told(seen) == [("ADDED", "one"), ("ADDED", "one"), ("ADDED", "two")]
        task.cancel()

    run(work)


def test_events_come_in_another_order(run: Callable[[Work], None]) -> None:
    async def work(ask: Asker) -> None:
        seen, task = await follow(ask)
        await ask_for(ask, "reorder-events", times=1, seconds=3)
        for name in ("one", "two"):
            await ask("POST", CONFIG_MAPS, config_map(name))
        await asyncio.sleep(5)
        assert seen == [(0.2, "ADDED", "two"), (3.2, "ADDED", "one")]
        task.cancel()

    run(work)


# The API as a whole ---------------------------------------------------------------------------


def test_the_api_restarts_with_its_store(run: Callable[[Work], None]) -> None:
    async def work(ask: Asker) -> None:
        loop = asyncio.get_running_loop()
        await ask("POST", VMIS, vmi("one"))
        _, task = await follow(ask)
        await ask_for(ask, "delay", seconds=20, verbs=["create"], resources=["configmaps"])
        slow = asyncio.create_task(ask("POST", CONFIG_MAPS, config_map("slow")))
        await ask_for(ask, "restart", seconds=10, after=0.5)
        start = loop.time()
        assert await task == "reset"
        with pytest.raises(aiohttp.ClientOSError):
            await slow
        assert round(loop.time() - start, 1) == 0.5
        with pytest.raises(aiohttp.ClientConnectorError):
            await ask("GET", "/version")
        await asyncio.sleep(10)
        assert (await ask("GET", CONFIG_MAPS + "/slow"))[0] == 404
        await asyncio.sleep(20)
        # The players were cut off in the middle of their work, and went on with it.
        assert (await ask("GET", VMIS + "/one"))[1]["status"]["phase"] == "Running"
        assert len(ask.cluster.store.all(PODS, "default")) == 1

    run(work)


def test_two_restarts_at_once_are_one(run: Callable[[Work], None]) -> None:
    async def work(ask: Asker) -> None:
        await ask_for(ask, "restart", seconds=10, after=1)
        await ask_for(ask, "restart", seconds=100, after=5)
        await asyncio.sleep(12)
        assert (await ask("GET", "/version"))[0] == 200

    run(work)


def test_a_cluster_can_be_stopped_while_its_api_is_down(run: Callable[[Work], None]) -> None:
    async def work(ask: Asker) -> None:
        await ask_for(ask, "restart", seconds=1000)
        await asyncio.sleep(1)
        assert ask.cluster.faults.down

    run(work)


def test_time_does_not_follow_the_wall_while_the_api_is_down(clock: VirtualClock) -> None:
    """Connections that are refused must not let the machine's pace into virtual time."""

    async def moments() -> list[float]:
        async with a_cluster() as ask:
            await ask_for(ask, "restart", seconds=10)
            found = []
            for _ in range(20):
                await asyncio.sleep(0.25)
                with pytest.raises(aiohttp.ClientError):
                    await ask("GET", "/version")
                found.append(asyncio.get_running_loop().time())
            return found

    found = clock.run(moments())
    gaps = {round(after - before, 9) for before, after in itertools.pairwise(found)}
    assert gaps == {0.25}


def test_a_player_that_is_down_with_the_api_does_not_end_namespaces(
    run: Callable[[Work], None],
) -> None:
    async def work(ask: Asker) -> None:
        await ask("POST", "/api/v1/namespaces", {"metadata": {"name": "n"}})
        await ask("DELETE", "/api/v1/namespaces/n")
        await ask_for(ask, "restart", seconds=10)
        await asyncio.sleep(5)
        assert ask.cluster.store.get(NAMESPACES, "", "n") is not None
        await asyncio.sleep(10)
        assert (await ask("GET", "/api/v1/namespaces/n"))[0] == 404

    run(work)
