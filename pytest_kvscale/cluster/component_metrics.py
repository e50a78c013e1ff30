"""The control plane's own metrics, asked for through the API server's proxies.

For clusters without a Prometheus: what each component tells before a level and after it. Whatever
may not be read, or does not answer, is left out, and said.
"""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Collection, Iterator, Mapping

from pytest_kvscale.cluster.client import (
    NODES,
    PODS,
    ApiError,
    Client,
    LostConnectionError,
    Object,
)

VIRT = ("virt-api", "virt-controller", "virt-handler", "virt-operator")
_PORT = 8443
PATIENCE = 20.0
"""Seconds all of it may take: a level is not to wait for metrics."""
Told = tuple[Mapping[str, str], float]


@dataclasses.dataclass(frozen=True)
class Snapshot:
    """What all components told at one time."""

    series: tuple[Told, ...]
    """Labels (with `__name__`, `container` and `instance`) and values."""
    missing: tuple[str, ...]
    """What did not answer, and why."""
    unknown: frozenset[str] = frozenset()
    """Instances that did not answer."""
    listed: bool = True
    """Whether KubeVirt's pods were known at all."""

    def knows(self, labels: Mapping[str, str]) -> bool:
        """Whether a series that is not here was not there, or stood at 0."""
        if labels["instance"] in self.unknown:
            return False
        return self.listed or labels["container"] not in VIRT


async def snapshot(client: Client, namespace: str, node: str, names: Collection[str]) -> Snapshot:
    """Ask KubeVirt's components (in their namespace), a node's kubelet and the API server.

    Only the metrics of these names are kept, with or without KubeVirt's prefix.
    """
    targets = {("apiserver", "apiserver"): "/metrics"}
    targets["kubelet", node] = NODES.path("", node, "proxy/metrics")
    missing: list[str] = []
    listed, unknown = True, set()
    try:
        async with asyncio.timeout(PATIENCE):
            labels = f"kubevirt.io in ({','.join(VIRT)})"
            pods = (await client.list(PODS, namespace, labels)).get("items") or []
            targets |= {_of(pod): _path(namespace, pod) for pod in pods}
    except (ApiError, LostConnectionError, TimeoutError) as problem:
        missing.append(f"KubeVirt's pods in {namespace}: {problem or 'no answer'}")
        listed = False
    told = await asyncio.gather(*(_ask(client, path) for path in targets.values()))
    series: list[Told] = []
    for (component, instance), answer in zip(targets, told, strict=True):
        if isinstance(answer, str):
            own = {"container": component, "instance": instance}
            series += [(labels | own, value) for labels, value in parse(answer, names)]
        else:
            missing.append(f"{instance}: {str(answer).strip() or 'no answer'}")
            unknown.add(instance)
    return Snapshot(tuple(series), tuple(missing), frozenset(unknown), listed)


def parse(text: str, names: Collection[str]) -> Iterator[tuple[dict[str, str], float]]:
    """The samples of metrics of these names in Prometheus's text format; none if it is not that."""
    from prometheus_client.parser import text_string_to_metric_families

    wanted = tuple(names)
    # Most of what a component tells is not asked for, and parsing it would take seconds.
    lines = [line for line in text.splitlines() if line.startswith((*wanted, *_prefixed(wanted)))]
    try:
        for family in text_string_to_metric_families("\n".join(lines) + "\n"):
            for sample in family.samples:
                if sample.name.removeprefix("kubevirt_") in wanted:
                    yield {"__name__": sample.name, **sample.labels}, float(sample.value)
    except ValueError:
        return


def _prefixed(names: Collection[str]) -> list[str]:
    return [f"kubevirt_{each}" for each in names]


async def _ask(client: Client, path: str) -> str | Exception:
    try:
        async with asyncio.timeout(PATIENCE):
            return await client.text(path)
    except (ApiError, LostConnectionError, TimeoutError) as problem:
        return problem


def _of(pod: Object) -> tuple[str, str]:
    labels = pod["metadata"].get("labels") or {}
    return labels.get("kubevirt.io", ""), pod["metadata"]["name"]


def _path(namespace: str, pod: Object) -> str:
    return PODS.path(namespace, f"https:{pod['metadata']['name']}:{_PORT}", "proxy/metrics")
