"""What else lives on the node under test: a run must neither disturb it nor be disturbed."""

from __future__ import annotations

from pytest_kvscale.cluster.client import VMIS, ApiError, Client, Object
from pytest_kvscale.cluster.templates import RUN_LABEL
from pytest_kvscale.errors import ConfigurationError

_NODE_LABEL = "kubevirt.io/nodeName"
_SHOWN = 3


async def check_alone(client: Client, node: str, run: str) -> None:
    """Raise `ConfigurationError` if VMIs that are not this run's are on the node."""
    others: list[Object] = []
    try:
        async for page in client.pages(VMIS):
            others += [each for each in page if _node_of(each) == node and _run_of(each) != run]
    except ApiError as problem:
        if problem.code != 403:
            raise
        raise ConfigurationError(
            "whether other VMIs are on the node cannot be told: VMIs of all namespaces may not be "
            "listed; allow that, or give --kvscale-beside-others"
        ) from None
    if others:
        names = sorted(
            f"{each['metadata']['namespace']}/{each['metadata']['name']}" for each in others
        )
        more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
        raise ConfigurationError(
            f"the node {node} has {len(others)} VMIs that are not of this run "
            f"({', '.join(names[:_SHOWN])}{more}){_left_by(others)}: test another node "
            "(--kvscale-node), or give --kvscale-beside-others"
        )


def _left_by(others: list[Object]) -> str:
    """Where they come from, if earlier runs left them."""
    runs = sorted({run for each in others if (run := _run_of(each))})
    if not runs:
        return ""
    return f"; some were left by run {runs[0]}: kubectl delete vmi -A -l {RUN_LABEL}={runs[0]}"


def _node_of(vmi: Object) -> str:
    labels = vmi["metadata"].get("labels") or {}
    return str((vmi.get("status") or {}).get("nodeName") or labels.get(_NODE_LABEL) or "")


def _run_of(vmi: Object) -> str:
    return str((vmi["metadata"].get("labels") or {}).get(RUN_LABEL) or "")
