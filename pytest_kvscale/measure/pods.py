"""What a launcher pod's status tells: how far its VMI came, and what speaks against it."""

from __future__ import annotations

from typing import Any

from pytest_kvscale.measure import signs
from pytest_kvscale.measure.timeline import FINAL, Sign, Timeline

Object = dict[str, Any]

_CREATED_BY = "kubevirt.io/created-by"
_IMAGE_REASONS = ("ErrImagePull", "ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull")


def owners(pod: Object) -> list[str]:
    """The uids of what a pod may have been made for: the VMI, by its label, or its owners."""
    metadata = pod["metadata"]
    created_by = (metadata.get("labels") or {}).get(_CREATED_BY)
    owners = [each["uid"] for each in metadata.get("ownerReferences") or []]
    return list(dict.fromkeys(filter(None, (created_by, *owners))))


def take(timeline: Timeline, pod: Object, at: float) -> bool:
    """Take what a pod's status tells of a VMI; True if the pod or a container changed state."""
    facts = timeline.pod
    status = pod.get("status") or {}
    conditions = {each["type"]: each for each in status.get("conditions") or []}
    facts.phase = status.get("phase", "")
    if facts.scheduled is None and pod["spec"].get("nodeName"):
        facts.scheduled = at
    if facts.initialized is None and signs.is_true(conditions.get("Initialized")):
        facts.initialized = at
    states = {each["name"]: each.get("state") or {} for each in signs.container_statuses(status)}
    compute = states.get("compute", {})
    if facts.started is None and "running" in compute:
        facts.started = at
    facts.has_sandbox = facts.has_sandbox or bool(
        status.get("podIP")
        or signs.is_true(conditions.get("PodReadyToStartContainers"))
        or any("running" in each or "terminated" in each for each in states.values())
    )
    facts.ended = facts.phase in FINAL or "terminated" in compute
    _take_signs(timeline, status, conditions, states, at)
    state = (
        facts.phase,
        facts.scheduled is not None,
        *((name, *sorted(each)) for name, each in sorted(states.items())),
    )
    progress = state != facts.state
    facts.state = state
    return progress


def _take_signs(
    timeline: Timeline, status: Object, conditions: dict[str, Object],
    states: dict[str, Object], at: float,
) -> None:  # fmt: skip
    scheduled = conditions.get("PodScheduled")
    wrong: dict[str, tuple[str, str, Object]] = {}
    if scheduled is not None and scheduled.get("status") == "False":
        reason = scheduled.get("reason", "Unschedulable")
        wrong["PodScheduled"] = (reason, scheduled.get("message", ""), scheduled)
    if status.get("reason"):
        wrong["reason"] = (status["reason"], status.get("message", ""), {})
    signs.keep_conditions(timeline, "pod", wrong, at)
    timeline.pod.images_pending = False
    for name, state in states.items():
        waiting, over = state.get("waiting") or {}, state.get("terminated")
        reason = waiting.get("reason", "")
        if reason in _IMAGE_REASONS:
            timeline.pod.images_pending = True
        if reason and reason not in ("ContainerCreating", "PodInitializing"):
            message = f"{name}: {waiting.get('message', '')}"
            signs.add(timeline, Sign(at, "container", reason, message))
        if over is not None and (name == "compute" or over.get("exitCode")):
            signs.add(timeline, signs.end_of_container(name, over, at))
