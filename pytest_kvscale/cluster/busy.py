"""Whether the control plane is busy, where its metrics may be read."""

from __future__ import annotations

import asyncio
from decimal import Decimal

from pytest_kvscale.cluster.client import PODS, ApiError, Client, LostConnectionError, Object
from pytest_kvscale.cluster.component_metrics import parse

IN_FLIGHT = "API requests in flight"
_API = "apiserver_current_inflight_requests"
_QUEUES = "workqueue_depth"
_CONTROLLERS = "kubevirt.io=virt-controller"
_PORT = 8443


async def in_flight(client: Client) -> Decimal | None:
    """How many requests the API works on; None: it does not tell us."""
    text = await _metrics(client, "/metrics")
    return None if text is None else total(text, _API)


async def queued(client: Client) -> Decimal | None:
    """How much lies in virt-controller's work queues; None: it does not tell us."""
    try:
        answer = await client.list(PODS, labels=_CONTROLLERS)
    except ApiError:
        return None
    texts = await asyncio.gather(*(_of_pod(client, each) for each in answer.get("items") or []))
    found = [each for text in texts if text is not None
             if (each := total(text, _QUEUES)) is not None]  # fmt: skip
    return sum(found, Decimal(0)) if found else None


async def _of_pod(client: Client, pod: Object) -> str | None:
    metadata = pod["metadata"]
    where = PODS.path(metadata["namespace"], f"https:{metadata['name']}:{_PORT}")
    return await _metrics(client, f"{where}/proxy/metrics")


async def _metrics(client: Client, path: str) -> str | None:
    try:
        return await client.text(path)
    except (ApiError, LostConnectionError, TimeoutError):
        return None


def total(text: str, name: str) -> Decimal | None:
    """The sum of a metric's samples; None: there is none."""
    found = [Decimal(str(value)) for _, value in parse(text, (name,))]
    return sum(found, Decimal(0)).normalize() if found else None
