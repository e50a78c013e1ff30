"""What a level cost the control plane, out of the series of its components."""

from __future__ import annotations

import collections
from collections.abc import Iterable, Mapping, Sequence

from pytest_kvscale.measure.cost import COMPONENTS, Component, Cost, Queue
from pytest_kvscale.measure.percentiles import DIGITS
from pytest_kvscale.measure.series import Series, Window, most, total_by

_PREFIX = "kubevirt_"
"""Before the names of client-go's metrics since KubeVirt 1.3."""
REQUESTS = "rest_client_requests_total"
THROTTLED = "rest_client_rate_limiter_duration_seconds_sum"
DEPTH = "workqueue_depth"
WAITED = ("workqueue_queue_duration_seconds_sum", "workqueue_queue_duration_seconds_count")
CPU = "process_cpu_seconds_total"
MEMORY = "process_resident_memory_bytes"
SERVED = "apiserver_request_total"
BEGUN = "process_start_time_seconds"
"""By this one process is told from another; it is no cost."""
NAMES = (REQUESTS, THROTTLED, DEPTH, *WAITED, CPU, MEMORY)
"""What is asked of every component, with and without KubeVirt's prefix."""

_JOBS = {
    "kubelet": "kubelet", "apiserver": "apiserver", "kube-apiserver": "apiserver",
    "kubernetes-apiservers": "apiserver", "etcd": "etcd", "kube-etcd": "etcd",
}  # fmt: skip
_METHODS = {"POST": "CREATE", "PUT": "UPDATE"}
"""Verbs as the API server calls them, and as everybody else does."""


def component_of(labels: Mapping[str, str]) -> str | None:
    """The component a series is of, by its container, pod or job; None: none of those we ask."""
    container, pod, job = (labels.get(each, "") for each in ("container", "pod", "job"))
    if container in COMPONENTS:
        return container
    for name in COMPONENTS:
        if name.startswith("virt-") and pod.startswith(f"{name}-"):
            return name
    if job in _JOBS:
        return _JOBS[job]
    for name in ("kube-apiserver", "etcd"):
        if pod.startswith(f"{name}-"):
            return _JOBS[name]
    return None


def cost_of(
    series: Iterable[Series], window: Window, vmis: int, source: str, note: str = ""
) -> Cost:
    """The cost of a level in which so many VMIs were created."""
    by_component: dict[str, list[Series]] = {}
    for each in series:
        name = component_of(each.labels)
        if name is not None:
            by_component.setdefault(name, []).append(each)
    return Cost(
        source=source,
        note=note,
        vmis=vmis,
        components={
            name: _component(by_component[name], window, served=name == "apiserver")
            for name in COMPONENTS
            if name in by_component
        },
    )


def _component(series: Sequence[Series], window: Window, served: bool) -> Component:
    by_name: dict[str, list[Series]] = collections.defaultdict(list)
    for each in series:
        by_name[each.name.removeprefix(_PREFIX)].append(each)
    requests = by_name[SERVED if served else REQUESTS]
    throttled, cpu = by_name[THROTTLED], by_name[CPU]
    return Component(
        requests=_requests(requests, window) if requests else None,
        throttled=_total(throttled, window) if throttled else None,
        queues=_queues(by_name, window),
        cpu=_total(cpu, window) if cpu else None,
        memory=most(by_name[MEMORY], window),
    )


def _requests(series: Sequence[Series], window: Window) -> dict[str, float]:
    found: collections.Counter[str] = collections.Counter()
    labels = ("verb", "method", "resource", "subresource")
    for (verb, method, resource, subresource), number in total_by(series, window, *labels).items():
        word = _METHODS.get(verb or method, verb or method)
        what = f"{resource}/{subresource}" if subresource else resource
        found[f"{word} {what}".rstrip()] += round(number)
    return {name: float(number) for name, number in sorted(found.items()) if number}


def _total(series: Sequence[Series], window: Window) -> float:
    return round(sum(total_by(series, window).values()), DIGITS)


def _queues(by_name: Mapping[str, Sequence[Series]], window: Window) -> dict[str, Queue]:
    found: dict[str, Queue] = {}
    depths, (sums, counts) = by_name.get(DEPTH, ()), (by_name.get(each, ()) for each in WAITED)
    for name in sorted({each.labels.get("name", "") for each in (*depths, *counts)}):
        waited = total_by(_named(sums, name), window).get((), 0.0)
        items = total_by(_named(counts, name), window).get((), 0.0)
        depth = most(_named(depths, name), window)
        if items or depth:
            latency = round(waited / items, DIGITS) if items else None
            found[name] = Queue(depth=depth, latency=latency)
    return found


def _named(series: Iterable[Series], name: str) -> list[Series]:
    return [each for each in series if each.labels.get("name", "") == name]
