"""What all players share: tasks whose failures are noticed, and work queues."""

from __future__ import annotations

import asyncio
import collections
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

from pytest_kvscale.sim.errors import StatusError
from pytest_kvscale.sim.metrics.queues import QueueAccount

RETRY_SECONDS = 0.05


class PlayerError(RuntimeError):
    """A player of the embedded cluster failed: a bug in it, not in what is measured."""


class Team:
    """The tasks of one embedded cluster; the first exception in one is the cluster's failure."""

    def __init__(self) -> None:
        self._tasks: dict[asyncio.Task[Any], None] = {}
        self.queues: list[QueueAccount] = []
        self.ended = False
        self.failure: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def spawn(self, work: Coroutine[Any, Any, Any], name: str) -> asyncio.Task[Any]:
        """Run work in the background."""
        task = asyncio.get_running_loop().create_task(work, name=name)
        self._tasks[task] = None
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: asyncio.Task[Any]) -> None:
        self._tasks.pop(task, None)
        if task.cancelled() or task.exception() is None or self.failure.done():
            return
        problem = PlayerError(
            f"the embedded cluster failed: {task.get_name()}: "
            f"{type(task.exception()).__name__}: {task.exception()}"
        )
        problem.__cause__ = task.exception()
        self.failure.set_exception(problem)

    async def stop(self) -> None:
        """End all tasks."""
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if self.failure.done() and not self.failure.cancelled():
            self.failure.exception()


class WorkQueue:
    """Keys to look at, each at most once at a time, as client-go's work queues do it."""

    def __init__(
        self, team: Team, name: str, sync: Callable[[str], Awaitable[None]], workers: int
    ) -> None:
        self._team = team
        self._name = name
        self._sync = sync
        self._keys: collections.OrderedDict[str, None] = collections.OrderedDict()
        self._working: set[str] = set()
        self._again: set[str] = set()
        self._idle = workers
        self.account = QueueAccount(name)
        team.queues.append(self.account)

    def add(self, key: str) -> None:
        """Have the key looked at."""
        if self._team.ended:
            return
        if key in self._working:
            if key not in self._again:
                self.account.added(key)
            self._again.add(key)
        elif key not in self._keys:
            if key not in self.account.waiting:
                self.account.added(key)
            self._keys[key] = None
            if self._idle:
                self._idle -= 1
                self._team.spawn(self._work(), f"{self._name} worker")

    async def _work(self) -> None:
        try:
            while self._keys:
                key, _ = self._keys.popitem(last=False)
                self._working.add(key)
                self.account.taken(key)
                try:
                    await self._sync(key)
                except StatusError as refusal:
                    if refusal.code >= 500:
                        raise
                    # Somebody else was faster (409), or it is gone (404): look again.
                    self.account.retries += 1
                    asyncio.get_running_loop().call_later(RETRY_SECONDS, self.add, key)
                finally:
                    self.account.done(key)
                    self._working.discard(key)
                if key in self._again:
                    self._again.discard(key)
                    self.add(key)
        finally:
            self._idle += 1
