"""Virtual time: what must not stop it, what must not let it jump, and what must stay in order."""

from __future__ import annotations

import asyncio
import contextlib
import io
import os
import signal
import socket
import sys
import threading
import time
import urllib.request
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import aiohttp
import pytest
from aiohttp import web
from hypothesis import given, settings
from hypothesis import strategies as st

from pytest_kvscale.cluster import clock_loop, clock_wire
from pytest_kvscale.cluster.clock import Clock, ClockStuckError, RealClock, VirtualClock

FAR = 1_000_000.0
"""Seconds no test waits really."""
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@asynccontextmanager
async def serving(handler: Handler) -> AsyncIterator[tuple[str, aiohttp.ClientSession]]:
    """A real HTTP server on the loopback, and a session to ask it."""
    app = web.Application(client_max_size=2**30)
    app.router.add_route("*", "/", handler)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    host, port = runner.addresses[0][:2]
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=None)) as session:
        yield f"http://{host}:{port}/", session
    await runner.cleanup()


async def slowly(request: web.Request) -> web.Response:
    await asyncio.sleep(float(request.query.get("sleep", "0")))
    return web.Response(body=b"x" * int(request.query.get("size", "1")))


def now() -> float:
    return asyncio.get_running_loop().time()


def test_waiting_for_weeks_takes_no_time(clock: VirtualClock) -> None:
    async def wait() -> float:
        await asyncio.sleep(30 * 24 * 3600.0)
        return now()

    assert clock.run(wait()) == 30 * 24 * 3600.0


def test_time_stands_still_between_two_runs(clock: VirtualClock) -> None:
    async def look() -> float:
        return now()

    first = clock.run(look())
    time.sleep(0.01)
    assert clock.run(look()) == first


def test_many_requests_over_real_http_take_exactly_their_times(clock: VirtualClock) -> None:
    async def ask_many() -> list[float]:
        async with serving(slowly) as (url, session):
            start = now()

            async def ask(index: int) -> float:
                params = {"sleep": str(1 + index / 8), "size": str(index * 777)}
                async with session.get(url, params=params) as response:
                    assert len(await response.read()) == index * 777
                return now() - start

            return await asyncio.gather(*(ask(index) for index in range(80)))

    assert clock.run(ask_many()) == [1 + index / 8 for index in range(80)]


