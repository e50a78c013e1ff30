"""The node under test: which one it is, and what it has."""

from __future__ import annotations

import dataclasses
import decimal
import ipaddress
import re
from collections.abc import Mapping, Sequence
from typing import TypedDict

from pytest_kvscale.cluster.client import NODES, Client, Object
from pytest_kvscale.errors import ConfigurationError

HOSTNAME = "kubernetes.io/hostname"
SCHEDULABLE = "kubevirt.io/schedulable"
DEVICE = "devices.kubevirt.io/kvm"
_ARCHITECTURE = "kubernetes.io/arch"
_CONTROL_PLANE = ("node-role.kubernetes.io/control-plane", "node-role.kubernetes.io/master")
_MEMORY_PRESSURE = "node.kubernetes.io/memory-pressure"

_UNITS: dict[str, tuple[int, int]] = {
    "": (10, 0), "k": (10, 3), "M": (10, 6), "G": (10, 9), "T": (10, 12), "P": (10, 15),
    "Ki": (2, 10), "Mi": (2, 20), "Gi": (2, 30), "Ti": (2, 40), "Pi": (2, 50), "m": (10, -3),
}  # fmt: skip


class NodeFacts(TypedDict):
    """What the node has; `cpu` in cores, `memory` in bytes, None where it is not known."""

    name: str
    cpu: float | None
    memory: int | None
    max_pods: int | None
    devices: int | None
    pod_ips: int | None
    runtime: str


def amount(quantity: object) -> decimal.Decimal | None:
    """The value of a Kubernetes quantity, or None if it is none."""
    match = re.fullmatch(r"(\d+(?:\.\d*)?|\.\d+)([a-zA-Z]*)", str(quantity or "").strip())
    if match is None or match[2] not in _UNITS:
        return None
    base, exponent = _UNITS[match[2]]
    return decimal.Decimal(match[1]) * decimal.Decimal(base) ** exponent


@dataclasses.dataclass(frozen=True)
class Demands:
    """What a run wants of its node, besides its name and labels."""

    machines: Sequence[Object]
    """The specs of VMIs (or pods), one of each template: tolerations, architecture."""
    kubevirt: bool
    """Whether KubeVirt must be able to run VMIs there."""
    architecture: str
    """The architecture of VMIs whose spec names none; "" if it is not known."""


async def choose_node(
    client: Client, name: str | None, selector: Mapping[str, str], demands: Demands
) -> Object:
    """The node of that name, or the one with most memory that has these labels and will do.

    A control-plane node is taken only if it is named, or there is no other. Raises
    `ConfigurationError` if there is none, and says why each does not do.
    """
    answer = await client.list(NODES)
    nodes: list[Object] = answer.get("items") or []
    if name is not None:
        nodes = [node for node in nodes if node["metadata"]["name"] == name]
        if not nodes:
            raise ConfigurationError(f"there is no node {name!r} in the cluster")
    unfit = {}
    fit = []
    for node in nodes:
        why = _unfit(node, selector, demands)
        if why:
            unfit[node["metadata"]["name"]] = why
        else:
            fit.append(node)
    if not fit:
        reasons = "; ".join(f"{node}: {why}" for node, why in sorted(unfit.items()))
        raise ConfigurationError(f"no node to test: {reasons or 'the cluster has none'}")
    return max(fit, key=_preference)


def _preference(node: Object) -> tuple[bool, decimal.Decimal, str]:
    labels = node["metadata"].get("labels") or {}
    worker = not any(each in labels for each in _CONTROL_PLANE)
    return worker, _allocatable(node, "memory") or decimal.Decimal(0), node["metadata"]["name"]


def node_facts(node: Object) -> NodeFacts:
    """What a node has, for the results."""
    network = (node.get("spec") or {}).get("podCIDR")
    addresses = None
    if network:
        addresses = max(0, ipaddress.ip_network(network, strict=False).num_addresses - 2)
    cpu = _allocatable(node, "cpu", "capacity")
    memory = _allocatable(node, "memory", "capacity")
    return NodeFacts(
        name=node["metadata"]["name"],
        cpu=None if cpu is None else float(cpu),
        memory=None if memory is None else int(memory),
        max_pods=_whole(node, "pods"),
        devices=_whole(node, DEVICE),
        pod_ips=addresses,
        runtime=node["status"].get("nodeInfo", {}).get("containerRuntimeVersion", ""),
    )


def node_selector(node: Object) -> dict[str, str]:
    """Labels that select exactly this node."""
    metadata = node["metadata"]
    return {HOSTNAME: (metadata.get("labels") or {}).get(HOSTNAME, metadata["name"])}


def _unfit(node: Object, selector: Mapping[str, str], demands: Demands) -> str:
    """Why a node does not do; "" if it does."""
    labels, spec = node["metadata"].get("labels") or {}, node.get("spec") or {}
    missing = [f"{key}={value}" for key, value in selector.items() if labels.get(key) != value]
    if missing:
        return f"has no label {', '.join(missing)}"
    if spec.get("unschedulable"):
        return "is cordoned (kubectl uncordon)"
    ready = [each for each in node["status"].get("conditions") or [] if each["type"] == "Ready"]
    if not ready or ready[0]["status"] != "True":
        said = f": {ready[0].get('message')}" if ready and ready[0].get("message") else ""
        return f"is not ready{said}"
    if demands.kubevirt and labels.get(SCHEDULABLE) != "true":
        return (
            f"is not schedulable for KubeVirt: its label {SCHEDULABLE} is "
            f"{labels.get(SCHEDULABLE, 'missing')}, so virt-handler is not ready there"
        )
    unfit = (_unfit_for(machine, node, demands) for machine in demands.machines)
    return next(filter(None, unfit), "")


def _unfit_for(machine: Object, node: Object, demands: Demands) -> str:
    """Why a node does not do for a VMI (or pod) of this spec."""
    labels, status = node["metadata"].get("labels") or {}, node["status"]
    for taint in (node.get("spec") or {}).get("taints") or []:
        if not _tolerates(machine.get("tolerations") or [], taint):
            text = f"{taint.get('key')}={taint.get('value') or ''}:{taint.get('effect')}"
            return f"has the taint {text}, which the template does not tolerate"
    wanted = machine.get("architecture") or demands.architecture
    there = labels.get(_ARCHITECTURE) or (status.get("nodeInfo") or {}).get("architecture")
    if demands.kubevirt and wanted and there and wanted != there:
        return f"is {there}, but the VMIs are to be {wanted} (spec.architecture)"
    return ""


def _tolerates(tolerations: Sequence[Object], taint: Object) -> bool:
    if taint.get("effect") == "PreferNoSchedule" or taint.get("key") == _MEMORY_PRESSURE:
        return True  # Kubernetes adds the toleration for the latter to pods that request memory.
    return any(_matches(each, taint) for each in tolerations)


def _matches(toleration: Object, taint: Object) -> bool:
    if toleration.get("effect") not in (None, "", taint.get("effect")):
        return False
    exists = toleration.get("operator") == "Exists"
    if not toleration.get("key"):
        return exists
    same = toleration["key"] == taint.get("key")
    return same and (exists or (toleration.get("value") or "") == (taint.get("value") or ""))


def _allocatable(node: Object, key: str, where: str = "allocatable") -> decimal.Decimal | None:
    return amount((node["status"].get(where) or {}).get(key))


def _whole(node: Object, key: str) -> int | None:
    found = _allocatable(node, key)
    return None if found is None else int(found)
