"""What a run has to know of its cluster before it begins."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from pytest_kvscale.cluster import kubevirt as kubevirts
from pytest_kvscale.cluster.client import NAMESPACES, NODES, Client, Object
from pytest_kvscale.cluster.nodes import (
    Demands,
    NodeFacts,
    choose_node,
    node_facts,
    node_selector,
)
from pytest_kvscale.cluster.templates import Templates

_OPENSHIFT = "security.openshift.io"
"""An API group that only OpenShift serves."""


@dataclasses.dataclass(frozen=True)
class ClusterFacts:
    """A cluster and the node under test, as they are during the run."""

    uid: str
    """Of the namespace kube-system, which lives as long as the cluster."""
    kubevirt: str
    """Version."""
    kubevirt_namespace: str
    qemu_timeout: float
    """Seconds a launcher waits for its domain, as far as the KubeVirt CR says."""
    node: NodeFacts
    selector: Mapping[str, str]
    """Labels that select the node."""
    openshift: bool
    settings: Mapping[str, Any]
    """What the KubeVirt CR says of itself: its configuration, and patches of its components."""


async def gather(
    client: Client, node: str | None, selector: Mapping[str, str], templates: Templates
) -> ClusterFacts:
    """Look at the cluster, before anything is created.

    Raises `ConfigurationError` if it has no KubeVirt that is ready, or no node that does.
    """
    custom = await kubevirts.find_kubevirt(client)
    kubevirts.check_ready(custom, client)
    demands = Demands(
        machines=[each.kind.machine(each.sample) for each in templates.all],
        kubevirt=not all(each.is_pod for each in templates.kinds),
        architecture=kubevirts.default_architecture(custom),
    )
    chosen = await choose_node(client, node, selector, demands)
    groups = (await client.about("/apis")).get("groups") or []
    return ClusterFacts(
        uid=await uid_of(client),
        kubevirt=kubevirts.version(custom),
        kubevirt_namespace=custom["metadata"]["namespace"],
        qemu_timeout=kubevirts.qemu_timeout(custom["spec"]),
        node=node_facts(chosen),
        selector=node_selector(chosen),
        openshift=any(each.get("name") == _OPENSHIFT for each in groups),
        settings=_settings(custom),
    )


async def uid_of(client: Client) -> str:
    """What tells a cluster from all others."""
    system = await client.get(NAMESPACES, "", "kube-system")
    return str(system["metadata"]["uid"])


async def refresh(client: Client, facts: ClusterFacts) -> ClusterFacts:
    """The same cluster and node, as they are now (KubeVirt may have been changed)."""
    custom = await kubevirts.find_kubevirt(client)
    node = await client.get(NODES, "", facts.node["name"])
    return dataclasses.replace(
        facts,
        kubevirt=kubevirts.version(custom),
        qemu_timeout=kubevirts.qemu_timeout(custom["spec"]),
        node=node_facts(node),
        settings=_settings(custom),
    )


def _settings(custom: Object) -> dict[str, Any]:
    spec = custom["spec"]
    return {key: spec[key] for key in ("configuration", "customizeComponents") if spec.get(key)}
