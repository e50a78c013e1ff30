"""The rest before a level: a least time since the last one, whoever ran it, and a settled cluster.

The end of the last level is remembered in `kvscale-system`, as a ConfigMap whose creation the
server has stamped. How long ago that is, is told by the server's clock too: two machines' clocks
need not agree.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import datetime
import json
import secrets
from collections.abc import Awaitable, Callable, Mapping, Sequence
from decimal import Decimal

from pytest_kvscale import durations
from pytest_kvscale.cluster import system
from pytest_kvscale.cluster.busy import IN_FLIGHT, in_flight, queued
from pytest_kvscale.cluster.client import (
    NAMESPACES,
    PODS,
    VMIS,
    ApiError,
    Client,
    LostConnectionError,
    Object,
    repeat_until,
)
from pytest_kvscale.cluster.clock import now
from pytest_kvscale.cluster.preflight import taken
from pytest_kvscale.cluster.system import CONFIG_MAPS, NAMESPACE
from pytest_kvscale.cluster.templates import RUN_LABEL

STRETCH = 60.0
"""Seconds for which the cluster must have been settled, at most the rest itself."""
LOOK_EVERY = 10.0
TELL_EVERY = 900.0
LABEL = "kvscale.io/last-level"
_PATIENCE = 60.0
_DATA = "level"
_SHOWN = 3
_OURS = 5
"""Requests in flight that may be our own, or anybody's."""


class NotSettledError(Exception):
    """The cluster has not come to rest; says what still moves."""


@dataclasses.dataclass(frozen=True)
class LastLevel:
    """The end of the last level on this cluster."""

    run: str
    ago: float
    """Seconds."""
    node: str
    before: Mapping[str, Decimal]
    """What pods on that node had asked for before that run's first level."""


@dataclasses.dataclass(frozen=True)
class Rested:
    """How a rest went."""

    waited: float
    settled: bool | None
    """None: whether it had settled could not be seen."""
    unknown: str = ""


async def remember(
    client: Client, run: str, node: str, before: Mapping[str, Decimal] | None
) -> None:
    """Note that a level has just ended. Where nothing may be noted, nothing is."""
    content = {"run": run, "node": node, "before": {k: str(v) for k, v in (before or {}).items()}}
    with contextlib.suppress(ApiError, LostConnectionError, TimeoutError):
        older = await _noted(client)
        name = f"last-level-{secrets.token_hex(4)}"
        await _make(client, name, {LABEL: "end"}, {_DATA: json.dumps(content)})
        for each in older:
            await client.delete(CONFIG_MAPS, NAMESPACE, each["metadata"]["name"])


async def last_level(client: Client) -> LastLevel | None:
    """The last level on this cluster, as far as it is remembered."""
    found = await _noted(client)
    if not found:
        return None
    # Two stay only if whoever noted the later one was cut off.
    last = max(found, key=lambda each: str(each["metadata"]["creationTimestamp"]))
    try:
        content = json.loads((last.get("data") or {})[_DATA])
        before = {str(key): Decimal(value) for key, value in content["before"].items()}
        told = LastLevel(str(content["run"]), 0.0, str(content["node"]), before)
    except (LookupError, ValueError, TypeError, AttributeError, ArithmeticError):
        told = LastLevel("(unknown)", 0.0, "", {})
    then = _stamp(last)
    try:
        made = await _make(client, f"now-{secrets.token_hex(4)}", {}, {})
    except ApiError as problem:
        if not system.is_closed(problem):
            raise
        return None  # How long ago it is cannot be told.
    ago = max(0.0, (_stamp(made) - then).total_seconds())
    with contextlib.suppress(ApiError, LostConnectionError, TimeoutError):
        await client.delete(CONFIG_MAPS, NAMESPACE, made["metadata"]["name"])
    return dataclasses.replace(told, ago=ago)


async def _noted(client: Client) -> list[Object]:
    try:
        answer = await repeat_until(
            now() + _PATIENCE, lambda: client.list(CONFIG_MAPS, NAMESPACE, labels=f"{LABEL}=end")
        )
    except ApiError as problem:
        if system.is_closed(problem):
            return []
        raise
    found: list[Object] = answer.get("items") or []
    return found


async def _make(
    client: Client, name: str, labels: Mapping[str, str], data: Mapping[str, str]
) -> Object:
    metadata = {"name": name, "labels": dict(labels)}
    obj = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": dict(data)}
    return await repeat_until(
        now() + _PATIENCE, lambda: client.create(CONFIG_MAPS, NAMESPACE, obj)
    )  # fmt: skip


def _stamp(obj: Object) -> datetime.datetime:
    return datetime.datetime.fromisoformat(str(obj["metadata"]["creationTimestamp"]))


