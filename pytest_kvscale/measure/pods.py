"""Reading pods: how far a virt-launcher came, what speaks against it; and pods by themselves."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from pytest_kvscale.measure.signs import keep, keep_conditions
from pytest_kvscale.measure.stamps import posix
from pytest_kvscale.measure.timeline import FINAL, PodFacts, Sign, Timeline

Object = dict[str, Any]

_CREATED_BY = "kubevirt.io/created-by"


def read(timeline: Timeline, pod: Object, at: float, when: Callable[[float | None], float]) -> bool:
    """Take in the state of a VMI's pod; whether it has moved on.

    `when` says when something happened that is told at `at`, by its stamp (None: it has none).
    """
    status, facts = pod.get("status") or {}, timeline.pod
    conditions = {each["type"]: each for each in status.get("conditions") or []}
    facts.phase = status.get("phase", "")
    states = {each["name"]: each.get("state") or {} for each in _container_statuses(status)}
    main = states if timeline.creation.is_pod else {"compute": states.get("compute", {})}
    facts.has_sandbox = facts.has_sandbox or bool(
        status.get("podIP")
        or _is_true(conditions.get("PodReadyToStartContainers"))
        or any("running" in each or "terminated" in each for each in states.values())
    )
    _take_moments(facts, pod, conditions, main, when)
    facts.ended = facts.phase in FINAL or any("terminated" in each for each in main.values())
    _take_signs(timeline, status, conditions, states, at)
    state = (
        facts.phase,
        facts.scheduled is not None,
        *((name, *sorted(each)) for name, each in sorted(states.items())),
    )
    moved, facts.state = state != facts.state, state
    return moved


def _take_moments(
    facts: PodFacts, pod: Object, conditions: Mapping[str, Object], main: Mapping[str, Object],
    when: Callable[[float | None], float],
) -> None:  # fmt: skip
    """Keep how far it came and when, each first."""
    begun = [each.get("running") or each.get("terminated") or {} for each in main.values()]
    started = [posix(each.get("startedAt")) for each in begun]
    runs = bool(main) and all("running" in each for each in main.values())
    seen = {
        "seen": (True, posix(pod["metadata"].get("creationTimestamp"))),
        "scheduled": (bool(pod["spec"].get("nodeName")), _since(conditions, "PodScheduled")),
        "sandbox": (facts.has_sandbox, _since(conditions, "PodReadyToStartContainers")),
        "initialised": (
            _is_true(conditions.get("Initialized")) and facts.has_sandbox,
            _since(conditions, "Initialized"),
        ),
        "started": (runs, max(filter(None, started), default=None)),
    }
    for name, (reached, stamp) in seen.items():
        if reached and getattr(facts, name) is None:
            setattr(facts, name, when(stamp))
        if stamp is not None:
            facts.stamps.setdefault(name, stamp)


def _since(conditions: Mapping[str, Object], name: str) -> float | None:
    condition = conditions.get(name)
    if condition is None or not _is_true(condition):
        return None
    return posix(condition.get("lastTransitionTime"))


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
