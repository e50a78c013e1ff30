"""All that one component counts in one life."""

from __future__ import annotations

from pytest_kvscale.sim.metrics.kubelet import PodStarts
from pytest_kvscale.sim.metrics.naming import Naming
from pytest_kvscale.sim.metrics.phases import PhaseTimes
from pytest_kvscale.sim.metrics.queues import QueueAccount
from pytest_kvscale.sim.metrics.traffic import Traffic


class Account:
    """The counts of one component."""

    def __init__(self, names: Naming) -> None:
        self.traffic = Traffic(names.requests)
        self.queues: list[QueueAccount] = []
        self.phases = PhaseTimes(names)
        """virt-controller's."""
        self.starts = PodStarts(names)
        """A kubelet's."""

    def reset(self) -> None:
        """Begin at zero, as a new process does."""
        self.traffic.reset()
        self.phases.reset()
        self.starts.reset()
        for queue in self.queues:
            queue.reset()