@pytest.fixture
def late_kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine so loaded that the kernel tells of what is ready only when asked thrice."""
    poll = clock_loop._Selector._poll
    asked: dict[int, int] = {}

    def late(self: clock_loop._Selector, timeout: float | None) -> list[object]:
        events = poll(self, timeout)
        ready = [event[0].fd for event in events]
        for descriptor in set(asked) - set(ready):
            del asked[descriptor]
        for descriptor in ready:
            asked[descriptor] = asked.get(descriptor, 0) + 1
        return [event for event in events if asked[event[0].fd] > 2]

    monkeypatch.setattr(clock_loop._Selector, "_poll", late)


@pytest.mark.usefixtures("late_kernel")
def test_time_waits_for_what_the_kernel_has_not_delivered(clock: VirtualClock) -> None:
    async def ask_twice() -> list[float]:
        async with serving(slowly) as (url, session):
            start = now()

            async def ask(index: int) -> float:
                params = {"sleep": str(1 + index), "size": str(index * 100_000)}
                for _ in range(2):
                    async with session.get(url, params=params) as response:
                        assert len(await response.read()) == index * 100_000
                return now() - start

            return await asyncio.gather(*(ask(index) for index in range(5)))

    assert clock.run(ask_twice()) == [2, 4, 6, 8, 10]


@pytest.mark.usefixtures("late_kernel")
def test_time_waits_for_an_end_of_file_the_kernel_has_not_delivered(clock: VirtualClock) -> None:
    test_the_end_of_a_connection_is_seen_at_once(clock)


def test_bytes_that_never_arrive_are_told(
    clock: VirtualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(clock_loop, "_PATIENCE_STEP", 0.001)
    monkeypatch.setattr(clock_wire.Wire, "under_way", lambda *_: True)

    async def wait() -> None:
        await asyncio.sleep(1)

    with pytest.raises(ClockStuckError, match="bytes on the loopback did not arrive"):
        clock.run(wait())
    monkeypatch.undo()


def test_a_large_body_takes_no_time_however_short_the_timeout(clock: VirtualClock) -> None:
    async def fetch() -> float:
        async with serving(slowly) as (url, session):
            before = now()
            async with asyncio.timeout(0.001):
                async with session.get(url, params={"size": str(40_000_000)}) as response:
                    assert len(await response.read()) == 40_000_000
            return now() - before

    assert clock.run(fetch()) == 0


def test_a_large_request_takes_no_time_either(clock: VirtualClock) -> None:
    async def count(request: web.Request) -> web.Response:
        return web.json_response(len(await request.read()))

    async def send() -> float:
        async with serving(count) as (url, session):
            before = now()
            async with asyncio.timeout(0.001):
                async with session.post(url, data=io.BytesIO(b"y" * 20_000_000)) as response:
                    assert await response.json() == 20_000_000
            return now() - before

    assert clock.run(send()) == 0


def test_a_timeout_fires_to_the_moment(clock: VirtualClock) -> None:
    async def give_up() -> float:
        async with serving(slowly) as (url, session):
            before = now()
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(5):
                    await session.get(url, params={"sleep": "5.001"})
            return now() - before

    assert clock.run(give_up()) == 5


def test_a_timeout_that_is_long_enough_does_not_fire(clock: VirtualClock) -> None:
    async def wait() -> float:
        async with serving(slowly) as (url, session):
            before = now()
            async with asyncio.timeout(5):
                await (await session.get(url, params={"sleep": "4.999"})).read()
            return now() - before

    assert clock.run(wait()) == pytest.approx(4.999, abs=1e-9)


def test_a_reader_that_pauses_lets_time_go_on(clock: VirtualClock) -> None:
    size = 30_000_000

    async def read_in_two_goes() -> tuple[int, float]:
        async with serving(slowly) as (url, session):
            before = now()
            async with session.get(url, params={"size": str(size)}) as response:
                got = len(await response.content.readexactly(1000))
                await asyncio.sleep(60)
                got += len(await response.content.read())
            return got, now() - before

    assert clock.run(read_in_two_goes()) == (size, 60)


def test_a_reader_that_never_reads_lets_time_go_on(clock: VirtualClock) -> None:
    async def leave_it() -> float:
        async with serving(slowly) as (url, session):
            before = now()
            response = await session.get(url, params={"size": str(30_000_000)})
            await asyncio.sleep(3600)
            response.close()
            return now() - before

    assert clock.run(leave_it()) == 3600


def test_the_end_of_a_connection_is_seen_at_once(clock: VirtualClock) -> None:
    async def see() -> float:
        loop = asyncio.get_running_loop()
        server = await loop.create_server(_CloseAfter, "127.0.0.1", 0)
        host, port = server.sockets[0].getsockname()
        reader, writer = await asyncio.open_connection(host, port)
        before = now()
        assert await reader.read() == b"bye"
        writer.close()
        server.close()
        return now() - before

    assert clock.run(see()) == 2


class _CloseAfter(asyncio.Protocol):
    """Says goodbye after two seconds."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        loop = asyncio.get_running_loop()
        loop.call_later(2, transport.write, b"bye")
        loop.call_later(2, transport.close)


def test_a_connection_nobody_takes_is_refused_without_a_wait(clock: VirtualClock) -> None:
    async def knock() -> float:
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            address = taken.getsockname()
        before = now()
        with pytest.raises(ConnectionRefusedError):
            await asyncio.open_connection(*address)
        return now() - before

    assert clock.run(knock()) < 60


