"""What objectives may name, and what it was in a level.

| name | unit |
|---|---|
| `Running p95` (`Scheduling`, `Scheduled`, `Running`, `Deletion`; p50 … mean) | seconds |
| `failures`, `failures QemuTimeout`, `failures Pending` | VMIs, or per cent of those asked for |
| `left_behind` | objects |
| `created_per_s`, `running_per_min mean`, `containers_per_min peak` | a rate |
| `lag_p99` | seconds |
| `virt-controller PATCH virtualmachineinstances per VMI`, `virt-api requests per VMI` | requests |
| `virt-controller throttled`, `virt-handler cpu per VMI` | seconds |
| `kubelet memory` | bytes |
| `virt-controller queue virt-controller-vmi depth` (`latency`) | items, seconds |
"""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Mapping
from typing import Any, Literal

from pytest_kvscale.errors import nearest
from pytest_kvscale.judge.classes import CLASSES, PENDING, UNEXPLAINED
from pytest_kvscale.measure.cost import COMPONENTS, Cost, per_vmi
from pytest_kvscale.measure.figures import Figures
from pytest_kvscale.measure.timeline import PHASES

Unit = Literal["s", "%", "B", ""]

DELETION = "Deletion"
FAILURES = "failures"
ALL_PENDING = "Pending"
STATISTICS = ("p50", "p90", "p95", "p99", "max", "mean")
VERBS = ("GET", "LIST", "WATCH", "CREATE", "UPDATE", "PATCH", "DELETE", "DELETECOLLECTION")
_RATES = (
    "created_per_s", "running_per_min mean", "running_per_min peak", "containers_per_min mean",
    "containers_per_min peak",
)  # fmt: skip
_CLASSES = (*CLASSES, UNEXPLAINED, ALL_PENDING)
_FIXED: dict[str, Unit] = {
    **{f"{subject} {each}": "s" for subject in (*PHASES, DELETION) for each in STATISTICS},
    FAILURES: "",
    **dict.fromkeys((f"{FAILURES} {each}" for each in _CLASSES), ""),
    "left_behind": "",
    **dict.fromkeys(_RATES, ""),
    "lag_p99": "s",
}
_OF_COMPONENTS = (
    "requests per VMI", "throttled", "throttled per VMI", "cpu", "cpu per VMI", "memory",
)  # fmt: skip
_BRIEF = "Running p95, failures QemuTimeout, running_per_min mean or virt-api requests per VMI"


@dataclasses.dataclass(frozen=True)
class Measured:
    """A level, as far as objectives can ask for it."""

    figures: Figures
    failures: Mapping[str, int]
    cost: Cost


def unit_of(name: str) -> Unit:
    """The unit of a quantity. Raises ValueError for a name that is none, with the nearest."""
    if name in _FIXED:
        return _FIXED[name]
    component, _, what = name.partition(" ")
    if component not in COMPONENTS:
        raise ValueError(f"unknown objective {name!r}{_hint(name)}: expected e.g. {_BRIEF}")
    match what.split(" "):
        case [verb, str(resource), "per", "VMI"] if resource:
            if verb not in VERBS:
                raise ValueError(
                    f"unknown objective {name!r}: {verb!r} is no verb{nearest(verb, VERBS)}: "
                    f"expected one of {', '.join(VERBS)}"
                )
            return ""
        case ["queue", str(queue), ("depth" | "latency") as figure] if queue:
            return "s" if figure == "latency" else ""
        case _ if what in _OF_COMPONENTS:
            if what == "memory":
                return "B"
            return "" if what.startswith("requests") else "s"
    known = (f"{component} {each}" for each in _OF_COMPONENTS)
    raise ValueError(
        f"unknown objective {name!r}{nearest(name, known)}: expected e.g. {component} PATCH "
        f"virtualmachineinstances per VMI, {component} queue NAME depth, or {component} with one "
        f"of {', '.join(_OF_COMPONENTS)}"
    )


def _hint(name: str) -> str:
    first, _, rest = name.partition(" ")
    component = difflib.get_close_matches(first, COMPONENTS, n=1, cutoff=0.8)
    if component:
        return f" (did you mean {f'{component[0]} {rest}'!r}?)"
    return nearest(name, _FIXED)


def is_more_better(name: str) -> bool:
    """Whether a bare limit is the least a quantity may be, and not the most."""
    return name in _RATES


def value_of(name: str, level: Measured) -> float | None:
    """What a quantity was; None if it was not reached or not measured."""
    subject, _, figure = name.partition(" ")
    figures = level.figures
    if subject in COMPONENTS:
        return _cost(level.cost, subject, figure)
    found: Any
    match subject:
        case "failures":
            found = _failures(level, figure)
        case "left_behind":
            found = figures.left_behind
        case "lag_p99" | "created_per_s":
            found = {**figures.pacing, **figures.rates}[subject]
        case "running_per_min" | "containers_per_min":
            found = {**figures.rates}[subject][figure]  # type: ignore[index]
        case _:
            summary = figures.deletion if subject == DELETION else figures.phases[subject]
            found = {**summary}.get(figure)
    return None if found is None else float(found)


def _failures(level: Measured, name: str) -> int:
    if not name:
        return level.figures.requested - level.figures.running
    names = PENDING if name == ALL_PENDING else (name,)
    return sum(level.failures.get(each, 0) for each in names)


def _cost(cost: Cost, component: str, what: str) -> float | None:
    found = cost["components"].get(component)
    if found is None:
        return None
    match what.split(" "):
        case ["requests", "per", "VMI"]:
            return per_vmi(cost, component)
        case [verb, resource, "per", "VMI"]:
            return per_vmi(cost, component, f"{verb} {resource}")
        case ["queue", name, ("depth" | "latency") as figure]:
            queue: dict[str, Any] = {**found["queues"].get(name, {})}
            waited: float | None = queue.get(figure)
            return waited
    kind, _, shared = what.partition(" ")
    values: dict[str, Any] = {**found}
    value: float | None = values[kind]
    if value is None or not shared:
        return value
    return value / cost["vmis"] if cost["vmis"] else None
