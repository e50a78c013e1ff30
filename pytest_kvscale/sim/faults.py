"""Making trouble on request: the faults that are in force, and whom they befall.

The server asks for each request what is to befall it, and hands the events of every watch
through; a moment fault has a task that waits for its time. Who is befallen is drawn by seed,
fault and object, so that the same faults make the same trouble in virtual time.

A further kind is a document in `fault_kinds`; one that happens at a moment needs an act, which
whoever can carry it out teaches (`Faults.teach`), as the server does for `restart`.
"""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from typing import Any, Literal, TypeVar

from pytest_kvscale.sim import errors
from pytest_kvscale.sim.draws import Draws
from pytest_kvscale.sim.errors import Object, StatusError
from pytest_kvscale.sim.fault_kinds import (
    Answer,
    ChoosingFault,
    CloseWatches,
    Compact,
    Cut,
    Delay,
    DropEvents,
    DuplicateEvents,
    EventFault,
    Fault,
    LastingFault,
    MomentFault,
    ReorderEvents,
    RequestFault,
    SilenceWatches,
    Slow,
    StandingFault,
    WatchFault,
)
from pytest_kvscale.sim.latency import BEHIND_WEBHOOKS
from pytest_kvscale.sim.process import Process
from pytest_kvscale.sim.store import EventType, Store, Stored, Watch

WEBHOOK_TIMEOUT = 10.0
"""Seconds the API waits for a webhook."""
_AT_ONCE = 0.01
"""Seconds after which a moment fault happens at the earliest: who asks for it gets an answer."""

S = TypeVar("S", bound=StandingFault)
Spawn = Callable[[Coroutine[Any, Any, None], str], asyncio.Task[None]]
Act = Callable[[Any, "Active"], Awaitable[None]]
Change = tuple[EventType, Stored]


@dataclasses.dataclass
class Active:
    """A fault that was asked for, and what has become of it."""

    number: int
    fault: Fault
    start: float
    """Loop time."""
    happened: int = 0
    task: asyncio.Task[None] | None = None

    def is_in_force(self, now: float) -> bool:
        """Whether it can befall something now."""
        lasting = isinstance(self.fault, LastingFault)
        return lasting and now >= self.start and not self.is_over(now)

    def is_over(self, now: float) -> bool:
        """Whether it will not happen any more."""
        fault = self.fault
        lasts = fault.lasts if isinstance(fault, LastingFault) else None
        if lasts is not None and now >= self.start + lasts:
            return True
        if not isinstance(fault, StandingFault | MomentFault) or fault.times is None:
            return False
        return self.happened >= fault.times

    def describe(self, now: float) -> Object:
        """What `/_sim/faults` tells of it."""
        return {
            "id": self.number,
            "fault": self.fault.model_dump(),
            "begins_in": round(max(0.0, self.start - now), 3),
            "happened": self.happened,
            "over": self.is_over(now),
        }


@dataclasses.dataclass
class Trouble:
    """What befalls one request."""

    delay: float = 0.0
    """Seconds before it is carried out."""
    answer: StatusError | None = None
    """Answered in the place of the real one."""
    cut: Literal["before", "middle", "after"] | None = None
    carried_out: bool = True
    """Whether the request takes effect."""


