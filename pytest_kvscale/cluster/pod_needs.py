"""What a pod needs of its node, as the scheduler counts it; what a launcher pod will ask for.

The scheduler's rule: containers and sidecars are there together; each init container runs before
them, beside the sidecars that started before it; whichever is most counts.

What KubeVirt's launcher asks for is written down here for the version whose formula is known.
Of any other version it is an estimate, and the canary's launcher pod tells.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Any

from pytest_kvscale.cluster.nodes import amount

Object = dict[str, Any]
Amounts = dict[str, Decimal]
DEVICES = "devices.kubevirt.io/"
_KNOWN_FROM = (1, 9)
"""The first version whose launchers are known to ask for what `launcher` says."""
_CONSOLE_FROM, _IMAGE_VOLUMES_FROM = (1, 1), (1, 7)
_MIB = 2**20
_PROCESSES = 25 + 100 + 25 + 40 + 50
"""MiB: launcher's monitor, launcher, virtlogd, virtqemud, qemu."""
_PER_VCPU, _IO_THREAD, _VIDEO, _GUARANTEED, _ARM = 8, 8, 32, 100, 128
"""MiB."""
_PAGE_TABLES = 512
_ALLOCATION = 10
"""VCPUs that share a CPU, where the CR does not say."""
_MORE = ("gpus", "hostDevices", "tpm", "filesystems", "downwardMetrics")
"""Devices of a VMI that make its launcher ask for more than is counted here."""


@dataclasses.dataclass(frozen=True)
class Need:
    """What one VMI takes: the spec of its pod, and whether that is known or estimated."""

    spec: Object
    certain: bool

    @property
    def requests(self) -> Amounts:
        """What the scheduler counts for the pod."""
        return requests_of(self.spec)

    @property
    def containers(self) -> Sequence[Object]:
        """All its containers."""
        return [*(self.spec.get("containers") or []), *(self.spec.get("initContainers") or [])]


def requests_of(spec: Object) -> Amounts:
    """What the scheduler counts for a pod of this spec: amounts by resource, cpu in cores."""
    running: Amounts = {}
    for container in spec.get("containers") or []:
        _add(running, _requests(container))
    before: Amounts = {}
    largest: Amounts = {}
    for container in spec.get("initContainers") or []:
        if container.get("restartPolicy") == "Always":
            _add(running, _requests(container))
            _add(before, _requests(container))
            continue
        moment = dict(before)
        _add(moment, _requests(container))
        largest = {key: max(moment.get(key, _ZERO), largest.get(key, _ZERO))
                   for key in moment.keys() | largest.keys()}  # fmt: skip
    found = {
        key: max(running.get(key, _ZERO), largest.get(key, _ZERO))
        for key in running.keys() | largest.keys()
    }
    _add(found, _amounts(spec.get("overhead") or {}))
    return {key: value for key, value in found.items() if value}


_ZERO = Decimal(0)


def _requests(container: Object) -> Amounts:
    resources = container.get("resources") or {}
    # The API fills in a request that is missing with the limit.
    return _amounts({**(resources.get("limits") or {}), **(resources.get("requests") or {})})


def _amounts(given: Mapping[str, object]) -> Amounts:
    return {key: amount(value) or _ZERO for key, value in given.items()}


def _add(total: Amounts, more: Amounts) -> None:
    for key, value in more.items():
        total[key] = total.get(key, _ZERO) + value


def version_of(text: str) -> tuple[int, int]:
    """Major and minor of `v1.9.0`; (0, 0) if it cannot be told."""
    found = re.match(r"v?(\d+)\.(\d+)", text)
    return (int(found[1]), int(found[2])) if found else (0, 0)


def launcher(machine: Object, configuration: Object, version: str) -> Need:
    """What a VMI of this spec will take; `configuration` is the KubeVirt CR's."""
    domain = machine.get("domain") or {}
    devices = domain.get("devices") or {}
    release = version_of(version)
    resources = domain.get("resources") or {}
    limits = dict(resources.get("limits") or {})
    requests = {**limits, **(resources.get("requests") or {})}
    memory = domain.get("memory") or {}
    asked = amount(requests.get("memory") or memory.get("guest"))
    vcpus = _vcpus(domain)
    developer = configuration.get("developerConfiguration") or {}
    emulated = developer.get("useEmulation") is True
    ratio = int(developer.get("cpuAllocationRatio") or _ALLOCATION)
    cpu = amount(requests.get("cpu")) or Decimal(vcpus) / ratio
    overhead = _overhead(domain, machine, asked or _ZERO, vcpus)
    named = ["tun", "vhost-net"] if _has_network(devices) else []
    offered = {f"{DEVICES}{each}": "1" for each in (*(() if emulated else ("kvm",)), *named)}
    compute: Object = {
        "name": "compute",
        "resources": {
            "limits": {**offered, **{key: limits[key] for key in ("cpu", "memory") if key in
                                     limits}},
            "requests": {"cpu": str(cpu), "memory": str((asked or _ZERO) + overhead),
                         "ephemeral-storage": "50M", **offered},
        },
    }  # fmt: skip
    spec: Object = {"containers": [compute], "initContainers": []}
    console = devices.get("logSerialConsole")
    if release >= _CONSOLE_FROM and console is not False:
        spec["initContainers"].append(_small("guest-console-log", "5m", "35M", "Always"))
    for volume in machine.get("volumes") or []:
        if "containerDisk" in volume:
            where = "initContainers" if release >= _IMAGE_VOLUMES_FROM else "containers"
            spec[where].append(_small(f"volume{volume.get('name')}", "1m", "1M"))
    special = memory.get("hugepages") or domain.get("launchSecurity") or any(
        devices.get(each) for each in _MORE
    )  # fmt: skip
    ratio_of_overhead = configuration.get("additionalGuestMemoryOverheadRatio")
    certain = release >= _KNOWN_FROM and asked is not None and not special
    return Need(spec, certain and not ratio_of_overhead)


def _small(name: str, cpu: str, memory: str, policy: str | None = None) -> Object:
    resources = {"requests": {"cpu": cpu, "memory": memory}}
    made: Object = {"name": name, "resources": resources}
    return {**made, "restartPolicy": policy} if policy else made


def _vcpus(domain: Object) -> int:
    cpu = domain.get("cpu") or {}
    return int(cpu.get("cores") or 1) * int(cpu.get("sockets") or 1) * int(cpu.get("threads") or 1)


def _has_network(devices: Object) -> bool:
    """Whether the VMI has a network; it has the pod's if it names none."""
    return devices.get("autoattachPodInterface") is not False or bool(devices.get("interfaces"))


def _overhead(domain: Object, machine: Object, memory: Decimal, vcpus: int) -> Decimal:
    """Bytes beside the guest's own memory."""
    mebibytes = _PROCESSES + _PER_VCPU * vcpus + _IO_THREAD
    devices = domain.get("devices") or {}
    if devices.get("autoattachGraphicsDevice") is not False:
        mebibytes += _VIDEO
    if machine.get("architecture") == "arm64":
        mebibytes += _ARM
    resources = domain.get("resources") or {}
    limits, requests = resources.get("limits") or {}, resources.get("requests") or {}
    if all(key in limits and requests.get(key, limits[key]) == limits[key]
           for key in ("cpu", "memory")):  # fmt: skip
        mebibytes += _GUARANTEED
    return Decimal(mebibytes * _MIB) + Decimal(int(memory) // _PAGE_TABLES)