def test_two_ends_that_shut_down_leave_nothing_under_way(clock: VirtualClock) -> None:
    async def talk() -> float:
        async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            data = await reader.read()
            await asyncio.sleep(7)
            writer.write(data[::-1])
            writer.write_eof()
            await reader.read()
            writer.close()

        server = await asyncio.start_server(echo, "127.0.0.1", 0)
        before = now()
        reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
        writer.write(b"abc")
        writer.write_eof()
        assert await reader.read() == b"cba"
        writer.close()
        server.close()
        return now() - before

    assert clock.run(talk()) == 7


def test_work_takes_no_time(clock: VirtualClock) -> None:
    async def work() -> tuple[float, bool]:
        loop = asyncio.get_running_loop()
        fired: list[bool] = []
        loop.call_later(0.001, fired.append, True)
        for _ in range(3000):
            sum(range(500))
            await asyncio.sleep(0)
        return now(), bool(fired)

    assert clock.run(work()) == (0, False)


def test_a_task_that_never_waits_is_named(
    clock: VirtualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(clock_loop, "_SPINS_BEFORE_GIVING_UP", 5000)

    async def spin() -> None:
        while True:  # noqa: ASYNC110 - it shall not wait
            await asyncio.sleep(0)

    async def wait() -> None:
        spinner = asyncio.create_task(spin(), name="the spinner")
        try:
            await asyncio.sleep(1)
        finally:
            spinner.cancel()

    with pytest.raises(ClockStuckError, match=r"never waits.*the spinner"):
        clock.run(wait())


def test_the_rest_of_a_wait_ends(clock: VirtualClock) -> None:
    async def wait_for_the_rest() -> int:
        rounds = 0
        await asyncio.sleep(0.1)
        end = now() + 1800.3
        while now() < end:
            await asyncio.sleep((end - now()) / 3 if rounds < 9 else end - now())
            rounds += 1
        return rounds

    assert clock.run(wait_for_the_rest()) < 20


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(0, 10**10).map(lambda ms: ms / 1000), min_size=1, max_size=30))
def test_every_timer_comes_when_it_is_due_and_in_order(delays: list[float]) -> None:
    clock = VirtualClock()

    async def set_all() -> list[tuple[float, int, float]]:
        loop = asyncio.get_running_loop()
        seen: list[tuple[float, int, float]] = []

        def note(delay: float, index: int) -> None:
            seen.append((delay, index, now()))

        for index, delay in enumerate(delays):
            loop.call_at(delay, note, delay, index)
        await asyncio.sleep(max(delays) + 1)
        return seen

    seen = clock.run(set_all())
    clock.close()
    assert [(delay, index) for delay, index, _ in seen] == sorted(
        (delay, index) for index, delay in enumerate(delays)
    )
    assert all(moment == delay for delay, _, moment in seen)


def test_timers_of_one_moment_come_in_the_order_they_were_set(clock: VirtualClock) -> None:
    async def set_and_cancel() -> list[int]:
        loop = asyncio.get_running_loop()
        seen: list[int] = []
        for index in range(400):
            loop.call_at(100.0, seen.append, index)
            for other in range(3):
                # Enough cancelled timers that asyncio rebuilds its heap meanwhile.
                loop.call_at(50.0 + other, print).cancel()
            if index % 20 == 0:
                await asyncio.sleep(0.01)
        await asyncio.sleep(200)
        return seen

    assert clock.run(set_and_cancel()) == list(range(400))


def test_a_thread_at_work_keeps_time_at_the_walls_pace(clock: VirtualClock) -> None:
    async def wait_for_a_thread() -> tuple[float, list[str]]:
        jumped: list[str] = []
        asyncio.get_running_loop().call_later(FAR, jumped.append, "too far")
        before = now()
        await asyncio.to_thread(time.sleep, 0.05)
        return now() - before, jumped

    passed, jumped = clock.run(wait_for_a_thread())
    assert 0.049 <= passed < FAR
    assert not jumped


