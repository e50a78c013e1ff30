"""The namespace VMIs are created in: one of the run's own, or one that is there and stays."""

from __future__ import annotations

import asyncio

from pytest_kvscale.cluster.client import NAMESPACES, ApiError, Client, Object, repeat_until
from pytest_kvscale.cluster.settle import Watched, until
from pytest_kvscale.cluster.templates import RUN_LABEL
from pytest_kvscale.errors import ConfigurationError

_POD_SECURITY = {"pod-security.kubernetes.io/enforce": "privileged"}
"""virt-launcher needs more than the stricter levels allow."""
_OPENSHIFT = {"security.openshift.io/scc.podSecurityLabelSync": "false"}
"""OpenShift would set the label above anew by what service accounts may do."""


async def check(client: Client, name: str) -> bool:
    """Whether a namespace is there. Raises `ConfigurationError` if it is just being removed."""
    try:
        found = await client.get(NAMESPACES, "", name)
    except ApiError as problem:
        if problem.code == 404:
            return False
        raise
    if found["metadata"].get("deletionTimestamp"):
        raise ConfigurationError(
            f"the namespace {name} is being deleted: wait until it is gone, or name another "
            "(--kvscale-namespace)"
        )
    return True


async def make(
    client: Client, name: str, run: str, openshift: bool, deadline: float
) -> Object | None:
    """Make the namespace; None if there is one already, which is then used and kept."""
    labels = {RUN_LABEL: run, **_POD_SECURITY, **(_OPENSHIFT if openshift else {})}
    wanted: Object = {
        "apiVersion": "v1",
        "kind": "Namespace",
        "metadata": {"name": name, "labels": labels},
    }
    try:
        return await repeat_until(deadline, lambda: client.create(NAMESPACES, "", wanted))
    except ApiError as problem:
        if problem.code != 409:
            raise
    there = await repeat_until(deadline, lambda: client.get(NAMESPACES, "", name))
    # It is ours after all if the answer to an earlier create was lost.
    return there if is_ours(there, run) else None


def is_ours(namespace: Object, run: str) -> bool:
    """Whether a run has made a namespace."""
    return bool((namespace["metadata"].get("labels") or {}).get(RUN_LABEL) == run)


async def remove(client: Client, namespace: Object, deadline: float) -> bool:
    """Delete a namespace of ours and wait until it is gone; False if it is not at the deadline."""
    loop = asyncio.get_running_loop()
    name, uid = namespace["metadata"]["name"], namespace["metadata"]["uid"]
    try:
        await repeat_until(deadline, lambda: client.delete(NAMESPACES, "", name, uid))
    except ApiError as problem:
        if problem.code == 404:
            return True
        if problem.code != 409:
            raise
    wanted = [Watched(NAMESPACES, fields=f"metadata.name={name}")]
    left = max(0.0, deadline - loop.time())
    return await until(client, wanted, lambda mirrors: not mirrors[0].objects, left)
