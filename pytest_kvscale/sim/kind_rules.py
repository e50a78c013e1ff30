"""What the API fills in for objects of built-in kinds, and which of them it refuses.

These are the rules that a client can run into with the kinds it, or a player here, works with;
`pods` has those of new pods. Rules that hold for the metadata of all kinds are in `object_meta`.
"""

from __future__ import annotations

import base64
import re
import zlib
from collections.abc import Callable, Iterator
from typing import Any, TypeGuard

from pytest_kvscale.sim import errors, pod_rules
from pytest_kvscale.sim.errors import Object
from pytest_kvscale.sim.object_meta import name_problems, qualified_name_problems
from pytest_kvscale.sim.pod_rules import PROTOCOLS, part
from pytest_kvscale.sim.resources import (
    API_SERVICES,
    CLAIMS,
    CONFIG_MAPS,
    CUSTOM_RESOURCE_DEFINITIONS,
    DEPLOYMENTS,
    EVENTS,
    LEASES,
    NODES,
    PODS,
    PRIORITY_CLASSES,
    REPLICA_SETS,
    SECRETS,
    SERVICES,
    STATEFUL_SETS,
    Resource,
)

Fill = Callable[[Object], Object]
Check = Callable[[Object, Object | None], Iterator[Object]]
_KEY = re.compile(r"[-._a-zA-Z0-9]+")
_LARGEST = 1024 * 1024
"""Bytes of data in a ConfigMap or Secret."""
_IMMUTABLE = "field is immutable"


def fill(resource: Resource, obj: Object) -> Object:
    """The object with what the API adds to it."""
    act = _FILL.get(resource)
    return act(obj) if act is not None else obj


def fill_of_client(resource: Resource, obj: Object) -> Object:
    """A client's new object with what admission adds: nobody has seen a new node ready yet."""
    if resource is not NODES:
        return obj
    spec = part(obj, "spec")
    taints = spec.get("taints") or []
    if any(isinstance(each, dict) and each.get("key") == _NOT_READY["key"] for each in taints):
        return obj
    return {**obj, "spec": {**spec, "taints": [*taints, _NOT_READY]}}


def problems(resource: Resource, obj: Object, old: Object | None) -> Iterator[Object]:
    """Causes for a new object, or a change of `old`, that may not be."""
    check = _CHECK.get(resource)
    return check(obj, old) if check is not None else iter(())


# Events -----------------------------------------------------------------------------------------


def _fill_event(event: Object) -> Object:
    filled: Object = {
        "source": {}, "firstTimestamp": None, "lastTimestamp": None, "eventTime": None,
        "reportingComponent": "", "reportingInstance": "",
    }  # fmt: skip
    missing = {key: value for key, value in filled.items() if key not in event}
    return {**event, **missing} if missing else event


def _event_problems(event: Object, old: Object | None) -> Iterator[Object]:
    namespace = event["metadata"].get("namespace", "")
    about = part(event, "involvedObject").get("namespace") or ""
    if not event.get("eventTime"):
        if about != namespace and not (about == "" and namespace == "default"):
            why = "does not match event.namespace"
            yield errors.invalid_value("involvedObject.namespace", about, why)
        return
    if not about and namespace not in ("default", "kube-system"):
        why = "does not match event.namespace"
        yield errors.invalid_value("involvedObject.namespace", about, why)
    controller = event.get("reportingComponent") or ""
    if not controller:
        yield errors.required("reportingComponent")
    for why in qualified_name_problems(controller) if controller else ():
        yield errors.invalid_value("reportingComponent", controller, why)
    for key in ("reportingInstance", "action", "reason"):
        if not event.get(key):
            yield errors.required(key)
        elif len(str(event[key])) > 128:
            yield errors.too_long(key, 128)
    if len(str(event.get("message") or "")) > 1024:
        yield errors.too_long("message", 1024)
    if old is not None and old.get("eventTime"):
        for key in ("involvedObject", "reason", "message", "type", "action"):
            if event.get(key) != old.get(key):
                yield errors.invalid_value(key, event.get(key), _IMMUTABLE)


