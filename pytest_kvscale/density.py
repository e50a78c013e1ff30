"""One level, through the rooms: namespace, watches, creation, waiting, deletion.

This is the way every run takes, on whatever cluster. It may be cut short at any point (a stall,
Ctrl-C, a lost API, a lost turn): it always goes on to delete what it created, and what was
measured until then can be asked for at any time.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import functools
import resource
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Protocol

from pytest_kvscale import durations
from pytest_kvscale.cluster import namespaces
from pytest_kvscale.cluster.client import (
    EVENTS,
    PODS,
    VMIS,
    ApiError,
    Client,
    LostConnectionError,
    Object,
    Resource,
)
from pytest_kvscale.cluster.clock import now
from pytest_kvscale.cluster.settle import all_watching, following, raise_problem, unless
from pytest_kvscale.cluster.templates import RUN_LABEL, Place, Template, Templates
from pytest_kvscale.cluster.watch import Follower
from pytest_kvscale.load.create import Creator
from pytest_kvscale.load.delete import Deleter
from pytest_kvscale.load.pacing import offsets
from pytest_kvscale.measure.figures import Figures, figures
from pytest_kvscale.measure.observe import Observer, left_behind
from pytest_kvscale.measure.recording import Recorder
from pytest_kvscale.measure.timeline import Creation, Sign

LEAST_STALL = 600.0
STALL_BEYOND_QEMU = 180.0
PATIENCE = 60.0
"""Seconds the API is given to make the namespace."""
_KUBECTL = {"vmis": "vmi", "pods": "pod"}


class Turn(Protocol):
    """Our turn on the cluster; while it is ours we may create."""

    lost: asyncio.Future[str]
    """Done, with the reason, once it is no longer ours."""


@dataclasses.dataclass(frozen=True)
class LevelPlan:
    """What one level is to do. Times are seconds."""

    level: int
    place: Place
    templates: Templates
    shares: tuple[tuple[Template, int], ...]
    """The template of each object, and how many VMIs the object makes."""
    qps: float
    burst: int
    timeout: float
    stall: float
    delete_timeout: float
    name: str = "density"
    """What the names of the objects begin with."""
    openshift: bool = False
    recording: Path | None = None


def stall_after(setting: float | None, qemu_timeout: float) -> float:
    """How long nothing may progress: as set, or by the time a launcher waits for its domain."""
    return max(LEAST_STALL, qemu_timeout + STALL_BEYOND_QEMU) if setting is None else setting


class LevelRun:
    """One level of one run; `run` does it, `figures` tells what was measured so far."""

    def __init__(self, client: Client, plan: LevelPlan, turn: Turn) -> None:
        self._client = client
        self._plan = plan
        self._turn = turn
        self._recorder: Recorder | None = None
        self._before = dict(client.requests)
        self._cpu = _cpu_seconds()
        self._start = 0.0
        self.observer = Observer()
        self.ended = "not begun"
        """How the waiting ended, in words."""
        self.problem = ""
        """What cut the level short, if something did."""
        self.namespace_left = False
        self.end: float | None = None
        """When everything was over (loop time)."""

    def figures(self) -> Figures:
        """What was measured so far."""
        return figures(self.observer, self._plan.level, self._plan.qps)

    def left(self) -> list[str]:
        """What of ours is still there, each with the command that looks into it."""
        namespace, owner = self._plan.place.namespace, "object"
        for kind in self._plan.templates.kinds:
            if kind.is_owner:
                owner = kind.name
        return [
            f"{word} {name} is still there: kubectl get {word} {name} -n {namespace} -o yaml"
            for stream, name in left_behind(self.observer)
            for word in (_KUBECTL.get(stream, owner).lower(),)
        ]

    def harness(self) -> dict[str, Any]:
        """What measuring cost: requests by verb, CPU seconds, peak memory in bytes."""
        now, before = self._client.requests, self._before
        return {
            "api_requests": {
                verb: now[verb] - before.get(verb, 0)
                for verb in sorted(now)
                if now[verb] - before.get(verb, 0)
            },
            "cpu_s": round(_cpu_seconds() - self._cpu, 3),
            "max_rss": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
        }

    async def run(self) -> None:
        """Do the level. What goes wrong is told by `problem`; only cancellation is raised."""
        plan = self._plan
        self._start = now()
        made: Object | None = None
        with contextlib.ExitStack() as stack:
            if plan.recording is not None:
                self._recorder = Recorder(plan.recording, self._start)
                stack.callback(self._recorder.close)
            try:
                made = await namespaces.make(
                    self._client, plan.place.namespace, plan.place.run, plan.openshift,
                    now() + PATIENCE,
                )  # fmt: skip
                followers = self._followers()
                async with following(*followers) as failing:
                    await unless(failing, all_watching(followers))
                    await self._create_and_delete(failing)
            except (ApiError, LostConnectionError, TimeoutError) as problem:
                refused = isinstance(problem, ApiError) and not problem.passing
                what = "the API refused" if refused else "the API was lost"
                self.problem = f"{what}: {problem or 'no answer in time'}"
                self.observer.end_level(now())
            finally:
                if made is not None:
                    await self._remove_namespace(made)
                self.end = now()

    # Beginning ------------------------------------------------------------------------------

    def _followers(self) -> list[Follower]:
        place, kinds = self._plan.place, self._plan.templates.kinds
        labels = f"{RUN_LABEL}={place.run}"
        sources: list[tuple[str, Resource, str]] = [
            *((each.stream, each.resource, labels) for each in kinds if each.is_owner),
            ("vmis", VMIS, labels), ("pods", PODS, labels), ("events", EVENTS, ""),
        ]  # fmt: skip
        return [
            Follower(self._client, kind, place.namespace, _Tap(self, stream), labels=selector)
            for stream, kind, selector in sources
        ]

    # The level ------------------------------------------------------------------------------

    async def _create_and_delete(self, failing: asyncio.Task[None]) -> None:
        deadline = now() + self._plan.timeout
        try:
            creating = asyncio.create_task(self._create(deadline), name="creating")
            try:
                await self._wait_for_end(creating, failing, deadline)
            finally:
                creating.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await creating
                self._end_level()
            if failing.done():
                raise_problem(failing)
        finally:
            await self._delete(failing)

    async def _create(self, deadline: float) -> None:
        plan, start = self._plan, now()
        creator = Creator(self._client, plan.place.namespace, plan.place.run, self._answered)
        shares = plan.shares
        creations = [
            Creation(
                f"{plan.name}-{plan.level}-{index:04d}",
                round(start + offset, 6),
                vmis=vmis,
                is_pod=template.kind.is_pod,
                is_owner=template.kind.is_owner,
            )
            for index, ((template, vmis), offset) in enumerate(
                zip(shares, offsets(len(shares), plan.qps, plan.burst), strict=True)
            )
        ]
        for creation in creations:
            self.observer.expect(creation)

        def planned() -> Iterator[tuple[Creation, Resource, Callable[[], Object]]]:
            for index, (creation, (template, _)) in enumerate(zip(creations, shares, strict=True)):
                make = functools.partial(self._object, template, creation, index)
                yield creation, template.kind.resource, make

        await creator.create_all(planned(), deadline)

    def _object(self, template: Template, creation: Creation, index: int) -> Object:
        return template.render(creation.name, self._plan.level, index, self._plan.place)

    def _answered(self, creation: Any, at: float, code: int, message: str) -> None:
        if code == 201:
            creation.acked = at
        else:
            self.observer.refused(creation, Sign(at, "api", "create", message), code)
        if self._recorder is not None:
            self._recorder.create(creation, at, code, message)

    async def _wait_for_end(
        self, creating: asyncio.Task[None], failing: asyncio.Task[None], deadline: float
    ) -> None:
        """Wait until all have settled, nothing progresses any more, or the time is up."""
        plan, observer, loop = self._plan, self.observer, asyncio.get_running_loop()
        wake = asyncio.Event()
        observer.on_change = wake.set
        creating.add_done_callback(lambda _: wake.set())
        failing.add_done_callback(lambda _: wake.set())
        self._turn.lost.add_done_callback(lambda _: wake.set())
        self.ended = "interrupted"
        while True:
            moment = loop.time()  # Not rounded: what is due must count as due.
            progress = max(self._start, observer.last_progress or 0.0)
            if failing.done():
                self.ended = "the watches failed"
                return
            if self._turn.lost.done():
                self.ended = self.problem = self._turn.lost.result()
                return
            if creating.done():
                creating.result()
                if observer.settled:
                    self.ended = f"settled after {durations.write(moment - self._start)}"
                    return
            if moment >= deadline:
                self.ended = (
                    f"time was up after {durations.write(plan.timeout)} (--kvscale-timeout)"
                )
                return
            if moment >= progress + plan.stall:
                self.ended = (
                    f"nothing progressed for {durations.write(plan.stall)} (--kvscale-stall)"
                )
                return
            wake.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout_at(min(deadline, progress + plan.stall)):
                    await wake.wait()

    # Ending ---------------------------------------------------------------------------------

    def _end_level(self) -> None:
        moment = now()
        self.observer.end_level(moment)
        if self._recorder is not None:
            self._recorder.write("end", moment, how=self.ended)

    async def _delete(self, failing: asyncio.Task[None]) -> None:
        deadline = now() + self._plan.delete_timeout
        place, kinds = self._plan.place, self._plan.templates.kinds
        deleter = Deleter(
            self._client, kinds, self.observer, place.namespace, place.run, self._delete_asked
        )
        if failing.done():
            # Without watches nobody sees them go; they are deleted all the same.
            await deleter.ask(deadline)
        else:
            await unless(failing, deleter.delete_all(deadline))

    def _delete_asked(self, at: float) -> None:
        if self._recorder is not None:
            self._recorder.write("delete", at)

    async def _remove_namespace(self, made: Object) -> None:
        deadline = now() + self._plan.delete_timeout
        name = made["metadata"]["name"]
        try:
            gone = await namespaces.remove(self._client, made, deadline)
        except (ApiError, LostConnectionError, TimeoutError) as problem:
            self.problem = self.problem or f"the namespace {name} could not be deleted: {problem}"
            gone = False
        if not gone:
            self.namespace_left = True
            self.problem = self.problem or (
                f"the namespace {name} is still there after "
                f"{durations.write(self._plan.delete_timeout)} (--kvscale-delete-timeout): "
                f"kubectl get namespace {name} -o yaml"
            )

    def received(self, stream: str, kind: str, obj: Object, at: float) -> None:
        """One event of a watch."""
        self.observer.take(stream, kind, obj, at)
        if self._recorder is not None:
            self._recorder.write(stream, at, event={"type": kind, "object": obj})

    def listed(
        self, stream: str, objects: list[Object], version: str, at: float, since: float | None
    ) -> None:
        """All objects of a collection, at the start or after a lost watch."""
        self.observer.take_list(stream, objects, at, at if since is None else since)
        if self._recorder is not None:
            summary = {"resourceVersion": version, "items": len(objects)}
            if since is None:
                self._recorder.write(stream, at, list=summary)
            else:
                lost = round(since - self._start, 6)
                self._recorder.write(stream, at, list=summary, since=lost, objects=objects)


class _Tap:
    """Hands one watch's events to the level."""

    def __init__(self, level: LevelRun, stream: str) -> None:
        self._level = level
        self._stream = stream

    def listed(self, objects: list[Object], version: str, at: float, since: float | None) -> None:
        """See `watch.Receiver`."""
        self._level.listed(self._stream, objects, version, at, since)

    def changed(self, kind: str, obj: Object, at: float) -> None:
        """See `watch.Receiver`."""
        self._level.received(self._stream, kind, obj, at)


def _cpu_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime
