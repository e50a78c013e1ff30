"""Tables: lists the way `kubectl get` shows them, with the columns of the real API."""

from __future__ import annotations

import datetime
from collections.abc import Callable
from typing import Any

from pytest_kvscale.sim import resources
from pytest_kvscale.sim.clock import Calendar
from pytest_kvscale.sim.errors import Object
from pytest_kvscale.sim.resources import Resource
from pytest_kvscale.sim.table_titles import TITLES

Cell = Callable[[Object], Any]


def at(*path: str) -> Cell:
    """The value at a path, or None."""

    def cell(obj: Object) -> Any:
        value: Any = obj
        for step in path:
            value = value.get(step) if isinstance(value, dict) else None
        return value

    return cell


def _condition(kind: str) -> Cell:
    def cell(obj: Object) -> Any:
        held = (obj.get("status") or {}).get("conditions") or []
        return next((each.get("status") for each in held if each.get("type") == kind), None)

    return cell


def _pod_ready(obj: Object) -> str:
    statuses = (obj.get("status") or {}).get("containerStatuses") or []
    wanted = len((obj.get("spec") or {}).get("containers") or [])
    return f"{sum(bool(each.get('ready')) for each in statuses)}/{wanted}"


def _pod_status(obj: Object) -> str:
    if "deletionTimestamp" in obj["metadata"]:
        return "Terminating"
    status = obj.get("status") or {}
    for each in status.get("containerStatuses") or []:
        state = each.get("state") or {}
        for way in ("waiting", "terminated"):
            if (state.get(way) or {}).get("reason"):
                return str(state[way]["reason"])
    return str(status.get("phase") or "Unknown")


def _restarts(obj: Object) -> str:
    statuses = (obj.get("status") or {}).get("containerStatuses") or []
    return str(sum(each.get("restartCount", 0) for each in statuses))


def _node_status(obj: Object) -> str:
    ready = "Ready" if _condition("Ready")(obj) == "True" else "NotReady"
    cordoned = (obj.get("spec") or {}).get("unschedulable")
    return ready + (",SchedulingDisabled" if cordoned else "")


def _node_roles(obj: Object) -> str:
    prefix = "node-role.kubernetes.io/"
    labels = obj["metadata"].get("labels") or {}
    roles = sorted(key.removeprefix(prefix) for key in labels if key.startswith(prefix))
    return ",".join(roles) or "<none>"


def _event_object(obj: Object) -> str:
    about = obj.get("involvedObject") or {}
    return f"{str(about.get('kind', '')).lower()}/{about.get('name', '')}"


def _ip(obj: Object) -> Any:
    interfaces = (obj.get("status") or {}).get("interfaces") or [{}]
    return interfaces[0].get("ipAddress")


def _of(ready: str, wanted: str) -> Cell:
    def cell(obj: Object) -> str:
        status = obj.get("status") or {}
        return f"{status.get(ready, 0)}/{status.get(wanted, 0)}"

    return cell


def _size(*fields: str) -> Cell:
    """How many entries lists or mappings have together."""
    return lambda obj: str(sum(len(obj.get(field) or ()) for field in fields))


def _role(obj: Object) -> str:
    reference = obj.get("roleRef") or {}
    return f"{reference.get('kind')}/{reference.get('name')}"


def _subjects(kind: str) -> Cell:
    def cell(obj: Object) -> str:
        found = [each for each in obj.get("subjects") or () if each.get("kind") == kind]
        names = (f"{each['namespace']}/" * ("namespace" in each) + each["name"] for each in found)
        return ", ".join(names)

    return cell


def _address(kind: str) -> Cell:
    def cell(obj: Object) -> str:
        held = (obj.get("status") or {}).get("addresses") or []
        return next((each["address"] for each in held if each.get("type") == kind), "<none>")

    return cell


def _of_containers(key: str) -> Cell:
    def cell(obj: Object) -> str:
        template = (obj.get("spec") or {}).get("template") or {}
        containers = (template.get("spec") or {}).get("containers") or []
        return ",".join(str(each.get(key, "")) for each in containers)

    return cell


def _match_labels(obj: Object) -> str:
    labels = ((obj.get("spec") or {}).get("selector") or {}).get("matchLabels") or {}
    return ",".join(f"{key}={value}" for key, value in sorted(labels.items())) or "<none>"


def _count(*keys: str) -> Cell:
    def cell(obj: Object) -> int:
        return sum(len(obj.get(key) or ()) for key in keys)

    return cell


def _ports(obj: Object) -> str:
    ports = (obj.get("spec") or {}).get("ports") or []
    return (
        ",".join(f"{each.get('port')}/{each.get('protocol', 'TCP')}" for each in ports) or "<none>"
    )


