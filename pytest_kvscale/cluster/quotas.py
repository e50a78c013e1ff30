"""The walls of a namespace: its quotas and limit ranges. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from decimal import Decimal
from typing import Any

from pytest_kvscale.cluster.capacity import Wall, fitting, show
from pytest_kvscale.cluster.nodes import amount
from pytest_kvscale.cluster.pod_needs import Need

Object = dict[str, Any]
_ZERO = Decimal(0)
_ONE_EACH = ("pods", "count/pods", "count/virtualmachineinstances.kubevirt.io")
_PLAIN = ("cpu", "memory", "ephemeral-storage")


def quota_walls(quotas: Iterable[Object], needs: Sequence[Need]) -> list[Wall]:
    """What ResourceQuotas let in. Those with scopes are `unknown_quotas`."""
    found = []
    for quota in quotas:
        if _is_scoped(quota):
            continue
        name, status = quota["metadata"]["name"], quota.get("status") or {}
        hard = status.get("hard") or (quota.get("spec") or {}).get("hard") or {}
        used = status.get("used") or {}
        for key, limit in hard.items():
            each = [_takes(key, need) for need in needs]
            there, taken = amount(limit) or _ZERO, amount(used.get(key)) or _ZERO
            setting = f"ResourceQuota {name}"
            if any(need is None for need in each):
                why = f"every container must have one: {key} is limited"
                found.append(Wall(key, 0, setting, why, _certain(needs)))
                continue
            plain = [need or _ZERO for need in each]
            fits = fitting(there - taken, plain)
            if fits is not None:
                why = f"{show(key, there)}, {show(key, taken)} taken"
                certain = key in _ONE_EACH or "kubevirt.io/" in key or _certain(needs)
                found.append(Wall(key, fits, setting, why, certain))
    return found


def unknown_quotas(quotas: Iterable[Object]) -> list[str]:
    """Quotas for some pods only, which we do not read."""
    return [f"quota {each['metadata']['name']} (it has scopes)" for each in quotas
            if _is_scoped(each)]  # fmt: skip


def _is_scoped(quota: Object) -> bool:
    spec = quota.get("spec") or {}
    return bool(spec.get("scopes") or spec.get("scopeSelector"))


def _takes(key: str, need: Need) -> Decimal | None:
    """What a VMI takes of a quota; None: a container has no limit, though it must."""
    if key in _ONE_EACH:
        return Decimal(1)
    kind, _, resource = key.partition(".")
    if kind == "limits" and resource:
        limits = [((each.get("resources") or {}).get("limits") or {}).get(resource)
                  for each in need.containers]  # fmt: skip
        known = [amount(each) for each in limits]
        return None if any(each is None for each in known) else sum((each or _ZERO for each in
                                                                     known), _ZERO)  # fmt: skip
    wanted = key if key in _PLAIN else resource if kind == "requests" else ""
    return need.requests.get(wanted, _ZERO)


def limit_walls(ranges: Iterable[Object], needs: Sequence[Need]) -> list[Wall]:
    """LimitRanges that let none of these pods in."""
    found = []
    for each in ranges:
        name = each["metadata"]["name"]
        for limit in (each.get("spec") or {}).get("limits") or []:
            found += [
                Wall(f"limit range {name}", 0, f"LimitRange {name}", why, _certain(needs))
                for why in _refusals(limit, needs)
            ]
    return found[:1]


def _refusals(limit: Object, needs: Sequence[Need]) -> Iterator[str]:
    for need in needs:
        if limit.get("type") == "Container":
            for container in need.containers:
                given = _asked(container.get("resources") or {})
                yield from _outside(limit, given, f"container {container.get('name')}")
        elif limit.get("type") == "Pod":
            yield from _outside(limit, need.requests, "the pod")


def _asked(resources: Object) -> dict[str, Decimal]:
    given = {**(resources.get("limits") or {}), **(resources.get("requests") or {})}
    return {key: amount(value) or _ZERO for key, value in given.items()}


def _outside(limit: Object, given: dict[str, Decimal], what: str) -> Iterator[str]:
    for key, least in (limit.get("min") or {}).items():
        if key in given and given[key] < (amount(least) or _ZERO):
            yield f"{what} asks for {show(key, given[key])} of {key}, at least {least} is allowed"
    for key, most in (limit.get("max") or {}).items():
        if key in given and given[key] > (amount(most) or _ZERO):
            yield f"{what} asks for {show(key, given[key])} of {key}, at most {most} is allowed"


def _certain(needs: Sequence[Need]) -> bool:
    return all(each.certain for each in needs)
