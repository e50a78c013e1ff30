"""A node's CPUs, which all that runs on the node shares equally.

Work is measured in CPU-seconds. One piece of work uses one CPU at most; when more wants to run
than there are CPUs, each gets the same share. Guests that never finish booting want a CPU for
ever: they have no work that ends, and slow down all that does.
"""

from __future__ import annotations

import asyncio
import heapq

_CLOSE = 1e-9


class Processor:
    """So many CPUs; what runs on them is told by `run` and `demand`."""

    def __init__(self, cpus: float) -> None:
        self._cpus = cpus
        self._demand = 0.0
        self._done = 0.0
        """CPU-seconds that each piece of work has got which was there from the beginning."""
        self._at = 0.0
        self._ends: list[tuple[float, int, asyncio.Future[None]]] = []
        """When work ends, in terms of `_done`: all of it gains at the same speed."""
        self._count = 0
        self._running = 0
        self._timer: asyncio.TimerHandle | None = None

    @property
    def speed(self) -> float:
        """CPU-seconds that a piece of work gets in a second: 1 at most."""
        wanted = self._running + self._demand
        return 1.0 if wanted <= self._cpus else self._cpus / wanted

    def demand(self, more: float) -> None:
        """So many more (or fewer) CPUs are wanted, without end."""
        self._go_on()
        self._demand += more
        self._wait_for_next()

    async def run(self, seconds: float) -> None:
        """Do work of so many CPU-seconds; cancelled, it leaves the CPUs to others."""
        if seconds <= 0:
            return
        ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._go_on()
        self._running += 1
        self._count += 1
        heapq.heappush(self._ends, (self._done + seconds, self._count, ended))
        self._wait_for_next()
        try:
            await ended
        except asyncio.CancelledError:
            if not ended.done() or ended.cancelled():
                self._go_on()
                self._running -= 1
                self._ends = [each for each in self._ends if each[2] is not ended]
                heapq.heapify(self._ends)
                self._wait_for_next()
            raise

    def _go_on(self) -> None:
        """Give all work what it has got since the last time."""
        now = asyncio.get_running_loop().time()
        self._done += (now - self._at) * self.speed
        self._at = now

    def _wait_for_next(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._ends:
            left = max(0.0, self._ends[0][0] - self._done) / self.speed
            self._timer = asyncio.get_running_loop().call_later(left, self._end_next)

    def _end_next(self) -> None:
        self._timer = None
        self._go_on()
        # The timer was set for the first one: what is missing is a rounding error.
        self._done = max(self._done, self._ends[0][0])
        while self._ends and self._ends[0][0] <= self._done + _CLOSE:
            _, _, ended = heapq.heappop(self._ends)
            self._running -= 1
            if not ended.done():
                ended.set_result(None)
        self._wait_for_next()
