"""Before a level: what of node, namespace and KubeVirt decides how many VMIs fit, and how fast.

Everything is only read. What may not be read, or is not there, is named as unknown.
"""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Awaitable, Mapping, Sequence
from decimal import Decimal
from typing import Any

from pytest_kvscale.cluster import kubevirt as kubevirts
from pytest_kvscale.cluster.capacity import Forecast, Room, Wall, in_order, node_walls
from pytest_kvscale.cluster.client import (
    NODES,
    PODS,
    ApiError,
    Client,
    Object,
    Resource,
)
from pytest_kvscale.cluster.nodes import DEVICE, amount, node_facts
from pytest_kvscale.cluster.pod_needs import Amounts, Need, launcher, requests_of
from pytest_kvscale.cluster.quotas import limit_walls, quota_walls, unknown_quotas
from pytest_kvscale.cluster.slowing import notes
from pytest_kvscale.cluster.templates import Planned, Templates
from pytest_kvscale.cluster.tuning import ABSENT, as_patch, changes, look_up

QUOTAS = Resource("v1", "resourcequotas")
LIMIT_RANGES = Resource("v1", "limitranges")
_PER_NODE = ("configuration", "virtualMachineInstancesPerNode")
_NO_DRY_RUN = "does not support dry run"
"""What the API says where a webhook has side effects, and is not asked."""
_ENDED = ("Succeeded", "Failed")
_ADDED_BY_WEBHOOKS = "what admission webhooks refuse (there is no namespace to try it in yet)"


@dataclasses.dataclass(frozen=True)
class Plan:
    """What is known before a level, as far as it may be read."""

    forecast: Forecast
    notes: tuple[str, ...]
    """What will slow it down, and what else is worth knowing."""

    def as_json(self) -> dict[str, Any]:
        """For the results."""
        return {
            "sentence": self.forecast.text(),
            "fits": self.forecast.fits,
            "walls": [dataclasses.asdict(each) for each in self.forecast.walls],
            "unknown": list(self.forecast.unknown),
            "notes": list(self.notes),
        }


@dataclasses.dataclass(frozen=True)
class Target:
    """Where the level is to run, and with what."""

    node: str
    namespace: str
    there: bool
    """The namespace is there already."""
    templates: Templates
    tuning: Object
    """Settings that will be made before the level."""


