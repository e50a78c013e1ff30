"""Deleting what a run created, and nothing else, and waiting until it is gone.

What watches tell is checked by a list before it is said that all is gone, when nothing has gone
for a while, and at the deadline: an event may be lost, or a create may have come late.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence, Sized
from typing import Protocol

from pytest_kvscale.cluster.client import ApiError, Client, Resource, repeat_until
from pytest_kvscale.cluster.clock import now
from pytest_kvscale.cluster.kinds import Kind
from pytest_kvscale.cluster.settle import LAST_LOOK, QUIET
from pytest_kvscale.cluster.templates import RUN_LABEL


class Inventory(Protocol):
    """What is there of ours, kept up to date by watches."""

    strangers: dict[str, str]
    """Objects that carry our label and are not ours: name by uid."""
    on_change: Callable[[], None]
    """Called when something is gone."""

    @property
    def present(self) -> int:
        """How many objects of ours are there."""
        ...

    def undeleted(self) -> Sized:
        """The VMIs that are there and whose deletion has not been asked for."""
        ...

    def there(self, stream: str) -> Mapping[str, str]:
        """What is there of ours in a stream (see `cluster.kinds`): name by uid."""
        ...

    def delete_asked(self, at: float) -> None:
        """The deletion of all that is there is asked for now."""
        ...


class Deleter:
    """Deletes the objects of one level; its inventory tells when they are gone."""

    def __init__(
        self,
        client: Client,
        kinds: Sequence[Kind],
        inventory: Inventory,
        namespace: str,
        run: str,
        asked: Callable[[float], None],
        look_again: Callable[[], Awaitable[None]],
        quiet: float = QUIET,
    ) -> None:
        self._client = client
        self._kinds = kinds
        self._inventory = inventory
        self._namespace = namespace
        self._run = run
        self._asked = asked
        self._look_again = look_again
        """Has the inventory listed anew."""
        self._quiet = quiet
        """Seconds without news after which to look again; each time in vain doubles them."""

    async def delete_all(self, deadline: float) -> bool:
        """Delete all objects of ours and wait until they, their VMIs and pods are gone.

        False if something is still there at the deadline (loop time). Raises TimeoutError if it
        could not be seen by then.
        """
        inventory, loop, quiet = self._inventory, asyncio.get_running_loop(), self._quiet
        wake = asyncio.Event()
        inventory.on_change = wake.set
        while True:
            if inventory.undeleted():
                await self.ask(deadline)
            if not inventory.present:
                await self._look(deadline)
                if not inventory.present:
                    return True
                continue
            wake.clear()
            try:
                async with asyncio.timeout_at(min(deadline, loop.time() + quiet)):
                    await wake.wait()
                quiet = self._quiet
            except TimeoutError:
                await self._look(deadline)
                quiet *= 2
                if loop.time() >= deadline:
                    return not inventory.present

    async def _look(self, deadline: float) -> None:
        """Look again, at the deadline too: what is gone by then must not be said to be there."""
        async with asyncio.timeout_at(max(deadline, asyncio.get_running_loop().time() + LAST_LOOK)):
            await self._look_again()

    async def ask(self, deadline: float) -> None:
        """Ask for the deletion of all that is there.

        One request for all, if all that carry our label are ours; else one for each of ours.
        """
        moment = now()
        self._inventory.delete_asked(moment)
        self._asked(moment)
        for kind in self._kinds:
            await self._delete_kind(kind, deadline)

    async def _delete_kind(self, kind: Kind, deadline: float) -> None:
        client, namespace, resource = self._client, self._namespace, kind.resource
        if not self._inventory.strangers:
            labels = f"{RUN_LABEL}={self._run}"
            await repeat_until(
                deadline, lambda: client.delete_collection(resource, namespace, labels)
            )
            return
        for uid, name in list(self._inventory.there(kind.stream).items()):
            await self._delete(resource, name, uid, deadline)

    async def _delete(self, resource: Resource, name: str, uid: str, deadline: float) -> None:
        client, namespace = self._client, self._namespace
        try:
            await repeat_until(deadline, lambda: client.delete(resource, namespace, name, uid))
        except ApiError as problem:
            if problem.code not in (404, 409):
                raise