class Stream:
    """One open watch, as faults see it."""

    def __init__(self, number: int, plural: str, watch: Watch, faults: Faults) -> None:
        self.number = number
        self.plural = plural
        self.silent = False
        """Half open: nothing is sent any more, not even the end."""
        self.ending: Literal["", "reset", "expired"] = ""
        """How it ends, if not as usual."""
        self._watch = watch
        self._faults = faults
        self._held: list[tuple[float, Change]] = []

    def changes(self) -> Iterator[Change]:
        """What is to be sent now, after drops, doubles and delays."""
        now = asyncio.get_running_loop().time()
        for change in self._watch.take():
            yield from self._befallen(change, now)
        while self._held and self._held[0][0] <= now:
            yield self._held.pop(0)[1]

    def _befallen(self, change: Change, now: float) -> Iterator[Change]:
        name = _key(self.plural, change[1].obj["metadata"]["name"])
        for active, fault in self._faults.befalling(EventFault, self.plural, now):
            if not self._faults.draw(active, fault, "event", self.plural, self.number, name):
                continue
            active.happened += 1
            if isinstance(fault, DropEvents):
                return
            if isinstance(fault, DuplicateEvents):
                yield change
            elif isinstance(fault, ReorderEvents):
                self._held.append((now + fault.seconds, change))
                self._held.sort(key=lambda held: held[0])
                return
        yield change

    @property
    def holds_back(self) -> bool:
        """Whether changes are kept back, to be sent out of order."""
        return bool(self._held)

    def patience(self, longest: float) -> float:
        """How long to wait for the next change: not longer than something is kept back."""
        if not self._held:
            return longest
        return min(longest, max(0.0, self._held[0][0] - asyncio.get_running_loop().time()))

    def end(self, how: Literal["", "reset", "expired"] = "") -> None:
        """End the watch."""
        self.ending = how
        self._watch.close()