def test_a_timer_comes_while_a_thread_works(clock: VirtualClock) -> None:
    async def wait() -> bool:
        release = threading.Event()
        job = asyncio.get_running_loop().run_in_executor(None, release.wait)
        await asyncio.sleep(0.02)
        was_done = job.done()
        release.set()
        await job
        return was_done

    assert clock.run(wait()) is False


def test_a_cancelled_wait_for_a_thread_still_waits_for_it(clock: VirtualClock) -> None:
    async def wait() -> float:
        release = threading.Event()
        job = asyncio.get_running_loop().run_in_executor(None, release.wait)
        await asyncio.sleep(0)
        job.cancel()
        before = now()
        await asyncio.sleep(0.02)
        release.set()
        passed = now() - before
        await asyncio.sleep(FAR)
        return passed

    assert clock.run(wait()) < FAR


def test_a_job_that_never_began_does_not_hold_time_back(clock: VirtualClock) -> None:
    async def wait() -> float:
        loop = asyncio.get_running_loop()
        release = threading.Event()
        jobs = [loop.run_in_executor(None, release.wait) for _ in range(64)]
        await asyncio.sleep(0.01)
        for job in jobs[32:]:
            job.cancel()
        release.set()
        await asyncio.gather(*jobs, return_exceptions=True)
        await asyncio.sleep(FAR)
        return now()

    assert clock.run(wait()) >= FAR


def test_a_thread_is_timed_from_its_start(clock: VirtualClock) -> None:
    """Also the part of it that passes before the loop comes to look at its sockets again."""

    async def wait() -> tuple[float, float]:
        loop = asyncio.get_running_loop()
        before, really = now(), time.monotonic()
        job = loop.run_in_executor(None, time.sleep, 0.1)
        time.sleep(0.08)  # noqa: ASYNC251 - the loop is kept busy
        await job
        return now() - before, time.monotonic() - really

    virtual, real = clock.run(wait())
    assert 0.1 <= virtual <= real


def test_a_subprocess_at_work_keeps_time_at_the_walls_pace(clock: VirtualClock) -> None:
    code = "import time; time.sleep(0.05); print('done')"

    async def wait_for_a_program() -> tuple[bytes, list[str]]:
        jumped: list[str] = []
        asyncio.get_running_loop().call_later(FAR, jumped.append, "too far")
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-c", code, stdout=asyncio.subprocess.PIPE
        )
        output, _ = await process.communicate()
        return output, jumped

    assert clock.run(wait_for_a_program()) == (b"done\n", [])


def test_a_subprocess_without_pipes_is_waited_for_too(clock: VirtualClock) -> None:
    async def wait_for_a_program() -> tuple[int, bool]:
        jumped: list[str] = []
        asyncio.get_running_loop().call_later(FAR, jumped.append, "too far")
        process = await asyncio.create_subprocess_exec(sys.executable, "-c", "pass")
        code = await process.wait()
        early = bool(jumped)
        await asyncio.sleep(FAR)
        return code, early

    assert clock.run(wait_for_a_program()) == (0, False)


def test_a_connection_from_outside_keeps_time_at_the_walls_pace(clock: VirtualClock) -> None:
    def ask(url: str) -> bytes:
        with urllib.request.urlopen(url + "?sleep=0.03&size=7") as response:  # noqa: S310
            body: bytes = response.read()
            return body

    async def be_asked() -> tuple[int, list[str]]:
        jumped: list[str] = []
        asyncio.get_running_loop().call_later(FAR, jumped.append, "too far")
        async with serving(slowly) as (url, _):
            body = await asyncio.to_thread(ask, url)
        return len(body), jumped

    assert clock.run(be_asked()) == (7, [])


def test_time_jumps_again_when_the_outside_is_done(clock: VirtualClock) -> None:
    async def both() -> float:
        await asyncio.to_thread(time.sleep, 0.01)
        before = now()
        await asyncio.sleep(FAR)
        return now() - before

    assert clock.run(both()) == pytest.approx(FAR, abs=1e-6)


