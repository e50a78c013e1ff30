"""How versions of KubeVirt and Kubernetes call their metrics, and which buckets they have.

The profile says what `rest_client_…` begins with, which buckets phases have, and how the number of
VMIs is called; the rest follows from the versions.
KubeVirt: `kubevirt_vmi_phase_count` was told by virt-controller itself and became a recording rule
over `kubevirt_vmi_info` in 1.3; transitions from deletion are told since 0.50; requests are sorted
into finer buckets since 0.59.
Kubernetes: the kubelet's buckets for the start of pods reach an hour since 1.26; the API server's
buckets and its gauge of watches are today's since 1.23; stored objects are
`apiserver_storage_objects` since 1.21, at first beside their older name.
"""

from __future__ import annotations

import dataclasses
import re

from pytest_kvscale.sim.metrics.histogram import exponential
from pytest_kvscale.sim.profile import Metrics

_PHASE_COUNT = "kubevirt_vmi_phase_count"
RATE_LIMITER = exponential(0.001, 2, 10)
WORK_QUEUE = exponential(10e-9, 10, 10)
_REQUESTS = (
    0.005, 0.025, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 1.0, 1.25, 1.5, 2, 3,
    4, 5, 6, 8, 10, 15, 20, 30, 45, 60,
)  # fmt: skip
_API_2021 = (
    0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.35, 0.4, 0.45, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0, 1.25, 1.5,
    1.75, 2.0, 2.5, 3.0, 3.5, 4.0, 4.5, 5, 6, 7, 8, 9, 10, 15, 20, 25, 30, 40, 50, 60,
)  # fmt: skip
_API = (
    0.005, 0.025, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 1.0, 1.25, 1.5, 2, 3,
    4, 5, 6, 8, 10, 15, 20, 30, 45, 60,
)  # fmt: skip
_POD_START_2021 = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)
_POD_START = (
    0.5, 1, 2, 3, 4, 5, 6, 8, 10, 20, 30, 45, 60, 120, 180, 240, 300, 360, 480, 600, 900, 1200,
    1800, 2700, 3600,
)  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Naming:
    """Names and buckets of one cluster's metrics."""

    prefix: str
    """Before `rest_client_…` of KubeVirt's components."""
    controller_status: str
    """The gauges of virt-controller's own state, for `leading` and `ready`."""
    vms_created: bool
    """Whether virt-api counts VMs created."""
    by_method: bool
    """Times of requests are told by HTTP method, not by verb."""
    phases: tuple[float, ...]
    from_deletion: bool
    """Whether transitions are told from the deletion on, too."""
    phase_count: bool
    """`kubevirt_vmi_phase_count` by virt-controller itself, not `kubevirt_vmi_info`."""
    requests: tuple[float, ...]
    api_requests: tuple[float, ...]
    stored_objects: tuple[str, ...]
    pod_start: tuple[float, ...]
    long_running: str
    """The gauge of open watches."""


def naming(kubevirt: str, kubernetes: str, metrics: Metrics) -> Naming:
    """The naming of these versions, and of what the profile itself says of metrics."""
    virt, kube = _version(kubevirt), _version(kubernetes)
    return Naming(
        prefix=metrics.rest_client_prefix,
        controller_status=(
            "kubevirt_virt_controller_{}_status" if virt >= (1, 0) else "{}_virt_controller"
        ),
        vms_created=virt >= (1, 1),
        by_method=virt < (1, 0),
        phases=tuple(metrics.phase_buckets),
        from_deletion=virt >= (0, 50),
        phase_count=metrics.vmi_count == _PHASE_COUNT and virt < (1, 3),
        requests=_REQUESTS if virt >= (0, 59) else RATE_LIMITER,
        api_requests=_API if kube >= (1, 23) else _API_2021,
        stored_objects=(
            *(("etcd_object_counts",) if kube < (1, 23) else ()),
            *(("apiserver_storage_objects",) if kube >= (1, 21) else ()),
        ),
        pod_start=_POD_START if kube >= (1, 26) else _POD_START_2021,
        long_running=f"apiserver_longrunning_{'requests' if kube >= (1, 23) else 'gauge'}",
    )


def _version(text: str) -> tuple[int, int]:
    found = re.match(r"v(\d+)\.(\d+)", text)
    if found is None:
        raise ValueError(f"not a version: {text!r}")
    return int(found[1]), int(found[2])
