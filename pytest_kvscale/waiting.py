"""When a level is over: all has settled, nothing progresses any more, or the time is up.

What watches tell is checked by a list before it is said to be so, and whenever nothing has been
heard for long: an event may have been lost on its way, and with it a VMI that runs.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable

from pytest_kvscale import durations
from pytest_kvscale.cluster.client import LostConnectionError
from pytest_kvscale.cluster.settle import LAST_LOOK, QUIET
from pytest_kvscale.judge.verdict import SETTLED, STALLED, TIME_UP
from pytest_kvscale.measure.observe import Observer


class Waiting:
    """Waits for the end of one level. Times are the loop's, `timeout` and `stall` seconds."""

    def __init__(
        self,
        observer: Observer,
        look_again: Callable[[], Awaitable[None]],
        start: float,
        deadline: float,
        timeout: float,
        stall: float,
    ) -> None:
        self._observer = observer
        self._look_again = look_again
        """Has the observer told of lists made now."""
        self._start = start
        self._deadline = deadline
        self._timeout = timeout
        self._stall = stall

    async def wait(
        self,
        creating: asyncio.Task[None],
        failing: asyncio.Task[None],
        lost: asyncio.Future[str],
    ) -> str:
        """Wait until the level is over; returns how it ended, in words.

        `failing` ends when the watches fail, `lost` when our turn on the cluster does.

        Raises `LostConnectionError` if it ends and the API does not let us look, and what made
        the creation fail.
        """
        observer, loop = self._observer, asyncio.get_running_loop()
        wake = asyncio.Event()
        observer.on_change = wake.set
        creating.add_done_callback(lambda _: wake.set())
        failing.add_done_callback(lambda _: wake.set())
        looked, quiet = self._start, QUIET
        lost.add_done_callback(lambda _: wake.set())
        while not failing.done():
            if lost.done():
                return lost.result()
            if creating.done():
                creating.result()
            moment = loop.time()  # Not rounded: what is due must count as due.
            progress = max(self._start, observer.last_progress or 0.0)
            how, due = self._how_it_ends(creating.done(), moment, progress)
            if how and looked >= due:
                return how
            quiet = QUIET if progress > looked else quiet
            look = max(progress, looked) + quiet
            if how or moment >= look:
                looked, quiet = moment, 2 * quiet
                if not await self._look(failing) and how:
                    raise LostConnectionError(f"{how}, and no list within {LAST_LOOK:g} s")
                continue
            wake.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout_at(min(due, look)):
                    await wake.wait()
        return "the watches failed"

    def _how_it_ends(self, created: bool, moment: float, progress: float) -> tuple[str, float]:
        """How the waiting ends now ("": not yet), and since when it is due, or will be."""
        if created and self._observer.settled:
            return f"{SETTLED} {durations.write(moment - self._start)}", progress
        if moment >= self._deadline:
            limit = durations.write(self._timeout)
            return f"{TIME_UP} {limit} (--kvscale-timeout)", self._deadline
        stall = progress + self._stall
        if moment >= stall:
            limit = durations.write(self._stall)
            return f"{STALLED} {limit} (--kvscale-stall)", stall
        return "", min(self._deadline, stall)

    async def _look(self, failing: asyncio.Task[None]) -> bool:
        """Look again; False if the API did not answer in time."""
        looking = asyncio.ensure_future(self._look_again())
        try:
            await asyncio.wait(
                (looking, failing), timeout=LAST_LOOK, return_when=asyncio.FIRST_COMPLETED
            )
            return looking.done() or failing.done()
        finally:
            looking.cancel()
