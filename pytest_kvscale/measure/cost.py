"""What a level cost the control plane, by component: the form of the figures."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypedDict

COMPONENTS = (
    "virt-api", "virt-controller", "virt-handler", "virt-operator", "kubelet", "apiserver", "etcd",
)  # fmt: skip


class Queue(TypedDict):
    """A work queue: how full it was, and how long items waited in it (seconds)."""

    depth: float | None
    """The most that was seen."""
    latency: float | None
    """On average."""


class Component(TypedDict):
    """What one component did during the level; None: not measured."""

    requests: dict[str, float] | None
    """API requests it sent (the API server: it answered), by `VERB resource`."""
    throttled: float | None
    """Seconds its requests waited in its own client's rate limiter."""
    queues: dict[str, Queue]
    cpu: float | None
    """CPU seconds."""
    memory: float | None
    """Bytes resident, the most that was seen."""


class Cost(TypedDict):
    """The cost of a level, by component."""

    source: str
    """`prometheus`, `components`, or `none`."""
    note: str
    """Why something is missing; empty if nothing is."""
    vmis: int
    """How many VMIs it is divided by: those that were created."""
    components: dict[str, Component]


def nothing(note: str) -> Cost:
    """The cost where nothing could be asked."""
    return Cost(source="none", note=note, vmis=0, components={})


def per_vmi(cost: Cost, component: str, request: str = "") -> float | None:
    """Requests of a component for each VMI: of one `VERB resource`, or (empty) all together.

    A kind of request that was not counted is 0 only if the component is known to deal with the
    resource: a name that means nothing must not look like a low cost.
    """
    found = cost["components"].get(component)
    if found is None or found["requests"] is None or not cost["vmis"]:
        return None
    requests = found["requests"]
    if not request:
        return sum(requests.values()) / cost["vmis"]
    resource = request.partition(" ")[2]
    if not any(each.partition(" ")[2] == resource for each in requests):
        return None
    return requests.get(request, 0.0) / cost["vmis"]


def requests_per_vmi(cost: Cost) -> Mapping[str, Mapping[str, float]]:
    """By component and `VERB resource`."""
    return {
        name: {
            request: number / cost["vmis"] for request, number in (each["requests"] or {}).items()
        }
        for name, each in cost["components"].items()
        if cost["vmis"]
    }
