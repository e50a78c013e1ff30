"""An event loop whose time is virtual: it jumps to the next timer when nothing else can happen.

The harness and the embedded cluster share such a loop and talk real HTTP over the loopback.
Time stands still while callbacks run and while bytes are under way (`clock_wire`), so that work
costs no time, whatever the machine's load; when nothing is ready and nothing is under way, time
jumps to the next timer. While something outside the loop is at work (a job in a thread, a
subprocess, a connection to or from another process), time goes at the wall's pace instead.

Two promises make runs repeatable: the sockets are asked only when no callback is ready, and what
they then hold is handled in the order in which the connections were made.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import selectors
import socket
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from pytest_kvscale.cluster.clock_wire import Wire

_ROUNDING = 1e-6
_SPINS_BEFORE_POLLING = 1024
_SPINS_BEFORE_GIVING_UP = 1_000_000
_PATIENCE_STEP = 0.05
_PATIENCE_STEPS = 400
_DELIVERY_STEP = 0.001
_DELIVERY_STEPS = 50
_LOOPBACK = {"127.0.0.1": socket.AF_INET, "::1": socket.AF_INET6}


class ClockStuckError(RuntimeError):
    """Virtual time cannot go on: a task never waits, or bytes under way never arrive."""


class _Selector(selectors.BaseSelector):
    """Waits for I/O like the machine's own selector, and moves the loop's time while it does."""

    def __init__(
        self,
        wire: Wire,
        wall: Callable[[], float],
        next_timer: Callable[[], float | None],
        stuck: Callable[[str], str],
    ) -> None:
        self._real = selectors.DefaultSelector()
        self._wire = wire
        self._wall = wall
        self._next_timer = next_timer
        self._describe = stuck
        self._own: set[int] = set()
        self._strangers: set[int] = set()
        self._spins = 0
        self._last_wall: float | None = None
        self.jobs = 0
        """Jobs outside the loop (threads) that are known to be at work."""
        self.children: list[asyncio.SubprocessTransport] = []
        """Subprocesses that may still be running."""
        self.now = 0.0

    def own_what_is_registered(self) -> None:
        """Take all that is registered so far as the loop's own (its self-pipe)."""
        self._own |= self._strangers
        self._strangers.clear()
        self._last_wall = None

    def outside_begins(self) -> None:
        """Something outside the loop is at work from this moment on."""
        if self._last_wall is None:
            self._last_wall = self._wall()

    # What a selector has to offer -----------------------------------------------------------

    def register(self, fileobj: Any, events: int, data: Any = None) -> selectors.SelectorKey:
        key = self._real.register(fileobj, events, data)
        if not self._wire.knows(key.fd) and key.fd not in self._own:
            self._strangers.add(key.fd)
            self.outside_begins()
        return key

    def unregister(self, fileobj: Any) -> selectors.SelectorKey:
        key = self._real.unregister(fileobj)
        self._strangers.discard(key.fd)
        return key

    def modify(self, fileobj: Any, events: int, data: Any = None) -> selectors.SelectorKey:
        return self._real.modify(fileobj, events, data)

    def get_map(self) -> Mapping[Any, selectors.SelectorKey]:
        return self._real.get_map()

    def close(self) -> None:
        self._real.close()

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        self._follow_the_wall()
        try:
            if timeout is not None and timeout <= 0:
                return self._something_is_ready()
            return self._nothing_is_ready(timeout)
        finally:
            self._last_wall = self._wall() if self._outside_is_at_work() else None

    # How time goes --------------------------------------------------------------------------

    def _outside_is_at_work(self) -> bool:
        if self.children:
            self.children = [each for each in self.children if each.get_returncode() is None]
        return bool(self.jobs or self._strangers or self.children)

    def _follow_the_wall(self) -> None:
        if self._last_wall is not None:
            passed = self._wall() - self._last_wall
            if passed > 0:
                self._spins = 0
                self.now += passed

    def _something_is_ready(self) -> list[tuple[selectors.SelectorKey, int]]:
        """Callbacks are ready, or a timer is due: they come before any I/O."""
        self._spins += 1
        if self._spins % _SPINS_BEFORE_POLLING:
            return []
        if self._spins >= _SPINS_BEFORE_GIVING_UP:
            self._spins = 0
            raise ClockStuckError(
                self._describe(
                    f"callbacks were ready {_SPINS_BEFORE_GIVING_UP:,} times in a row at one "
                    "moment: a task never waits, so time cannot go on"
                )
            )
        return self._poll(0)

    def _nothing_is_ready(self, timeout: float | None) -> list[tuple[selectors.SelectorKey, int]]:
        self._spins = 0
        for _ in range(_PATIENCE_STEPS):
            self._wait_for_deliveries()
            events = self._poll(0)
            if events:
                return events
            if self._outside_is_at_work():
                return self._at_the_walls_pace(timeout)
            if not self._wire.under_way(self._reads, self._writes):
                return self._jump(timeout)
            self._poll(_PATIENCE_STEP)
        raise ClockStuckError(
            self._describe(
                f"bytes on the loopback did not arrive in {_PATIENCE_STEP * _PATIENCE_STEPS:g} s"
            )
        )

    def _wait_for_deliveries(self) -> None:
        """Let all that was sent at this moment arrive: order must not depend on the load.

        Usually it has arrived when it was sent. What a full buffer holds back comes later.
        """
        for _ in range(_DELIVERY_STEPS):
            if self._wire.arrived(self._reads):
                return
            self._poll(_DELIVERY_STEP)

    def _at_the_walls_pace(self, timeout: float | None) -> list[tuple[selectors.SelectorKey, int]]:
        before = self._wall()
        events = self._poll(timeout)
        passed = self._wall() - before
        # Waiting may take a little less than asked, by the clock's resolution: be on time.
        self.now += passed if events or timeout is None else max(passed, timeout)
        return events

    def _jump(self, timeout: float | None) -> list[tuple[selectors.SelectorKey, int]]:
        if timeout is None:
            # No timer, no I/O: only a thread or a signal can go on. Wait for it really.
            return self._poll(None)
        # Exactly to the timer: now + (timer - now) may fall short of it by a rounding error, and
        # whoever waits for the rest of that would wait at one moment for ever.
        when, end = self._next_timer(), self.now + timeout
        self.now = float(when) if when is not None and abs(when - end) < _ROUNDING else end
        return []

    def _poll(self, timeout: float | None) -> list[tuple[selectors.SelectorKey, int]]:
        events = self._real.select(timeout)
        if len(events) > 1:
            events.sort(key=lambda event: (self._wire.order(event[0].fd), event[0].fd))
        return events

    def _reads(self, number: int) -> bool:
        return self._is_registered(number, selectors.EVENT_READ)

    def _writes(self, number: int) -> bool:
        return self._is_registered(number, selectors.EVENT_WRITE)

    def _is_registered(self, number: int, event: int) -> bool:
        key = self._real.get_map().get(number)
        return key is not None and bool(key.events & event)


