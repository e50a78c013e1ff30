"""Requests: what is counted, what is repeated, what is an error, and what stays secret."""

from __future__ import annotations

import asyncio
import itertools
import logging

import pytest
from aiohttp import web
from hypothesis import given
from hypothesis import strategies as st

from pytest_kvscale.cluster import client as client_module
from pytest_kvscale.cluster.client import (
    PODS,
    VMIS,
    ApiError,
    LostConnectionError,
    repeat_until,
)
from pytest_kvscale.cluster.clock import VirtualClock
from tests.cluster.scripted import answering, cut, status


def test_paths_are_those_of_the_api() -> None:
    assert PODS.path("n", "p", "log") == "/api/v1/namespaces/n/pods/p/log"
    assert VMIS.path("n") == "/apis/kubevirt.io/v1/namespaces/n/virtualmachineinstances"
    assert VMIS.path() == "/apis/kubevirt.io/v1/virtualmachineinstances"


def test_requests_are_counted_by_verb(clock: VirtualClock) -> None:
    async def echo(request: web.BaseRequest) -> web.Response:
        return web.json_response({"items": [], "metadata": {}})

    async def work() -> dict[str, int]:
        async with answering(echo) as (client, script):
            await client.list(PODS, "n", labels="a=b")
            await client.get(PODS, "n", "p")
            await client.create(PODS, "n", {})
            await client.patch(PODS, "n", "p", {})
            await client.delete(PODS, "n", "p", "uid-1")
            await client.delete_collection(PODS, "n", "a=b")
            assert [method for _, method, _ in script.asked] == [
                "GET", "GET", "POST", "PATCH", "DELETE", "DELETE",
            ]  # fmt: skip
            assert script.asked[0][2].endswith("/pods?labelSelector=a%3Db")
            return dict(client.requests)

    assert clock.run(work()) == {
        "list": 1, "get": 1, "create": 1, "patch": 1, "delete": 1, "deletecollection": 1,
    }  # fmt: skip


def test_an_error_carries_the_status(clock: VirtualClock) -> None:
    async def refuse(request: web.BaseRequest) -> web.Response:
        return status(403, "Forbidden", "exceeded quota")

    async def work() -> ApiError:
        async with answering(refuse) as (client, _):
            with pytest.raises(ApiError) as caught:
                await client.create(PODS, "n", {})
            return caught.value

    problem = clock.run(work())
    assert (problem.code, problem.reason, problem.passing) == (403, "Forbidden", False)
    assert "exceeded quota" in str(problem)


def test_a_lost_connection_is_no_answer(clock: VirtualClock) -> None:
    async def break_off(request: web.BaseRequest) -> web.StreamResponse:
        return cut(request)

    async def work() -> str:
        async with answering(break_off) as (client, _):
            with pytest.raises(LostConnectionError) as caught:
                await client.create(PODS, "n", {})
            return str(caught.value)

    assert "Server disconnected" in clock.run(work())


def test_no_connection_says_where_and_why(clock: VirtualClock) -> None:
    async def never(request: web.BaseRequest) -> web.Response:
        return web.Response()

    async def work() -> str:
        async with answering(never) as (client, _):
            client.server = "http://127.0.0.1:1"
            with pytest.raises(LostConnectionError) as caught:
                await client.about("/version")
            return str(caught.value)

    assert clock.run(work()).startswith("cannot connect to 127.0.0.1:1: ")


def test_an_answer_that_never_comes_times_out(clock: VirtualClock) -> None:
    async def hang(request: web.BaseRequest) -> web.Response:
        await asyncio.sleep(1e6)
        return web.Response()

    async def work() -> float:
        async with answering(hang) as (client, _):
            with pytest.raises(TimeoutError):
                await client.get(PODS, "n", "p")
            return asyncio.get_running_loop().time()

    assert clock.run(work()) == client_module.REQUEST_TIMEOUT


