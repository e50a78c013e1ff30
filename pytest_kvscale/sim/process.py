"""A component as its machine sees it: a process that can be frozen, slowed, and ended.

All that a player does goes through its process: its tasks, the changes it is told, and the time
its own work takes. A frozen process is told nothing and sends nothing, and catches up when it goes
on; what others do for it meanwhile (the API, the container runtime, libvirt) goes on.
"""

from __future__ import annotations

import asyncio
import collections
from collections.abc import Callable, Coroutine
from typing import Any

from pytest_kvscale.sim.players.team import Team
from pytest_kvscale.sim.store import Event

Listener = Callable[[Event], None]


def steady(component: str) -> float:
    """The pace of a cluster in which nothing is slowed down."""
    del component
    return 1.0


class Process(Team):
    """One running component of the cluster; `node` is where, if it runs on each node.

    `pace` tells by what factor a component is slowed down now.
    """

    def __init__(
        self,
        team: Team,
        component: str,
        node: str = "",
        pace: Callable[[str], float] = steady,
    ) -> None:
        self._parent = team
        self._tasks = {}
        self.queues = []
        self.failure = team.failure
        self.component = component
        self.node = node
        self.ended = False
        self._pace = pace
        self.dead = False
        """It stands still because it has ended, and goes on as if started anew."""
        self._holds = 0
        self._going = asyncio.Event()
        self._going.set()
        self._untold: collections.deque[tuple[Listener, Event]] = collections.deque()

    def spawn(self, work: Coroutine[Any, Any, Any], name: str) -> asyncio.Task[Any]:
        """Run work in the background."""
        task = self._parent.spawn(work, name)
        self._tasks[task] = None
        task.add_done_callback(lambda done: self._tasks.pop(done, None))
        return task

    @property
    def frozen(self) -> bool:
        """Whether it stands still."""
        return self._holds > 0

    def freeze(self) -> None:
        """Let it stand still, until it has been thawed as often."""
        self._holds += 1
        self._going.clear()

    def thaw(self) -> None:
        """Let it go on: first it is told what it has missed."""
        self._holds -= 1
        if self._holds:
            return
        self._going.set()
        while self._untold and not self.frozen:
            listener, event = self._untold.popleft()
            listener(event)

    def end(self) -> None:
        """End it: its tasks, what it knew, and what it was about to be told.

        What holds it frozen may thaw it later: nothing comes of that.
        """
        self.ended = True
        self._untold.clear()
        for task in list(self._tasks):
            task.cancel()

    def tell(self, listener: Listener, event: Event) -> None:
        """Tell it of a change, now or when it goes on."""
        if self.ended:
            return
        if self.frozen or self._untold:
            self._untold.append((listener, event))
        else:
            listener(event)

    async def stand(self) -> None:
        """Wait as long as it is frozen."""
        while self.frozen:
            await self._going.wait()

    async def dawdle(self, seconds: float) -> None:
        """Take the time by which it is slower than others at what takes them so long."""
        more = self._pace(self.component) - 1
        if more > 0:
            await asyncio.sleep(seconds * more)

    async def work(self, seconds: float) -> None:
        """Take the time of its own work, which is longer when it is slowed down."""
        await self.stand()
        await asyncio.sleep(seconds * self._pace(self.component))
        await self.stand()
