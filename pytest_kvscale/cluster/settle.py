"""Waiting for a state of the cluster by watching it, not by asking again and again."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from typing import Any, TypeVar

from pytest_kvscale.cluster.client import Client, Object, Resource
from pytest_kvscale.cluster.watch import Follower

T = TypeVar("T")

QUIET = 240.0
"""Seconds without news after which one looks again: an event may have been lost on its way. A VMI
that ends is silent for its grace period (180 s) anyway."""
LAST_LOOK = 300.0
"""Seconds the API is given for the look before something is said to be so for good: enough for
several tries, and for an API that restarts."""


class Mirror:
    """What is in one collection, kept up to date by a watch."""

    def __init__(self, changed: Callable[[], None]) -> None:
        self.objects: dict[str, Object] = {}
        """By name."""
        self._tell = changed

    def listed(self, objects: list[Object], version: str, at: float, since: float | None) -> None:
        """See `watch.Receiver`."""
        self.objects = {each["metadata"]["name"]: each for each in objects}
        self._tell()

    def resumed(self, since: float, at: float) -> None:
        """See `watch.Receiver`; what is in a collection does not depend on when it was told."""

    def changed(self, kind: str, obj: Object, at: float) -> None:
        """See `watch.Receiver`."""
        name = obj["metadata"]["name"]
        if kind == "DELETED":
            self.objects.pop(name, None)
        else:
            self.objects[name] = obj
        self._tell()


@dataclasses.dataclass(frozen=True)
class Watched:
    """A collection to be watched, or the part of it that selectors leave."""

    resource: Resource
    namespace: str = ""
    fields: str = ""
    labels: str = ""


@contextlib.asynccontextmanager
async def following(*followers: Follower) -> AsyncIterator[asyncio.Task[None]]:
    """Let followers run meanwhile; yields a task that ends with the first one that fails."""

    async def all_of_them() -> None:
        async with asyncio.TaskGroup() as group:
            for follower in followers:
                group.create_task(follower.run())

    task = asyncio.create_task(all_of_them(), name="followers")
    try:
        yield task
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError, Exception):
            await task


async def until(
    client: Client,
    wanted: Sequence[Watched],
    reached: Callable[[Sequence[Mirror]], bool],
    timeout: float,
) -> bool:
    """Watch collections until they are as wanted.

    `reached` is called after every change with what is in each. False if the time (seconds) ran
    out before; raises `ApiError` if the API does not let us look.
    """
    wake = asyncio.Event()
    mirrors = [Mirror(wake.set) for _ in wanted]
    followers = [
        Follower(client, each.resource, each.namespace, mirror, each.labels, each.fields)
        for each, mirror in zip(wanted, mirrors, strict=True)
    ]
    async with following(*followers) as failing:
        try:
            async with asyncio.timeout(timeout):
                await unless(failing, all_watching(followers))
                quiet = QUIET
                while not reached(mirrors):
                    wake.clear()
                    try:
                        async with asyncio.timeout(quiet):
                            await unless(failing, wake.wait())
                        quiet = QUIET
                    except TimeoutError:
                        quiet *= 2
                        await unless(failing, look_again(followers))
        except TimeoutError:
            if not all(each.watching.is_set() for each in followers):
                return False
            try:
                async with asyncio.timeout(LAST_LOOK):
                    await unless(failing, look_again(followers))
            except TimeoutError:
                return False
            return reached(mirrors)
    return True


async def look_again(followers: Sequence[Follower]) -> None:
    """Have all collections listed again, now."""
    await asyncio.gather(*(each.look_again() for each in followers))


async def all_watching(followers: Sequence[Follower]) -> None:
    """Wait until each follower has its first list and goes on from there."""
    for follower in followers:
        await follower.watching.wait()


async def unless(failing: asyncio.Task[None], work: Coroutine[Any, Any, T]) -> T:
    """Do the work; if followers fail meanwhile, stop it and raise what went wrong there."""
    task = asyncio.create_task(work)
    try:
        await asyncio.wait((failing, task), return_when=asyncio.FIRST_COMPLETED)
        if task.done():
            return task.result()
        raise_problem(failing)
        raise AssertionError("followers follow until they fail or are cancelled")
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


def raise_problem(failing: asyncio.Task[None]) -> None:
    """Raise what made a follower fail, not the group around it."""
    problem = failing.exception()
    while isinstance(problem, BaseExceptionGroup):
        problem = problem.exceptions[0]
    if problem is not None:
        raise problem
