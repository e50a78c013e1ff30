"""Turning what watches tell into timelines. Live runs and recordings are read by the same code.

An `Observer` is fed objects as they were received, with the time they were, and keeps of each
only what is needed. It knows no network and no clock.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

from pytest_kvscale.measure.stamps import posix
from pytest_kvscale.measure.timeline import FINAL, PHASES, Creation, PodFacts, Sign, Timeline

Object = dict[str, Any]

_CREATED_BY = "kubevirt.io/created-by"
_IMAGE_REASONS = ("ErrImagePull", "ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull")


class Observer:
    """The timelines of one level."""

    def __init__(self) -> None:
        self.timelines: dict[str, Timeline] = {}
        """By name of the VMI."""
        self.level_end: float | None = None
        self.last_progress: float | None = None
        """When a VMI last reached a phase, or its pod or a container changed state."""
        self.node_signs: list[Sign] = []
        """What the node controller said of nodes."""
        self.on_change: Callable[[], None] = lambda: None
        """Called when a VMI may have settled, or an object is gone."""
        self._creations: dict[str, Creation] = {}
        self._by_uid: dict[str, Timeline] = {}
        self._by_pod: dict[str, Timeline] = {}
        self._early: dict[str, list[Sign]] = {}
        """Events about objects (by uid) not seen yet."""
        self._open: dict[str, None] = {}
        """Names of VMIs that may still come to run."""
        self._present: dict[str, None] = {}
        """uids of VMIs and pods of ours that are there."""
        self.strangers: dict[str, str] = {}
        """VMIs that carry our label and are not ours: name by uid."""
        self._offset: float | None = None

    # What was asked for ---------------------------------------------------------------------

    def expect(self, creation: Creation) -> None:
        """A VMI (or an object that makes VMIs) is about to be created."""
        self._creations[creation.name] = creation
        self.timelines[creation.name] = Timeline(creation.name, creation)
        self._open[creation.name] = None

    def refused(self, creation: Creation, refusal: Sign, code: int) -> None:
        """The API did not create it."""
        creation.refusal, creation.refusal_code = refusal, code
        self._settle(self.timelines[creation.name])

    def delete_asked(self, at: float) -> None:
        """The deletion of all objects was asked for."""
        for timeline in self.undeleted():
            timeline.delete_asked = at

    def undeleted(self) -> list[Timeline]:
        """The VMIs that are there and whose deletion has not been asked for."""
        return [
            each
            for each in self.timelines.values()
            if each.uid in self._present and each.delete_asked is None
        ]

    def end_level(self, at: float) -> None:
        """Close the level: what is seen from now on counts for the deletion only."""
        self.level_end = at

    @property
    def settled(self) -> bool:
        """Whether every VMI runs or can no longer come to run."""
        return not self._open

    @property
    def present(self) -> int:
        """How many VMIs and pods of ours are there."""
        return len(self._present)

    def uids(self) -> dict[str, str]:
        """The uid of each VMI that is there, by name."""
        return {
            each.name: each.uid for each in self.timelines.values() if each.uid in self._present
        }

    # What watches tell ----------------------------------------------------------------------

    def take(self, stream: str, kind: str, obj: Object, at: float) -> None:
        """One watch event of a stream (`vmis`, `pods` or `events`), at a time."""
        match stream:
            case "vmis":
                self._take_vmi(kind, obj, at)
            case "pods":
                self._take_pod(kind, obj, at)
            case "events" if kind != "DELETED":
                self._take_event(obj, at)

    def take_list(self, stream: str, objects: Iterable[Object], at: float, since: float) -> None:
        """All objects of a stream, listed again after its watch was lost at `since`."""
        seen = set()
        for obj in objects:
            seen.add(obj["metadata"]["uid"])
            if stream == "vmis":
                self._take_vmi("MODIFIED", obj, at, since)
            else:
                self.take(stream, "MODIFIED", obj, at)
        if stream == "vmis":
            for timeline in list(self._by_uid.values()):
                if timeline.uid not in seen and timeline.gone is None:
                    self._vmi_gone(timeline, at)
        elif stream == "pods":
            for uid, timeline in list(self._by_pod.items()):
                if uid not in seen and timeline.pod.gone is None:
                    self._pod_gone(uid, timeline, at)

    # VMIs -----------------------------------------------------------------------------------

    def _take_vmi(self, kind: str, vmi: Object, at: float, since: float | None = None) -> None:
        timeline = self._timeline_of(vmi)
        if timeline is None:
            uid = vmi["metadata"]["uid"]
            if kind == "DELETED":
                self.strangers.pop(uid, None)
            else:
                self.strangers[uid] = vmi["metadata"]["name"]
            return
        if kind == "DELETED":
            self._vmi_gone(timeline, at)
            return
        metadata, status = vmi["metadata"], vmi.get("status") or {}
        phase = status.get("phase") or ""
        if phase in FINAL and timeline.final_phase is None:
            timeline.final_phase = at
        if self.level_end is not None and at > self.level_end:
            return
        timeline.created_stamp = posix(metadata.get("creationTimestamp"))
        for each in status.get("phaseTransitionTimestamps") or []:
            stamp = posix(each.get("phaseTransitionTimestamp"))
            if stamp is not None:
                timeline.stamps.setdefault(each["phase"], stamp)
        if phase and phase != timeline.phase:
            self._enter(timeline, phase, at, since)
        self._take_vmi_conditions(timeline, status.get("conditions") or [], at)

    def _enter(self, timeline: Timeline, phase: str, at: float, since: float | None) -> None:
        was, timeline.phase = timeline.phase, phase
        self.last_progress = at
        reached = PHASES[: PHASES.index(phase) + 1] if phase in PHASES else (phase,)
        for each in reached:
            if each not in timeline.phases:
                self._reach(timeline, each, at, since)
        if was == "Running":
            timeline.lost = True
        if timeline.running or timeline.hopeless:
            self._settle(timeline)

    def _reach(self, timeline: Timeline, phase: str, at: float, since: float | None) -> None:
        """Note when a phase was reached; if a list told of it, by the server's stamp."""
        stamp = timeline.stamps.get(phase)
        if since is None:
            if stamp is not None:
                # The stamp is cut off to whole seconds: the smallest difference is the nearest.
                offset = at - stamp
                self._offset = offset if self._offset is None else min(self._offset, offset)
            timeline.phases[phase] = at
            return
        earlier = max(timeline.phases.values(), default=since)
        low = max(since, earlier)
        guess = at
        if stamp is not None and self._offset is not None:
            guess = min(at, max(low, stamp + self._offset))
        timeline.phases[phase] = guess
        timeline.bounds[phase] = (low, at)

    def _take_vmi_conditions(self, timeline: Timeline, held: list[Object], at: float) -> None:
        signs = {}
        for each in held:
            wrong = each.get("status") == "False" and each.get("type") in (
                "Synchronized", "PodScheduled",
            )  # fmt: skip
            if wrong and each.get("reason"):
                signs[each["type"]] = (each["reason"], each.get("message", ""), each)
        self._keep_conditions(timeline, "vmi", signs, at)

    def _keep_conditions(
        self, timeline: Timeline, source: str, wrong: dict[str, tuple[str, str, Object]], at: float
    ) -> None:
        """Keep the conditions that are wrong as signs; those that were and are not, as past."""
        now = {(reason, message) for reason, message, _ in wrong.values()}
        for sign in timeline.signs:
            if sign.source == source and sign.current and (sign.reason, sign.message) not in now:
                sign.current = False
        for reason, message, condition in wrong.values():
            stamp = posix(condition.get("lastTransitionTime")) or 0.0
            self._add(timeline, Sign(at, source, reason, message, stamp))

    def _vmi_gone(self, timeline: Timeline, at: float) -> None:
        timeline.gone = at
        self._present.pop(timeline.uid, None)
        if self.level_end is None or at <= self.level_end:
            timeline.lost = timeline.ran
            self.last_progress = at
        self._settle(timeline)

    def _timeline_of(self, vmi: Object) -> Timeline | None:
        metadata = vmi["metadata"]
        known = self._by_uid.get(metadata["uid"])
        if known is not None:
            return known
        name = metadata["name"]
        timeline = self.timelines.get(name)
        if timeline is None or timeline.uid:
            timeline = self._made_by_an_owner(metadata) if timeline is None else None
        if timeline is not None:
            timeline.uid = metadata["uid"]
            self._by_uid[timeline.uid] = timeline
            self._present[timeline.uid] = None
            self._take_early(timeline, timeline.uid)
        return timeline

    def _made_by_an_owner(self, metadata: Object) -> Timeline | None:
        for owner in metadata.get("ownerReferences") or []:
            creation = self._creations.get(owner["name"])
            if creation is not None:
                timeline = Timeline(metadata["name"], creation)
                placeholder = self.timelines.get(creation.name)
                if placeholder is not None and not placeholder.uid:
                    del self.timelines[creation.name]
                    self._open.pop(creation.name, None)
                self.timelines[timeline.name] = timeline
                self._open[timeline.name] = None
                return timeline
        return None

    def _settle(self, timeline: Timeline) -> None:
        self._open.pop(timeline.name, None)
        self.on_change()

    # Pods -----------------------------------------------------------------------------------

    def _take_pod(self, kind: str, pod: Object, at: float) -> None:
        uid = pod["metadata"]["uid"]
        timeline = self._by_pod.get(uid) or self._owner_of(pod)
        if timeline is None:
            return
        facts = timeline.pod
        if facts.uid != uid:
            if facts.uid and facts.gone is None and not facts.ended:
                return
            facts = timeline.pod = PodFacts(uid, pod["metadata"]["name"])
            self._by_pod[uid] = timeline
            self._present[uid] = None
            self._take_early(timeline, uid)
        if kind == "DELETED":
            self._pod_gone(uid, timeline, at)
            return
        if self.level_end is None or at <= self.level_end:
            self._take_pod_facts(timeline, facts, pod, at)

    def _owner_of(self, pod: Object) -> Timeline | None:
        metadata = pod["metadata"]
        owners = [each["uid"] for each in metadata.get("ownerReferences") or []]
        created_by = (metadata.get("labels") or {}).get(_CREATED_BY)
        for uid in (created_by, *owners):
            if uid in self._by_uid:
                return self._by_uid[uid]
        return None

    def _take_pod_facts(self, timeline: Timeline, facts: PodFacts, pod: Object, at: float) -> None:
        status = pod.get("status") or {}
        conditions = {each["type"]: each for each in status.get("conditions") or []}
        facts.phase = status.get("phase", "")
        if facts.scheduled is None and pod["spec"].get("nodeName"):
            facts.scheduled = at
        if facts.initialized is None and _is_true(conditions.get("Initialized")):
            facts.initialized = at
        states = {each["name"]: each.get("state") or {} for each in _container_statuses(status)}
        compute = states.get("compute", {})
        if facts.started is None and "running" in compute:
            facts.started = at
        facts.has_sandbox = facts.has_sandbox or bool(
            status.get("podIP")
            or _is_true(conditions.get("PodReadyToStartContainers"))
            or any("running" in each or "terminated" in each for each in states.values())
        )
        facts.ended = facts.phase in FINAL or "terminated" in compute
        self._take_pod_signs(timeline, status, conditions, states, at)
        state = (
            facts.phase,
            facts.scheduled is not None,
            *((name, *sorted(each)) for name, each in sorted(states.items())),
        )
        if state != facts.state:
            facts.state = state
            self.last_progress = at

    def _take_pod_signs(
        self, timeline: Timeline, status: Object, conditions: dict[str, Object],
        states: dict[str, Object], at: float,
    ) -> None:  # fmt: skip
        scheduled = conditions.get("PodScheduled")
        wrong: dict[str, tuple[str, str, Object]] = {}
        if scheduled is not None and scheduled.get("status") == "False":
            reason = scheduled.get("reason", "Unschedulable")
            wrong["PodScheduled"] = (reason, scheduled.get("message", ""), scheduled)
        if status.get("reason"):
            wrong["reason"] = (status["reason"], status.get("message", ""), {})
        self._keep_conditions(timeline, "pod", wrong, at)
        timeline.pod.images_pending = False
        for name, state in states.items():
            waiting, over = state.get("waiting") or {}, state.get("terminated")
            reason = waiting.get("reason", "")
            if reason in _IMAGE_REASONS:
                timeline.pod.images_pending = True
            if reason and reason not in ("ContainerCreating", "PodInitializing"):
                message = f"{name}: {waiting.get('message', '')}"
                self._add(timeline, Sign(at, "container", reason, message))
            if over is not None and (name == "compute" or over.get("exitCode")):
                self._add(timeline, _end_of_container(name, over, at))

    def _pod_gone(self, uid: str, timeline: Timeline, at: float) -> None:
        timeline.pod.gone = at
        self._present.pop(uid, None)
        if self.level_end is None or at <= self.level_end:
            self.last_progress = at
        self.on_change()

    # Events ---------------------------------------------------------------------------------

    def _take_event(self, event: Object, at: float) -> None:
        if self.level_end is not None and at > self.level_end:
            return
        about = event.get("involvedObject") or event.get("regarding") or {}
        if event.get("type") != "Warning" and about.get("kind") != "Node":
            return
        series = event.get("series") or {}
        last = (
            series.get("lastObservedTime") or event.get("lastTimestamp") or event.get("eventTime")
        )
        sign = Sign(
            at,
            "event",
            event.get("reason", ""),
            event.get("message") or event.get("note") or "",
            posix(last or event["metadata"].get("creationTimestamp")) or 0.0,
            max(series.get("count") or 0, event.get("count") or 0, 1),
        )
        uid = about.get("uid", "")
        timeline = self._by_uid.get(uid) or self._by_pod.get(uid)
        if about.get("kind") == "Node":
            self.node_signs.append(sign)
        elif timeline is not None:
            self._add(timeline, sign)
        elif uid:
            self._early.setdefault(uid, []).append(sign)

    def _take_early(self, timeline: Timeline, uid: str) -> None:
        for sign in self._early.pop(uid, []):
            self._add(timeline, sign)

    @staticmethod
    def _add(timeline: Timeline, sign: Sign) -> None:
        """Keep a sign; one that says the same as another takes its place, and is counted."""
        for index, held in enumerate(timeline.signs):
            if (held.source, held.reason, held.message) == (sign.source, sign.reason, sign.message):
                if held.source == "event":
                    newer = sign.stamp > held.stamp and sign.count == 1
                    sign.count = held.count + 1 if newer else max(held.count, sign.count)
                    sign.stamp = max(held.stamp, sign.stamp)
                else:
                    sign.at = held.at if held.current else sign.at
                timeline.signs[index] = sign
                return
        timeline.signs.append(sign)


def _end_of_container(name: str, over: Object, at: float) -> Sign:
    said = over.get("message") or over.get("reason") or ""
    text = f"{name} ended with exit code {over.get('exitCode')}: {said}"
    return Sign(at, "container", "Terminated", text, posix(over.get("finishedAt")) or 0.0)


def _container_statuses(status: Object) -> Iterator[Object]:
    yield from status.get("initContainerStatuses") or []
    yield from status.get("containerStatuses") or []


def _is_true(condition: Object | None) -> bool:
    return condition is not None and condition.get("status") == "True"
