"""Reading pods: how far a virt-launcher came, what speaks against it; and pods by themselves."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from pytest_kvscale.measure.signs import keep, keep_conditions
from pytest_kvscale.measure.stamps import posix
from pytest_kvscale.measure.timeline import FINAL, Sign, Timeline

Object = dict[str, Any]

_CREATED_BY = "kubevirt.io/created-by"


def read(timeline: Timeline, pod: Object, at: float) -> bool:
    """Take in the state of a VMI's pod; whether it has moved on."""
    status, facts = pod.get("status") or {}, timeline.pod
    conditions = {each["type"]: each for each in status.get("conditions") or []}
    facts.phase = status.get("phase", "")
    if facts.scheduled is None and pod["spec"].get("nodeName"):
        facts.scheduled = at
    states = {each["name"]: each.get("state") or {} for each in _container_statuses(status)}
    main = states if timeline.creation.is_pod else {"compute": states.get("compute", {})}
    if facts.started is None and main and all("running" in each for each in main.values()):
        facts.started = at
    facts.has_sandbox = facts.has_sandbox or bool(
        status.get("podIP")
        or _is_true(conditions.get("PodReadyToStartContainers"))
        or any("running" in each or "terminated" in each for each in states.values())
    )
    facts.ended = facts.phase in FINAL or any("terminated" in each for each in main.values())
    _take_signs(timeline, status, conditions, states, at)
    state = (
        facts.phase,
        facts.scheduled is not None,
        *((name, *sorted(each)) for name, each in sorted(states.items())),
    )
    moved, facts.state = state != facts.state, state
    return moved


def owners(pod: Object) -> list[str]:
    """The uids of what a pod may have been made for: the VMI, by its label, or its owners."""
    metadata = pod["metadata"]
    created_by = (metadata.get("labels") or {}).get(_CREATED_BY)
    found = [each["uid"] for each in metadata.get("ownerReferences") or []]
    return list(dict.fromkeys(filter(None, (created_by, *found))))


def phase_of(pod: Object) -> str:
    """How far a plain pod is, in the words of a VMI's phases."""
    status = pod.get("status") or {}
    phase: str = status.get("phase", "")
    if phase in FINAL:
        return phase
    ready = any(
        each["type"] == "Ready" and _is_true(each) for each in status.get("conditions") or []
    )
    if phase == "Running" and ready:
        return "Running"
    return "Scheduled" if pod["spec"].get("nodeName") else "Scheduling"


def _take_signs(
    timeline: Timeline, status: Object, conditions: Mapping[str, Object],
    states: Mapping[str, Object], at: float,
) -> None:  # fmt: skip
    scheduled = conditions.get("PodScheduled")
    wrong: list[tuple[str, str, Object]] = []
    if scheduled is not None and scheduled.get("status") == "False":
        reason = scheduled.get("reason", "Unschedulable")
        wrong.append((reason, scheduled.get("message", ""), scheduled))
    if status.get("reason"):
        wrong.append((status["reason"], status.get("message", ""), {}))
    keep_conditions(timeline, "pod", wrong, at)
    for name, state in states.items():
        waiting, over = state.get("waiting") or {}, state.get("terminated")
        reason = waiting.get("reason", "")
        if reason and reason not in ("ContainerCreating", "PodInitializing"):
            message = f"{name}: {waiting.get('message', '')}"
            keep(timeline, Sign(at, "container", reason, message))
        if over is not None and (name == "compute" or over.get("exitCode")):
            keep(timeline, _end_of_container(name, over, at))


def _end_of_container(name: str, over: Object, at: float) -> Sign:
    said = over.get("message") or over.get("reason") or ""
    text = f"{name} ended with exit code {over.get('exitCode')}: {said}"
    return Sign(at, "container", "Terminated", text, posix(over.get("finishedAt")) or 0.0)


def _container_statuses(status: Object) -> Iterator[Object]:
    yield from status.get("initContainerStatuses") or []
    yield from status.get("containerStatuses") or []


def _is_true(condition: Object | None) -> bool:
    return condition is not None and condition.get("status") == "True"
