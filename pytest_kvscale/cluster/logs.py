"""Logs, as far as the API has them: of a pod's container, and of the node's own services.

Both may be refused (a right is missing), switched off (NodeLogQuery), or gone with their pod:
then there is none, and nothing is wrong.
"""

from __future__ import annotations

from pytest_kvscale.cluster.client import (
    NODES,
    PODS,
    ApiError,
    Client,
    LostConnectionError,
)

CONTAINER = "compute"
SERVICES = ("kubelet", "containerd", "crio")
_MOST_BYTES = 64 * 1024


async def of_launcher(client: Client, namespace: str, pod: str, lines: int) -> list[str]:
    """The last lines of a launcher pod's compute container; none if they cannot be had."""
    path = PODS.path(namespace, pod, "log")
    query = {"container": CONTAINER, "tailLines": str(lines), "limitBytes": str(_MOST_BYTES)}
    return (await _text(client, path, query)).splitlines()


async def of_node(client: Client, node: str, pattern: str, lines: int) -> list[str] | None:
    """What the services of a node logged that matches a pattern (NodeLogQuery); None: it is off.

    A kubelet that does not know the query answers with a page that lists its log files.
    """
    path = NODES.path("", node, "proxy/logs/")
    found: list[str] = []
    for service in SERVICES:
        text = await _text(
            client, path, {"query": service, "pattern": pattern, "tailLines": str(lines)}
        )
        if text.lstrip().startswith("<"):
            return None
        found += text.splitlines()
    return found or None


async def _text(client: Client, path: str, query: dict[str, str]) -> str:
    try:
        return await client.text(path, query)
    except (ApiError, LostConnectionError, TimeoutError):
        return ""
