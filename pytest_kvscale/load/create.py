"""Creating objects: each at its time, however long the API takes for the ones before.

A create that the API sheds (429) or fails (5xx) is sent again until the deadline. One whose
answer was lost is looked up before it is sent again: it may be there. Any other refusal is final.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from typing import Protocol

from pytest_kvscale.cluster.client import (
    ApiError,
    Client,
    LostConnectionError,
    Object,
    Resource,
    repeat_until,
)
from pytest_kvscale.cluster.clock import now
from pytest_kvscale.cluster.templates import RUN_LABEL
from pytest_kvscale.load.pacing import sleep_until


class Creation(Protocol):
    """A create that is to be sent; the times are the loop's."""

    name: str
    due: float
    sent: float | None
    """When it was sent first."""


Answered = Callable[[Creation, float, int, str], None]
"""Told of every answer: the creation, when, HTTP status (0: none), message of a refusal."""


class Creator:
    """Creates the objects of one level."""

    def __init__(self, client: Client, namespace: str, run: str, answered: Answered) -> None:
        self._client = client
        self._namespace = namespace
        self._run = run
        self._answered = answered

    async def create_all(
        self,
        plan: Iterable[tuple[Creation, Resource, Callable[[], Object]]],
        deadline: float,
    ) -> None:
        """Send each creation when it is due, and wait until all are answered.

        The plan is in the order of due times; objects are made right before they are due.
        """
        async with asyncio.TaskGroup() as group:
            for creation, resource, make in plan:
                obj = make()
                await sleep_until(creation.due)
                group.create_task(self._create(creation, resource, obj, deadline))

    async def _create(
        self, creation: Creation, resource: Resource, obj: Object, deadline: float
    ) -> None:
        attempt = _Attempt(self._client, resource, self._namespace, self._run, creation, obj)
        code, message = 201, ""
        try:
            await repeat_until(deadline, attempt)
        except ApiError as problem:
            code, message = problem.code, str(problem)
        except (LostConnectionError, TimeoutError) as problem:
            code, message = 0, str(problem) or "no answer in time"
        self._answered(creation, now(), code, message)


class _Attempt:
    """One create, as often as it is sent."""

    def __init__(
        self,
        client: Client,
        resource: Resource,
        namespace: str,
        run: str,
        creation: Creation,
        obj: Object,
    ) -> None:
        self._client = client
        self._resource = resource
        self._namespace = namespace
        self._run = run
        self._creation = creation
        self._obj = obj
        self._unsure = False
        """An earlier send may have made the object."""

    async def __call__(self) -> None:
        async with self._client.place():
            if self._creation.sent is None:
                self._creation.sent = now()
            if self._unsure and await self._is_there():
                return
            try:
                await self._client.create(self._resource, self._namespace, self._obj)
            except (LostConnectionError, TimeoutError):
                self._unsure = True
                raise
            except ApiError as problem:
                if problem.code >= 500:
                    self._unsure = True
                if problem.code == 409 and self._unsure and await self._is_there():
                    return
                raise

    async def _is_there(self) -> bool:
        """Whether an object of this name and of this run is there."""
        try:
            found = await self._client.get(self._resource, self._namespace, self._creation.name)
        except ApiError as problem:
            if problem.code == 404:
                return False
            raise
        labels = found["metadata"].get("labels") or {}
        return bool(labels.get(RUN_LABEL) == self._run)
