"""A work queue, as client-go's metrics count it."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator

from prometheus_client.metrics_core import Metric

from pytest_kvscale.sim.metrics import families
from pytest_kvscale.sim.metrics.histogram import Histogram
from pytest_kvscale.sim.metrics.naming import WORK_QUEUE


class QueueAccount:
    """The account of one work queue."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.adds = 0
        self.retries = 0
        self.queued = Histogram(WORK_QUEUE)
        """Seconds keys waited before a worker took them."""
        self.worked = Histogram(WORK_QUEUE)
        """Seconds a worker was at a key."""
        self.waiting: dict[str, float] = {}
        """Since when (loop time) each key is waiting."""
        self.working: dict[str, float] = {}
        """Since when each key is worked at."""

    def reset(self) -> None:
        """Begin at zero, but for what waits and is worked at."""
        self.adds = self.retries = 0
        self.queued, self.worked = Histogram(WORK_QUEUE), Histogram(WORK_QUEUE)

    @property
    def depth(self) -> int:
        """Keys no worker is at; those added while it is come in after that."""
        return sum(key not in self.working for key in self.waiting)

    def added(self, key: str) -> None:
        """A key waits now, or waits to be looked at again after the present look."""
        self.adds += 1
        self.waiting[key] = asyncio.get_running_loop().time()

    def taken(self, key: str) -> None:
        """A worker takes a key."""
        now = asyncio.get_running_loop().time()
        self.queued.observe(now - self.waiting.pop(key, now))
        self.working[key] = now

    def done(self, key: str) -> None:
        """A worker is done with a key."""
        now = asyncio.get_running_loop().time()
        self.worked.observe(now - self.working.pop(key, now))


def queue_families(accounts: Iterable[QueueAccount]) -> Iterator[Metric]:
    """The metrics of the queues of one of KubeVirt's components."""
    held = list(accounts)
    now = asyncio.get_running_loop().time()
    labels = ("name",)
    yield families.counter(
        "kubevirt_workqueue_adds_total", "Total number of adds handled by workqueue", labels,
        {(each.name,): each.adds for each in held},
    )  # fmt: skip
    yield families.gauge(
        "kubevirt_workqueue_depth", "Current depth of workqueue", labels,
        {(each.name,): each.depth for each in held},
    )  # fmt: skip
    yield families.gauge(
        "kubevirt_workqueue_longest_running_processor_seconds",
        "How many seconds has the longest running processor for workqueue been running.", labels,
        {(each.name,): max((now - at for at in each.working.values()), default=0.0)
         for each in held},
    )  # fmt: skip
    yield families.histogram(
        "kubevirt_workqueue_queue_duration_seconds",
        "How long an item stays in workqueue before being requested.", labels,
        {(each.name,): each.queued for each in held},
    )  # fmt: skip
    yield families.counter(
        "kubevirt_workqueue_retries_total", "Total number of retries handled by workqueue", labels,
        {(each.name,): each.retries for each in held},
    )  # fmt: skip
    yield families.gauge(
        "kubevirt_workqueue_unfinished_work_seconds",
        "How many seconds of work have been in progress without being observed by work_duration.",
        labels,
        {(each.name,): sum(now - at for at in each.working.values()) for each in held},
    )  # fmt: skip
    yield families.histogram(
        "kubevirt_workqueue_work_duration_seconds",
        "How long in seconds processing an item from workqueue takes.", labels,
        {(each.name,): each.worked for each in held},
    )  # fmt: skip
