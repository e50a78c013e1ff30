"""The launcher pod virt-controller makes for a VMI."""

from __future__ import annotations

import math
from fractions import Fraction

from pytest_kvscale.sim import quantity
from pytest_kvscale.sim.errors import Object
from pytest_kvscale.sim.profile import Profile

DEVICES = ("kvm", "tun", "vhost-net")
QEMU_TIMEOUT_ARGUMENT = "--qemu-timeout"
UNPAUSED = "kubevirt.io/virtual-machine-unpaused"
NODE_LABEL = "kubevirt.io/nodeName"
VMI_LABEL = "kubevirt.io/created-by"


def image(profile: Profile, component: str) -> str:
    """The image of one of KubeVirt's components."""
    return f"quay.io/kubevirt/{component}:{profile.versions.kubevirt}"


def grace_period(vmi: Object) -> int:
    """Seconds a guest is given to shut down."""
    return int(vmi["spec"].get("terminationGracePeriodSeconds", 30))


def overhead(profile: Profile, vmi: Object) -> int:
    """Bytes the launcher needs beside the guest's memory: the profile's value for one vCPU.

    Every further vCPU adds 8 MiB, and the guest's page tables 1/512 of its memory.
    """
    domain = vmi["spec"]["domain"]
    cpu = domain.get("cpu") or {}
    vcpus = cpu.get("cores", 1) * cpu.get("sockets", 1) * cpu.get("threads", 1)
    base = quantity.whole(profile.kubevirt.launcher.overhead)
    reference = 10 * 2**20
    tables = (guest_memory(vmi) - reference) // 512
    return int(base + (vcpus - 1) * 8 * 2**20 + max(0, tables))


def guest_memory(vmi: Object) -> int:
    """Bytes the VMI asks for its guest."""
    domain = vmi["spec"]["domain"]
    requests = (domain.get("resources") or {}).get("requests") or {}
    asked = requests.get("memory") or (domain.get("memory") or {}).get("guest") or "0"
    return quantity.whole(asked)


def guest_cpu(vmi: Object) -> str:
    """The CPU request of the guest; KubeVirt's default allots a tenth of a core per vCPU."""
    requests = (vmi["spec"]["domain"].get("resources") or {}).get("requests") or {}
    return str(requests.get("cpu", "100m"))


def launcher_pod(profile: Profile, vmi: Object, qemu_timeout: int) -> Object:
    """The pod for a VMI; `qemu_timeout` in seconds is what its launcher waits for the domain."""
    metadata, spec = vmi["metadata"], vmi["spec"]
    name, launcher = metadata["name"], profile.kubevirt.launcher
    needs = overhead(profile, vmi)
    devices = {f"devices.kubevirt.io/{each}": "1" for each in DEVICES}
    grace = grace_period(vmi)
    compute = {
        "name": "compute",
        "image": image(profile, "virt-launcher"),
        "command": ["/usr/bin/virt-launcher"],
        "args": [
            QEMU_TIMEOUT_ARGUMENT, f"{qemu_timeout}s",
            "--name", name, "--uid", metadata["uid"], "--namespace", metadata["namespace"],
            "--grace-period-seconds", str(grace + 15),
        ],
        "resources": {
            "limits": devices,
            "requests": {
                "cpu": guest_cpu(vmi), **devices, "memory": str(guest_memory(vmi) + needs),
            },
        },
    }  # fmt: skip
    containers: list[Object] = [compute]
    init_containers: list[Object] = []
    for volume in spec.get("volumes") or []:
        if "containerDisk" in volume:
            disk = _container_disk(volume, launcher.container_disk_memory)
            (containers if launcher.container_disk == "container" else init_containers).append(disk)
    if quantity.whole(launcher.console_log_memory):
        init_containers.insert(0, _console_log(profile))
    return {
        "metadata": {
            "generateName": f"virt-launcher-{name}-",
            "labels": {
                "kubevirt.io": "virt-launcher",
                VMI_LABEL: metadata["uid"],
                **{k: v for k, v in (metadata.get("labels") or {}).items() if k != NODE_LABEL},
                "vm.kubevirt.io/name": name,
            },
            "annotations": {
                "kubevirt.io/domain": name,
                "kubevirt.io/memory-overhead-bytes": str(needs),
            },
            "ownerReferences": [
                {
                    "apiVersion": vmi["apiVersion"],
                    "kind": vmi["kind"],
                    "name": name,
                    "uid": metadata["uid"],
                    "controller": True,
                    "blockOwnerDeletion": True,
                }
            ],
        },
        "spec": {
            **({"initContainers": init_containers} if init_containers else {}),
            "containers": containers,
            "restartPolicy": "Never",
            "terminationGracePeriodSeconds": grace + 30,
            "nodeSelector": {**(spec.get("nodeSelector") or {}), "kubevirt.io/schedulable": "true"},
            "tolerations": spec.get("tolerations") or [],
            "schedulerName": "default-scheduler",
            "hostname": name[:63],
            "readinessGates": [{"conditionType": UNPAUSED}],
        },
        "status": {"phase": "Pending", "qosClass": "Burstable"},
    }


def _container_disk(volume: Object, memory: str) -> Object:
    disk = volume["containerDisk"]
    return {
        "name": f"volume{volume['name']}",
        "image": disk["image"],
        "imagePullPolicy": disk.get("imagePullPolicy", "IfNotPresent"),
        "command": ["/usr/bin/container-disk"],
        "resources": {
            "limits": {"cpu": "10m", "memory": "40M"},
            "requests": {"cpu": "1m", "ephemeral-storage": "50M", "memory": memory},
        },
    }


def _console_log(profile: Profile) -> Object:
    return {
        "name": "guest-console-log",
        "image": image(profile, "virt-launcher"),
        "command": ["/usr/bin/virt-tail"],
        "restartPolicy": "Always",
        "resources": {
            "limits": {"cpu": "15m", "memory": "60M"},
            "requests": {"cpu": "5m", "memory": profile.kubevirt.launcher.console_log_memory},
        },
    }


def requests_of(pod: Object) -> dict[str, int]:
    """What the scheduler counts for a pod: `cpu` in thousandths, all else in whole units.

    The containers' sum; init containers count at their largest, those that go on (restart policy
    Always) are added.
    """
    spec = pod["spec"]
    total: dict[str, Fraction] = {}
    largest: dict[str, Fraction] = {}
    for container in spec.get("containers") or []:
        _add(total, container)
    for container in spec.get("initContainers") or []:
        if container.get("restartPolicy") == "Always":
            _add(total, container)
        else:
            once: dict[str, Fraction] = {}
            _add(once, container)
            for key, value in once.items():
                largest[key] = max(largest.get(key, Fraction(0)), value)
    for key, value in largest.items():
        total[key] = max(total.get(key, Fraction(0)), value)
    counted = {key: math.ceil(value) for key, value in total.items() if key != "cpu"}
    return {"cpu": math.ceil(total.get("cpu", Fraction(0)) * 1000), **counted, "pods": 1}


def _add(total: dict[str, Fraction], container: Object) -> None:
    resources = container.get("resources") or {}
    asked = {**(resources.get("limits") or {}), **(resources.get("requests") or {})}
    named = resources.get("requests") or {}
    for key, value in asked.items():
        if key in named or "/" in key:
            total[key] = total.get(key, Fraction(0)) + quantity.parse(value)
