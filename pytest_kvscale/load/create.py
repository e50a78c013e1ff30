"""Creating VMIs: each at its time, however long the API takes for the ones before.

A create that the API sheds (429) or fails (5xx) is sent again until the deadline. One whose
answer was lost is looked up before it is sent again: it may be there. Any other refusal is final.
A create that is given up while it is under way, because the level ends, may still take effect:
`Creator.decided` waits until none can any more.
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
    Object,
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


class Creator:
    """Creates the VMIs of one level."""

    def __init__(self, client: Client, namespace: str, run: str, answered: Answered) -> None:
        self._client = client
        self._namespace = namespace
        self._run = run
        self._answered = answered
        self._given_up: dict[str, _Attempt] = {}
        """By name: the creates of which it is not known whether they have taken effect."""

    async def create_all(self, plan: Iterable[tuple[Creation, Planned]], deadline: float) -> None:
        """Send each creation when it is due, and wait until all are answered.

        The plan is in the order of due times.
        """
        async with asyncio.TaskGroup() as group:
            for creation, planned in plan:
                await sleep_until(creation.due)
                group.create_task(self._create(creation, planned, deadline))

    async def _create(self, creation: Creation, planned: Planned, deadline: float) -> None:
        attempt = _Attempt(self._client, self._namespace, self._run, creation, planned)
        code, message = 201, ""
        try:
            await repeat_until(deadline, attempt)
        except (ApiError, LostConnectionError, TimeoutError) as problem:
            code, message = _refusal(problem)
        except asyncio.CancelledError:
            self._given_up[creation.name] = attempt
            if attempt.refused is not None and attempt.under_way is None:
                self._answered(creation, now(), *attempt.refused)
            raise
        if code != 201 and attempt.unsure:
            self._given_up[creation.name] = attempt
        self._answered(creation, now(), code, message)

    async def decided(self, is_there: Callable[[str], bool]) -> None:
        """Wait until no create that was given up can take effect any more.

        Those under way are answered, or lost; the API works on one whose answer was lost for as
        long as on any request. `is_there` tells by name what has taken effect as can be seen.
        """
        for name, attempt in self._given_up.items():
            if attempt.under_way is not None:
                code, message = await attempt.end()
                self._answered(attempt.creation, now(), code, message)
            if attempt.unsure and not is_there(name):
                await sleep_until(attempt.sent + REQUEST_TIMEOUT)
        self._given_up.clear()


class _Attempt:
    """One create, as often as it is sent."""

    def __init__(
        self, client: Client, namespace: str, run: str, creation: Creation, planned: Planned
    ) -> None:
        self._client = client
        self._namespace = namespace
        self._run = run
        self._resource = planned.kind.resource
        self._obj = planned.obj
        self.creation = creation
        self.unsure = False
        """An earlier send may have made the object."""
        self.sent = 0.0
        """When it was sent last."""
        self.under_way: asyncio.Task[Object] | None = None
        self.refused: tuple[int, str] | None = None
        """HTTP status (0: none) and message of the last answer."""

    async def __call__(self) -> None:
        async with self._client.place():
            if self.creation.sent is None:
                self.creation.sent = now()
            if self.unsure and await self._is_there():
                return
            self.sent = now()
            # A task of its own: who gives it up still has an answer to wait for.
            self.under_way = asyncio.create_task(
                self._client.create(self._resource, self._namespace, self._obj)
            )
            try:
                await asyncio.shield(self.under_way)
            except (ApiError, LostConnectionError, TimeoutError) as problem:
                self._note(problem)
                taken = isinstance(problem, ApiError) and problem.code == 409
                if taken and self.unsure and await self._is_there():
                    return
                raise
            finally:
                if self.under_way.done():
                    self.under_way = None

    async def end(self) -> tuple[int, str]:
        """The answer to what was under way when it was given up: HTTP status and message."""
        if self.under_way is None:
            return 0, "given up"
        try:
            await self.under_way
        except (ApiError, LostConnectionError, TimeoutError) as problem:
            self._note(problem)
            return _refusal(problem)
        self.unsure = False
        return 201, ""

    def _note(self, problem: Exception) -> None:
        self.refused = code, words = _refusal(problem)
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