def test_the_first_interrupt_cancels_and_lets_clean_up(clock: VirtualClock) -> None:
    done: list[str] = []

    async def others_work() -> None:
        for _ in range(1000):
            await asyncio.sleep(1)
        done.append("other")

    async def work() -> None:
        other = asyncio.create_task(others_work())
        asyncio.get_running_loop().call_later(5, os.kill, os.getpid(), signal.SIGINT)
        try:
            await asyncio.sleep(100)
        finally:
            await asyncio.sleep(2000)
            done.append("cleaned up")
            await other

    with pytest.raises(KeyboardInterrupt):
        clock.run(work())
    assert done == ["other", "cleaned up"]


def test_the_second_interrupt_ends_at_once(clock: VirtualClock) -> None:
    done: list[str] = []

    async def work() -> None:
        loop = asyncio.get_running_loop()
        loop.call_later(5, os.kill, os.getpid(), signal.SIGINT)
        loop.call_later(10, os.kill, os.getpid(), signal.SIGINT)
        try:
            await asyncio.sleep(100)
        finally:
            await asyncio.sleep(100)
            done.append("cleaned up")

    with pytest.raises(KeyboardInterrupt):
        clock.run(work())
    assert not done
    clock.close()
    assert not done


def test_what_does_not_end_when_it_is_cancelled_does_not_hold_up_the_end() -> None:
    for clock in (VirtualClock(), RealClock()):

        async def stubborn() -> None:
            for _ in range(5):
                with contextlib.suppress(asyncio.CancelledError):
                    await asyncio.sleep(FAR)

        async def begin() -> asyncio.Task[None]:
            task = asyncio.create_task(stubborn())
            await asyncio.sleep(0)
            return task

        task = clock.run(begin())
        clock.close()
        assert task.done()


def test_a_real_clock_runs_work_in_the_background() -> None:
    clock = RealClock()
    ticks: list[float] = []

    async def tick() -> None:
        while True:
            ticks.append(now())
            await asyncio.sleep(0.001)

    async def begin() -> asyncio.Task[None]:
        return asyncio.create_task(tick())

    async def enough() -> int:
        while len(ticks) < 3:  # noqa: ASYNC110 - the ticks come from another task
            await asyncio.sleep(0.001)
        return len(ticks)

    clock.run(begin())
    assert clock.run(enough()) >= 3
    clock.close()


def test_a_real_clock_hands_on_what_goes_wrong() -> None:
    clock = RealClock()

    async def fail() -> None:
        raise LookupError("not here")

    with pytest.raises(LookupError, match="not here"):
        clock.run(fail())
    clock.close()


def test_an_interrupt_cancels_the_work_of_a_real_clock() -> None:
    clock = RealClock()
    done: list[str] = []

    async def work() -> None:
        asyncio.get_running_loop().call_later(0.01, os.kill, os.getpid(), signal.SIGINT)
        try:
            await asyncio.sleep(FAR)
        finally:
            await asyncio.sleep(0.01)
            done.append("cleaned up")

    with pytest.raises(KeyboardInterrupt):
        clock.run(work())
    assert done == ["cleaned up"]
    clock.close()


@pytest.mark.parametrize("kind", [VirtualClock, RealClock])
def test_a_clock_that_is_closed_leaves_no_connection_open(kind: type[Clock]) -> None:
    async def connect() -> asyncio.StreamWriter:
        server = await asyncio.start_server(lambda *_: None, "127.0.0.1", 0)
        host, port = server.sockets[0].getsockname()
        _, writer = await asyncio.open_connection(host, port)
        server.close()
        return writer

    clock = kind()
    writer = clock.run(connect())
    assert writer.get_extra_info("socket").fileno() != -1
    clock.close()
    assert writer.get_extra_info("socket").fileno() == -1
