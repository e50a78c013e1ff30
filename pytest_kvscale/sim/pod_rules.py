"""Which pods of clients the API refuses, new ones and changed ones.

Where a pod has what it must have at least (`pods`), these rules look at the rest of what a client
is likely to write: names that stand twice, volumes that are not there, words that mean nothing.
"""

from __future__ import annotations

from collections.abc import Iterator

from pytest_kvscale.sim import errors, quantity
from pytest_kvscale.sim.errors import Object
from pytest_kvscale.sim.object_meta import (
    label_value_problems,
    name_problems,
    qualified_name_problems,
)

PROTOCOLS = ("SCTP", "TCP", "UDP")
_PULL_POLICIES = ("Always", "IfNotPresent", "Never")
_DNS_POLICIES = ("ClusterFirst", "ClusterFirstWithHostNet", "Default", "None")
_OPERATORS = ("Equal", "Exists")
_EFFECTS = ("NoExecute", "NoSchedule", "PreferNoSchedule")


def part(obj: Object, key: str) -> Object:
    """The object under a key; empty if there is none."""
    found = obj.get(key)
    return found if isinstance(found, dict) else {}


def _entries(obj: Object, key: str) -> list[Object]:
    """The objects of a list under a key."""
    return [each for each in obj.get(key) or [] if isinstance(each, dict)]


def problems_of_new(pod: Object) -> Iterator[Object]:
    """Causes for which a new pod is refused."""
    spec = part(pod, "spec")
    volumes: set[str] = set()
    for index, volume in enumerate(_entries(spec, "volumes")):
        yield from _name_problems(f"spec.volumes[{index}].name", volume.get("name"), volumes)
    names: set[str] = set()
    for group in ("initContainers", "containers"):
        for index, container in enumerate(_entries(spec, group)):
            yield from _container_problems(f"spec.{group}[{index}]", container, volumes, names)
    policy = spec.get("dnsPolicy")
    if policy not in _DNS_POLICIES:
        yield errors.unsupported("spec.dnsPolicy", policy, _DNS_POLICIES)
    for key, value in part(spec, "nodeSelector").items():
        yield from _label_problems("spec.nodeSelector", key, value)
    for index, toleration in enumerate(_entries(spec, "tolerations")):
        yield from _toleration_problems(f"spec.tolerations[{index}]", toleration)


def _name_problems(field: str, name: str | None, taken: set[str]) -> Iterator[Object]:
    if not name:
        yield errors.required(field)
        return
    for why in name_problems("label", name):
        yield errors.invalid_value(field, name, why)
    if name in taken:
        yield errors.duplicate(field, name)
    taken.add(name)


def _label_problems(field: str, key: str, value: str | None) -> Iterator[Object]:
    for why in qualified_name_problems(key):
        yield errors.invalid_value(field, key, why)
    for why in label_value_problems(value or ""):
        yield errors.invalid_value(field, value, why)


def _container_problems(
    field: str, container: Object, volumes: set[str], names: set[str]
) -> Iterator[Object]:
    yield from _name_problems(f"{field}.name", container.get("name"), names)
    policy = container.get("imagePullPolicy")
    if policy not in _PULL_POLICIES:
        yield errors.unsupported(f"{field}.imagePullPolicy", policy, _PULL_POLICIES)
    for index, port in enumerate(_entries(container, "ports")):
        yield from _port_problems(f"{field}.ports[{index}]", port)
    for index, variable in enumerate(_entries(container, "env")):
        if not variable.get("name"):
            yield errors.required(f"{field}.env[{index}].name")
    paths: set[str] = set()
    for index, mount in enumerate(_entries(container, "volumeMounts")):
        name, path = mount.get("name"), mount.get("mountPath")
        if not name:
            yield errors.required(f"{field}.volumeMounts[{index}].name")
        elif name not in volumes:
            yield errors.not_there(f"{field}.volumeMounts[{index}].name", name)
        if not path:
            yield errors.required(f"{field}.volumeMounts[{index}].mountPath")
        elif path in paths:
            yield errors.invalid_value(
                f"{field}.volumeMounts[{index}].mountPath", path, "must be unique"
            )
        paths.add(path or "")
    yield from _limit_problems(f"{field}.resources.requests", part(container, "resources"))


