"""The clock of a cluster: one event loop that everything waits and measures by.

This is the one module that makes a loop and asks the machine for the time. A real cluster has
an ordinary loop, alive in a thread while pytest runs; the embedded cluster shares a loop with
the harness whose time is virtual (`clock_loop`) and goes on only while somebody waits for it.
Everybody else asks the running loop for its time, in seconds (`now`), and waits with
`asyncio.sleep` and `asyncio.timeout`.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import datetime
import signal
import threading
import time
from collections.abc import Callable, Coroutine, Iterator
from types import FrameType
from typing import Any, Protocol, TypeVar

from pytest_kvscale.cluster.clock_loop import ClockStuckError, VirtualLoop

__all__ = ["Clock", "ClockStuckError", "RealClock", "VirtualClock", "VirtualLoop", "now", "utc_now"]

T = TypeVar("T")

_CANCELLED_AT_MOST = 10
_CLEANING = 0.5
"""Seconds a task may go on when its loop is closed, each time it is cancelled."""


def utc_now() -> datetime.datetime:
    """The machine's date and time (UTC), for run ids and file stamps; never for measuring."""
    return datetime.datetime.now(datetime.UTC)


def now() -> float:
    """The running loop's time, in whole microseconds: what is measured and recorded alike."""
    return round(asyncio.get_running_loop().time(), 6)


class Clock(Protocol):
    """A loop, and the way to wait for its work from ordinary functions."""

    loop: asyncio.AbstractEventLoop
    dated: float | None
    """The date (POSIX) at which the loop's time was 0; None if its time has no date."""

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Wait for the work and return its result.

        On the first Ctrl-C the work is cancelled and given the time to clean up, then
        `KeyboardInterrupt` is raised; on the second it is raised at once, and the work is left
        as it is until the loop is closed.
        """
        ...

    def close(self) -> None:
        """End the loop; what still runs in it is cancelled."""
        ...


class VirtualClock:
    """A clock whose time is virtual and goes on only inside `run`."""

    def __init__(self) -> None:
        self.loop: asyncio.AbstractEventLoop = VirtualLoop(time.monotonic)
        self.dated: float | None = None

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """See `Clock.run`."""
        task = self.loop.create_task(work)
        abandoned = False

        def abandon() -> None:
            # An exception raised right here would be kept by whichever task is running.
            nonlocal abandoned
            abandoned = True
            self.loop.call_soon_threadsafe(self.loop.stop)

        with _ctrl_c_cancels(task, self.loop, abandon):
            try:
                return self.loop.run_until_complete(task)
            except RuntimeError:
                if abandoned and not task.done():
                    raise KeyboardInterrupt from None
                raise

    def close(self) -> None:
        """See `Clock.close`."""
        if not self.loop.is_closed():
            self.loop.run_until_complete(_cancel_the_rest())
            self.loop.close()


class RealClock:
    """A clock that goes at the wall's pace, in a thread of its own."""

    def __init__(self) -> None:
        self.loop: asyncio.AbstractEventLoop = asyncio.new_event_loop()
        self.dated: float | None = time.time() - self.loop.time()
        self._thread = threading.Thread(target=self._work, name="kvscale-loop", daemon=True)
        self._thread.start()

    def _work(self) -> None:
        asyncio.set_event_loop(self.loop)
        self.loop.run_forever()

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """See `Clock.run`."""
        result: concurrent.futures.Future[T] = concurrent.futures.Future()
        begin = asyncio.Event()

        async def guarded() -> None:
            try:
                await begin.wait()
                result.set_result(await work)
            except BaseException as problem:
                work.close()  # It may never have begun.
                result.set_exception(problem)
                if not isinstance(problem, Exception | asyncio.CancelledError):
                    raise

        task = asyncio.run_coroutine_threadsafe(_as_task(guarded()), self.loop).result()

        def abandon() -> None:
            raise KeyboardInterrupt

        with _ctrl_c_cancels(task, self.loop, abandon):
            # Not before: a Ctrl-C would leave it running with nobody to wait for it.
            self.loop.call_soon_threadsafe(begin.set)
            return result.result()

    def close(self) -> None:
        """See `Clock.close`."""
        if not self.loop.is_closed():
            asyncio.run_coroutine_threadsafe(_cancel_the_rest(), self.loop).result()
            self.loop.call_soon_threadsafe(self.loop.stop)
            self._thread.join()
            self.loop.close()


@contextlib.contextmanager
def _ctrl_c_cancels(
    task: asyncio.Task[Any], loop: asyncio.AbstractEventLoop, abandon: Callable[[], None]
) -> Iterator[None]:
    """Let the first Ctrl-C cancel the task, so that no other task of the loop is torn apart.

    The second one abandons it; a third, for a loop that no longer turns, interrupts anything. A
    SIGTERM that is passed on to Ctrl-C's handler is never the second one.
    """
    ours = threading.current_thread() is threading.main_thread()
    if not ours or signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        yield
        return
    count = 0

    def on_interrupt(number: int, frame: FrameType | None) -> None:
        nonlocal count
        if count and number != signal.SIGINT:
            return
        count += 1
        if count > 2:
            signal.default_int_handler(number, frame)
        elif count > 1:
            abandon()
        else:
            loop.call_soon_threadsafe(task.cancel)

    signal.signal(signal.SIGINT, on_interrupt)
    try:
        yield
    except (asyncio.CancelledError, concurrent.futures.CancelledError):
        if not count:
            raise
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    if count:
        raise KeyboardInterrupt


async def _as_task(work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
    return asyncio.create_task(work)


async def _cancel_the_rest() -> None:
    for _ in range(_CANCELLED_AT_MOST):
        rest = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
        if not rest:
            break
        for task in rest:
            task.cancel()
        # One that cleans up first is cancelled in that, too.
        await asyncio.wait(rest, timeout=_CLEANING)
    loop: Any = asyncio.get_running_loop()
    # A watch nobody reads to its end closes its connection here.
    await loop.shutdown_asyncgens()
    # TLS waits for the other end to say goodbye too; nobody is there to wait any more.
    for transport in list(loop._transports.values()):
        transport.abort()
    await asyncio.sleep(0)
