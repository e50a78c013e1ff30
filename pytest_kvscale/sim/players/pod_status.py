"""What the kubelet reports of a pod: statuses by the stage the pod has come to."""

from __future__ import annotations

from pytest_kvscale.sim.errors import Object

_READY_TO_START_SINCE = 29
"""Kubernetes' minor version that tells of the sandbox by a condition, and of all host addresses."""


class Reports:
    """The reports of one kubelet, of a minor version of Kubernetes and on a host's address."""

    def __init__(self, minor: int, host: str) -> None:
        new = minor >= _READY_TO_START_SINCE
        self._host: Object = {"hostIP": host, **({"hostIPs": [{"ip": host}]} if new else {})}
        self._first = ("PodReadyToStartContainers",) if new else ()

    def waiting(self, pod: Object, now: str) -> Object:
        """Containers are being created (and may be for a while)."""
        state = {"waiting": {"reason": "ContainerCreating"}}
        containers = [_container(each, state, False) for each in pod["spec"]["containers"]]
        return {"startTime": now, "containerStatuses": containers}

    def creating(self, pod: Object, now: str) -> Object:
        """The kubelet has seen the pod: the first status of one that is no launcher."""
        containers = pod["spec"]["containers"]
        names = " ".join(each["name"] for each in containers)
        unready = {
            "reason": "ContainersNotReady",
            "message": f"containers with unready status: [{names}]",
        }
        initial = pod["spec"].get("initContainers") or []
        state = {"waiting": {"reason": "PodInitializing" if initial else "ContainerCreating"}}
        status = {
            **self._host,
            "startTime": now,
            "containerStatuses": [_container(each, state, False) for each in containers],
            "conditions": [
                *(_condition(kind, "False", now) for kind in self._first),
                _condition("Initialized", "False" if initial else "True", now),
                {**_condition("Ready", "False", now), **unready},
                {**_condition("ContainersReady", "False", now), **unready},
            ],
        }
        if initial:
            first = {"waiting": {"reason": "PodInitializing"}}
            status["initContainerStatuses"] = [_initial(each, first, False) for each in initial]
        return status

    def running(self, pod: Object, now: str, address: str) -> Object:
        """All containers run; the init containers that do not go on are over."""
        state = {"running": {"startedAt": now}}
        status: Object = {
            "phase": "Running",
            **self._host,
            "startTime": (pod.get("status") or {}).get("startTime", now),
            "podIP": address,
            "podIPs": [{"ip": address}],
            "containerStatuses": [
                _container(each, state, True) for each in pod["spec"]["containers"]
            ],
            "conditions": [
                {**_condition(kind, "True", now), "reason": None, "message": None}
                if _reported(pod, kind)
                else _condition(kind, "True", now)
                for kind in (*self._first, "Initialized", "Ready", "ContainersReady")
            ],
        }
        started = []
        for each in pod["spec"].get("initContainers") or []:
            now_is = state if each.get("restartPolicy") == "Always" else _finished(now, 0)
            started.append(_initial(each, now_is, True))
        if started:
            status["initContainerStatuses"] = started
        return status

    def over(self, pod: Object, now: str, code: int, words: str) -> Object:
        """The containers have ended by themselves, with this exit code and these last words."""
        held = pod["status"].get("containerStatuses")
        known = held or [_container(each, {}, False) for each in pod["spec"]["containers"]]
        status = {
            "phase": "Failed" if code else "Succeeded",
            "startTime": pod["status"].get("startTime", now),
            "containerStatuses": [_ended(each, now, code, words) for each in known],
            "conditions": [
                {
                    **_condition(kind, "False", now),
                    "reason": "PodFailed" if code else "PodCompleted",
                }
                for kind in ("Ready", "ContainersReady")
            ],
        }
        initial = pod["status"].get("initContainerStatuses")
        if initial:
            status["initContainerStatuses"] = [
                _ended(each, now, 0) if "running" in each["state"] else each for each in initial
            ]
        return status


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


def _initial(container: Object, state: Object, ready: bool) -> Object:
    status = _container(container, state, ready)
    del status["started"]
    return status


def _ended(before: Object, now: str, code: int, words: str = "") -> Object:
    """The status of a container that has ended, which had this one before."""
    state = _finished(now, code, words)
    began = ((before.get("state") or {}).get("running") or {}).get("startedAt", now)
    state["terminated"]["startedAt"] = began
    gone = {"started": False} if "started" in before else {}
    return {**before, "ready": False, **gone, "state": state}


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