# Nodes ------------------------------------------------------------------------------------------

_NOT_READY = {"key": "node.kubernetes.io/not-ready", "effect": "NoSchedule"}
_TAINTS = ("NoSchedule", "PreferNoSchedule", "NoExecute")


def _node_problems(node: Object, old: Object | None) -> Iterator[Object]:
    spec = part(node, "spec")
    if old is not None and spec is old.get("spec"):
        return
    seen = set()
    for index, taint in enumerate(spec.get("taints") or []):
        if not isinstance(taint, dict):
            continue
        field, key, effect = f"spec.taints[{index}]", taint.get("key") or "", taint.get("effect")
        for why in qualified_name_problems(key):
            yield errors.invalid_value(f"{field}.key", key, why)
        if not effect:
            yield errors.required(f"{field}.effect")
        elif effect not in _TAINTS:
            yield errors.unsupported(f"{field}.effect", effect, _TAINTS)
        if (key, effect) in seen:
            yield errors.duplicate(field, taint)
        seen.add((key, effect))
    for key, shown in (("podCIDRs", "podCIDR"), ("providerID", "providerID")):
        had = part(old or {}, "spec").get(key)
        if had and spec.get(key) != had:
            why = f'node updates may not change {shown} except from "" to valid'
            yield errors.not_allowed(f"spec.{key}", why)


# Leases -----------------------------------------------------------------------------------------


def _lease_problems(lease: Object, _: Object | None) -> Iterator[Object]:
    spec = part(lease, "spec")
    seconds, changes = spec.get("leaseDurationSeconds"), spec.get("leaseTransitions")
    if _is_number(seconds) and seconds <= 0:
        field = "spec.leaseDurationSeconds"
        yield errors.invalid_value(field, seconds, "must be greater than 0")
    if _is_number(changes) and changes < 0:
        field = "spec.leaseTransitions"
        yield errors.invalid_value(field, changes, "must be greater than or equal to 0")


# ConfigMaps and Secrets -------------------------------------------------------------------------


def _config_map_problems(config_map: Object, old: Object | None) -> Iterator[Object]:
    data, binary = part(config_map, "data"), part(config_map, "binaryData")
    yield from _key_problems("data", data)
    yield from _key_problems("binaryData", binary)
    for key in data.keys() & binary.keys():
        yield errors.invalid_value(f"data[{key}]", key, "duplicate of key present in binaryData")
    size = sum(len(str(each)) for each in (*data.values(), *binary.values()))
    if size > _LARGEST:
        yield errors.too_long("", _LARGEST)
    yield from _frozen(config_map, old, ("data", "binaryData"))


def _key_problems(field: str, data: Object) -> Iterator[Object]:
    for key in data:
        if not _KEY.fullmatch(key) or len(key) > 253 or key in (".", ".."):
            why = "a valid config key must consist of alphanumeric characters, '-', '_' or '.'"
            yield errors.invalid_value(f"{field}[{key}]", key, why)


def _frozen(obj: Object, old: Object | None, keys: tuple[str, ...]) -> Iterator[Object]:
    """What may not change once an object is immutable."""
    if old is None or not old.get("immutable"):
        return
    if not obj.get("immutable"):
        yield errors.not_allowed("immutable", f"{_IMMUTABLE} when `immutable` is set")
    for key in keys:
        if (obj.get(key) or {}) != (old.get(key) or {}):
            yield errors.not_allowed(key, f"{_IMMUTABLE} when `immutable` is set")


def _fill_secret(secret: Object) -> Object:
    filled = {"type": "Opaque", **{key: value for key, value in secret.items() if value != ""}}
    texts = part(secret, "stringData")
    if texts:
        coded = {
            key: base64.b64encode(str(value).encode()).decode() for key, value in texts.items()
        }
        filled["data"] = {**part(secret, "data"), **coded}
        del filled["stringData"]
    return filled


