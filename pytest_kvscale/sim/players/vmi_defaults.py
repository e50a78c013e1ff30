"""What virt-api of KubeVirt 1.9 fills into a VMI that leaves it out, as recorded."""

from __future__ import annotations

from pytest_kvscale.sim import quantity
from pytest_kvscale.sim.draws import Draws
from pytest_kvscale.sim.errors import Object
from pytest_kvscale.sim.patch import merge

_MOST_SOCKETS = 4
"""Sockets that can be plugged later, for each there is."""


def spec(given: Object, draws: Draws, name: str) -> Object:
    """The spec with defaults under what it says itself; `given` is not changed."""
    domain = given["domain"]
    resources = domain.get("resources") or {}
    requests = resources.get("requests") or {}
    memory = (domain.get("memory") or {}).get("guest") or requests.get("memory")
    cpu: Object = {"cores": 1, "sockets": 1, "threads": 1, "model": "host-model"}
    cpu.update(domain.get("cpu") or {})
    cpu.setdefault("maxSockets", cpu["sockets"] * _MOST_SOCKETS)
    devices: Object = {"interfaces": [{"name": "default", "bridge": {}}]}
    devices["disks"] = [
        {"name": each["name"], "disk": {"bus": "virtio"}} for each in given.get("volumes") or []
    ]
    nth = draws.nth("firmware", name)
    defaults: Object = {
        "architecture": "amd64",
        "domain": {
            "cpu": cpu,
            "devices": {key: value for key, value in devices.items() if value},
            "features": {"acpi": {"enabled": True}},
            "firmware": {"uuid": draws.uid("firmware", name, nth)},
            "machine": {"type": "q35"},
            **({"memory": {"guest": memory}} if memory else {}),
            **({"resources": {"requests": {"memory": memory}}} if memory else {}),
        },
        "evictionStrategy": "None",
        "networks": [{"name": "default", "pod": {}}],
    }
    filled: Object = merge(defaults, given)
    filled["volumes"] = [_volume(each) for each in given.get("volumes") or []]
    return {key: value for key, value in filled.items() if key != "volumes" or value}


def _volume(volume: Object) -> Object:
    disk = volume.get("containerDisk")
    if disk is None:
        return volume
    tagged = disk["image"].rpartition("/")[2].partition(":")[2]
    policy = "IfNotPresent" if "@" in disk["image"] or tagged not in ("", "latest") else "Always"
    return {**volume, "containerDisk": {"imagePullPolicy": policy, **disk}}


def status(filled: Object) -> Object:
    """What the status says from the beginning; `filled` is the spec with its defaults."""
    cpu = filled["domain"]["cpu"]
    memory = (filled["domain"].get("memory") or {}).get("guest")
    known = dict.fromkeys(("guestAtBoot", "guestCurrent", "guestRequested"), memory)
    return {
        "currentCPUTopology": {key: cpu[key] for key in ("cores", "sockets", "threads")},
        "guestOSInfo": {},
        **({"memory": known} if memory and quantity.parse(memory) else {}),
        "runtimeUser": 107,
    }
