"""The KubeVirt CR: finding it, reading its settings, and whether they have been rolled out."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence

from pytest_kvscale.cluster.client import (
    DAEMON_SETS,
    DEPLOYMENTS,
    KUBEVIRTS,
    ApiError,
    Client,
    Object,
)
from pytest_kvscale.cluster.settle import Mirror, Watched, until
from pytest_kvscale.errors import ConfigurationError

GENERATION = "kubevirt.io/generation"
DEFAULT_QEMU_TIMEOUT = 240.0
PARTS = ("virt-api", "virt-controller", "virt-handler")
_FLAG = "launcher-qemu-timeout"


async def find_kubevirt(client: Client) -> Object:
    """The KubeVirt CR, found by listing; there is one in a cluster that has KubeVirt.

    Raises `ConfigurationError` if there is none.
    """
    try:
        answer = await client.list(KUBEVIRTS)
    except ApiError as problem:
        if problem.code == 404:
            raise ConfigurationError(
                f"the cluster {client.name} has no KubeVirt: install it, or name another context"
            ) from None
        raise
    items = answer.get("items") or []
    if not items:
        raise ConfigurationError(
            f"the cluster {client.name} has KubeVirt's resources, but no KubeVirt is deployed: "
            "create a KubeVirt CR"
        )
    found: Object = items[0]
    return found


def check_ready(kubevirt: Object, client: Client) -> None:
    """Raise `ConfigurationError` if KubeVirt is not ready to run anything.

    Conditions count only where they are: not every KubeVirt has them at any time.
    """
    status = kubevirt.get("status") or {}
    phase = status.get("phase")
    why = "" if phase == "Deployed" else f"its phase is {phase or 'unknown'}"
    for each in status.get("conditions") or []:
        if not why and each.get("type") == "Available" and each.get("status") == "False":
            said = " ".join(str(each.get("message") or each.get("reason") or "").split())[:200]
            why = f"it is not available{f' ({said})' if said else ''}"
    if why:
        metadata = kubevirt["metadata"]
        raise ConfigurationError(
            f"KubeVirt in the cluster {client.name} is not ready: {why}; look into it with "
            f"kubectl -n {metadata.get('namespace')} describe kubevirt {metadata['name']}"
        )


def version(kubevirt: Object) -> str:
    """The version that runs."""
    return str((kubevirt.get("status") or {}).get("observedKubeVirtVersion") or "")


def default_architecture(kubevirt: Object) -> str:
    """The architecture of VMIs that name none; "" if the CR does not say."""
    configured = (kubevirt["spec"].get("configuration") or {}).get("architectureConfiguration")
    status = kubevirt.get("status") or {}
    return str(
        (configured or {}).get("defaultArchitecture") or status.get("defaultArchitecture") or ""
    )


def qemu_timeout(spec: Object) -> float:
    """Seconds a virt-launcher waits for its domain, as far as the CR's spec says."""
    customize = spec.get("customizeComponents") or {}
    flags = (customize.get("flags") or {}).get("controller") or {}
    if str(flags.get(_FLAG, "")).isdecimal():
        return float(flags[_FLAG])
    found = re.search(rf"{_FLAG}\D{{1,40}}(\d+)", json.dumps(customize.get("patches") or []))
    return float(found[1]) if found else DEFAULT_QEMU_TIMEOUT


async def rolled_out(client: Client, kubevirt: Object, timeout: float) -> str:
    """Wait until a changed CR has reached all components.

    Returns "" once it has, else what still hangs when the time (seconds) ran out. The CR's phase
    stays Deployed throughout and its conditions may be true too early, so the components' own
    annotations are looked at, then the observed generation, then their pods.
    """
    namespace, name = kubevirt["metadata"]["namespace"], kubevirt["metadata"]["name"]
    generation = int(kubevirt["metadata"]["generation"])
    found = ""

    def reached(mirrors: Sequence[Mirror]) -> bool:
        nonlocal found
        custom, deployments, daemon_sets = (mirror.objects for mirror in mirrors)
        found = hanging(custom.get(name), {**deployments, **daemon_sets}, generation)
        return not found

    wanted = [
        Watched(KUBEVIRTS, namespace, f"metadata.name={name}"),
        Watched(DEPLOYMENTS, namespace),
        Watched(DAEMON_SETS, namespace),
    ]
    return "" if await until(client, wanted, reached, timeout) else found or "no answer"


def hanging(kubevirt: Object | None, parts: Mapping[str, Object], generation: int) -> str:
    """What a generation of the CR still lacks to be rolled out, in words; "" once it is."""
    if kubevirt is None:
        return "the KubeVirt CR is gone"
    waiting = ""
    for name in PARTS:
        part = parts.get(name)
        if part is None:
            return f"{name} is missing"
        stamped = (part["metadata"].get("annotations") or {}).get(GENERATION, "0")
        wanted, updated, ready = _pods(part)
        if int(stamped) < generation:
            waiting = waiting or f"{name} has not been updated by virt-operator"
        elif not wanted == updated == ready:
            # This is what the others wait for.
            return f"{name}: {updated} of {wanted} pods updated, {ready} ready"
    if not waiting and int(kubevirt["status"].get("observedGeneration") or 0) < generation:
        waiting = "virt-operator has not finished"
    return waiting


def _pods(part: Object) -> tuple[int, int, int]:
    status = part.get("status") or {}
    if part.get("kind") == "DaemonSet" or "desiredNumberScheduled" in status:
        keys = ("desiredNumberScheduled", "updatedNumberScheduled", "numberReady")
        wanted, updated, ready = (int(status.get(key) or 0) for key in keys)
        return wanted, updated, ready
    replicas = (part.get("spec") or {}).get("replicas", 1)
    return (
        int(replicas),
        int(status.get("updatedReplicas") or 0),
        int(status.get("readyReplicas") or 0),
    )
