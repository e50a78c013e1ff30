"""The last words of VMIs that failed: what their launchers and their node logged.

A launcher's log goes with its pod, so it is asked for as soon as the pod has ended. Where the
pod's status says already why it ended, a few logs are enough; where it does not, each is asked
for, because each VMI keeps evidence of its own. The node's log is asked for once, before the
deletion, for all pods that got no sandbox.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Sequence

from pytest_kvscale.cluster import logs
from pytest_kvscale.cluster.client import Client
from pytest_kvscale.cluster.templates import Place
from pytest_kvscale.measure.observe import Observer
from pytest_kvscale.measure.timeline import Timeline

FEW = 3
"""Logs of launchers whose pods say themselves why they ended."""
MOST = 500
"""Logs of launchers in all."""
LINES = 40
NODE_LINES = 2000
AT_ONCE = 8
PATIENCE = 20.0
"""Seconds the deletion waits for what has not been read yet."""
_PATTERN = "[Ss]andbox"

Heard = Callable[[Timeline, str, Sequence[str], float], None]
"""Told of log lines: whose, of which log (`log`, `node log`), the lines, when they speak of."""


class LastWords:
    """Asks for the logs of one level's VMIs."""

    def __init__(self, client: Client, place: Place, heard: Heard) -> None:
        self._client = client
        self._place = place
        self._heard = heard
        self._places = asyncio.Semaphore(AT_ONCE)
        self._asking: set[asyncio.Task[None]] = set()
        self._asked = 0
        self._plain = 0

    def ended(self, timeline: Timeline, at: float) -> None:
        """A VMI's pod has ended."""
        if timeline.creation.is_pod or self._asked >= MOST:
            return
        if not timeline.pod.mute:
            self._plain += 1
            if self._plain > FEW:
                return
        self._ask(timeline, at)

    async def collect(self, observer: Observer, at: float) -> None:
        """Wait for what was asked for; ask for logs of those that hang, and for the node's."""
        stuck = [each for each in observer.timelines.values() if _has_no_sandbox(each)]
        hanging = [each for each in observer.timelines.values() if _hangs_in_launcher(each)]
        for timeline in hanging[:FEW]:
            self._ask(timeline, at)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(PATIENCE):
                if stuck:
                    await self._ask_node(stuck, at)
                if self._asking:
                    await asyncio.wait(self._asking)
        for task in self._asking:
            task.cancel()

    def _ask(self, timeline: Timeline, at: float) -> None:
        self._asked += 1
        task = asyncio.create_task(self._read(timeline, at), name=f"log of {timeline.name}")
        self._asking.add(task)
        task.add_done_callback(self._asking.discard)

    async def _read(self, timeline: Timeline, at: float) -> None:
        async with self._places:
            lines = await logs.of_launcher(
                self._client, self._place.namespace, timeline.pod.name, LINES
            )
        if lines:
            self._heard(timeline, "log", lines, at)

    async def _ask_node(self, stuck: Sequence[Timeline], at: float) -> None:
        lines = await logs.of_node(self._client, self._place.node, _PATTERN, NODE_LINES)
        for timeline in stuck:
            own = [
                line
                for line in lines or []
                if timeline.pod.uid in line or timeline.pod.name in line
            ]
            if own:
                self._heard(timeline, "node log", own, at)


def _has_no_sandbox(timeline: Timeline) -> bool:
    pod = timeline.pod
    return bool(pod.uid and pod.scheduled is not None and not pod.has_sandbox and not pod.ended)


def _hangs_in_launcher(timeline: Timeline) -> bool:
    pod = timeline.pod
    started = pod.started is not None and not pod.ended and pod.gone is None
    return started and not timeline.ran and not timeline.creation.is_pod
