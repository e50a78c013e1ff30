"""A watch that is lost is taken up again, and nothing of it is."""

from __future__ import annotations

import asyncio
import itertools
import json
from collections.abc import Callable
from typing import Any

import pytest
from aiohttp import web

from pytest_kvscale.cluster.client import PODS, REQUEST_TIMEOUT, ApiError, Object
from pytest_kvscale.cluster.clock import VirtualClock
from pytest_kvscale.cluster.settle import QUIET, Watched, until
from pytest_kvscale.cluster.watch import BOOKMARK_PATIENCE, PATIENCE, Follower
from tests.cluster.scripted import answering, cut, line, status


class Notes:
    """A receiver that writes down what it is told."""

    def __init__(self) -> None:
        self.told: list[tuple[Any, ...]] = []
        self.resumptions: list[tuple[float, float]] = []

    def listed(self, objects: list[Object], version: str, at: float, since: float | None) -> None:
        names = [each["metadata"]["name"] for each in objects]
        self.told.append(("list", names, version, since if since is None else round(since, 6)))

    def resumed(self, since: float, at: float) -> None:
        self.resumptions.append((round(since, 6), round(at, 6)))

    def changed(self, kind: str, obj: Object, at: float) -> None:
        self.told.append((kind, obj["metadata"]["name"], round(at, 6)))


Step = Callable[[web.BaseRequest], Any]


class Server:
    """Lists what it is given, and answers watch after watch by a script."""

    def __init__(self, *steps: Step, listed: tuple[str, ...] = (), version: int = 10) -> None:
        self._steps = list(steps)
        self.set(listed, version)

    def set(self, listed: tuple[str, ...], version: int) -> None:
        """List this from now on."""
        self._listed = listed
        self._version = version

    async def __call__(self, request: web.BaseRequest) -> web.StreamResponse:
        if request.query.get("watch") != "true":
            items = [{"metadata": {"name": name, "uid": name}} for name in self._listed]
            metadata = {"resourceVersion": str(self._version)}
            return web.json_response({"items": items, "metadata": metadata})
        if not self._steps:
            await asyncio.sleep(1e6)
        answer: web.StreamResponse = await self._steps.pop(0)(request)
        return answer


def sending(*parts: bytes | float, end: str = "close") -> Step:
    """A watch that sends lines, pausing between them, and then closes, cuts or hangs."""

    async def answer(request: web.BaseRequest) -> web.StreamResponse:
        response = web.StreamResponse()
        response.enable_chunked_encoding()
        await response.prepare(request)
        for part in parts:
            if isinstance(part, bytes):
                await response.write(part)
            else:
                await asyncio.sleep(part)
        if end == "hang":
            await asyncio.sleep(1e6)
        if end == "cut":
            return cut(request)
        return response

    return answer


def refusing(code: int, **headers: str) -> Step:
    async def answer(request: web.BaseRequest) -> web.StreamResponse:
        return status(code, "Refused", **headers)

    return answer


def follow(
    clock: VirtualClock, server: Server, seconds: float, given: Notes | None = None
) -> tuple[list[Any], list[Any]]:
    """Follow for some seconds; returns what was told, and what the server was asked."""

    async def work() -> tuple[list[Any], list[Any]]:
        async with answering(server) as (client, script):
            notes = given or Notes()
            task = asyncio.create_task(Follower(client, PODS, "n", notes).run())
            await asyncio.sleep(seconds)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            asked = [
                (at, dict(part.split("=") for part in path.partition("?")[2].split("&") if part))
                for at, _, path in script.asked
            ]
            return notes.told, asked

    return clock.run(work())


def test_it_lists_once_and_then_watches_from_there(clock: VirtualClock) -> None:
    events = (line("ADDED", "b", 11), 5.0, line("MODIFIED", "b", 12), line("DELETED", "a", 13))
    server = Server(sending(*events, end="hang"), listed=("a",))
    told, asked = follow(clock, server, 100)
    assert told == [
        ("list", ["a"], "10", None), ("ADDED", "b", 0.0), ("MODIFIED", "b", 5.0),
        ("DELETED", "a", 5.0),
    ]  # fmt: skip
    assert len(asked) == 2
    assert asked[1][1]["resourceVersion"] == "10"
    assert asked[1][1]["allowWatchBookmarks"] == "true"


@pytest.mark.parametrize("end", ["close", "cut"])
def test_a_watch_that_ends_is_resumed_after_the_last_version(clock: VirtualClock, end: str) -> None:
    server = Server(
        sending(line("ADDED", "a", 11), 5.0, end=end), sending(line("ADDED", "b", 12), end="hang")
    )
    told, asked = follow(clock, server, 100)
    assert [each[:2] for each in told] == [("list", []), ("ADDED", "a"), ("ADDED", "b")]
    assert [query.get("resourceVersion") for _, query in asked] == [None, "10", "11"]