def _selector(obj: Object) -> str:
    chosen = (obj.get("spec") or {}).get("selector") or {}
    return ",".join(f"{key}={value}" for key, value in sorted(chosen.items())) or "<none>"


def _access_modes(obj: Object) -> str:
    modes = (obj.get("spec") or {}).get("accessModes") or []
    short = {"ReadWriteOnce": "RWO", "ReadOnlyMany": "ROX", "ReadWriteMany": "RWX",
             "ReadWriteOncePod": "RWOP"}  # fmt: skip
    return ",".join(short.get(each, str(each)) for each in modes)


_AGE = "age"
"""Marks the column whose cells depend on the date."""

_ROLES: list[tuple[str, int, Cell | str]] = [("Created At", 0, at("metadata", "creationTimestamp"))]
_BINDINGS: list[tuple[str, int, Cell | str]] = [
    ("Role", 0, _role),
    ("Age", 0, _AGE),
    ("Users", 1, _subjects("User")),
    ("Groups", 1, _subjects("Group")),
    ("ServiceAccounts", 1, _subjects("ServiceAccount")),
]

_COLUMNS: dict[Resource, list[tuple[str, int, Cell | str]]] = {
    resources.CONFIG_MAPS: [("Data", 0, _size("data", "binaryData")), ("Age", 0, _AGE)],
    resources.SECRETS: [("Type", 0, at("type")), ("Data", 0, _size("data")), ("Age", 0, _AGE)],
    resources.SERVICE_ACCOUNTS: [("Secrets", 0, _size("secrets")), ("Age", 0, _AGE)],
    resources.ROLES: _ROLES,
    resources.CLUSTER_ROLES: _ROLES,
    resources.ROLE_BINDINGS: _BINDINGS,
    resources.CLUSTER_ROLE_BINDINGS: _BINDINGS,
    resources.VMS: [
        ("Age", 0, _AGE),
        ("Status", 0, at("status", "printableStatus")),
        ("Ready", 0, _condition("Ready")),
    ],
    resources.VMIRS: [
        ("Desired", 0, at("spec", "replicas")),
        ("Current", 0, at("status", "replicas")),
        ("Ready", 0, at("status", "readyReplicas")),
        ("Age", 0, _AGE),
    ],
    resources.VMIS: [
        ("Age", 0, _AGE),
        ("Phase", 0, at("status", "phase")),
        ("IP", 0, _ip),
        ("NodeName", 0, at("status", "nodeName")),
        ("Ready", 0, _condition("Ready")),
        ("Live-Migratable", 1, _condition("LiveMigratable")),
        ("Paused", 1, _condition("Paused")),
    ],
    resources.KUBEVIRTS: [("Age", 0, _AGE), ("Phase", 0, at("status", "phase"))],
    resources.PODS: [
        ("Ready", 0, _pod_ready),
        ("Status", 0, _pod_status),
        ("Restarts", 0, _restarts),
        ("Age", 0, _AGE),
        ("IP", 1, at("status", "podIP")),
        ("Node", 1, at("spec", "nodeName")),
        ("Nominated Node", 1, at("status", "nominatedNodeName")),
        ("Readiness Gates", 1, lambda _: None),
    ],
    resources.NODES: [
        ("Status", 0, _node_status),
        ("Roles", 0, _node_roles),
        ("Age", 0, _AGE),
        ("Version", 0, at("status", "nodeInfo", "kubeletVersion")),
        ("Internal-IP", 1, _address("InternalIP")),
        ("External-IP", 1, _address("ExternalIP")),
        ("OS-Image", 1, at("status", "nodeInfo", "osImage")),
        ("Kernel-Version", 1, at("status", "nodeInfo", "kernelVersion")),
        ("Container-Runtime", 1, at("status", "nodeInfo", "containerRuntimeVersion")),
    ],
    resources.NAMESPACES: [("Status", 0, at("status", "phase")), ("Age", 0, _AGE)],
    resources.EVENTS: [
        ("Last Seen", 0, _AGE),
        ("Type", 0, at("type")),
        ("Reason", 0, at("reason")),
        ("Object", 0, _event_object),
        ("Subobject", 1, at("involvedObject", "fieldPath")),
        ("Source", 1, at("source", "component")),
        ("Message", 0, at("message")),
        ("First Seen", 1, _AGE),
        ("Count", 1, lambda obj: str(obj.get("count") or 1)),
        ("Name", 1, at("metadata", "name")),
    ],
    resources.LEASES: [("Holder", 0, at("spec", "holderIdentity")), ("Age", 0, _AGE)],
    resources.DEPLOYMENTS: [
        ("Ready", 0, _of("readyReplicas", "replicas")),
        ("Up-to-date", 0, at("status", "updatedReplicas")),
        ("Available", 0, at("status", "availableReplicas")),
        ("Age", 0, _AGE),
        ("Containers", 1, _of_containers("name")),
        ("Images", 1, _of_containers("image")),
        ("Selector", 1, _match_labels),
    ],
    resources.DAEMON_SETS: [
        ("Desired", 0, at("status", "desiredNumberScheduled")),
        ("Current", 0, at("status", "currentNumberScheduled")),
        ("Ready", 0, at("status", "numberReady")),
        ("Up-to-date", 0, at("status", "updatedNumberScheduled")),
        ("Available", 0, at("status", "numberAvailable")),
        ("Node Selector", 0, lambda _: "<none>"),
        ("Age", 0, _AGE),
        ("Containers", 1, _of_containers("name")),
        ("Images", 1, _of_containers("image")),
        ("Selector", 1, _match_labels),
    ],
}


