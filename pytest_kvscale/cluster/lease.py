"""Taking turns: one run at a time on a cluster, by a Lease in the namespace `kvscale-system`.

A run holds the Lease from before its first create to its end, and renews it meanwhile. One that
has not been renewed for as long as it was given belongs to a run that died, and is taken over. How
long that is, is measured by our own clock from when we saw the Lease change last: the clocks of
two machines need not agree.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from typing import Any

from pytest_kvscale import durations
from pytest_kvscale.cluster import system
from pytest_kvscale.cluster.client import (
    ApiError,
    Client,
    LostConnectionError,
    Object,
    Resource,
    is_passing,
)
from pytest_kvscale.cluster.clock import utc_now
from pytest_kvscale.cluster.system import BY, NAMESPACE
from pytest_kvscale.cluster.who import who
from pytest_kvscale.errors import ConfigurationError

NAME = "density"
LEASES = Resource("coordination.k8s.io/v1", "leases")
DURATION = 60.0
"""Seconds a lease is good for without being renewed."""
RENEW_EVERY = DURATION / 3
GIVE_UP_AFTER = DURATION * 2 / 3
"""Seconds without a renewal after which we stop, well before somebody else may begin."""
FIRST_ANSWER = 15.0
"""Seconds the API is given to say whose turn it is."""
WITHOUT_ANSWER = 300.0
"""Seconds for which a run that waits for another one bears an API that does not answer."""
LOOK_EVERY = 5.0
TELL_EVERY = 60.0


class Turn:
    """Our turn on a cluster.

    `holder` is the run's id: all processes of one run hold one turn.
    """

    def __init__(self, client: Client, holder: str) -> None:
        # The lease is no part of what a level costs.
        self._client = client.apart("lease")
        self._holder = holder
        self._lease: Object = {}
        self._renewing: asyncio.Task[None] | None = None
        self.lost: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        """Done, with the reason, once the turn is no longer ours."""
        self.off = ""
        """Why there are no turns on this cluster, if there are none."""

    async def take(self, wait: bool, tell: Callable[[str], None]) -> None:
        """Take the turn; wait for it if another run has it, and `tell` for whom.

        Raises `ConfigurationError` if it is another's and `wait` is False.
        """
        loop = asyncio.get_running_loop()
        began = loop.time()
        told: float | None = None
        seen, since, answered, good_for = "", began, began, DURATION
        while True:
            dead = seen if loop.time() >= since + good_for else ""
            try:
                async with asyncio.timeout(None if told is not None else FIRST_ANSWER):
                    held = await self._hold(dead)
            except (ApiError, LostConnectionError, TimeoutError) as problem:
                for_good = told is None or not is_passing(problem)
                if for_good or loop.time() - answered >= WITHOUT_ANSWER:
                    raise
                await asyncio.sleep(LOOK_EVERY)
                continue
            answered = loop.time()
            if held is None:
                break
            moment = loop.time()
            version = held["metadata"]["resourceVersion"]
            if version != seen:
                since, seen = moment, version
            good_for = float(held["spec"].get("leaseDurationSeconds") or DURATION)
            who = _describe(held)
            if not wait:
                raise ConfigurationError(
                    f"the cluster {self._client.server} is in use by {who} (--kvscale-no-wait)"
                )
            if told is None or moment - told >= TELL_EVERY:
                long = told is not None
                waited = f", for {durations.write(moment - began)} so far" if long else ""
                told = moment
                tell(
                    f"waiting for {who}{waited}; if it is dead, its turn ends "
                    f"{durations.write(since + good_for - moment)} from now "
                    "(--kvscale-no-wait fails instead)"
                )
            await asyncio.sleep(min(LOOK_EVERY, since + good_for - moment))
        if not self.off:
            self._renewing = asyncio.create_task(self._renew(), name="lease")

    async def stop(self) -> None:
        """No longer renew the lease; another process of this run may."""
        if self._renewing is not None:
            self._renewing.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._renewing
            self._renewing = None

    async def give_back(self) -> None:
        """End the turn, so that the next run need not wait for the lease to run out."""
        held = self._renewing is not None
        await self.stop()
        if not held or self.lost.done():
            return
        # If that fails, the lease just runs out.
        with contextlib.suppress(ApiError, LostConnectionError, TimeoutError):
            async with asyncio.timeout(LOOK_EVERY):
                while not await self._write(self._lease, holder=""):
                    # Another process of this run has renewed it since.
                    self._lease = await self._client.get(LEASES, NAMESPACE, NAME)
                    if (self._lease.get("spec") or {}).get("holderIdentity") != self._holder:
                        return

    # The lease ------------------------------------------------------------------------------

    async def _hold(self, dead: str = "") -> Object | None:
        """Take the lease if nobody has it; returns another's lease, or None if it is ours.

        `dead` is the version of another's lease that has run out.
        """
        try:
            held = await self._client.get(LEASES, NAMESPACE, NAME)
        except ApiError as problem:
            if problem.code == 404:
                return await self._make()
            if problem.code == 403:
                self._have_no_turns(problem)
                return None
            raise
        holder = (held.get("spec") or {}).get("holderIdentity")
        if holder and holder != self._holder and held["metadata"]["resourceVersion"] != dead:
            return held
        return None if await self._write(held) else await self._hold()

    async def _make(self) -> Object | None:
        client = self._client
        try:
            await system.ensure(client)
            self._lease = await client.create(LEASES, NAMESPACE, self._content({}, self._holder))
        except ApiError as problem:
            if problem.code == 409:
                return await self._hold()
            if system.is_closed(problem):
                self._have_no_turns(problem)
                return None
            raise
        return None

    def _have_no_turns(self, problem: ApiError) -> None:
        self.off = (
            f"runs cannot take turns and the last run is not remembered: the Lease {NAME} in the "
            f"namespace {NAMESPACE} cannot be used ({problem.reason or problem.code})"
        )

    async def _write(self, held: Object, holder: str | None = None) -> bool:
        """Write us into a lease as it was read; False if it has changed since."""
        obj = self._content(held, self._holder if holder is None else holder)
        path = LEASES.path(NAMESPACE, NAME)
        try:
            self._lease = await self._client.request("update", "PUT", path, body=obj)
        except ApiError as problem:
            if problem.code in (404, 409):
                return False
            raise
        return True

    def _content(self, held: Object, holder: str) -> Object:
        before: Object = held.get("spec") or {}
        moment = f"{utc_now():%Y-%m-%dT%H:%M:%S.%fZ}"
        same = before.get("holderIdentity") == holder
        metadata: dict[str, Any] = {"name": NAME, "namespace": NAMESPACE}
        if held:
            metadata["resourceVersion"] = held["metadata"]["resourceVersion"]
            # Without it, a PUT would make a lease anew that somebody has removed.
            metadata["uid"] = held["metadata"]["uid"]
        metadata["annotations"] = {BY: who()}
        return {
            "apiVersion": "coordination.k8s.io/v1",
            "kind": "Lease",
            "metadata": metadata,
            "spec": {
                "holderIdentity": holder,
                "leaseDurationSeconds": int(DURATION),
                "acquireTime": before.get("acquireTime", moment) if same else moment,
                "renewTime": moment,
                "leaseTransitions": int(before.get("leaseTransitions") or 0) + (not same),
            },
        }

    # Keeping it -----------------------------------------------------------------------------

    async def _renew(self) -> None:
        loop = asyncio.get_running_loop()
        good_since = loop.time()
        while True:
            await asyncio.sleep(RENEW_EVERY)
            pause = 1.0
            while True:
                asked = loop.time()
                try:
                    # An answer that comes later is of no use: somebody else may have begun.
                    async with asyncio.timeout_at(good_since + GIVE_UP_AFTER):
                        lost = await self._renew_once()
                except TimeoutError:
                    lost = ""
                if lost is None:
                    good_since = asked
                    break
                if not lost and loop.time() + pause < good_since + GIVE_UP_AFTER:
                    await asyncio.sleep(pause)
                    pause = min(2 * pause, 5.0)
                    continue
                without = durations.write(loop.time() - good_since)
                lost = (
                    lost or f"our turn could not be renewed for {without}: the API did not answer"
                )
                self.lost.set_result(f"{lost}; nothing more is created")
                return

    async def _renew_once(self) -> str | None:
        """None: it is renewed; "": it may be worth another try; else why it is lost."""
        try:
            if await self._write(self._lease):
                return None
            held = await self._client.get(LEASES, NAMESPACE, NAME)
        except (ApiError, LostConnectionError, TimeoutError) as problem:
            if is_passing(problem):
                return ""
            if isinstance(problem, ApiError) and problem.code == 404:
                return f"our turn on the cluster is lost: somebody removed the Lease {NAME}"
            return f"our turn on the cluster is lost: {problem}"
        if (held.get("spec") or {}).get("holderIdentity") != self._holder:
            return f"our turn on the cluster is lost to {_describe(held)}"
        self._lease = held
        return ""


def _describe(lease: Object) -> str:
    spec = lease.get("spec") or {}
    by = (lease["metadata"].get("annotations") or {}).get(BY)
    since = str(spec.get("acquireTime") or "an unknown time")[:19]
    return f"run {spec.get('holderIdentity') or '(none)'} ({by or 'unknown'}, since {since} UTC)"
