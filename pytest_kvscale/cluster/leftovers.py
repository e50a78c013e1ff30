"""Removing what a process of a run left when it died: everything with the run's label."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from pytest_kvscale.cluster import namespaces
from pytest_kvscale.cluster.client import (
    NAMESPACES,
    PODS,
    VMIS,
    ApiError,
    Client,
    Resource,
    repeat_until,
)
from pytest_kvscale.cluster.kinds import Kind
from pytest_kvscale.cluster.settle import Watched, until
from pytest_kvscale.cluster.templates import RUN_LABEL


async def remove(
    client: Client, kinds: Sequence[Kind], namespace: str, run: str, timeout: float
) -> list[str]:
    """Delete what a run left, by label and uid, and wait until it is gone.

    Returns what was there, as `kind name`; raises TimeoutError, naming it, if some still is after
    `timeout` seconds.
    """
    loop, labels = asyncio.get_running_loop(), f"{RUN_LABEL}={run}"
    deadline = loop.time() + timeout
    found: list[str] = []
    for resource in dict.fromkeys([*(each.resource for each in kinds), VMIS]):
        async for page in client.pages(resource, namespace, labels):
            for obj in page:
                metadata = obj["metadata"]
                await _delete(
                    client, resource, namespace, metadata["name"], metadata["uid"], deadline
                )
                found.append(f"{resource.plural} {metadata['name']}")
    watched = dict.fromkeys([*(each.resource for each in kinds), VMIS, PODS])
    wanted = [Watched(each, namespace, labels=labels) for each in watched]
    left = max(0.0, deadline - loop.time())
    if not await until(
        client, wanted, lambda mirrors: not any(each.objects for each in mirrors), left
    ):
        raise TimeoutError(f"still there in the namespace {namespace}: " + ", ".join(found[:3]))
    try:
        there = await client.get(NAMESPACES, "", namespace)
    except ApiError as problem:
        if problem.code == 404:
            return found
        raise
    if namespaces.is_ours(there, run):
        found.append(f"namespaces {namespace}")
        if not await namespaces.remove(client, there, deadline):
            raise TimeoutError(f"the namespace {namespace} is still there")
    return found


async def _delete(
    client: Client, resource: Resource, namespace: str, name: str, uid: str, deadline: float
) -> None:
    try:
        await repeat_until(deadline, lambda: client.delete(resource, namespace, name, uid))
    except ApiError as problem:
        if problem.code not in (404, 409):
            raise


def command(namespace: str, run: str, own: bool) -> str:
    """The command that removes what a run left; `own`: the namespace too."""
    objects = f"kubectl delete vm,vmirs,vmi,pod -n {namespace} -l {RUN_LABEL}={run}"
    return f"{objects} && kubectl delete namespace {namespace}" if own else objects
