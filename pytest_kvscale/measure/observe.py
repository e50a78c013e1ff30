"""Turning what watches tell into timelines. Live runs and recordings are read by the same code.

An `Observer` is fed objects as they were received, with the time they were, and keeps of each
only what is needed. It knows no network and no clock.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from pytest_kvscale.measure import pods, signs
from pytest_kvscale.measure.stamps import posix
from pytest_kvscale.measure.timeline import FINAL, PHASES, Creation, PodFacts, Sign, Timeline

Object = dict[str, Any]


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
        self._early_pods: dict[str, dict[str, tuple[str, Object, float]]] = {}
        """What was told last of pods, by uid, of VMIs (by uid) not seen yet."""
        self._versions: dict[str, int] = {}
        """The newest version seen of each VMI and pod, by uid."""
        self._blind: dict[str, tuple[float, float]] = {}
        """From when to when a stream's watch was last out of sight."""
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
        timeline = self.timelines[creation.name]
        if timeline.uid and not 400 <= code < 500:
            return  # It was created: only the answer was lost.
        creation.refusal, creation.refusal_code = refusal, code
        self._settle(timeline)

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

    def resumed(self, stream: str, since: float, at: float) -> None:
        """A stream's watch, last heard of at `since`, tells from now on what was missed."""
        self._blind[stream] = (since, at)

    def take_list(self, stream: str, objects: Iterable[Object], at: float, since: float) -> None:
        """All objects of a stream, listed again; at `since` all was known last."""
        seen = set()
        for obj in objects:
            seen.add(obj["metadata"]["uid"])
            if stream == "vmis":
                self._take_vmi("MODIFIED", obj, at, since)
            elif stream == "events":
                self._take_event(obj, at, since)
            else:
                self.take(stream, "MODIFIED", obj, at)
        if stream == "vmis":
            self.strangers = {uid: name for uid, name in self.strangers.items() if uid in seen}
            for timeline in list(self._by_uid.values()):
                if timeline.uid not in seen and timeline.gone is None:
                    self._vmi_gone(timeline, at)
        elif stream == "pods":
            for uid, timeline in self._by_pod.items():
                if uid not in seen:
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
        if timeline.gone is not None or self._is_old(vmi):
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

    def _take_vmi_conditions(self, timeline: Timeline, held: list[Object], at: float) -> None:
        wrong = {}
        for each in held:
            bad = each.get("status") == "False" and each.get("type") in (
                "Synchronized", "PodScheduled",
            )  # fmt: skip
            if bad and each.get("reason"):
                wrong[each["type"]] = (each["reason"], each.get("message", ""), each)
        signs.keep_conditions(timeline, "vmi", wrong, at)

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
            creation = timeline.creation
            if creation.refusal is not None and not 400 <= creation.refusal_code < 500:
                # It was created after all: only the answer was lost.
                creation.refusal, creation.refusal_code = None, 0
                self._open[timeline.name] = None
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
            self._keep_early_pod(kind, pod, at)
            return
        if self._is_old(pod):
            return
        facts = timeline.pod
        if kind == "DELETED" and uid in self._by_pod:
            self._pod_gone(uid, timeline, at)
            return
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
        counts = self.level_end is None or at <= self.level_end
        if counts and pods.take(timeline, pod, at):
            self.last_progress = at

    def _keep_early_pod(self, kind: str, pod: Object, at: float) -> None:
        """The watch of pods is ahead of the one of VMIs: the pod's turn comes with its VMI."""
        for owner in pods.owners(pod):
            early = self._early_pods.setdefault(owner, {})
            if kind == "DELETED":
                early.pop(pod["metadata"]["uid"], None)
            else:
                early[pod["metadata"]["uid"]] = (kind, pod, at)

    def _owner_of(self, pod: Object) -> Timeline | None:
        return next((self._by_uid[uid] for uid in pods.owners(pod) if uid in self._by_uid), None)

    def _pod_gone(self, uid: str, timeline: Timeline, at: float) -> None:
        """A pod is gone; it need not be the VMI's last one, which may have taken its place."""
        if uid not in self._present:
            return
        self._present.pop(uid)
        if timeline.pod.uid == uid:
            timeline.pod.gone = at
        if self.level_end is None or at <= self.level_end:
            self.last_progress = at
        self.on_change()

    # Events ---------------------------------------------------------------------------------

    def _take_event(self, event: Object, at: float, since: float | None = None) -> None:
        if self.level_end is not None and at > self.level_end:
            return
        about = event.get("involvedObject") or event.get("regarding") or {}
        if event.get("type") != "Warning" and about.get("kind") != "Node":
            return
        sign = signs.of_event(event, at)
        sign.at = self._when("events", sign.stamp, at, since) or at
        uid = about.get("uid", "")
        timeline = self._by_uid.get(uid) or self._by_pod.get(uid)
        if about.get("kind") == "Node":
            self.node_signs.append(sign)
        elif timeline is not None:
            signs.add(timeline, sign)
        elif uid:
            self._early.setdefault(uid, []).append(sign)

    def _take_early(self, timeline: Timeline, uid: str) -> None:
        for sign in self._early.pop(uid, []):
            signs.add(timeline, sign)
        for pod in self._early_pods.pop(uid, {}).values():
            self._take_pod(*pod)