_SHOWN: dict[str, Cell] = {
    "Desired": at("spec", "replicas"),
    "Current": at("status", "replicas"),
    "Ready": at("status", "readyReplicas"),
    "Containers": _of_containers("name"),
    "Images": _of_containers("image"),
    "Selector": _match_labels,
    "Status": at("status", "phase"),
    "Capacity": at("spec", "capacity", "storage"),
    "Access Modes": _access_modes,
    "Reclaim Policy": at("spec", "persistentVolumeReclaimPolicy"),
    "StorageClass": at("spec", "storageClassName"),
    "VolumeMode": at("spec", "volumeMode"),
    "Schedule": at("spec", "schedule"),
    "Suspend": at("spec", "suspend"),
    "Min Available": at("spec", "minAvailable"),
    "Max Unavailable": at("spec", "maxUnavailable"),
    "Allowed Disruptions": at("status", "disruptionsAllowed"),
    "Provisioner": at("provisioner"),
    "ReclaimPolicy": at("reclaimPolicy"),
    "VolumeBindingMode": at("volumeBindingMode"),
    "AllowVolumeExpansion": at("allowVolumeExpansion"),
    "AddressType": at("addressType"),
    "Handler": at("handler"),
    "Revision": at("revision"),
    "Webhooks": _count("webhooks"),
    "Created At": at("metadata", "creationTimestamp"),
}
"""What stands in those columns, where the object says it."""


def _titled(titles: str) -> list[tuple[str, int, Cell | str]]:
    found: list[tuple[str, int, Cell | str]] = []
    for each in titles.split(", "):
        title = each.rstrip("*")
        cell = _AGE if title == "Age" else _SHOWN.get(title, _unknown)
        found.append((title, int(each.endswith("*")), cell))
    return found


def _unknown(_: Object) -> str:
    return "<unknown>"


