"""The namespace `kvscale-system`: lease, journals and the last level's end; all that ever stays."""

from __future__ import annotations

from pytest_kvscale.cluster.client import (
    NAMESPACES,
    ApiError,
    Client,
    Object,
    Resource,
)

NAMESPACE = "kvscale-system"
CONFIG_MAPS = Resource("v1", "configmaps")
_GOING = "because it is being terminated"
BY = "kvscale.io/by"
"""Annotation: who runs it, on which machine."""


async def ensure(client: Client) -> None:
    """Make the namespace if it is not there and we may; else it shows when it is used."""
    wanted: Object = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}}
    try:
        await client.create(NAMESPACES, "", wanted)
    except ApiError as problem:
        if problem.code not in (403, 409):
            raise


def is_closed(problem: ApiError) -> bool:
    """Whether an answer means that we may not keep anything there, or it cannot be made.

    That it is just being removed (`uninstall`) is no such thing: others will make it anew.
    """
    return problem.code in (403, 404) and _GOING not in problem.status_message
