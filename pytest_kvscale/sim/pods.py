"""What the API fills in for a pod, and which pods it refuses.

The defaults are those a client or a player can see or act on: grace period, restart policy,
requests from limits, the tolerations every pod gets, and the status a pod begins with.
"""

from __future__ import annotations

from typing import Any

from pytest_kvscale.sim import errors, quantity
from pytest_kvscale.sim.errors import Object
from pytest_kvscale.sim.resources import PODS

GRACE_SECONDS = 30
RESTART_POLICIES = ("Always", "OnFailure", "Never")
_TOLERATED = ("node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable")
_TOLERATED_SECONDS = 300
_PROBES = ("livenessProbe", "readinessProbe", "startupProbe")
_OF_PROBES = {
    "timeoutSeconds": 1, "periodSeconds": 10, "successThreshold": 1, "failureThreshold": 3,
}  # fmt: skip
_OF_VOLUMES: dict[str, Object] = {
    "configMap": {"defaultMode": 0o644}, "secret": {"defaultMode": 0o644},
    "downwardAPI": {"defaultMode": 0o644}, "projected": {"defaultMode": 0o644},
    "hostPath": {"type": ""},
}  # fmt: skip


def admit(pod: Object) -> Object:
    """The pod as the API stores it; raises `StatusError` (422) for one it refuses."""
    spec = pod.get("spec") if isinstance(pod.get("spec"), dict) else {}
    causes = list(_problems(spec or {}))
    if causes:
        raise errors.invalid(PODS, pod["metadata"]["name"], causes)
    filled = _filled(spec or {})
    status = {"phase": "Pending", "qosClass": _quality(filled)}
    return {**pod, "spec": filled, "status": status}


def refill(_: Object, pod: Object) -> Object:
    """A changed pod with the defaults of the fields that the change left out."""
    spec = pod.get("spec")
    if not isinstance(spec, dict) or list(_problems(spec)):
        return pod  # The rules say what is wrong.
    return {**pod, "spec": _filled(spec)}


def _filled(spec: Object) -> Object:
    filled: Object = {
        "restartPolicy": "Always",
        "terminationGracePeriodSeconds": GRACE_SECONDS,
        "dnsPolicy": "ClusterFirst",
        "serviceAccountName": "default",
        "serviceAccount": spec.get("serviceAccountName", "default"),
        "securityContext": {},
        "schedulerName": "default-scheduler",
        "priority": 0,
        "enableServiceLinks": True,
        "preemptionPolicy": "PreemptLowerPriority",
        **{key: value for key, value in spec.items() if value != ""},
        "tolerations": _tolerations(spec.get("tolerations") or []),
    }
    for group in ("containers", "initContainers"):
        if group in filled:
            filled[group] = [_container(each) for each in filled[group]]
    if "volumes" in filled:
        filled["volumes"] = [_volume(each or {}) for each in filled["volumes"] or ()]
    return filled


def _problems(spec: Object) -> Any:
    containers = spec.get("containers")
    if not isinstance(containers, list) or not containers:
        yield errors.cause("FieldValueRequired", "spec.containers", "Required value")
        containers = []
    for group in ("containers", "initContainers"):
        for index, each in enumerate(spec.get(group) or []):
            field = f"spec.{group}[{index}]"
            for key in ("name", "image"):
                if not each.get(key):
                    yield errors.cause("FieldValueRequired", f"{field}.{key}", "Required value")
            yield from _quantity_problems(each, field)
    policy = spec.get("restartPolicy") or "Always"
    if policy not in RESTART_POLICIES:
        known = ", ".join(f'"{each}"' for each in RESTART_POLICIES)
        text = f'Unsupported value: "{policy}": supported values: {known}'
        yield errors.cause("FieldValueNotSupported", "spec.restartPolicy", text)


def _quantity_problems(container: Object, field: str) -> Any:
    for group, asked in (container.get("resources") or {}).items():
        for key, value in (asked or {}).items() if isinstance(asked, dict) else ():
            try:
                wrong = quantity.parse(value) < 0
            except ValueError:
                wrong = True
            if wrong:
                text = f'Invalid value: "{value}": must be greater than or equal to 0'
                yield errors.cause("FieldValueInvalid", f"{field}.resources.{group}[{key}]", text)


def _container(container: Object) -> Object:
    resources = container.get("resources") or {}
    limits, requests = resources.get("limits") or {}, resources.get("requests") or {}
    both = {**limits, **requests}
    filled = container
    if "ports" in container:
        ports = [{"protocol": "TCP", **(each or {})} for each in container["ports"] or ()]
        filled = {**container, "ports": ports}
    for key in _PROBES:
        if isinstance(container.get(key), dict):
            filled = {**filled, key: _probe(container[key])}
    return {
        "terminationMessagePath": "/dev/termination-log",
        "terminationMessagePolicy": "File",
        **filled,
        "imagePullPolicy": container.get("imagePullPolicy") or _pull_policy(container["image"]),
        "resources": {**resources, **({"requests": both} if both else {})},
    }


def _volume(volume: Object) -> Object:
    """A volume with the rights of its files, and an empty one where none is described."""
    if len(volume) < 2:
        return {**volume, "emptyDir": {}}
    for kind, default in _OF_VOLUMES.items():
        if isinstance(volume.get(kind), dict):
            return {**volume, kind: {**default, **volume[kind]}}
    return volume


def _probe(probe: Object) -> Object:
    filled = {**_OF_PROBES, **probe}
    if isinstance(probe.get("httpGet"), dict):
        filled["httpGet"] = {"path": "/", "scheme": "HTTP", **probe["httpGet"]}
    return filled


def _pull_policy(image: str) -> str:
    """Always for `latest`, written or implied; else what is on the node is good enough."""
    _, colon, tag = image.rpartition(":")
    untagged = not colon or "/" in tag
    return "Always" if (untagged or tag == "latest") and "@" not in image else "IfNotPresent"


def _tolerations(given: list[Object]) -> list[Object]:
    covered = {each.get("key") for each in given if each.get("effect") in (None, "", "NoExecute")}
    added = [
        {
            "key": key,
            "operator": "Exists",
            "effect": "NoExecute",
            "tolerationSeconds": _TOLERATED_SECONDS,
        }
        for key in _TOLERATED
        if key not in covered and None not in covered
    ]
    return [*given, *added]


def _quality(spec: Object) -> str:
    """The pod's quality of service class, which containers' cpu and memory decide."""
    guaranteed, asked = True, False
    for container in [*spec["containers"], *(spec.get("initContainers") or [])]:
        resources = container.get("resources") or {}
        limits, requests = resources.get("limits") or {}, resources.get("requests") or {}
        for key in ("cpu", "memory"):
            asked = asked or key in limits or key in requests
            if key not in limits or quantity.parse(limits[key]) != quantity.parse(requests[key]):
                guaranteed = False
    if not asked:
        return "BestEffort"
    return "Guaranteed" if guaranteed else "Burstable"