_REPLICAS: list[tuple[str, int, Cell | str]] = _COLUMNS[resources.VMIRS]
_FURTHER: dict[str, list[tuple[str, int, Cell | str]]] = {
    "virtualmachinepools": _REPLICAS,
    "virtualmachineinstancemigrations": [
        ("Phase", 0, at("status", "phase")),
        ("VMI", 0, at("spec", "vmiName")),
    ],
    "virtualmachinesnapshots": [
        ("SourceKind", 0, at("spec", "source", "kind")),
        ("SourceName", 0, at("spec", "source", "name")),
        ("Phase", 0, at("status", "phase")),
        ("ReadyToUse", 0, at("status", "readyToUse")),
        ("CreationTime", 0, at("status", "creationTime")),
        ("Error", 0, at("status", "error", "message")),
    ],
    "virtualmachinesnapshotcontents": [
        ("ReadyToUse", 0, at("status", "readyToUse")),
        ("CreationTime", 0, at("status", "creationTime")),
        ("Error", 0, at("status", "error", "message")),
    ],
    "virtualmachinerestores": [
        ("TargetKind", 0, at("spec", "target", "kind")),
        ("TargetName", 0, at("spec", "target", "name")),
        ("Complete", 0, at("status", "complete")),
        ("RestoreTime", 0, at("status", "restoreTime")),
        ("Error", 0, at("status", "error", "message")),
    ],
    "virtualmachineexports": [
        ("SourceKind", 0, at("spec", "source", "kind")),
        ("SourceName", 0, at("spec", "source", "name")),
        ("Phase", 0, at("status", "phase")),
    ],
    "virtualmachineclones": [
        ("Phase", 0, at("status", "phase")),
        ("SourceVirtualMachine", 0, at("spec", "source", "name")),
        ("TargetVirtualMachine", 0, at("spec", "target", "name")),
    ],
    "configmaps": [("Data", 0, _count("data", "binaryData")), ("Age", 0, _AGE)],
    "secrets": [("Type", 0, at("type")), ("Data", 0, _count("data")), ("Age", 0, _AGE)],
    "serviceaccounts": [("Secrets", 0, _count("secrets")), ("Age", 0, _AGE)],
    "services": [
        ("Type", 0, at("spec", "type")),
        ("Cluster-IP", 0, at("spec", "clusterIP")),
        ("External-IP", 0, lambda _: "<none>"),
        ("Port(s)", 0, _ports),
        ("Age", 0, _AGE),
        ("Selector", 1, _selector),
    ],
    "persistentvolumeclaims": [
        ("Status", 0, at("status", "phase")),
        ("Volume", 0, at("spec", "volumeName")),
        ("Capacity", 0, at("status", "capacity", "storage")),
        ("Access Modes", 0, _access_modes),
        ("StorageClass", 0, at("spec", "storageClassName")),
        ("VolumeAttributesClass", 0, lambda _: "<unset>"),
        ("Age", 0, _AGE),
        ("VolumeMode", 1, at("spec", "volumeMode")),
    ],
    "customresourcedefinitions": [("Created At", 0, at("metadata", "creationTimestamp"))],
    "priorityclasses": [
        ("Value", 0, at("value")),
        ("Global-Default", 0, lambda obj: bool(obj.get("globalDefault"))),
        ("Age", 0, _AGE),
        ("PreemptionPolicy", 0, at("preemptionPolicy")),
    ],
    **{plural: _titled(titles) for plural, titles in TITLES.items()},
    "apiservices": [
        ("Service", 0, lambda _: "Local"),
        ("Available", 0, _condition("Available")),
        ("Age", 0, _AGE),
    ],
}
"""Those of kinds that no player knows, by plural."""

_NUMBERS = {
    *((plural, title) for plural in ("virtualmachineinstancereplicasets", "virtualmachinepools")
      for title in ("Desired", "Current", "Ready")),
}  # fmt: skip
"""The columns that hold numbers."""
_TYPES = {"ReadyToUse": "boolean", "Complete": "boolean", "CreationTime": "date",
          "RestoreTime": "date"}  # fmt: skip

_NAME: tuple[str, int, Cell | str] = ("Name", 0, at("metadata", "name"))


def _all_columns(resource: Resource) -> list[tuple[str, int, Cell | str]]:
    own = _COLUMNS.get(resource) or _FURTHER.get(resource.plural) or [("Age", 0, _AGE)]
    return own if resource is resources.EVENTS else [_NAME, *own]


def columns(resource: Resource) -> list[Object]:
    """The column definitions of a kind."""
    return [
        {
            "name": title,
            "type": _type(resource, title, cell),
            "format": "name" if title == "Name" else "",
            "description": "",
            "priority": priority,
        }
        for title, priority, cell in _all_columns(resource)
    ]


def _type(resource: Resource, title: str, cell: Cell | str) -> str:
    if (resource.plural, title) in _NUMBERS:
        return "integer"
    if resource.custom and title in _TYPES:
        return _TYPES[title]
    return "date" if cell is _AGE and resource.custom else "string"


def cells(resource: Resource, obj: Object, calendar: Calendar) -> list[Any]:
    """One object as a row of its kind's table."""
    return [
        age(obj, calendar) if isinstance(cell, str) else _value(cell, obj)
        for _, _, cell in _all_columns(resource)
    ]


def _value(cell: Cell, obj: Object) -> Any:
    """What a cell shows; nothing where the object is not built as its kind usually is."""
    try:
        return cell(obj)
    except (AttributeError, KeyError, TypeError):
        return None


def age(obj: Object, calendar: Calendar) -> str:
    """How old an object is, the way kubectl writes it (`42s`, `3m5s`, `2h`)."""
    stamp = obj["metadata"].get("creationTimestamp")
    if not stamp:
        return "<unknown>"
    made = datetime.datetime.fromisoformat(stamp)
    seconds = max(0, int((calendar.now() - made).total_seconds()))
    minutes, hours = seconds // 60, seconds // 3600
    if seconds < 120:
        return f"{seconds}s"
    if minutes < 10:
        return f"{minutes}m{seconds % 60}s" if seconds % 60 else f"{minutes}m"
    if minutes < 180:
        return f"{minutes}m"
    if hours < 8:
        return f"{hours}h{minutes % 60}m" if minutes % 60 else f"{hours}h"
    return f"{hours}h" if hours < 48 else f"{hours // 24}d"
