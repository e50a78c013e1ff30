"""Objects by which a cluster says what it can do: definitions of custom kinds, API services."""

from __future__ import annotations

from pytest_kvscale.sim import resources, table
from pytest_kvscale.sim.api import Api
from pytest_kvscale.sim.errors import Object
from pytest_kvscale.sim.resources import (
    API_SERVICES,
    CUSTOM_RESOURCE_DEFINITIONS,
    PRIORITY_CLASSES,
    Resource,
)

_PRIORITIES = {"system-cluster-critical": 2_000_000_000, "system-node-critical": 2_000_001_000}


def install(api: Api) -> None:
    """Write them into a new cluster's store."""
    for each in resources.SERVED:
        if each.custom:
            definition = _definition(each, api.calendar.stamp())
            _put(api, CUSTOM_RESOURCE_DEFINITIONS, each.full_name, definition)
    for group, versions in {"": ["v1"], **resources.groups()}.items():
        for version in versions:
            service = _api_service(group, version, api.calendar.stamp())
            _put(api, API_SERVICES, f"{version}.{group}", service)
    for name, value in _PRIORITIES.items():
        about = {"value": value, "preemptionPolicy": "PreemptLowerPriority"}
        _put(api, PRIORITY_CLASSES, name, about)


def _put(api: Api, resource: Resource, name: str, content: Object) -> None:
    """Store an object as it is, past the rules for those that clients make."""
    api.store.put(resource, api.prepared(resource, name, content))


def _definition(resource: Resource, stamp: str) -> Object:
    names = {
        "plural": resource.plural,
        "singular": resource.singular,
        **({"shortNames": list(resource.short_names)} if resource.short_names else {}),
        "kind": resource.kind,
        "listKind": f"{resource.kind}List",
        **({"categories": list(resource.categories)} if resource.categories else {}),
    }
    conditions = [
        {
            "type": kind, "status": "True", "lastTransitionTime": stamp, "reason": reason,
            "message": message,
        }
        for kind, reason, message in (
            ("NamesAccepted", "NoConflicts", "no conflicts found"),
            ("Established", "InitialNamesAccepted", "the initial names have been accepted"),
        )
    ]  # fmt: skip
    return {
        "spec": {
            "group": resource.group,
            "names": names,
            "scope": "Namespaced" if resource.namespaced else "Cluster",
            "versions": [_version(resource, each) for each in resource.versions],
            "conversion": {"strategy": "None"},
        },
        "status": {
            "conditions": conditions,
            "acceptedNames": names,
            "storedVersions": [resource.version],
        },
    }


def _version(resource: Resource, version: str) -> Object:
    preferred = version == resource.version
    old = {
        "deprecated": True,
        "deprecationWarning": f"{resource.group}/{version} is now deprecated and will be removed "
        "in a future release.",
    }
    doors: Object = {"status": {}} if resource.status_subresource else {}
    if resource.scale:
        doors["scale"] = {
            "specReplicasPath": ".spec.replicas",
            "statusReplicasPath": ".status.replicas",
            "labelSelectorPath": ".status.labelSelector",
        }
    columns = [
        {key: column[key] for key in ("name", "type", "priority") if column[key] != 0}
        for column in table.columns(resource)[1:]
    ]
    return {
        "name": version,
        "served": True,
        "storage": preferred,
        **({} if preferred else old),
        "schema": {
            "openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
        },
        **({"subresources": doors} if doors else {}),
        "additionalPrinterColumns": columns,
    }


def _api_service(group: str, version: str, stamp: str) -> Object:
    spec = {"version": version, "groupPriorityMinimum": 18000 if not group else 1000,
            "versionPriority": 1 if not group else 100}  # fmt: skip
    condition = {
        "type": "Available", "status": "True", "lastTransitionTime": stamp, "reason": "Local",
        "message": "Local APIServices are always available",
    }  # fmt: skip
    return {"spec": {**({"group": group} if group else {}), **spec},
            "status": {"conditions": [condition]}}  # fmt: skip
