"""What virt-controller tells of VMIs: how long their phases took, and how many there are.

Times are taken as virt-controller's informer sees updates, from the stamps in the VMI's status:
they have a resolution of one second, a phase without a stamp is not observed, and what a new
virt-controller finds there already is not either.
"""

from __future__ import annotations

import collections
import datetime
from collections.abc import Iterable, Iterator
from typing import Any

from prometheus_client.metrics_core import Metric

from pytest_kvscale.sim.errors import Object
from pytest_kvscale.sim.metrics import families
from pytest_kvscale.sim.metrics.histogram import Histogram
from pytest_kvscale.sim.metrics.naming import Naming
from pytest_kvscale.sim.store import Event

_FINAL = ("Succeeded", "Failed")
_NONE = "<none>"
_LOOK = "vm.kubevirt.io/"


class PhaseTimes:
    """The account of one virt-controller's life."""

    def __init__(self, names: Naming) -> None:
        self._names = names
        self.between: dict[tuple[str, ...], Histogram] = {}
        self.from_creation: dict[tuple[str, ...], Histogram] = {}
        self.from_deletion: dict[tuple[str, ...], Histogram] = {}

    def reset(self) -> None:
        """Begin at zero."""
        self.between.clear()
        self.from_creation.clear()
        self.from_deletion.clear()

    def on_vmi(self, event: Event) -> None:
        """See a change of a VMI."""
        if event.type != "MODIFIED" or event.before is None:
            return
        vmi, before = event.stored.obj, event.before.obj
        phase, last = _phase(vmi), _phase(before)
        if phase == last:
            return
        reached = _stamp_of(vmi, phase)
        if reached is None:
            return
        metadata = vmi["metadata"]
        created = metadata["creationTimestamp"]
        left = created if not last else _stamp_of(vmi, last)
        if left is not None:
            self._observe(self.between, (last, phase), left, reached)
        self._observe(self.from_creation, (phase,), created, reached)
        if "deletionTimestamp" in metadata and phase in _FINAL:
            self._observe(self.from_deletion, (phase,), metadata["deletionTimestamp"], reached)

    def _observe(
        self, held: dict[tuple[str, ...], Histogram], key: tuple[str, ...], begin: str, end: str
    ) -> None:
        if key not in held:
            held[key] = Histogram(self._names.phases)
        held[key].observe(max(0.0, _seconds(begin, end)))

    def families(self) -> Iterator[Metric]:
        """The histograms of phases."""
        name = "kubevirt_vmi_phase_transition_time"
        yield families.histogram(
            f"{name}_from_creation_seconds",
            "Histogram of VM phase transitions duration from creation time in seconds.",
            ("phase",), self.from_creation,
        )  # fmt: skip
        if self._names.from_deletion:
            yield families.histogram(
                f"{name}_from_deletion_seconds",
                "Histogram of VM phase transitions duration from deletion time in seconds.",
                ("phase",), self.from_deletion,
            )  # fmt: skip
        yield families.histogram(
            f"{name}_seconds",
            "Histogram of VM phase transitions duration between different phases in seconds.",
            ("last_phase", "phase"), self.between,
        )  # fmt: skip


def vmi_families(vmis: Iterable[Object], names: Naming) -> Iterator[Metric]:
    """The VMIs there are, by phase (lower-case here) and node, or each of them."""
    if names.phase_count:
        counts: collections.Counter[tuple[str, ...]] = collections.Counter()
        for vmi in vmis:
            counts[(_node(vmi), _phase(vmi).lower(), *_look(vmi))] += 1
        labels: tuple[str, ...] = ("node", "phase", "os", "workload", "flavor")
        yield families.gauge("kubevirt_vmi_phase_count", "VMI phase.", labels, counts)
        return
    labels = (
        "node", "namespace", "name", "phase", "os", "workload", "flavor", "instance_type",
        "preference", "guest_os_kernel_release", "guest_os_machine", "guest_os_arch",
        "guest_os_name", "guest_os_version_id", "evictable", "outdated", "vmi_pod",
    )  # fmt: skip
    infos = {}
    for vmi in vmis:
        metadata = vmi["metadata"]
        key = (
            _node(vmi), metadata["namespace"], metadata["name"], _phase(vmi).lower(), *_look(vmi),
            _NONE, _NONE, *[""] * 5, "false", "false", "",
        )  # fmt: skip
        infos[key] = 1.0
    yield families.gauge(
        "kubevirt_vmi_info", "Information about VirtualMachineInstances.", labels, infos
    )


def _look(vmi: Object) -> tuple[str, str, str]:
    annotations = vmi["metadata"].get("annotations") or {}
    os, workload, flavor = (
        str(annotations.get(_LOOK + each, _NONE)) for each in ("os", "workload", "flavor")
    )
    return os, workload, flavor


def _node(vmi: Object) -> str:
    return str((vmi.get("status") or {}).get("nodeName", ""))


def _phase(vmi: Object) -> str:
    return str((vmi.get("status") or {}).get("phase", ""))


def _stamp_of(vmi: Object, phase: str) -> str | None:
    stamps: list[Any] = vmi["status"].get("phaseTransitionTimestamps") or []
    for each in stamps:
        if each["phase"] == phase:
            return str(each["phaseTransitionTimestamp"])
    return None


def _seconds(begin: str, end: str) -> float:
    read = datetime.datetime.fromisoformat
    return (read(end) - read(begin)).total_seconds()
