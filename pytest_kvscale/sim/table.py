"""Tables: lists the way `kubectl get` shows them, with the columns of the real API."""

from __future__ import annotations

import datetime
from collections.abc import Callable
from typing import Any

from pytest_kvscale.sim import resources
from pytest_kvscale.sim.clock import Calendar
from pytest_kvscale.sim.errors import Object
from pytest_kvscale.sim.resources import Resource

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
        ("Internal-IP", 1, lambda _: None),
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
        ("Message", 0, at("message")),
        ("Name", 1, at("metadata", "name")),
    ],
    resources.LEASES: [("Holder", 0, at("spec", "holderIdentity")), ("Age", 0, _AGE)],
    resources.DEPLOYMENTS: [
        ("Ready", 0, _of("readyReplicas", "replicas")),
        ("Up-to-date", 0, at("status", "updatedReplicas")),
        ("Available", 0, at("status", "availableReplicas")),
        ("Age", 0, _AGE),
    ],
    resources.DAEMON_SETS: [
        ("Desired", 0, at("status", "desiredNumberScheduled")),
        ("Current", 0, at("status", "currentNumberScheduled")),
        ("Ready", 0, at("status", "numberReady")),
        ("Up-to-date", 0, at("status", "updatedNumberScheduled")),
        ("Age", 0, _AGE),
    ],
}


_NUMBERS = {(resources.VMIRS, title) for title in ("Desired", "Current", "Ready")}
"""The columns that hold numbers."""

_NAME: tuple[str, int, Cell | str] = ("Name", 0, at("metadata", "name"))


def _all_columns(resource: Resource) -> list[tuple[str, int, Cell | str]]:
    own = _COLUMNS.get(resource, [("Age", 0, _AGE)])
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
    if (resource, title) in _NUMBERS:
        return "integer"
    return "date" if cell is _AGE and resource.custom else "string"


def cells(resource: Resource, obj: Object, calendar: Calendar) -> list[Any]:
    """One object as a row of its kind's table."""
    return [
        age(obj, calendar) if isinstance(cell, str) else cell(obj)
        for _, _, cell in _all_columns(resource)
    ]


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