class Preflight:
    """Looks at a cluster before a level; the canary's pods correct what it takes a VMI to need."""

    def __init__(self, client: Client, target: Target) -> None:
        # Looking ahead is no part of what a level costs.
        self._client = client.apart("preflight")
        self._target = target
        self._measured: dict[int, Need] = {}
        """By template: what the canary's pods asked for."""

    def learn(self, pods: Mapping[str, Object]) -> None:
        """Take what the pods of a canary asked for; `pods` by the name of their object."""
        for name, pod in pods.items():
            for index in range(len(self._target.templates.all)):
                if name.startswith(f"canary-1-{index:04d}"):
                    self._measured[index] = Need(pod["spec"], certain=True)

    def forget(self) -> None:
        """What was learnt holds no more: launchers are made by another version of KubeVirt."""
        self._measured.clear()

    async def plan(self, level: int, sample: Sequence[Planned]) -> Plan:
        """Look, and count. `sample` is one object of each template.

        Raises `ApiError`, `LostConnectionError`, TimeoutError for what a run cannot do without.
        """
        client, target = self._client, self._target
        unknown: list[str] = []
        custom, node, pods, configz = await asyncio.gather(
            kubevirts.find_kubevirt(client),
            client.get(NODES, "", target.node),
            self._ask(self._pods(), "what else runs on the node", unknown),
            self._ask(
                client.about(f"{NODES.path('', target.node)}/proxy/configz"),
                "the kubelet's settings (nodes/proxy)", unknown,
            ),
        )  # fmt: skip
        quotas, ranges = await self._of_namespace(unknown)
        spec = _tuned(custom["spec"], target.tuning)
        needs = self._needs(spec, kubevirts.version(custom))
        walls = [
            *node_walls(room(node, pods, spec, target.tuning), needs),
            *quota_walls(quotas, needs),
            *limit_walls(ranges, needs),
            *await self._refused(sample, unknown),
        ]
        if node_facts(node)["pod_ips"] is None:
            unknown.append("pod addresses (the node names no podCIDR)")
        unknown += unknown_quotas(quotas)
        forecast = Forecast(level, tuple(in_order(walls)), tuple(unknown))
        images = [
            str(image) for each in target.templates.all for image in _images(each.machine)
        ]  # fmt: skip
        more = notes(level, custom, spec, node, pods, configz, images)
        return Plan(forecast, tuple(more))

    # What is asked --------------------------------------------------------------------------

    async def _pods(self) -> list[Object]:
        answer = await self._client.list(PODS, fields=f"spec.nodeName={self._target.node}")
        found: list[Object] = answer.get("items") or []
        return [each for each in found if (each.get("status") or {}).get("phase") not in _ENDED]

    async def _of_namespace(self, unknown: list[str]) -> tuple[list[Object], list[Object]]:
        target, client = self._target, self._client
        if not target.there:
            return [], []
        quotas = await self._ask(client.list(QUOTAS, target.namespace), "quotas", unknown)
        ranges = await self._ask(
            client.list(LIMIT_RANGES, target.namespace), "limit ranges", unknown
        )
        return (quotas or {}).get("items") or [], (ranges or {}).get("items") or []

    async def _refused(self, sample: Sequence[Planned], unknown: list[str]) -> list[Wall]:
        """A wall for the first object that the API would refuse: a dry run asks its webhooks."""
        if not self._target.there:
            unknown.append(_ADDED_BY_WEBHOOKS)
            return []
        for each in sample:
            path = each.kind.resource.path(self._target.namespace)
            try:
                await self._client.request(
                    "create", "POST", path, {"dryRun": "All"}, body=each.obj
                )  # fmt: skip
            except ApiError as problem:
                if problem.code == 403 and "cannot create" in problem.status_message:
                    raise
                if problem.passing or problem.code == 409:
                    continue
                if _NO_DRY_RUN in problem.status_message:
                    unknown.append("what admission webhooks refuse (one takes no dry run)")
                    return []
                said = f"HTTP {problem.code}: {problem.status_message[:300]}"
                return [Wall("admission", 0, f"a dry run of {each.name}", said)]
        return []

    @staticmethod
    async def _ask(work: Awaitable[Any], what: str, unknown: list[str]) -> Any:
        try:
            return await work
        except ApiError as problem:
            if problem.code not in (403, 404, 405, 501, 502, 503):
                raise
            unknown.append(what)
            return None

    def _needs(self, spec: Object, version: str) -> list[Need]:
        """One of each VMI in the order they are made, over one round of the templates."""
        found = []
        for index, template in enumerate(self._target.templates.all):
            need = self._measured.get(index)
            if need is None and template.kind.is_pod:
                need = Need(template.machine, certain=True)
            if need is None:
                need = launcher(template.machine, spec.get("configuration") or {}, version)
            found += [need] * template.kind.vmis(template.sample)
        return found


def _tuned(spec: Object, tuning: Object) -> Object:
    """The CR's spec as a tuning will make it."""
    merged: Object = _merge(spec, as_patch(changes(spec, tuning)))
    return merged


def _merge(below: Any, above: Any) -> Any:
    if not isinstance(below, dict) or not isinstance(above, dict):
        return above
    return {**below, **{key: _merge(below.get(key), value) for key, value in above.items()}}


def room(node: Object, pods: Sequence[Object] | None, spec: Object, tuning: Object) -> Room:
    """What a node has, with as many devices as a tuning will give it."""
    allocatable = {
        key: value
        for key, text in (node["status"].get("allocatable") or {}).items()
        if (value := amount(text)) is not None
    }
    devices = look_up(tuning, _PER_NODE)
    if devices is not ABSENT:
        prefix = DEVICE.rpartition("/")[0]
        per_node = amount(look_up(spec, _PER_NODE))
        for key in [each for each in allocatable if each.startswith(prefix)]:
            allocatable[key] = per_node if per_node is not None else allocatable[key]
    return Room(allocatable, None if pods is None else taken(pods), node_facts(node)["pod_ips"])


def taken(pods: Sequence[Object]) -> Amounts:
    """What pods on a node have asked for; `pods` and `addresses` are their numbers."""
    total: Amounts = {"pods": Decimal(len(pods)), "addresses": Decimal(0)}
    for pod in pods:
        if not pod["spec"].get("hostNetwork"):
            total["addresses"] += 1
        for key, value in requests_of(pod["spec"]).items():
            total[key] = total.get(key, Decimal(0)) + value
    return total


def _images(machine: Object) -> list[str]:
    disks = [
        (each.get("containerDisk") or {}).get("image") for each in machine.get("volumes") or []
    ]
    containers = [each.get("image") for each in machine.get("containers") or []]
    return [str(each) for each in [*disks, *containers] if each]