def _port_problems(field: str, port: Object) -> Iterator[Object]:
    number, protocol = port.get("containerPort"), port.get("protocol", "TCP")
    if not number:
        yield errors.required(f"{field}.containerPort")
    elif not 1 <= number <= 65535:
        why = "must be between 1 and 65535, inclusive"
        yield errors.invalid_value(f"{field}.containerPort", number, why)
    if protocol not in PROTOCOLS:
        yield errors.unsupported(f"{field}.protocol", protocol, PROTOCOLS)


def _limit_problems(field: str, resources: Object) -> Iterator[Object]:
    limits = part(resources, "limits")
    for key, value in part(resources, "requests").items():
        if key in limits and quantity.parse(value) > quantity.parse(limits[key]):
            why = f"must be less than or equal to {key} limit of {limits[key]}"
            yield errors.invalid_value(field, value, why)


def _toleration_problems(field: str, toleration: Object) -> Iterator[Object]:
    key, operator = toleration.get("key"), toleration.get("operator") or "Equal"
    effect = toleration.get("effect")
    for why in qualified_name_problems(key) if key else ():
        yield errors.invalid_value(f"{field}.key", key, why)
    if not key and operator != "Exists":
        why = "operator must be Exists when `key` is empty"
        yield errors.invalid_value(f"{field}.operator", operator, why)
    if operator == "Exists" and toleration.get("value"):
        why = "value must be empty when `operator` is 'Exists'"
        yield errors.invalid_value(f"{field}.operator", toleration, why)
    elif operator not in _OPERATORS:
        yield errors.unsupported(f"{field}.operator", operator, _OPERATORS)
    if effect and effect not in _EFFECTS:
        yield errors.unsupported(f"{field}.effect", effect, _EFFECTS)
    if toleration.get("tolerationSeconds") is not None and effect != "NoExecute":
        why = "effect must be 'NoExecute' when `tolerationSeconds` is set"
        yield errors.invalid_value(f"{field}.effect", effect, why)


# Changes ----------------------------------------------------------------------------------------

_POD_MAY_CHANGE = ("activeDeadlineSeconds", "tolerations", "terminationGracePeriodSeconds")


def problems_of_change(pod: Object, old: Object | None) -> Iterator[Object]:
    """Causes for which a change of a pod is refused: little of its spec may change."""
    if old is None or pod.get("spec") is old.get("spec"):
        return
    if _fixed_spec(part(pod, "spec")) != _fixed_spec(part(old, "spec")):
        why = (
            "pod updates may not change fields other than `spec.containers[*].image`,"
            "`spec.initContainers[*].image`,`spec.activeDeadlineSeconds`,`spec.tolerations` (only "
            "additions to existing tolerations),`spec.terminationGracePeriodSeconds` (allow it to "
            "be set to 1 if it was previously negative)"
        )
        yield errors.not_allowed("spec", why)
    kept = part(pod, "spec").get("tolerations") or []
    if any(each not in kept for each in part(old, "spec").get("tolerations") or []):
        why = "existing toleration can not be modified except its tolerationSeconds"
        yield errors.not_allowed("spec.tolerations", why)


def _fixed_spec(spec: Object) -> Object:
    fixed = {key: value for key, value in spec.items() if key not in _POD_MAY_CHANGE}
    for group in ("containers", "initContainers"):
        if isinstance(fixed.get(group), list):
            fixed[group] = [
                {**each, "image": ""} if isinstance(each, dict) else each for each in fixed[group]
            ]
    return fixed
