"""What kubelets tell of the pods on their nodes."""

from __future__ import annotations

import asyncio
import collections
from collections.abc import Iterator

from prometheus_client.metrics_core import Metric

from pytest_kvscale.sim.errors import Object
from pytest_kvscale.sim.metrics import families
from pytest_kvscale.sim.metrics.histogram import Histogram
from pytest_kvscale.sim.metrics.naming import Naming
from pytest_kvscale.sim.store import Event


class PodStarts:
    """The account of one kubelet's life: its pods, and how long they took to start."""

    def __init__(self, names: Naming) -> None:
        self._bounds = names.pod_start
        self.took = Histogram(names.pod_start)
        self._seen: dict[str, float] = {}
        """Loop time at which each pod (by uid) that does not run yet was first seen."""
        self._states: dict[str, collections.Counter[str]] = {}
        """Its containers by state, for each pod."""

    def reset(self) -> None:
        """Begin at zero; the pods stay."""
        self.took = Histogram(self._bounds)

    def on_pod(self, node: str, event: Event) -> None:
        """See a change of a pod."""
        pod = event.stored.obj
        if pod["spec"].get("nodeName") != node:
            return
        uid = pod["metadata"]["uid"]
        if event.type == "DELETED":
            self._seen.pop(uid, None)
            self._states.pop(uid, None)
            return
        now = asyncio.get_running_loop().time()
        known = uid in self._states
        status = pod.get("status") or {}
        self._states[uid] = _states(status)
        if status.get("phase") != "Pending":
            since = self._seen.pop(uid, None)
            if since is not None and status.get("phase") == "Running":
                self.took.observe(now - since)
        elif not known:
            self._seen[uid] = now

    def families(self, node: str) -> Iterator[Metric]:
        """The metrics of pods and containers."""
        total: collections.Counter[str] = collections.Counter()
        for states in self._states.values():
            total.update(states)
        sandboxes = sum(bool(states["running"]) for states in self._states.values())
        yield families.gauge(
            "kubelet_node_name", "The node's name. The count is always 1.", ("node",),
            {(node,): 1.0},
        )  # fmt: skip
        yield families.histogram(
            "kubelet_pod_start_duration_seconds",
            "Duration in seconds from kubelet seeing a pod for the first time to the pod starting "
            "to run",
            (), {(): self.took},
        )  # fmt: skip
        yield families.gauge(
            "kubelet_running_containers", "Number of containers currently running",
            ("container_state",),
            {("created",): total["waiting"], ("exited",): total["terminated"],
             ("running",): total["running"]},
        )  # fmt: skip
        yield families.gauge(
            "kubelet_running_pods", "Number of pods that have a running pod sandbox", (),
            {(): sandboxes},
        )  # fmt: skip


def _states(status: Object) -> collections.Counter[str]:
    counted: collections.Counter[str] = collections.Counter()
    for group in ("containerStatuses", "initContainerStatuses"):
        for each in status.get(group) or []:
            counted.update(list(each.get("state") or {}))
    return counted