def test_a_bookmark_moves_the_place_and_tells_nothing(clock: VirtualClock) -> None:
    bookmark = json.dumps({"type": "BOOKMARK", "object": {"metadata": {"resourceVersion": "50"}}})
    server = Server(sending(bookmark.encode() + b"\n"), sending(end="hang"))
    told, asked = follow(clock, server, 100)
    assert len(told) == 1
    assert asked[-1][1]["resourceVersion"] == "50"


def test_half_a_line_is_no_event(clock: VirtualClock) -> None:
    server = Server(
        sending(line("ADDED", "a", 11), line("ADDED", "b", 12)[:20], end="cut"),
        sending(line("ADDED", "b", 12), end="hang"),
    )
    told, asked = follow(clock, server, 100)
    assert [each[:2] for each in told[1:]] == [("ADDED", "a"), ("ADDED", "b")]
    assert asked[-1][1]["resourceVersion"] == "11"


@pytest.mark.parametrize("in_stream", [True, False])
def test_a_version_that_is_too_old_means_listing_again(
    clock: VirtualClock, in_stream: bool
) -> None:
    expired = {"type": "ERROR", "object": {"kind": "Status", "code": 410, "reason": "Expired"}}
    gone = sending(json.dumps(expired).encode() + b"\n") if in_stream else refusing(410)
    server = Server(
        sending(line("ADDED", "a", 11), 7.0, end="close"), gone, sending(end="hang"),
        listed=("a", "c"),
    )  # fmt: skip
    told, asked = follow(clock, server, 100)
    assert told[0] == ("list", ["a", "c"], "10", None)
    kind, names, version, since = told[-1]
    assert (kind, names, version) == ("list", ["a", "c"], "10")
    assert since in (0.0, 7.0)
    assert [query.get("resourceVersion") for _, query in asked] == [None, "10", "11", None, "10"]


def test_a_watch_that_is_taken_up_says_since_when_it_was_lost(clock: VirtualClock) -> None:
    server = Server(
        sending(5.0, line("ADDED", "a", 11), 5.0, end="cut"), refusing(503, **{"Retry-After": "9"}),
        sending(line("ADDED", "b", 12), end="hang"),
    )  # fmt: skip
    notes = Notes()
    follow(clock, server, 100, notes)
    assert notes.resumptions == [(5.0, 19.1)]


def test_a_watch_that_is_not_even_answered_is_given_up(clock: VirtualClock) -> None:
    async def say_nothing(request: web.BaseRequest) -> web.StreamResponse:
        await asyncio.sleep(1e6)
        return web.Response()

    told, asked = follow(clock, Server(say_nothing, sending(line("ADDED", "a", 11))), 70)
    assert told[-1][:2] == ("ADDED", "a")
    assert asked[2][0] == pytest.approx(REQUEST_TIMEOUT + 0.1)


def test_watches_that_end_at_once_are_asked_for_less_and_less(clock: VirtualClock) -> None:
    _, asked = follow(clock, Server(*[sending()] * 500), 100)
    assert len(asked) < 25


def test_versions_that_are_always_too_old_are_asked_for_less_and_less(clock: VirtualClock) -> None:
    _, asked = follow(clock, Server(*[refusing(410)] * 500), 100)
    assert len(asked) < 50


def test_a_pause_the_api_asks_for_has_an_end(clock: VirtualClock) -> None:
    server = Server(refusing(429, **{"Retry-After": "86400"}), sending(line("ADDED", "a", 11)))
    told, _ = follow(clock, server, 100)
    assert told[-1] == ("ADDED", "a", 60.0)


def test_one_can_look_again_and_nothing_older_is_told(clock: VirtualClock) -> None:
    server = Server(sending(line("ADDED", "a", 11), end="hang"), sending(end="hang"))

    async def work() -> tuple[list[Any], list[str]]:
        async with answering(server) as (client, script):
            notes = Notes()
            follower = Follower(client, PODS, "n", notes)
            task = asyncio.create_task(follower.run())
            await asyncio.sleep(50)
            server.set(listed=("a", "b"), version=20)
            await asyncio.gather(follower.look_again(), follower.look_again())
            await asyncio.sleep(1)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            return notes.told, [path for _, _, path in script.asked]

    told, asked = clock.run(work())
    assert told == [
        ("list", [], "10", None), ("ADDED", "a", 0.0), ("list", ["a", "b"], "20", 0.0),
    ]  # fmt: skip
    assert "resourceVersion=20" in asked[-1]
    assert len(asked) == 4