_ACCOUNT = "kubernetes.io/service-account.name"
_NEEDED = {
    "kubernetes.io/tls": ("tls.crt", "tls.key"),
    "kubernetes.io/dockerconfigjson": (".dockerconfigjson",),
    "kubernetes.io/dockercfg": (".dockercfg",),
    "kubernetes.io/ssh-auth": ("ssh-privatekey",),
}


def _secret_problems(secret: Object, old: Object | None) -> Iterator[Object]:
    data = part(secret, "data")
    yield from _key_problems("data", data)
    if sum(len(str(each)) for each in data.values()) * 3 // 4 > _LARGEST:
        yield errors.too_long("data", _LARGEST)
    kind = str(secret.get("type"))
    for key in _NEEDED.get(kind, ()):
        if key not in data:
            yield errors.required(f"data[{key}]")
    account = part(secret["metadata"], "annotations").get(_ACCOUNT)
    if kind == "kubernetes.io/service-account-token" and not account:
        yield errors.required(f"metadata.annotations[{_ACCOUNT}]")
    if kind == "kubernetes.io/basic-auth" and not {"username", "password"} & data.keys():
        for key in ("username", "password"):
            yield errors.required(f"data[{key}]")
    if old is not None and secret.get("type") != old.get("type"):
        yield errors.invalid_value("type", secret.get("type"), _IMMUTABLE)
    yield from _frozen(secret, old, ("data",))


# Services, claims, classes, workloads -----------------------------------------------------------


def _fill_service(service: Object) -> Object:
    metadata, spec = service["metadata"], part(service, "spec")
    filled: Object = {
        "type": "ClusterIP", "sessionAffinity": "None", "internalTrafficPolicy": "Cluster", **spec,
    }  # fmt: skip
    if filled["type"] != "ExternalName":
        key = f"{metadata.get('namespace')}/{metadata['name']}"
        filled.setdefault("clusterIP", _address(key))
        filled.setdefault("clusterIPs", [filled["clusterIP"]])
        filled.setdefault("ipFamilies", ["IPv4"])
        filled.setdefault("ipFamilyPolicy", "SingleStack")
    if isinstance(spec.get("ports"), list):
        filled["ports"] = [
            {"protocol": "TCP", "targetPort": each.get("port"), **each}
            if isinstance(each, dict)
            else each
            for each in spec["ports"]
        ]
    return {**service, "spec": filled, "status": {"loadBalancer": {}}}


def _address(key: str) -> str:
    """The address of a service: one of the usual network for them, by its name."""
    number = zlib.crc32(key.encode())
    return f"10.{96 + number % 16}.{number // 16 % 256}.{1 + number // 4096 % 254}"


def _service_problems(service: Object, old: Object | None) -> Iterator[Object]:
    spec = part(service, "spec")
    ports = spec.get("ports") or []
    if not ports and spec.get("clusterIP") != "None" and spec.get("type") != "ExternalName":
        yield errors.required("spec.ports")
    for index, port in enumerate(ports):
        number = port.get("port") if isinstance(port, dict) else None
        if not _is_number(number) or not 1 <= number <= 65535:
            why = "must be between 1 and 65535, inclusive"
            yield errors.invalid_value(f"spec.ports[{index}].port", number or 0, why)
        if len(ports) > 1 and not (isinstance(port, dict) and port.get("name")):
            yield errors.required(f"spec.ports[{index}].name")
    yield from _port_problems([each for each in ports if isinstance(each, dict)])
    known = ("ClusterIP", "ExternalName", "LoadBalancer", "NodePort")
    if spec.get("type") not in known:
        yield errors.unsupported("spec.type", spec.get("type"), known)
    address = part(old or {}, "spec").get("clusterIP")
    if address and spec.get("clusterIP") != address and spec.get("type") != "ExternalName":
        why = "may not change once set"
        yield errors.invalid_value("spec.clusterIPs[0]", [spec.get("clusterIP")], why)


