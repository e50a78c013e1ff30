"""Turning what watches tell into timelines. Live runs and recordings are read by the same code.

An `Observer` is fed objects as they were received, with the time they were, and keeps of each
only what is needed. It knows no network and no clock.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from pytest_kvscale.measure import pods, signs
from pytest_kvscale.measure.stamps import posix
from pytest_kvscale.measure.timeline import FINAL, PHASES, Creation, PodFacts, Sign, Timeline

Object = dict[str, Any]
_GRACE = "deletionGracePeriodSeconds"


class Observer:
    """The timelines of one level."""

    def __init__(self) -> None:
        self.timelines: dict[str, Timeline] = {}
        """By name of the VMI (or of the pod, where plain pods are created)."""
        self.level_end: float | None = None
        self.last_progress: float | None = None
        """When a VMI last reached a phase, or its pod or a container changed state."""
        self.on_change: Callable[[], None] = lambda: None
        """Called when a VMI may have settled, or an object is gone."""
        self.on_ended: Callable[[Timeline, float], None] = lambda _, __: None
        """Called when a VMI's pod has ended before the level did."""
        self.dated: float | None = None
        """The date (POSIX) at which the clock showed 0; None if its time has no date."""
        self.strangers: dict[str, str] = {}
        """Objects that carry our label and are not ours: name by uid."""
        self._creations: dict[str, Creation] = {}
        self._made_by: dict[str, list[Timeline]] = {}
        """The timelines of each creation, by its name."""
        self._by_uid: dict[str, Timeline] = {}
        self._by_pod: dict[str, Timeline] = {}
        self._left: set[str] = set()
        """uids of objects that are gone: what is told of them late is no longer so."""
        self._replaced: set[str] = set()
        """uids of VMIs in whose place their owner has put another."""
        self._early: dict[str, list[Sign]] = {}
        """Events about objects (by uid) not seen yet."""
        self._early_pods: dict[str, dict[str, tuple[str, Object, float]]] = {}
        """What was told last of pods, by uid, of VMIs (by uid) not seen yet."""
        self._versions: dict[str, int] = {}
        """The newest version seen of each object, by uid."""
        self._blind: dict[str, tuple[float, float]] = {}
        """From when to when a stream's watch was last out of sight."""
        self._undeleted: dict[int, Timeline] = {}
        """By id: the timelines of what is there and whose deletion has not been asked for."""
        self._open: dict[int, None] = {}
        """Timelines (by id) of VMIs that may still come to run."""
        self._present: dict[str, dict[str, str]] = {"vms": {}, "vmis": {}, "pods": {}}
        """What is there of ours, by stream: name by uid."""
        self._offset: float | None = None

    # What was asked for ---------------------------------------------------------------------

    def expect(self, creation: Creation) -> None:
        """A VMI, a pod, or an object that makes VMIs is about to be created."""
        self._creations[creation.name] = creation
        alone = creation.vmis == 1
        for number in range(creation.vmis):
            # Names of VMIs that a replica set makes are not known before.
            name = creation.name if alone else f"{creation.name}[{number}]"
            self._new(name, creation)

    def _new(self, name: str, creation: Creation) -> Timeline:
        timeline = self.timelines[name] = Timeline(name, creation)
        self._made_by.setdefault(creation.name, []).append(timeline)
        self._open[id(timeline)] = None
        return timeline

    def refused(self, creation: Creation, refusal: Sign, code: int) -> None:
        """The API did not create it."""
        if not 400 <= code < 500 and any(each.uid for each in self._made_by[creation.name]):
            return  # It was created: only the answer was lost.
        creation.refusal, creation.refusal_code = refusal, code
        for timeline in self._made_by[creation.name]:
            self._settle(timeline)

    def delete_asked(self, at: float) -> None:
        """The deletion of all objects was asked for."""
        for timeline in self.undeleted():
            timeline.delete_asked = at
        self._undeleted.clear()

    def unanswered(self) -> list[Creation]:
        """The creations the API has not answered, sent or not."""
        return [
            each for each in self._creations.values() if each.acked is None and not each.refusal
        ]

    def all_gone(self, at: float) -> None:
        """Everything is known to be gone, whether the watches told so or not."""
        for stream, present in self._present.items():
            for uid in list(present):
                self._gone(stream, uid, at)

    def undeleted(self) -> list[Timeline]:
        """The VMIs that are there and whose deletion has not been asked for."""
        return list(self._undeleted.values())

    def end_level(self, at: float) -> None:
        """Close the level: what is seen from now on counts for the deletion only."""
        self.level_end = at

    @property
    def settled(self) -> bool:
        """Whether every VMI runs or can no longer come to run."""
        return not self._open

    @property
    def present(self) -> int:
        """How many objects of ours are there: VMIs, their pods and their owners."""
        return sum(map(len, self._present.values()))

    def there(self, stream: str) -> Mapping[str, str]:
        """What is there of ours in a stream (`vms`, `vmis`, `pods`): name by uid."""
        return self._present[stream]

    # What watches tell ----------------------------------------------------------------------

    def take(self, stream: str, kind: str, obj: Object, at: float) -> None:
        """One watch event of a stream (`vmis`, `vms`, `pods` or `events`), at a time."""
        match stream:
            case "vmis":
                self._take_vmi(kind, obj, at)
            case "vms":
                self._take_owner(kind, obj, at)
            case "pods":
                self._take_pod(kind, obj, at)
            case "events" if kind != "DELETED":
                self._take_event(obj, at)

    def resumed(self, stream: str, since: float, at: float) -> None:
        """A stream's watch, last heard of at `since`, tells from now on what was missed."""
        self._blind[stream] = (since, at)

    def take_list(self, stream: str, objects: Iterable[Object], at: float, since: float) -> None:
        """All objects of a stream, listed again; at `since` all was known last."""
        seen = set()
        for obj in objects:
            seen.add(obj["metadata"]["uid"])
            match stream:
                case "vmis":
                    self._take_vmi("MODIFIED", obj, at, since)
                case "pods":
                    self._take_pod("MODIFIED", obj, at, since)
                case "events":
                    self._take_event(obj, at, since)
                case _:
                    self.take(stream, "MODIFIED", obj, at)
        if stream == "vmis":
            # Of what is no longer there, nothing tells any more.
            self.strangers = {uid: name for uid, name in self.strangers.items() if uid in seen}
        for uid in [each for each in self._present.get(stream, ()) if each not in seen]:
            self._gone(stream, uid, at)

    def _gone(self, stream: str, uid: str, at: float) -> None:
        """An object of ours is no longer there."""
        if self._present[stream].pop(uid, None) is None:
            return
        self._left.add(uid)
        timeline, pod_of = self._by_uid.get(uid), self._by_pod.get(uid)
        during = self.level_end is None or at <= self.level_end
        if pod_of is not None and pod_of.pod.uid == uid:
            pod_of.pod.gone = at
        if timeline is not None and timeline.uid == uid:
            timeline.gone = at
            self._undeleted.pop(id(timeline), None)
            if during:
                timeline.lost = timeline.ran
            if timeline.hopeless:
                self._settle(timeline)
        if during:
            self.last_progress = at
        self.on_change()

    # Owners ---------------------------------------------------------------------------------

    def _take_owner(self, kind: str, obj: Object, at: float) -> None:
        uid, name = obj["metadata"]["uid"], obj["metadata"]["name"]
        creation = self._creations.get(name)
        if kind == "DELETED":
            self.strangers.pop(uid, None)
            self._gone("vms", uid, at)
        elif creation is None:
            self.strangers[uid] = name
        else:
            creation.is_owner = True
            self._present["vms"][uid] = name
            wrong = list(signs.of_owner(obj.get("status") or {}))
            if self._is_over(at):
                return
            for timeline in self._made_by[name]:
                if not timeline.uid or timeline.gone is not None:
                    signs.keep_conditions(timeline, "owner", wrong, at)

    def _is_over(self, at: float) -> bool:
        return self.level_end is not None and at > self.level_end

    # VMIs -----------------------------------------------------------------------------------

    def _take_vmi(self, kind: str, vmi: Object, at: float, since: float | None = None) -> None:
        uid, name = vmi["metadata"]["uid"], vmi["metadata"]["name"]
        if kind == "DELETED":
            self.strangers.pop(uid, None)
            self._gone("vmis", uid, at)
            return
        if uid in self._replaced or uid in self._left or self._is_old(vmi):
            return
        timeline = self._by_uid.get(uid) or self._adopt(vmi["metadata"])
        if timeline is None:
            self.strangers[uid] = name
            return
        metadata, status = vmi["metadata"], vmi.get("status") or {}
        phase = status.get("phase") or ""
        if timeline.terminating is None and metadata.get("deletionTimestamp"):
            # The stamp lies in the future by the grace period.
            stamp, grace = posix(metadata["deletionTimestamp"]), metadata.get(_GRACE) or 0
            timeline.terminating, timeline.deleted_stamp = at, stamp and stamp - grace
        if phase in FINAL and timeline.final_phase is None:
            timeline.final_phase, timeline.final = at, phase
        if self._is_over(at):
            return
        timeline.created_stamp = posix(metadata.get("creationTimestamp"))
        for each in status.get("phaseTransitionTimestamps") or []:
            stamp = posix(each.get("phaseTransitionTimestamp"))
            if stamp is not None:
                timeline.stamps.setdefault(each["phase"], stamp)
        if phase and phase != timeline.phase:
            self._enter(timeline, phase, at, since)
        signs.keep_conditions(timeline, "vmi", signs.of_vmi(status), at)

    def _enter(self, timeline: Timeline, phase: str, at: float, since: float | None) -> None:
        was, timeline.phase = timeline.phase, phase
        reached = PHASES[: PHASES.index(phase) + 1] if phase in PHASES else (phase,)
        new = [each for each in reached if each not in timeline.phases]
        if new or not timeline.restarts:
            # One that its owner starts again and again gets nowhere.
            self.last_progress = at
        for each in new:
            self._reach(timeline, each, at, since)
        if was == "Running":
            timeline.lost = True
        if timeline.running or timeline.hopeless:
            self._settle(timeline)

    def _is_old(self, obj: Object) -> bool:
        """Whether a newer version of the object was seen before: watches may be out of order."""
        metadata = obj["metadata"]
        text = metadata.get("resourceVersion", "")
        if not text.isdecimal():
            return False
        version, uid = int(text), metadata["uid"]
        if version < self._versions.get(uid, 0):
            return True
        self._versions[uid] = version
        return False

    def _when(
        self, stream: str, stamp: float | None, at: float, since: float | None
    ) -> float | None:
        """When something happened that was told late; None if it was told when it happened.

        `since` is given by a list; a watch that was lost tells late what was stamped before it
        was taken up.
        """
        guess = at if not stamp or self._offset is None else stamp + self._offset
        if since is None:
            if stream not in self._blind:
                return None
            since, resumed = self._blind[stream]
            if guess >= resumed:
                return None
        return min(at, max(since, guess))

    def _reach(self, timeline: Timeline, phase: str, at: float, since: float | None) -> None:
        """Note when a phase was reached; if a list told of it, by the server's stamp."""
        stamp = timeline.stamps.get(phase)
        when = self._when("vmis", stamp, at, since)
        if when is None:
            if stamp is not None:
                # The stamp is cut off to whole seconds: the smallest difference is the nearest.
                offset = at - stamp
                self._offset = offset if self._offset is None else min(self._offset, offset)
            timeline.phases[phase] = at
            return
        low = self._blind["vmis"][0] if since is None else since
        low = max([low, *timeline.phases.values(), *filter(None, (timeline.sent,))])
        timeline.phases[phase] = min(at, max(low, when))
        timeline.bounds[phase] = (low, at)

    def _adopt(self, metadata: Object) -> Timeline | None:
        """The timeline of a VMI seen for the first time; None if it is not ours."""
        name = metadata["name"]
        creation = self._owner_of(metadata)
        if creation is None:
            timeline = self.timelines.get(name)
            if timeline is None or timeline.uid or timeline.creation.is_pod:
                return None
        else:
            creation.is_owner = True
            timeline = self._place_for(creation, name)
        self._claim(timeline, metadata["uid"], "vmis")
        return timeline

    def _owner_of(self, metadata: Object) -> Creation | None:
        owners = metadata.get("ownerReferences") or []
        found = (self._creations.get(each["name"]) for each in owners)
        return next((each for each in found if each is not None), None)

    def _place_for(self, creation: Creation, name: str) -> Timeline:
        """The timeline of a VMI an owner made: one still waiting, else one whose VMI ended."""
        own = self._made_by[creation.name]
        waiting = next((each for each in own if not each.uid), None)
        ended = next((each for each in own if each.gone is not None or each.phase in FINAL), None)
        timeline = waiting or ended
        if timeline is None:
            return self._new(name, creation)
        del self.timelines[timeline.name]
        if timeline.uid:
            self._replaced.add(timeline.uid)
            self._by_uid.pop(timeline.uid)
            if timeline.pod.uid:
                # What is told late of the old pod says nothing of the new VMI.
                self._by_pod.pop(timeline.pod.uid, None)
                self._left.add(timeline.pod.uid)
            timeline.begin_again()
        timeline.name = name
        self.timelines[name] = timeline
        return timeline

    def _claim(self, timeline: Timeline, uid: str, stream: str) -> None:
        timeline.uid = uid
        self._by_uid[uid] = timeline
        self._present[stream][uid] = timeline.name
        if timeline.delete_asked is None:
            self._undeleted[id(timeline)] = timeline
        creation = timeline.creation
        if creation.refusal is not None and not 400 <= creation.refusal_code < 500:
            # It was created after all: only the answer was lost.
            creation.refusal, creation.refusal_code = None, 0
            self._open[id(timeline)] = None
        self._take_early(timeline, uid)

    def _settle(self, timeline: Timeline) -> None:
        self._open.pop(id(timeline), None)
        self.on_change()

    # Pods -----------------------------------------------------------------------------------

    def _take_pod(self, kind: str, pod: Object, at: float, since: float | None = None) -> None:
        uid, name = pod["metadata"]["uid"], pod["metadata"]["name"]
        if kind == "DELETED":
            self.strangers.pop(uid, None)
            for early in self._early_pods.values():
                early.pop(uid, None)
            self._gone("pods", uid, at)
            return
        if uid in self._left or self._is_old(pod):
            return
        timeline = self._by_pod.get(uid) or self._vmi_of(pod) or self._plain(pod)
        if timeline is None:
            # The watch of pods is ahead of the one of VMIs: the pod's turn comes with its VMI.
            for owner in pods.owners(pod):
                self._early_pods.setdefault(owner, {})[uid] = (kind, pod, at)
            return
        if timeline.pod.uid != uid:
            held = timeline.pod
            if held.uid and held.gone is None and not held.ended:
                return
            timeline.pod = PodFacts(uid, name)
            self._by_pod[uid] = timeline
            self._present["pods"][uid] = name
            self._take_early(timeline, uid)
        if self._is_over(at):
            return

        def when(stamp: float | None) -> float:
            told = self._when("pods", stamp, at, since)
            return at if told is None else told

        over = timeline.pod.ended
        moved = pods.read(timeline, pod, at, when)
        if timeline.pod.ended and not over:
            self.on_ended(timeline, at)
        if moved and not timeline.restarts:
            self.last_progress = at
        if timeline.creation.is_pod:
            phase = pods.phase_of(pod)
            if phase != timeline.phase:
                self._enter(timeline, phase, at, since)

    def _vmi_of(self, pod: Object) -> Timeline | None:
        return next((self._by_uid[uid] for uid in pods.owners(pod) if uid in self._by_uid), None)

    def _plain(self, pod: Object) -> Timeline | None:
        """The timeline of a plain pod of ours."""
        metadata = pod["metadata"]
        timeline = self.timelines.get(metadata["name"])
        if timeline is None or not timeline.creation.is_pod or timeline.uid:
            if not metadata.get("ownerReferences"):
                self.strangers[metadata["uid"]] = metadata["name"]
            return None
        self._claim(timeline, metadata["uid"], "pods")
        timeline.created_stamp = posix(metadata.get("creationTimestamp"))
        return timeline

    # Events ---------------------------------------------------------------------------------

    def _take_event(self, event: Object, at: float, since: float | None = None) -> None:
        if self._is_over(at):
            return
        about = event.get("involvedObject") or event.get("regarding") or {}
        if event.get("type") != "Warning":
            return
        sign, uid = signs.of_event(event, at), about.get("uid", "")
        sign.at = self._when("events", sign.stamp, at, since) or at
        timeline = self._by_uid.get(uid) or self._by_pod.get(uid)
        if timeline is not None:
            signs.keep(timeline, sign)
        elif uid:
            self._early.setdefault(uid, []).append(sign)

    # Logs -----------------------------------------------------------------------------------

    def take_log(self, name: str, source: str, lines: Iterable[str], at: float) -> None:
        """Lines of a log (`log`, or `node log`) that speak of a VMI, as it was at a time."""
        timeline = self.timelines.get(name)
        if timeline is not None:
            for sign in signs.of_log(source, lines, at):
                signs.keep(timeline, sign)

    def _take_early(self, timeline: Timeline, uid: str) -> None:
        for sign in self._early.pop(uid, []):
            signs.keep(timeline, sign)
        for kind, pod, at in self._early_pods.pop(uid, {}).values():
            self._versions.pop(pod["metadata"]["uid"], None)
            self._take_pod(kind, pod, at)


def left_behind(observer: Observer) -> Iterator[tuple[str, str]]:
    """What is still there, as stream and name."""
    for stream in ("vms", "vmis", "pods"):
        for name in sorted(observer.there(stream).values()):
            yield stream, name