def test_looking_again_waits_for_an_api_that_is_lost(clock: VirtualClock) -> None:
    async def work() -> float:
        lost = [refusing(503)] * 5
        async with answering(Server(sending(end="hang"), *lost)) as (client, script):
            follower = Follower(client, PODS, "n", Notes())
            task = asyncio.create_task(follower.run())
            await asyncio.sleep(10)
            answer = script.answer
            script.answer = refusing(503)
            looking = asyncio.create_task(follower.look_again())
            await asyncio.sleep(100)
            assert not looking.done()
            script.answer = answer
            await looking
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            return asyncio.get_running_loop().time()

    assert 110 < clock.run(work()) < 121


def test_silence_after_bookmarks_is_a_half_open_connection(clock: VirtualClock) -> None:
    bookmark = b'{"type":"BOOKMARK","object":{"metadata":{"resourceVersion":"11"}}}\n'
    server = Server(sending(bookmark), sending(end="hang"), sending(end="hang"))
    _, asked = follow(clock, server, 200)
    assert asked[-1][0] == pytest.approx(BOOKMARK_PATIENCE + 0.1, abs=0.2)


def test_silence_without_bookmarks_is_borne_longer(clock: VirtualClock) -> None:
    _, asked = follow(clock, Server(sending(end="hang"), sending(end="hang")), 400)
    assert asked[-1][0] == pytest.approx(PATIENCE + 0.1, abs=0.2)


def test_errors_that_pass_are_waited_out(clock: VirtualClock) -> None:
    server = Server(
        refusing(500), refusing(503), refusing(429, **{"Retry-After": "30"}),
        sending(line("ADDED", "a", 11), end="hang"),
    )  # fmt: skip
    told, asked = follow(clock, server, 100)
    assert told[-1][:2] == ("ADDED", "a")
    moments = [at for at, _ in asked]
    assert moments[-1] - moments[-2] == 30


def test_pauses_grow_while_nothing_comes(clock: VirtualClock) -> None:
    _, asked = follow(clock, Server(*[refusing(500)] * 50), 100)
    moments = [at for at, _ in asked][1:]
    gaps = [round(after - before, 6) for before, after in itertools.pairwise(moments)]
    assert gaps[:4] == [0.1, 0.2, 0.4, 0.8]
    assert max(gaps) == 10


def test_an_answer_that_waiting_does_not_change_is_raised(clock: VirtualClock) -> None:
    async def work() -> int:
        async with answering(Server(refusing(403))) as (client, _):
            with pytest.raises(ApiError) as caught:
                await Follower(client, PODS, "n", Notes()).run()
            return caught.value.code

    assert clock.run(work()) == 403


def test_waiting_for_a_state_ends_when_it_is_reached(clock: VirtualClock) -> None:
    server = Server(sending(3.0, line("ADDED", "a", 11), 4.0, line("DELETED", "a", 12), end="hang"))

    async def work() -> list[Any]:
        async with answering(server) as (client, _):
            loop = asyncio.get_running_loop()
            wanted = [Watched(PODS, "n")]
            found = [await until(client, wanted, lambda mirrors: bool(mirrors[0].objects), 100)]
            return [*found, round(loop.time(), 3)]

    assert clock.run(work()) == [True, 3.0]


def test_waiting_for_a_state_ends_when_the_time_is_up(clock: VirtualClock) -> None:
    async def work() -> list[Any]:
        async with answering(Server(sending(end="hang"))) as (client, _):
            found = await until(client, [Watched(PODS, "n")], lambda _: False, 50)
            return [found, asyncio.get_running_loop().time()]

    assert clock.run(work()) == [False, 50]


def test_waiting_for_a_state_raises_what_keeps_it_from_looking(clock: VirtualClock) -> None:
    async def work() -> int:
        async with answering(Server(refusing(403))) as (client, _):
            with pytest.raises(ApiError) as caught:
                await until(client, [Watched(PODS, "n")], lambda _: False, 50)
            return caught.value.code

    assert clock.run(work()) == 403


def test_waiting_for_a_state_looks_again_when_nothing_is_told(clock: VirtualClock) -> None:
    """The event that would have told was lost."""
    server = Server(sending(end="hang"), sending(end="hang"))

    async def work() -> list[Any]:
        async with answering(server) as (client, _):
            loop = asyncio.get_running_loop()
            loop.call_later(5, server.set, ("a",), 11)
            wanted = [Watched(PODS, "n")]
            found = await until(client, wanted, lambda mirrors: bool(mirrors[0].objects), 1000)
            return [found, loop.time()]

    assert clock.run(work()) == [True, QUIET]


def test_waiting_for_a_state_looks_a_last_time_when_the_time_is_up(clock: VirtualClock) -> None:
    server = Server(sending(end="hang"), sending(end="hang"))

    async def work() -> list[Any]:
        async with answering(server) as (client, _):
            loop = asyncio.get_running_loop()
            loop.call_later(5, server.set, ("a",), 11)
            wanted = [Watched(PODS, "n")]
            found = await until(client, wanted, lambda mirrors: bool(mirrors[0].objects), 60)
            return [found, loop.time()]

    assert clock.run(work()) == [True, 60]
