"""Which costs of the control plane changed: requests for each VMI, throttling, queues, CPU.

Only what changed by more than equal runs differ and by more than thresholds is told, the largest
first. What a component sent is told of the component, and not again of the API server.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal

from pytest_kvscale.judge.typical import Shift, mapping, number, shift

Runs = Sequence[Mapping[str, Any]]
Kind = Literal["requests", "throttled", "queue", "cpu"]

_RELATIVE = 0.1
_LEAST: dict[Kind, float] = {"requests": 0.2, "throttled": 0.1, "queue": 0.1, "cpu": 0.05}
"""The least changes: requests a VMI, seconds a VMI, seconds in the queue, CPU seconds a VMI."""
_TICKING = ("leases", "nodes", "nodes/status")
"""What is asked for by the clock, whatever is created: a longer level has more of it."""
_SERVED = "apiserver"


@dataclasses.dataclass(frozen=True)
class CostChange:
    """One cost of one component that changed."""

    component: str
    kind: Kind
    what: str
    """The request as `VERB resource`, the queue's name; empty for the others."""
    shift: Shift

    @property
    def rose(self) -> bool:
        """Whether it costs more now."""
        return self.shift.difference > 0

    def text(self) -> str:
        """Like `virt-handler PATCH virtualmachineinstances per VMI 3.1 → 5.0`."""
        before, after = self.shift.before, self.shift.after
        change = f"{figure(before)} → {figure(after)}"
        match self.kind:
            case "requests":
                return f"{self.component} {self.what} per VMI {change}"
            case "throttled":
                return f"{self.component} throttled by its own rate limit {change} s per VMI"
            case "queue":
                return f"{self.component} queue {self.what} latency {change} s"
            case "cpu":
                return f"{self.component} cpu {change} s per VMI"

    def as_json(self) -> dict[str, Any]:
        """As plain data."""
        return {
            "component": self.component, "kind": self.kind, "what": self.what or None,
            **self.shift.as_json(),
        }  # fmt: skip


def figure(value: float) -> str:
    """With one decimal, or two digits that say something."""
    if abs(value) < 1:
        return f"{value:.2g}"
    return f"{value:.1f}"


def request_changes(before: Runs, after: Runs) -> list[CostChange]:
    """The kinds of requests that changed, the largest change for each VMI first."""
    found = []
    for component in _components(before, after):
        sides = [
            [each for run in side if (each := _requests(run, component)) is not None]
            for side in (before, after)
        ]
        if not all(sides):
            continue
        for what in sorted({name for side in sides for run in side for name in run}):
            resource = what.partition(" ")[2]
            # Without a resource (kubelet's metric has none) heartbeats cannot be told apart.
            if not resource or resource in _TICKING:
                continue
            # A kind that a component which was measured did not send is 0 of them.
            change = shift(*([run.get(what, 0.0) for run in side] for side in sides))
            if change is not None and change.counts(_LEAST["requests"], _RELATIVE):
                found.append(CostChange(component, "requests", what, change))
    sent = {each.what for each in found if each.component != _SERVED}
    told = [
        each
        for each in found
        if each.component != _SERVED or each.what.partition("/")[0] not in sent
    ]
    return sorted(told, key=_size)


def other_changes(before: Runs, after: Runs) -> list[CostChange]:
    """Throttling, latency of queues and CPU, the largest change first, in this order."""
    found: list[CostChange] = []
    for component in _components(before, after):
        for kind, what, path in _figures(component, before, after):
            change = shift(*(_each(side, kind, path) for side in (before, after)))
            if change is not None and change.counts(_LEAST[kind], _RELATIVE):
                found.append(CostChange(component, kind, what, change))
    order = [*_LEAST]
    return sorted(found, key=lambda each: (order.index(each.kind), *_size(each)))


def unknown(before: Runs, after: Runs) -> list[str]:
    """What cannot be said of costs, in words."""
    sides = [{name for run in side for name in _measured(run)} for side in (before, after)]
    if not any(sides):
        return ["control-plane cost: measured on neither side"]
    words = []
    for name, side, other in (("before", 0, 1), ("after", 1, 0)):
        if not sides[side]:
            return [f"control-plane cost: not measured {name}"]
        if missing := sorted(sides[other] - sides[side]):
            words.append(f"cost of {', '.join(missing)}: not measured {name}")
    return words


def _size(change: CostChange) -> tuple[float, str, str]:
    return -abs(change.shift.difference), change.component, change.what


def _measured(run: Mapping[str, Any]) -> list[str]:
    return [str(each) for each in mapping(run, "control_plane", "components")]


def _components(before: Runs, after: Runs) -> list[str]:
    return list(dict.fromkeys(name for run in (*before, *after) for name in _measured(run)))


def _requests(run: Mapping[str, Any], component: str) -> dict[str, float] | None:
    """Requests for each VMI; None: they were not counted."""
    counted = mapping(run, "control_plane", "components", component).get("requests")
    vmis = number(run, "control_plane", "vmis")
    if not isinstance(counted, Mapping) or not vmis or vmis < 0:
        return None
    numbers = {str(name): number(counted, name) for name in counted}
    return {name: each / vmis for name, each in numbers.items() if each is not None}


def _figures(
    component: str, before: Runs, after: Runs
) -> Iterator[tuple[Kind, str, tuple[str, ...]]]:
    path = ("control_plane", "components", component)
    yield "throttled", "", (*path, "throttled")
    yield "cpu", "", (*path, "cpu")
    runs = (*before, *after)
    for name in dict.fromkeys(name for run in runs for name in mapping(run, *path, "queues")):
        yield "queue", str(name), (*path, "queues", str(name), "latency")


def _each(side: Runs, kind: Kind, path: tuple[str, ...]) -> list[float | None]:
    """The figure in each run: of a queue its latency, of the others for each VMI."""
    found = []
    for run in side:
        value, vmis = number(run, *path), number(run, "control_plane", "vmis")
        if value is not None and kind != "queue":
            value = value / vmis if vmis and vmis > 0 else None
        found.append(value)
    return found
