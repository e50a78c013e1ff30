"""The metrics of all components of one cluster, as each of them would serve them."""

from __future__ import annotations

import collections
from collections.abc import Iterator

from prometheus_client import generate_latest
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from pytest_kvscale.sim.metrics import families
from pytest_kvscale.sim.metrics.account import Account
from pytest_kvscale.sim.metrics.apiserver import ApiAccount
from pytest_kvscale.sim.metrics.naming import naming
from pytest_kvscale.sim.metrics.phases import vmi_families
from pytest_kvscale.sim.metrics.queues import queue_families
from pytest_kvscale.sim.profile import Profile
from pytest_kvscale.sim.resources import VMIS, VMS
from pytest_kvscale.sim.store import Event, Store

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


class Metrics:
    """The accounts of all components, and what each tells."""

    def __init__(self, profile: Profile, store: Store) -> None:
        versions = profile.versions
        self.names = naming(versions.kubevirt, versions.kubernetes, profile.kubevirt.metrics)
        self.api = ApiAccount(store, self.names)
        self._store = store
        self._accounts: dict[tuple[str, str], Account] = {}
        self.vms_created: collections.Counter[tuple[str, ...]] = collections.Counter()
        """VirtualMachines virt-api has let in, by namespace."""
        store.listen(VMS, self._on_vm)

    def account(self, component: str, node: str = "") -> Account:
        """The account of a component (on a node)."""
        return self._accounts.setdefault((component, node), Account(self.names))

    def _on_vm(self, event: Event) -> None:
        if event.type == "ADDED":
            self.vms_created[(event.stored.obj["metadata"]["namespace"],)] += 1

    def told_by(self, component: str, node: str = "", leads: bool = True) -> Iterator[Metric]:
        """What a component tells; one that does not lead has done nothing yet."""
        match component:
            case "kube-apiserver":
                yield from self.api.families()
            case "kubelet":
                account = self.account(component, node)
                yield from account.starts.families(node)
                yield from account.traffic.plain_families()
            case "virt-controller":
                yield from self._virt_controller(leads)
            case "virt-api":
                yield from self._virt_api(leads)
            case _:
                account = self.account(component, node)
                yield from account.traffic.families(self.names)

    def _virt_controller(self, leads: bool) -> Iterator[Metric]:
        for what, text, value in (
            ("leading", "Indication for an operating virt-controller.", float(leads)),
            ("ready", "Indication for a virt-controller that is ready to take the lead.", 1.0),
        ):
            yield families.gauge(self.names.controller_status.format(what), text, (), {(): value})
        account = self.account("virt-controller")
        if not leads:
            account = Account(self.names)
        yield from account.traffic.families(self.names)
        yield from queue_families(account.queues)
        if leads:
            yield from vmi_families((each.obj for each in self._store.all(VMIS)), self.names)
            yield from account.phases.families()

    def _virt_api(self, leads: bool) -> Iterator[Metric]:
        if self.names.vms_created:
            yield families.counter(
                "kubevirt_vm_created_by_pod_total",
                "The total number of VMs created by namespace and virt-api pod, since install.",
                ("namespace",), self.vms_created if leads else {},
            )  # fmt: skip
        yield from self.account("virt-api").traffic.families(self.names)


class Told(Collector):
    """Families that are there already, as something the client library can write down."""

    def __init__(self, told: Iterator[Metric]) -> None:
        self._told = told

    def collect(self) -> Iterator[Metric]:
        """The families, once."""
        return self._told


def text(told: Iterator[Metric]) -> bytes:
    """Families in Prometheus's text format."""
    return generate_latest(Told(told))