class Faults:
    """The faults of one embedded cluster."""

    def __init__(self, store: Store, draws: Draws, spawn: Spawn) -> None:
        self._store = store
        self._draws = draws
        self._spawn = spawn
        self._active: dict[int, Active] = {}
        self._streams: dict[Stream, None] = {}
        self._numbers = 0
        self._streams_opened = 0
        self.down = False
        """The API is down: nobody reaches it, players included."""
        self.webhooks: Process | None = None
        """virt-api, which whatever is written of KubeVirt's kinds has to pass."""
        self.check: Callable[[Fault], None] = lambda _: None
        """Raises `ConfigurationError` for a fault of something this cluster does not have."""
        self._acts: dict[type[MomentFault], Act] = {
            CloseWatches: self._close_watches,
            SilenceWatches: self._silence_watches,
            Compact: self._compact,
        }

    def teach(self, kind: type[MomentFault], act: Act) -> None:
        """Have faults of this kind carried out by this act."""
        self._acts[kind] = act

    # Asking for faults ----------------------------------------------------------------------

    def add(self, fault: Fault) -> Active:
        """Put a fault in force; `ConfigurationError` if it is about what there is not."""
        self.check(fault)
        self._numbers += 1
        wait = max(fault.after, _AT_ONCE if isinstance(fault, MomentFault) else 0.0)
        start = asyncio.get_running_loop().time() + wait
        active = self._active[self._numbers] = Active(self._numbers, fault, start)
        if isinstance(fault, MomentFault):
            active.task = self._spawn(self._happen(active, fault), f"fault {active.number}")
        return active

    def remove(self, number: int | None = None) -> int:
        """Take back one fault, or all; returns how many there were. What happened stays so."""
        numbers = list(self._active) if number is None else [number]
        found = [self._active.pop(each) for each in numbers if each in self._active]
        for active in found:
            if active.task is not None:
                active.task.cancel()
        return len(found)

    def describe(self) -> list[Object]:
        """All faults asked for, and how often each has happened."""
        now = asyncio.get_running_loop().time()
        return [active.describe(now) for active in self._active.values()]

    # Whom they befall -----------------------------------------------------------------------

    def befalling(self, sort: type[S], plural: str, now: float) -> Iterator[tuple[Active, S]]:
        """The faults of a sort that are in force for this resource."""
        for active in self._active.values():
            fault = active.fault
            if isinstance(fault, sort) and active.is_in_force(now) and fault.concerns(plural):
                yield active, fault

    def pace(self, worker: str) -> float:
        """By what factor somebody is slowed down now."""
        factor = 1.0
        if self._active:
            now = asyncio.get_running_loop().time()
            for active in self._active.values():
                fault = active.fault
                if (
                    isinstance(fault, Slow)
                    and fault.component in (None, worker)
                    and active.is_in_force(now)
                ):
                    factor *= fault.factor
        return factor

    def draw(self, active: Active, fault: ChoosingFault, *key: object) -> bool:
        """Whether a fault befalls this one of what it could befall."""
        return self.draw_share(active, fault.share, *key)

    def draw_share(self, active: Active, share: float, *key: object) -> bool:
        """Whether this one belongs to the share of all that a fault befalls."""
        key = ("fault", active.number, active.fault.seed, *key)
        return self._draws.chance(share, *key, self._draws.nth(*key))

    def trouble(
        self, caller: Literal["clients", "players"], verb: str, plural: str, name: str
    ) -> Trouble:
        """What befalls a request; of several answers and cuts the first asked for."""
        trouble = Trouble()
        now = asyncio.get_running_loop().time()
        for active, fault in self.befalling(RequestFault, plural, now):
            if fault.callers not in (caller, "all") or (fault.verbs and verb not in fault.verbs):
                continue
            if not isinstance(fault, Delay):
                if trouble.answer is not None or trouble.cut is not None:
                    continue
                if verb == "watch" and fault.takes_effect:
                    continue  # A watch has no answer to lose: close-watches is what ends it.
            if self.draw(active, fault, "request", caller, verb, plural, _key(plural, name)):
                active.happened += 1
                self._befall(trouble, fault)
        self._pass_webhooks(trouble, verb, plural)
        return trouble

    def _pass_webhooks(self, trouble: Trouble, verb: str, plural: str) -> None:
        """Without virt-api nothing is written of KubeVirt's kinds: their webhooks must pass it."""
        server = self.webhooks
        if server is None or not server.frozen or trouble.answer is not None:
            return
        if verb in ("create", "update", "patch") and plural in BEHIND_WEBHOOKS:
            trouble.delay += 0.0 if server.dead else WEBHOOK_TIMEOUT
            trouble.answer = errors.webhook_failed(plural, verb, server.dead)
            trouble.carried_out = False

    @staticmethod
    def _befall(trouble: Trouble, fault: RequestFault) -> None:
        if isinstance(fault, Delay):
            trouble.delay += fault.seconds
        elif isinstance(fault, Answer):
            trouble.answer = errors.as_asked_for(fault.status, fault.retry_after)
        elif isinstance(fault, Cut):
            trouble.cut = fault.when
        trouble.carried_out = trouble.carried_out and fault.takes_effect

    # Watches --------------------------------------------------------------------------------

    def opened(self, plural: str, watch: Watch) -> Stream:
        """A watch begins."""
        self._streams_opened += 1
        stream = Stream(self._streams_opened, plural, watch, self)
        self._streams[stream] = None
        return stream

    def closed(self, stream: Stream) -> None:
        """A watch is over."""
        self._streams.pop(stream, None)

    def _befallen(self, active: Active, fault: WatchFault) -> Iterator[Stream]:
        for stream in list(self._streams):
            if fault.concerns(stream.plural) and self.draw(active, fault, "watch", stream.number):
                yield stream

    # Moments --------------------------------------------------------------------------------

    async def _happen(self, active: Active, fault: MomentFault) -> None:
        act = self._acts[type(fault)]
        await asyncio.sleep(max(0.0, active.start - asyncio.get_running_loop().time()))
        while True:
            active.happened += 1
            await act(fault, active)
            if active.happened >= fault.times or fault.every is None:
                return
            await asyncio.sleep(fault.every)

    async def _close_watches(self, fault: CloseWatches, active: Active) -> None:
        for stream in self._befallen(active, fault):
            stream.end("reset" if fault.how == "reset" else "")

    async def _silence_watches(self, fault: SilenceWatches, active: Active) -> None:
        for stream in self._befallen(active, fault):
            stream.silent = True

    async def _compact(self, fault: Compact, active: Active) -> None:
        self._store.compact()
        if fault.running_watches:
            for stream in list(self._streams):
                stream.end("expired")


def _key(plural: str, name: str) -> str:
    """What draws know an object by: a run's namespace has another name every time."""
    return "" if plural == "namespaces" else name