class _Moment(float):
    """When a timer is due: of two due at one moment the one that was set first comes first.

    asyncio's heap leaves that open, and what it makes of it depends on timers cancelled before.
    """

    __slots__ = ("_order",)
    _order: int

    def __new__(cls, when: float, order: int) -> _Moment:
        moment = super().__new__(cls, when)
        moment._order = order
        return moment

    def __lt__(self, other: float) -> bool:
        if float.__eq__(self, other) and isinstance(other, _Moment):
            return self._order < other._order
        return float.__lt__(self, other)


class VirtualLoop(asyncio.SelectorEventLoop):
    """An asyncio event loop with virtual time (see the module).

    `wall` is the machine's monotonic clock, in seconds; it is asked only while something
    outside the loop is at work.
    """

    def __init__(self, wall: Callable[[], float]) -> None:
        self._wire = Wire()
        self._timers = 0
        self._virtual = _Selector(self._wire, wall, self._next_timer, self._describe_tasks)
        super().__init__(self._virtual)
        self._virtual.own_what_is_registered()
        self._executor = concurrent.futures.ThreadPoolExecutor(thread_name_prefix="kvscale")
        self.set_default_executor(self._executor)

    def time(self) -> float:
        """Seconds of virtual time since the loop was made."""
        return self._virtual.now

    def call_at(  # type: ignore[override]
        self, when: float, callback: Callable[..., object], *args: Any, **kwargs: Any
    ) -> asyncio.TimerHandle:
        """Set a timer; timers due at one moment are called in the order they were set."""
        self._timers += 1
        return super().call_at(_Moment(when, self._timers), callback, *args, **kwargs)

    @contextlib.contextmanager
    def at_work(self) -> Iterator[None]:
        """Something outside the loop is at work meanwhile: time keeps the wall's pace."""
        self._virtual.outside_begins()
        self._virtual.jobs += 1
        try:
            yield
        finally:
            self._virtual.jobs -= 1

    def run_in_executor(  # type: ignore[override]
        self, executor: concurrent.futures.Executor | None, func: Callable[..., Any], *args: Any
    ) -> asyncio.Future[Any]:
        """Run a function in a thread; time keeps the wall's pace until it is done."""
        self._virtual.outside_begins()
        job = (executor or self._executor).submit(func, *args)
        self._virtual.jobs += 1
        future = asyncio.wrap_future(job, loop=self)
        # Called after the one that hands over the result: the loop learns of both in that order.
        job.add_done_callback(self._job_done)
        return future

    def _job_done(self, _: concurrent.futures.Future[Any]) -> None:
        # A loop that was closed meanwhile has no time left to keep.
        with contextlib.suppress(RuntimeError):
            self.call_soon_threadsafe(self._one_job_less)

    def _one_job_less(self) -> None:
        self._virtual.jobs -= 1

    async def subprocess_exec(self, *args: Any, **kwargs: Any) -> Any:
        """Start a program; time keeps the wall's pace until it has ended."""
        with self.at_work():
            transport, protocol = await super().subprocess_exec(*args, **kwargs)
        self._virtual.children.append(transport)
        return transport, protocol

    async def subprocess_shell(self, *args: Any, **kwargs: Any) -> Any:
        """Start a shell command; time keeps the wall's pace until it has ended."""
        with self.at_work():
            transport, protocol = await super().subprocess_shell(*args, **kwargs)
        self._virtual.children.append(transport)
        return transport, protocol

    async def sock_connect(self, sock: socket.socket, address: Any) -> None:
        """Connect; a connection to a server of this loop is known from here on."""
        if not self._wire.is_ours(address):
            await super().sock_connect(sock, address)
            return
        number = sock.fileno()
        self._wire.connecting(number)
        pair = None
        try:
            await super().sock_connect(sock, address)
            # Where a server of ours stood, somebody else's may stand by now.
            if self._wire.is_served(address):
                pair = (sock.getsockname(), sock.getpeername())
        finally:
            self._wire.connected(number, pair)

    async def create_connection(  # type: ignore[override]
        self,
        protocol_factory: Callable[[], asyncio.BaseProtocol],
        host: str | None = None,
        port: int | None = None,
        *,
        sock: socket.socket | None = None,
        **kwargs: Any,
    ) -> tuple[asyncio.BaseTransport, asyncio.BaseProtocol]:
        """Make a connection; its bytes are counted if it ends in this loop."""
        if sock is None and self._wire.is_ours((host, port)):
            sock = socket.socket()
            sock.setblocking(False)
            try:
                await self.sock_connect(sock, (host, port))
            except BaseException:
                sock.close()
                raise
            host = port = None
        if sock is not None:
            sock = self._wire.client_end(sock)
        where: dict[str, Any] = {"host": host, "port": port, "sock": sock}
        return await super().create_connection(protocol_factory, **where, **kwargs)

    async def create_server(  # type: ignore[override]
        self,
        protocol_factory: Callable[[], asyncio.BaseProtocol],
        host: str | None = None,
        port: int | None = None,
        *,
        sock: socket.socket | None = None,
        backlog: int = 1024,
        reuse_address: bool | None = None,
        **kwargs: Any,
    ) -> asyncio.Server:
        """Serve; a server on the loopback counts the bytes of this loop's own clients."""
        if sock is None and isinstance(host, str) and host in _LOOPBACK:
            sock = socket.create_server(
                (host, port or 0), family=_LOOPBACK[host], backlog=backlog, reuse_port=False
            )
            host = port = None
        if sock is not None:
            sock = self._wire.listen(sock)
        where: dict[str, Any] = {"host": host, "port": port, "sock": sock}
        return await super().create_server(protocol_factory, backlog=backlog, **where, **kwargs)

    def close(self) -> None:
        """Close the loop; threads still at work are not waited for."""
        super().close()
        self._executor.shutdown(wait=False)

    def _next_timer(self) -> float | None:
        """When the next timer is due (asyncio's own heap; it has no public way to ask)."""
        timers: list[asyncio.TimerHandle] = self._scheduled  # type: ignore[attr-defined]
        return timers[0].when() if timers else None

    def _describe_tasks(self, what: str) -> str:
        names = sorted(task.get_name() for task in asyncio.all_tasks(self))
        shown = ", ".join(names[:10]) + (f" and {len(names) - 10} more" if len(names) > 10 else "")
        return f"the virtual clock is stuck at {self.time():.3f} s: {what} (tasks: {shown})"
