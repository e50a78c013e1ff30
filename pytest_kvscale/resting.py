"""The rest before each level of a run: since the last level on the cluster, whoever ran it."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from pytest_kvscale import durations
from pytest_kvscale.cluster import cooldown
from pytest_kvscale.cluster.client import ApiError, LostConnectionError
from pytest_kvscale.cluster.cooldown import Rest, Rested

if TYPE_CHECKING:
    from pytest_kvscale.session import Run

SETTLE = "settle"


class Resting:
    """Keeps when the last level ended, and how the cluster was before the first."""

    def __init__(self, run: Run) -> None:
        self._run = run
        self._asked = False
        """Whether the cluster was asked for its last level."""
        self._last_end: float | None = None
        """Loop time."""
        self._before: Mapping[str, Decimal] | None = None
        self._ours = False
        """The last level was this run's."""
        self._rested: Rested | None = None
        """Since the last level."""

    @property
    def _least(self) -> float:
        """Seconds a rest takes at least."""
        return self._run.settings.cooldown or 0.0

    def rest(self, level: int | None) -> None:
        """Let the cluster rest, once, after the last level; nothing if there was none.

        Raises `NotSettledError`.
        """
        settings = self._run.settings
        if settings.cooldown == 0:
            return
        if not self._asked:
            # A worker of xdist has looked at nothing yet: not from within the loop.
            node = self._run.facts.node["name"]
            self._run.connection.run(self._ask(node))
        if self._last_end is None or self._rested is not None:
            return
        self._rested = self._run.connection.run(self._take(self._last_end, level))

    async def _ask(self, node: str) -> None:
        self._asked, settings = True, self._run.settings
        client = self._client()
        last = await cooldown.last_level(client)
        if last is None or last.ago >= max(settings.cooldown_max, self._least):
            return
        self._last_end = asyncio.get_running_loop().time() - last.ago
        self._before = last.before if last.node == node else None
        self._run.tell(
            f"the last level on this cluster ended {durations.write(round(last.ago))} ago "
            f"(run {last.run})"
        )

    async def _take(self, last_end: float, level: int | None) -> Rested:
        run, settings = self._run, self._run.settings
        client, node = self._client(), run.facts.node["name"]
        least, moment = last_end + self._least, asyncio.get_running_loop().time()
        before = "" if level is None else f" before level {level}"
        if settings.cooldown is None:
            run.tell(f"waiting until the cluster has settled{before} (--kvscale-cooldown)")
        elif moment < least:
            left = durations.write(round(least - moment))
            run.tell(f"resting {left}{before} (--kvscale-cooldown)")
        stretch = cooldown.STRETCH if settings.cooldown is None else min(
            cooldown.STRETCH, self._least
        )  # fmt: skip
        if not self._ours and moment >= least and settings.cooldown is not None:
            stretch = 0.0  # It has had its rest.
        latest = max(last_end + settings.cooldown_max, least)
        since = last_end if self._ours else moment
        return await Rest(
            lambda: cooldown.look(client, node), self._before, least, latest, stretch, since,
            run.tell,
        ).take()  # fmt: skip

    def begin(self) -> None:
        """A level is about to begin: see how the cluster is before the first."""
        if self._before is None and not self._ours:
            node = self._run.facts.node["name"]
            self._before = self._run.connection.run(self._see(node))

    async def _see(self, node: str) -> Mapping[str, Decimal] | None:
        try:
            sight = await cooldown.look(self._client(), node)
        except (ApiError, LostConnectionError, TimeoutError):
            return None
        return sight.carried

    def ended(self, at: float | None) -> None:
        """A level has ended at this moment (loop time), or nobody waited for its end."""
        if at is None:
            return
        self._asked, self._ours, self._last_end, self._rested = True, True, at, None
        run = self._run
        # Others may want to rest though this run does not; if there can be any.
        if run.settings.cooldown != 0 or run.connection.shared:
            node = run.facts.node["name"]
            run.connection.run(cooldown.remember(self._client(), run.id, node, self._before))

    def as_json(self) -> dict[str, Any]:
        """For the results: what was required before the level, and how it went."""
        rested = self._rested
        found: dict[str, Any] = {
            "required": 0.0 if self._last_end is None else self._least,
            "waited": 0.0 if rested is None else round(rested.waited, 3),
            "settled": None if rested is None else rested.settled,
            "by": SETTLE if self._run.settings.cooldown is None else "time",
        }
        return {**found, "unknown": rested.unknown} if rested and rested.unknown else found

    def _client(self) -> Any:
        # Resting is no part of what a level costs.
        return self._run.connection.client.apart("cooldown")