# Whether it has settled -----------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Sight:
    """What is to be seen of a cluster that rests."""

    ours: Sequence[str]
    """What carries a run's label, as `kind name`."""
    terminating: Sequence[str]
    """Pods on the node that are going."""
    taken: Mapping[str, Decimal]
    """What pods on the node have asked for."""
    queued: Decimal | None = None
    """What lies in virt-controller's work queues, where its metrics may be read."""
    in_flight: Decimal | None = None
    """Requests the API works on, where its metrics may be read."""

    @property
    def carried(self) -> dict[str, Decimal]:
        """What a later sight is compared with."""
        in_flight = {} if self.in_flight is None else {IN_FLIGHT: self.in_flight}
        return {**self.taken, **in_flight}


def moving(sight: Sight, before: Mapping[str, Decimal] | None) -> list[str]:
    """What has not come to rest, in words; `before` is what the node had to carry before."""
    found = []
    if sight.ours:
        found.append(f"of runs there is still {_some(sight.ours)}")
    if sight.terminating:
        found.append(f"pods are going: {_some(sight.terminating)}")
    for key, value in sorted(sight.taken.items()):
        former = None if before is None else before.get(key, Decimal(0))
        if former is not None and value > former:
            found.append(f"the node carries {value:f} of {key}, {former:f} before")
    if sight.queued:
        found.append(f"virt-controller's work queues hold {sight.queued:f}")
    calm = (before or {}).get(IN_FLIGHT)
    if sight.in_flight is not None and calm is not None and sight.in_flight > calm + _OURS:
        found.append(f"the API works on {sight.in_flight:f} requests, {calm:f} before")
    return found


Look = Callable[[], Awaitable[Sight]]


async def look(client: Client, node: str) -> Sight:
    """See what there is. Raises `ApiError`, `LostConnectionError`, TimeoutError."""
    ours = []
    for resource in (VMIS, PODS, NAMESPACES):
        try:
            async for page in client.pages(resource, labels=RUN_LABEL):
                ours += [f"{resource.plural} {each['metadata']['name']}" for each in page]
        except ApiError as problem:
            # A run that uses a namespace that is there may not list them; what matters lies in
            # them.
            if problem.code != 403 or resource != NAMESPACES:
                raise
    answer = await client.list(PODS, fields=f"spec.nodeName={node}")
    pods = answer.get("items") or []
    going = [each["metadata"]["name"] for each in pods
             if each["metadata"].get("deletionTimestamp")]  # fmt: skip
    there = [each for each in pods if (each.get("status") or {}).get("phase") not in
             ("Succeeded", "Failed")]  # fmt: skip
    return Sight(ours, going, taken(there), await queued(client), await in_flight(client))


class Rest:
    """One rest. Moments are the loop's; what was waited counts from `since`.

    The cluster must have been settled for `stretch` seconds. `tell` is for people who wait.
    """

    def __init__(
        self,
        see: Look,
        before: Mapping[str, Decimal] | None,
        least: float,
        latest: float,
        stretch: float,
        since: float,
        tell: Callable[[str], None],
    ) -> None:
        self._see = see
        self._since = since
        self._before = before
        self._least = least
        self._latest = latest
        self._stretch = stretch
        self._tell = tell

    async def take(self) -> Rested:
        """Rest. Raises `NotSettledError` if the cluster has not settled when it must have."""
        loop = asyncio.get_running_loop()
        while (left := self._least - self._stretch - LOOK_EVERY - loop.time()) > 0:
            await asyncio.sleep(min(left, TELL_EVERY))
            if left > TELL_EVERY:
                self._tell(f"resting: {durations.write(round(self._least - loop.time()))} left")
        told = loop.time()
        quiet_since: float | None = None
        while True:
            still = await self._moving()
            moment = loop.time()
            if still is None:
                await _sleep_until(self._least)
                return Rested(
                    loop.time() - self._since, None, "pods of all namespaces may not be listed"
                )
            quiet_since = (quiet_since or moment) if not still else None
            due = self._latest if quiet_since is None else max(
                self._least, quiet_since + self._stretch
            )  # fmt: skip
            if still and moment >= self._latest:
                waited = durations.write(round(moment - self._since))
                raise NotSettledError(
                    f"the cluster had not settled after {waited} (--kvscale-cooldown-max): "
                    + "; ".join(still)
                )
            if still and moment - told >= TELL_EVERY:
                told = moment
                self._tell(f"not settled yet: {'; '.join(still)}")
            if quiet_since is not None and due - moment <= LOOK_EVERY:
                await _sleep_until(due)
                return Rested(loop.time() - self._since, settled=True)
            await _sleep_until(min(due, moment + LOOK_EVERY))

    async def _moving(self) -> list[str] | None:
        try:
            return moving(await self._see(), self._before)
        except ApiError as problem:
            if problem.code == 403:
                return None
            return [f"the API answers {problem}"]
        except (LostConnectionError, TimeoutError) as problem:
            return [f"the API does not answer: {problem or 'no answer in time'}"]


async def _sleep_until(moment: float) -> None:
    left = moment - asyncio.get_running_loop().time()
    if left > 0:
        await asyncio.sleep(left)


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more