def test_what_may_pass_is_repeated_with_growing_pauses(clock: VirtualClock) -> None:
    codes = iter([500, 503, 502, 200])

    async def recover(request: web.BaseRequest) -> web.Response:
        code = next(codes)
        return web.json_response({}) if code == 200 else status(code)

    async def work() -> list[float]:
        async with answering(recover) as (client, script):
            await repeat_until(1000.0, lambda: client.get(PODS, "n", "p"))
            assert client.requests["get"] == 4
            return [at for at, _, _ in script.asked]

    assert clock.run(work()) == [0, 0.1, 0.3, 0.7]


def test_the_pause_the_api_asks_for_is_kept(clock: VirtualClock) -> None:
    answers = iter([status(429, "TooManyRequests", **{"Retry-After": "7"}), web.json_response({})])

    async def shed(request: web.BaseRequest) -> web.StreamResponse:
        return next(answers)

    async def work() -> list[float]:
        async with answering(shed) as (client, script):
            await repeat_until(1000.0, lambda: client.create(PODS, "n", {}))
            return [at for at, _, _ in script.asked]

    assert clock.run(work()) == [0, 7]


def test_repeating_ends_at_the_deadline_by_the_loops_clock(clock: VirtualClock) -> None:
    async def always(request: web.BaseRequest) -> web.Response:
        return status(429, "TooManyRequests", **{"Retry-After": "10"})

    async def work() -> tuple[int, float]:
        async with answering(always) as (client, script):
            with pytest.raises(ApiError) as caught:
                await repeat_until(3600.0, lambda: client.create(PODS, "n", {}))
            assert caught.value.code == 429
            return len(script.asked), script.asked[-1][0]

    asked, last = clock.run(work())
    assert 3580 <= last <= 3600
    assert asked == last / 10 + 1


def test_what_will_not_pass_is_not_repeated(clock: VirtualClock) -> None:
    async def refuse(request: web.BaseRequest) -> web.Response:
        return status(422, "Invalid")

    async def work() -> int:
        async with answering(refuse) as (client, script):
            with pytest.raises(ApiError):
                await repeat_until(1000.0, lambda: client.create(PODS, "n", {}))
            return len(script.asked)

    assert clock.run(work()) == 1


def test_the_token_is_sent_and_never_told(
    clock: VirtualClock, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    told: list[str] = []

    async def refuse(request: web.BaseRequest) -> web.Response:
        assert request.headers["Authorization"] == "Bearer secret-token"
        return status(401, "Unauthorized", "Unauthorized")

    async def work() -> None:
        async with answering(refuse) as (client, _):
            for ask in (client.about("/version"), client.create(PODS, "n", {})):
                with pytest.raises(ApiError) as caught:
                    await ask
                told.append(repr(caught.value) + str(caught.value))

    clock.run(work())
    assert "secret-token" not in "".join(told) + caplog.text


def test_an_answer_that_is_no_object_is_an_error(clock: VirtualClock) -> None:
    async def nonsense(request: web.BaseRequest) -> web.Response:
        return web.Response(text="<html>a proxy's page</html>")

    async def work() -> str:
        async with answering(nonsense) as (client, _):
            with pytest.raises(ApiError) as caught:
                await client.get(PODS, "n", "p")
            return str(caught.value)

    assert "did not answer with a JSON object" in clock.run(work())


@given(st.lists(st.binary(max_size=8), max_size=8), st.data())
def test_lines_do_not_depend_on_the_pieces_they_come_in(
    lines: list[bytes], data: st.DataObject
) -> None:
    lines = [line.replace(b"\n", b"") for line in lines]
    stream = b"".join(line + b"\n" for line in lines) + b"half"
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=8)))
    edges = [0, *cuts, len(stream)]
    reader = client_module._Lines()
    pieces = [stream[low:high] for low, high in itertools.pairwise(edges)]
    assert [line for piece in pieces for line in reader.of(piece)] == lines


def test_silence_is_counted_from_the_last_sound(clock: VirtualClock) -> None:
    async def work() -> None:
        async with client_module.heard_within(100.0) as heard:
            for _ in range(3):
                await asyncio.sleep(99.0)
                heard()
            await asyncio.sleep(1000.0)

    with pytest.raises(TimeoutError):
        clock.run(work())
    assert clock.loop.time() == 397.0
