"""Creating VMIs: each at its time, however long the API takes for the ones before.

A create that the API sheds (429) or fails (5xx) is sent again until the deadline. One whose
answer was lost is looked up before it is sent again: it may be there. Any other refusal is final.
A create that is given up while it is under way, because the level ends, may still take effect:
it is sent no second time, and `Creator.decided` waits until none can take effect any more.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from typing import Protocol

from pytest_kvscale.cluster.client import (
    REQUEST_TIMEOUT,
    ApiError,
    Client,
    LostConnectionError,
    repeat_until,
)
from pytest_kvscale.cluster.clock import now
from pytest_kvscale.cluster.templates import RUN_LABEL, Planned
from pytest_kvscale.load.pacing import sleep_until


class Creation(Protocol):
    """A create that is to be sent; the times are the loop's."""

    name: str
    due: float
    sent: float | None
    """When it was sent first."""
    turned_away: tuple[float, str] | None
    """When it was first answered by no success, and how."""


Answered = Callable[[Creation, float, int, str], None]
"""Told of every answer: the creation, when, HTTP status (0: none), message of a refusal."""


class _GivenUpError(Exception):
    """The level ended while a create was under way, and what came was no final answer."""


class Creator:
    """Creates the VMIs of one level."""

    def __init__(self, client: Client, namespace: str, run: str, answered: Answered) -> None:
        self._client = client
        self._namespace = namespace
        self._run = run
        self._answered = answered
        self._given_up: list[_Attempt] = []
        """The creates of which it is not known whether they have taken effect."""

    async def create_all(self, plan: Iterable[tuple[Creation, Planned]], deadline: float) -> None:
        """Send each creation when it is due, and wait until all are answered.

        The plan is in the order of due times. If this is cancelled, what is under way is not: it
        comes to its end by itself.
        """
        loop = asyncio.get_running_loop()
        begun: dict[asyncio.Task[None], _Attempt] = {}
        try:
            for creation, planned in plan:
                if creation.due > loop.time():
                    await sleep_until(creation.due)
                attempt = _Attempt(
                    self._client, self._namespace, self._run, creation, planned, self._answered
                )
                begun[attempt.begin(deadline)] = attempt
            if begun:
                done, _ = await asyncio.wait(begun, return_when=asyncio.FIRST_EXCEPTION)
                for task in done:
                    task.result()
        finally:
            unanswered = {task for task in begun if not task.done()}
            stopped = [task for task in begun if task in unanswered and begun[task].give_up()]
            if stopped:
                await asyncio.wait(stopped)
            self._given_up += [
                each for task, each in begun.items() if task in unanswered or each.unsure
            ]

    async def decided(self, is_there: Callable[[str], bool]) -> None:
        """Wait until no create that was given up can take effect any more.

        Those under way are answered, or lost; the API works on one whose answer was lost for as
        long as on any request. `is_there` tells by name what has taken effect as can be seen.
        """
        for attempt in self._given_up:
            await attempt.end()
            if attempt.unsure and not is_there(attempt.creation.name):
                await sleep_until(attempt.sent + REQUEST_TIMEOUT)
        self._given_up.clear()


class _Attempt:
    """One create, as often as it is sent, in a task of its own."""

    def __init__(
        self, client: Client, namespace: str, run: str, creation: Creation, planned: Planned,
        answered: Answered,
    ) -> None:  # fmt: skip
        self._client = client
        self._namespace = namespace
        self._run = run
        self._resource = planned.kind.resource
        self._obj = planned.obj
        self._answered = answered
        self._task: asyncio.Task[None] | None = None
        self._under_way = False
        self._given_up = False
        self._refused: tuple[int, str] | None = None
        """HTTP status (0: none) and message of the last answer."""
        self.creation = creation
        self.unsure = False
        """A send may have made the object, and no answer said so."""
        self.sent = 0.0
        """When it was sent last."""

    def begin(self, deadline: float) -> asyncio.Task[None]:
        """Send it from now on until the deadline."""
        self._task = asyncio.create_task(self._until(deadline))
        return self._task

    def give_up(self) -> bool:
        """Send it no more; whether that ends the task now, rather than with the answer."""
        self._given_up = True
        if self._under_way or self._task is None:
            return False
        return self._task.cancel()

    async def end(self) -> None:
        """Wait for the answer to what was under way when it was given up."""
        if self._task is not None and not self._task.done():
            await asyncio.wait((self._task,))

    async def _until(self, deadline: float) -> None:
        code, message = 201, ""
        try:
            await repeat_until(deadline, self._send)
        except (ApiError, LostConnectionError, TimeoutError) as problem:
            code, message = _refusal(problem)
        except (asyncio.CancelledError, _GivenUpError):
            if self._refused is None:
                raise  # Never sent.
            code, message = self._refused
        self._answered(self.creation, now(), code, message)

    async def _send(self) -> None:
        async with self._client.place():
            if self.creation.sent is None:
                self.creation.sent = now()
            if self.unsure and await self._is_there():
                self.unsure = False
                return
            self.sent, self._under_way = now(), True
            try:
                await self._client.create(self._resource, self._namespace, self._obj)
                self.unsure = False
            except (ApiError, LostConnectionError, TimeoutError) as problem:
                self._note(problem)
                if self._given_up:
                    raise _GivenUpError from None
                taken = isinstance(problem, ApiError) and problem.code == 409
                if taken and self.unsure and await self._is_there():
                    self.unsure = False
                    return
                raise
            finally:
                self._under_way = False

    def _note(self, problem: Exception) -> None:
        self._refused = code, words = _refusal(problem)
        if self.creation.turned_away is None:
            self.creation.turned_away = (now(), words)
        if not code or code >= 500:
            self.unsure = True

    async def _is_there(self) -> bool:
        """Whether an object of this name and of this run is there."""
        try:
            found = await self._client.get(self._resource, self._namespace, self.creation.name)
        except ApiError as problem:
            if problem.code == 404:
                return False
            raise
        labels = found["metadata"].get("labels") or {}
        return bool(labels.get(RUN_LABEL) == self._run)


def _refusal(problem: Exception) -> tuple[int, str]:
    """HTTP status (0: no answer) and message of what went wrong."""
    if isinstance(problem, ApiError):
        return problem.code, str(problem)
    return 0, str(problem) or "no answer in time"