def _port_problems(ports: list[Object]) -> Iterator[Object]:
    names: set[str] = set()
    doors: set[tuple[Any, Any]] = set()
    for index, port in enumerate(ports):
        name, protocol = port.get("name"), port.get("protocol", "TCP")
        if name and name in names:
            yield errors.duplicate(f"spec.ports[{index}].name", name)
        for why in name_problems("label", name) if name else ():
            yield errors.invalid_value(f"spec.ports[{index}].name", name, why)
        if protocol not in PROTOCOLS:
            yield errors.unsupported(f"spec.ports[{index}].protocol", protocol, PROTOCOLS)
        if (port.get("port"), protocol) in doors:
            yield errors.duplicate(f"spec.ports[{index}]", port)
        names.add(name or "")
        doors.add((port.get("port"), protocol))


def _fill_claim(claim: Object) -> Object:
    spec = {"volumeMode": "Filesystem", **part(claim, "spec")}
    return {**claim, "spec": spec, "status": {"phase": "Pending"}}


def _claim_problems(claim: Object, old: Object | None) -> Iterator[Object]:
    spec = part(claim, "spec")
    if not spec.get("accessModes"):
        yield errors.required("spec.accessModes", "at least 1 access mode is required")
    if "storage" not in part(part(spec, "resources"), "requests"):
        yield errors.required("spec.resources[storage]")
    if old is not None:
        was = part(old, "spec")
        if {**spec, "resources": 0} != {**was, "resources": 0}:
            why = "spec is immutable after creation except resources.requests"
            yield errors.not_allowed("spec", why)


def _fill_priority_class(priority_class: Object) -> Object:
    return {"preemptionPolicy": "PreemptLowerPriority", "value": 0, **priority_class}


def _priority_class_problems(priority_class: Object, old: Object | None) -> Iterator[Object]:
    name = priority_class["metadata"]["name"]
    if old is None and name.startswith("system-"):
        why = "priority class names with 'system-' prefix are reserved for system use only"
        yield errors.invalid_value("metadata.name", name, why)
    if old is not None:
        for key in ("value", "preemptionPolicy"):
            if priority_class.get(key) != old.get(key):
                why = "may not be changed in an update."
                yield errors.not_allowed(key, why)


def _definition_problems(_: Object, old: Object | None) -> Iterator[Object]:
    if old is None:
        yield errors.not_allowed("spec", "the embedded cluster serves no further kinds")


def _fill_replicas(workload: Object) -> Object:
    return {**workload, "spec": {"replicas": 1, **part(workload, "spec")}}


def _replicas_problems(workload: Object, old: Object | None) -> Iterator[Object]:
    replicas = part(workload, "spec").get("replicas")
    if _is_number(replicas) and replicas < 0:
        why = "must be greater than or equal to 0"
        yield errors.invalid_value("spec.replicas", replicas, why)
    if old is not None:
        selector = part(workload, "spec").get("selector")
        if selector != part(old, "spec").get("selector"):
            yield errors.invalid_value("spec.selector", selector, _IMMUTABLE)


def _is_number(value: Any) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool)


_FILL: dict[Resource, Fill] = {
    EVENTS: _fill_event,
    SECRETS: _fill_secret,
    SERVICES: _fill_service,
    CLAIMS: _fill_claim,
    PRIORITY_CLASSES: _fill_priority_class,
    DEPLOYMENTS: _fill_replicas,
    REPLICA_SETS: _fill_replicas,
    STATEFUL_SETS: _fill_replicas,
}
_CHECK: dict[Resource, Check] = {
    EVENTS: _event_problems,
    NODES: _node_problems,
    LEASES: _lease_problems,
    CONFIG_MAPS: _config_map_problems,
    SECRETS: _secret_problems,
    PODS: pod_rules.problems_of_change,
    SERVICES: _service_problems,
    CLAIMS: _claim_problems,
    PRIORITY_CLASSES: _priority_class_problems,
    CUSTOM_RESOURCE_DEFINITIONS: _definition_problems,
    API_SERVICES: _definition_problems,
    DEPLOYMENTS: _replicas_problems,
    REPLICA_SETS: _replicas_problems,
    STATEFUL_SETS: _replicas_problems,
}
