"""The kubelet's configuration, as its `configz` tells it: what the profile says, else defaults."""

from __future__ import annotations

from pytest_kvscale.sim import quantity
from pytest_kvscale.sim.errors import Object
from pytest_kvscale.sim.profile import Profile

_EVICTION_MEMORY = 100 * 2**20


def configz(profile: Profile) -> Object:
    """The answer of `/configz`."""
    node, limit = profile.node, profile.rate_limits.kubelet
    reserved = quantity.whole(node.reserved_memory)
    # What a node offers is its capacity less both of these: the profile has their sum.
    eviction = min(_EVICTION_MEMORY, reserved)
    return {
        "kubeletconfig": {
            "enableServer": True,
            "syncFrequency": "1m0s",
            "fileCheckFrequency": "20s",
            "address": "0.0.0.0",  # noqa: S104 - what a kubelet says of itself
            "port": 10250,
            "registryPullQPS": 5,
            "registryBurst": 10,
            "eventRecordQPS": 5,
            "eventBurst": 10,
            "nodeStatusUpdateFrequency": _duration(node.heartbeat),
            "nodeStatusReportFrequency": "5m0s",
            "nodeLeaseDurationSeconds": 40,
            "cgroupDriver": "systemd",
            "cpuManagerPolicy": "none",
            "topologyManagerPolicy": "none",
            "runtimeRequestTimeout": _duration(profile.times.sandbox_deadline),
            "maxPods": node.max_pods,
            "podPidsLimit": -1,
            "podsPerCore": 0,
            "kubeAPIQPS": _number(limit.qps),
            "kubeAPIBurst": limit.burst,
            "serializeImagePulls": True,
            "evictionHard": {
                "imagefs.available": "15%",
                "memory.available": f"{eviction // 2**20}Mi",
                "nodefs.available": "10%",
                "nodefs.inodesFree": "5%",
            },
            "evictionPressureTransitionPeriod": "5m0s",
            "enableControllerAttachDetach": True,
            "failSwapOn": True,
            "containerLogMaxSize": "10Mi",
            "containerLogMaxFiles": 5,
            "systemReserved": {
                "cpu": node.reserved_cpu,
                "memory": str(reserved - eviction),
            },
            "enforceNodeAllocatable": ["pods"],
            "clusterDomain": "cluster.local",
            "clusterDNS": ["10.96.0.10"],
        }
    }


def _duration(seconds: float) -> str:
    """Seconds as Go writes a duration."""
    whole = int(seconds)
    if whole != seconds:
        return f"{seconds:g}s"
    hours, rest = divmod(whole, 3600)
    minutes, rest = divmod(rest, 60)
    text = f"{hours}h" if hours else ""
    text += f"{minutes}m" if minutes or hours else ""
    return f"{text}{rest}s"


def _number(value: float) -> float | int:
    return int(value) if value == int(value) else value
