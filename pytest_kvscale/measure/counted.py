"""What others counted of a level: KubeVirt's own metrics, and the cost of the control plane."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

from pytest_kvscale.measure.cost import Cost, nothing
from pytest_kvscale.measure.histograms import Bucketed


@dataclasses.dataclass(frozen=True)
class Counted:
    """The figures of others, and why some are missing."""

    phases: Mapping[str, Bucketed]
    """What Prometheus has of KubeVirt's metric of phases."""
    note: str
    """Why there is nothing of Prometheus; empty if there is."""
    cost: Cost
    warnings: Sequence[str] = ()
    """Where they contradict what we saw."""


NOT_COUNTED = Counted({}, "Prometheus was not asked", nothing("not asked for"))
