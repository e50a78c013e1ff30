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
import math
import resource
from collections.abc import Callable, Coroutine, Sequence
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
    repeat_until,
)
from pytest_kvscale.cluster.clock import now
from pytest_kvscale.cluster.journal_level import LevelNotes, NoNotes
from pytest_kvscale.cluster.kinds import Kind
from pytest_kvscale.cluster.settle import (
    LAST_LOOK,
    QUIET,
    all_watching,
    following,
    look_again,
    raise_problem,
    unless,
)
from pytest_kvscale.cluster.templates import RUN_LABEL, Place, Planned
from pytest_kvscale.cluster.watch import Follower
from pytest_kvscale.last_words import LastWords
from pytest_kvscale.load.create import Creator
from pytest_kvscale.load.delete import Deleter
from pytest_kvscale.load.pacing import offsets
from pytest_kvscale.measure import recording
from pytest_kvscale.measure.figures import Figures, figures
from pytest_kvscale.measure.observe import Observer, left_behind
from pytest_kvscale.measure.recording import Recorder
from pytest_kvscale.measure.timeline import Creation, Sign, Timeline
from pytest_kvscale.report.progress import Progress
from pytest_kvscale.telling import telling
from pytest_kvscale.waiting import Waiting

LEAST_STALL = 600.0
STALL_BEYOND_QEMU = 180.0
PATIENCE = 60.0
"""Seconds the API is given to make the namespace."""
_WITHOUT_WATCHES = 5.0
"""Seconds between two looks at what is left, where watches no longer tell."""
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
    objects: tuple[Planned, ...]
    qps: float
    """Creations a second; infinity: as fast as possible."""
    burst: int
    timeout: float
    stall: float
    delete_timeout: float
    openshift: bool = False
    namespace_there: bool = False
    """It was there before the run, and stays."""
    recording: Path | None = None
    label: str = ""
    """What this run of the level is called, if not by its number: `400-2`."""
    meanwhile: Callable[[], Coroutine[Any, Any, None]] | None = None
    """What is done while all VMIs run, before anything is deleted; not if one of them does not."""
    keep_if: Callable[[], bool] | None = None
    """Whether to leave what was created, asked when the level has ended by itself."""

    @property
    def pace(self) -> float | None:
        """The creations a second that are asked for; None: as fast as possible."""
        return None if math.isinf(self.qps) else self.qps

    @property
    def kinds(self) -> tuple[Kind, ...]:
        """The kinds of all objects, each once."""
        return tuple(dict.fromkeys(each.kind for each in self.objects))


def stall_after(setting: float | None, qemu_timeout: float) -> float:
    """How long nothing may progress: as set, or by the time a launcher waits for its domain."""
    return max(LEAST_STALL, qemu_timeout + STALL_BEYOND_QEMU) if setting is None else setting


