"""Counting the migrations of a run's VMIs while something else goes on."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Collection

from pytest_kvscale.cluster.client import ApiError, Client, LostConnectionError, Object, Resource
from pytest_kvscale.cluster.watch import Follower

MIGRATIONS = Resource("kubevirt.io/v1", "virtualmachineinstancemigrations")
_SUCCEEDED, _FAILED = "Succeeded", "Failed"


class Migrations:
    """The migrations seen in a namespace; see `watch.Receiver`."""

    def __init__(self) -> None:
        self._seen: dict[str, tuple[str, str]] = {}
        """VMI and phase, by uid; those that are gone stay as they were last."""
        self.unknown = ""
        """Why they are not known, if they are not."""

    def listed(self, objects: list[Object], version: str, at: float, since: float | None) -> None:
        """See `watch.Receiver`."""
        for each in objects:
            self._take(each)

    def resumed(self, since: float, at: float) -> None:
        """See `watch.Receiver`."""

    def changed(self, kind: str, obj: Object, at: float) -> None:
        """See `watch.Receiver`."""
        self._take(obj)

    def _take(self, obj: Object) -> None:
        vmi = str((obj.get("spec") or {}).get("vmiName") or "")
        phase = str((obj.get("status") or {}).get("phase") or "")
        self._seen[obj["metadata"]["uid"]] = vmi, phase

    def counted(self, vmis: Collection[str]) -> dict[str, int] | None:
        """How many of these VMIs' succeeded, failed, or were still under way; None: not known."""
        if self.unknown:
            return None
        phases = [phase for vmi, phase in self._seen.values() if vmi in vmis]
        over = {"succeeded": phases.count(_SUCCEEDED), "failed": phases.count(_FAILED)}
        return {**over, "running": len(phases) - sum(over.values())}


@contextlib.asynccontextmanager
async def counting(client: Client, namespace: str) -> AsyncIterator[Migrations]:
    """Count the migrations in a namespace meanwhile; where they may not be seen, nothing fails."""
    found = Migrations()
    follower = Follower(client.apart("upgrade"), MIGRATIONS, namespace, found)

    async def follow() -> None:
        try:
            await follower.run()
        except (ApiError, LostConnectionError, TimeoutError) as problem:
            found.unknown = f"migrations are not known: {problem or 'no answer'}"

    task = asyncio.create_task(follow(), name="migrations")
    try:
        yield found
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
