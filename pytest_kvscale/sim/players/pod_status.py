"""What the kubelet reports of a pod: statuses by the stage the pod has come to."""

from __future__ import annotations

from pytest_kvscale.sim.errors import Object

_HOST = "192.0.2.10"


def waiting(pod: Object, now: str) -> Object:
    """Containers are being created (and may be for a while)."""
    state = {"waiting": {"reason": "ContainerCreating"}}
    return {
        "startTime": now,
        "containerStatuses": [_container(each, state, False) for each in pod["spec"]["containers"]],
    }


def creating(pod: Object, now: str) -> Object:
    """The kubelet has seen the pod: the first status of one that is no launcher."""
    names = " ".join(each["name"] for each in pod["spec"]["containers"])
    unready = {
        "reason": "ContainersNotReady",
        "message": f"containers with unready status: [{names}]",
    }
    initial = pod["spec"].get("initContainers") or []
    state = {"waiting": {"reason": "PodInitializing" if initial else "ContainerCreating"}}
    status = {
        **waiting(pod, now),
        "hostIP": _HOST,
        "containerStatuses": [_container(each, state, False) for each in pod["spec"]["containers"]],
        "conditions": [
            _condition("Initialized", "False" if initial else "True", now),
            {**_condition("Ready", "False", now), **unready},
            {**_condition("ContainersReady", "False", now), **unready},
        ],
    }
    if initial:
        first = {"waiting": {"reason": "PodInitializing"}}
        status["initContainerStatuses"] = [_container(each, first, False) for each in initial]
    return status


def running(pod: Object, now: str, address: str) -> Object:
    """All containers run; the init containers that do not go on are over."""
    state = {"running": {"startedAt": now}}
    status: Object = {
        "phase": "Running",
        "startTime": (pod.get("status") or {}).get("startTime", now),
        "podIP": address,
        "podIPs": [{"ip": address}],
        "hostIP": _HOST,
        "containerStatuses": [_container(each, state, True) for each in pod["spec"]["containers"]],
        "conditions": [
            {**_condition(kind, "True", now), "reason": None, "message": None}
            if _reported(pod, kind)
            else _condition(kind, "True", now)
            for kind in ("Initialized", "Ready", "ContainersReady")
        ],
    }
    started = []
    for each in pod["spec"].get("initContainers") or []:
        now_is = state if each.get("restartPolicy") == "Always" else _finished(now, 0)
        started.append(_container(each, now_is, True))
    if started:
        status["initContainerStatuses"] = started
    return status


def over(pod: Object, now: str, code: int, words: str) -> Object:
    """The containers have ended by themselves, with this exit code and these last words."""
    statuses = [
        {**each, "ready": False, "state": _finished(now, code, words)}
        for each in pod["status"]["containerStatuses"]
    ]
    return {
        "phase": "Failed" if code else "Succeeded",
        "containerStatuses": statuses,
        "conditions": [
            {**_condition(kind, "False", now), "reason": "PodFailed"}
            for kind in ("Ready", "ContainersReady")
        ],
    }


def _reported(pod: Object, kind: str) -> bool:
    """Whether the pod has that condition already: a patch must take its reason away."""
    held = (pod.get("status") or {}).get("conditions") or []
    return any(each["type"] == kind for each in held)


def _container(container: Object, state: Object, ready: bool) -> Object:
    return {
        "name": container["name"],
        "state": state,
        "lastState": {},
        "ready": ready,
        "restartCount": 0,
        "image": container["image"],
        "imageID": "",
        "started": ready,
    }


def _finished(now: str, code: int, words: str = "") -> Object:
    result: Object = {
        "exitCode": code,
        "reason": "Error" if code else "Completed",
        "startedAt": now,
        "finishedAt": now,
    }
    return {"terminated": {**result, **({"message": words} if words else {})}}


def _condition(kind: str, status: str, now: str) -> Object:
    return {"type": kind, "status": status, "lastProbeTime": None, "lastTransitionTime": now}