class LevelRun:
    """One level of one run; `run` does it, `figures` tells what was measured so far."""

    def __init__(
        self, client: Client, plan: LevelPlan, turn: Turn, notes: LevelNotes | None = None,
        tell: Callable[[str], None] | None = None,
    ) -> None:  # fmt: skip
        self._client = client
        self._plan = plan
        self._turn = turn
        self._tell = tell
        self._notes = notes or NoNotes()
        self._recorder: Recorder | None = None
        self._before = dict(client.requests)
        self._cpu = _cpu_seconds()
        self._start = 0.0
        self._followers: dict[str, Follower] = {}
        """By stream."""
        self._creator = Creator(client, plan.place.namespace, plan.place.run, self._answered)
        self.observer = Observer()
        self._words = LastWords(client, plan.place, self._heard)
        self.observer.on_ended = self._words.ended
        self.ended = "not begun"
        """How the waiting ended, in words."""
        self.problem = ""
        """What cut the level short, if something did."""
        self._own_namespace = namespaces.Own(
            client, plan.place.namespace, plan.place.run, plan.openshift, plan.namespace_there
        )
        self.kept = False
        """What was created is left on purpose."""
        self.pods_seen: dict[str, Object] | None = None
        """By the name of their object: pods as they were seen, if somebody wants them."""
        self.end: float | None = None
        """When everything was over (loop time)."""

    @property
    def is_abandoned(self) -> bool:
        """Whether it has begun, and nobody waited for its end."""
        return bool(self._start) and self.end is None

    @property
    def began(self) -> float | None:
        """When it began (loop time), if it has."""
        return self._start or None

    @property
    def level(self) -> int:
        """How many VMIs it is to be."""
        return self._plan.level

    def note_judged(self, **by: Any) -> None:
        """Add to the recording, if there is one, what else the level was judged by."""
        if self._plan.recording is not None and self.end is not None:
            recording.add(self._plan.recording, self.end - self._start, "judged", **by)

    def figures(self) -> Figures:
        """What was measured so far."""
        return figures(self.observer, self._plan.level, self._plan.pace)

    def left(self) -> list[str]:
        """What of ours is still there, each with the command that looks into it."""
        namespace, owner = self._plan.place.namespace, "object"
        for kind in self._plan.kinds:
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
        async with contextlib.AsyncExitStack() as stack:
            if self._tell is not None:
                progress = Progress(plan.level, self.observer, plan.label)
                await stack.enter_async_context(telling(progress, self._tell))
            if plan.recording is not None:
                self._recorder = Recorder(plan.recording, self._start)
                stack.callback(self._recorder.close)
                self._recorder.write("plan", self._start, level=plan.level, qps=plan.pace)
            gone = True
            try:
                await self._notes.planned()
                made = await self._own_namespace.make(now() + PATIENCE)
                if made is not None:
                    await self._notes.has_namespace(made["metadata"]["uid"])
                self._followers = self._make_followers()
                async with following(*self._followers.values()) as failing:
                    async with asyncio.timeout(LAST_LOOK):
                        await unless(failing, all_watching([*self._followers.values()]))
                    await self._create_and_delete(failing)
            except (ApiError, LostConnectionError, TimeoutError) as problem:
                refused = isinstance(problem, ApiError) and not problem.passing
                what = "the API refused" if refused else "the API was lost"
                self.problem = f"{what}: {problem or 'no answer in time'}"
                if self.observer.level_end is None:
                    self.observer.end_level(now())
            finally:
                made = made or await self._lost_namespace()
                if made is not None and not self.kept:
                    gone = await self._remove_namespace(made)
                await self._notes.over(gone and not self.left(), self.kept)
                self.end = now()

    # Beginning ------------------------------------------------------------------------------

    def _sources(self) -> tuple[tuple[str, Resource, str, str], ...]:
        """What is followed: stream, collection, label selector, field selector."""
        labels, kinds = f"{RUN_LABEL}={self._plan.place.run}", self._plan.kinds
        return (
            *((each.stream, each.resource, labels, "") for each in kinds if each.is_owner),
            ("vmis", VMIS, labels, ""), ("pods", PODS, labels, ""),
            # Normal events, half of all there is to read, speak for nothing.
            ("events", EVENTS, "", "type=Warning"),
        )  # fmt: skip

    def _make_followers(self) -> dict[str, Follower]:
        client, namespace = self._client, self._plan.place.namespace
        return {
            stream: Follower(client, kind, namespace, _Tap(self, stream), labels, fields)
            for stream, kind, labels, fields in self._sources()
        }

    # The level ------------------------------------------------------------------------------

    async def _create_and_delete(self, failing: asyncio.Task[None]) -> None:
        deadline = now() + self._plan.timeout
        try:
            creating = asyncio.create_task(self._create(deadline), name="creating")
            try:
                await self._wait_for_end(creating, failing, deadline)
                await self._hold(failing)
            finally:
                creating.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await creating
                self._end_level()
                await self._words.collect(self.observer, now())
            if failing.done():
                raise_problem(failing)
            self.kept = self._plan.keep_if is not None and self._plan.keep_if()
        finally:
            if not self.kept:
                await self._delete(failing)

    async def _create(self, deadline: float) -> None:
        plan, start = self._plan, now()
        creations = [
            Creation(
                each.name,
                round(start + offset, 6),
                vmis=each.vmis,
                is_pod=each.kind.is_pod,
                is_owner=each.kind.is_owner,
            )
            for each, offset in zip(
                plan.objects, offsets(len(plan.objects), plan.qps, plan.burst), strict=True
            )
        ]
        for creation in creations:
            self.observer.expect(creation)
        await self._creator.create_all(zip(creations, plan.objects, strict=True), deadline)
        there = {kind.stream: self.observer.there(kind.stream) for kind in plan.kinds}
        uids = {name: uid for found in there.values() for uid, name in found.items()}
        await self._notes.created(uids)

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
        """Wait until the level is over, and keep how it ended."""
        plan = self._plan
        waiting = Waiting(
            self.observer, self._look, self._start, deadline, plan.timeout, plan.stall
        )
        self.ended, lost = "interrupted", self._turn.lost
        try:
            self.ended = await waiting.wait(creating, failing, lost)
        except LostConnectionError:
            self.ended = "the API was lost"
            raise
        if lost.done():
            self.problem = lost.result()

    async def _hold(self, failing: asyncio.Task[None]) -> None:
        """Do what is to be done while all VMIs run; one that ends meanwhile is lost."""
        if self._plan.meanwhile is None or self.problem or not self._all_run():
            return
        self.ended = "interrupted"
        await unless(failing, self._plan.meanwhile())
        await unless(failing, look_again([*self._followers.values()]))
        self.ended = "held to the end"

    def _all_run(self) -> bool:
        return all(each.running for each in self.observer.timelines.values())

    async def _look(self) -> None:
        """Have what the level is judged by listed again."""
        # Events explain failures, and nothing else.
        streams = self._objects() if self._all_run() else self._followers
        await look_again([self._followers[each] for each in streams])

    # Ending ---------------------------------------------------------------------------------

    def _end_level(self) -> None:
        moment = now()
        self.observer.end_level(moment)
        if self._recorder is not None:
            for creation in self.observer.unanswered():
                self._recorder.create(creation, moment, None)
            self._recorder.write("end", moment, how=self.ended)

    async def _delete(self, failing: asyncio.Task[None]) -> None:
        deadline = now() + self._plan.delete_timeout
        blind, place = failing.done(), self._plan.place
        deleter = Deleter(
            self._client, self._plan.kinds, self.observer, place.namespace, place.run,
            self._delete_asked, self._list_all if blind else self._look_for_what_is_left,
            _WITHOUT_WATCHES if blind else QUIET,
        )  # fmt: skip
        if blind:
            await deleter.delete_all(deadline)
        else:
            await unless(failing, deleter.delete_all(deadline))

    def _objects(self) -> list[str]:
        """The streams of objects; events only explain them."""
        return [stream for stream in self._followers if stream != "events"]

    async def _look_for_what_is_left(self) -> None:
        await self._creator.decided(self._is_there)
        await look_again([self._followers[each] for each in self._objects()])

    async def _list_all(self) -> None:
        """List everything, where no watch does it any more."""
        await self._creator.decided(self._is_there)
        for stream, kind, labels, fields in self._sources():
            answer = await repeat_until(
                now() + LAST_LOOK, functools.partial(self._list, kind, labels, fields)
            )
            version = str(answer["metadata"]["resourceVersion"])
            self.listed(stream, answer.get("items") or [], version, now(), self._start)

    async def _list(self, kind: Resource, labels: str, fields: str) -> Object:
        return await self._client.list(kind, self._plan.place.namespace, labels, fields)

    def _is_there(self, name: str) -> bool:
        timeline = self.observer.timelines.get(name)
        return timeline is None or bool(timeline.uid)

    def _delete_asked(self, at: float) -> None:
        if self._recorder is not None:
            self._recorder.write("delete", at)

    async def _remove_namespace(self, made: Object) -> bool:
        deadline = now() + self._plan.delete_timeout
        name = made["metadata"]["name"]
        try:
            gone = await namespaces.remove(self._client, made, deadline)
        except (ApiError, LostConnectionError, TimeoutError) as problem:
            self.problem = self.problem or f"the namespace {name} could not be deleted: {problem}"
            gone = False
        if gone:
            # Nobody may have been watching any more when they went.
            self.observer.all_gone(now())
        else:
            self.problem = self.problem or (
                f"the namespace {name} is still there after "
                f"{durations.write(self._plan.delete_timeout)} (--kvscale-delete-timeout): "
                f"kubectl get namespace {name} -o yaml"
            )
        return gone

    async def _lost_namespace(self) -> Object | None:
        """The namespace, if it was created and no answer said so."""
        try:
            return await self._own_namespace.find(now() + PATIENCE)
        except (ApiError, LostConnectionError, TimeoutError) as problem:
            name = self._plan.place.namespace
            self.problem += f"; the namespace {name} may be there: {problem}"
        return None

    def received(self, stream: str, kind: str, obj: Object, at: float) -> None:
        """One event of a watch."""
        self.observer.take(stream, kind, obj, at)
        if self.pods_seen is not None and stream == "pods":
            self.pods_seen[_made_for(obj)] = obj
        if self._recorder is not None:
            self._recorder.write(stream, at, event={"type": kind, "object": obj})

    def _heard(self, timeline: Timeline, source: str, lines: Sequence[str], of: float) -> None:
        """Lines of a log that speak of a VMI."""
        name = timeline.name
        self.observer.take_log(name, source, lines, of)
        if self._recorder is not None:
            moment = round(of - self._start, 6)
            self._recorder.write("log", now(), name=name, source=source, lines=lines, of=moment)

    def resumed(self, stream: str, since: float, at: float) -> None:
        """A watch that was lost is taken up."""
        self.observer.resumed(stream, since, at)
        if self._recorder is not None:
            self._recorder.write(stream, at, resumed=round(since - self._start, 6))

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

    def resumed(self, since: float, at: float) -> None:
        """See `watch.Receiver`."""
        self._level.resumed(self._stream, since, at)

    def changed(self, kind: str, obj: Object, at: float) -> None:
        """See `watch.Receiver`."""
        self._level.received(self._stream, kind, obj, at)


def _made_for(pod: Object) -> str:
    """The name of the VMI a pod was made for, or its own."""
    owners = pod["metadata"].get("ownerReferences") or []
    return str(owners[0]["name"] if owners else pod["metadata"]["name"])


def _cpu_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime
