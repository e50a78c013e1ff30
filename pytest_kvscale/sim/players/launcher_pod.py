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
MACHINE_LABEL = "machine-type.node.kubevirt.io/"
"""A node has it for each machine type its qemu knows."""
PCI_TOPOLOGY = "kubevirt.io/pci-topology-version"
_LONGEST_LABEL = 63
VMI_LABEL = "kubevirt.io/created-by"
_SMALLEST = 10 * 2**20
"""The guest whose overhead the profile has."""
_PER_VCPU = 8 * 2**20
_PAGE_TABLES = 512
"""Page tables take this part of a guest's memory."""


def image(profile: Profile, component: str) -> str:
    """The image of one of KubeVirt's components."""
    return f"{profile.kubevirt.registry}/{component}:{profile.versions.kubevirt}"


def grace_period(vmi: Object) -> int:
    """Seconds a guest is given to shut down."""
    return int(vmi["spec"].get("terminationGracePeriodSeconds", 30))


def overhead(profile: Profile, vmi: Object) -> int:
    """Bytes the launcher needs beside the guest's memory, by KubeVirt's formula.

    The profile has its value for the smallest guest: one vCPU, 10 MiB, a screen.
    """
    launcher, domain = profile.kubevirt.launcher, vmi["spec"]["domain"]
    cpu = domain.get("cpu") or {}
    vcpus = cpu.get("cores", 1) * cpu.get("sockets", 1) * cpu.get("threads", 1)
    needs = quantity.whole(launcher.overhead)
    needs += (vcpus - 1) * _PER_VCPU
    needs += guest_memory(vmi) // _PAGE_TABLES - _SMALLEST // _PAGE_TABLES
    if (domain.get("devices") or {}).get("autoattachGraphicsDevice") is False:
        needs -= quantity.whole(launcher.graphics)
    if _guaranteed(domain.get("resources") or {}):
        needs += quantity.whole(launcher.guaranteed)
    return int(needs)


def _guaranteed(resources: Object) -> bool:
    requests, limits = resources.get("requests") or {}, resources.get("limits") or {}
    return all(
        key in limits
        and quantity.parse(limits[key]) == quantity.parse(requests.get(key, limits[key]))
        for key in ("cpu", "memory")
    )


def _memory_request(vmi: Object, needs: int) -> str:
    """The sum in the format of what the VMI asks for: binary or decimal, as Kubernetes adds."""
    domain = vmi["spec"]["domain"]
    requests = (domain.get("resources") or {}).get("requests") or {}
    asked = str(requests.get("memory") or (domain.get("memory") or {}).get("guest") or "0")
    total = guest_memory(vmi) + needs
    return quantity.binary(total) if asked.endswith("i") else str(total)


def guest_memory(vmi: Object) -> int:
    """Bytes the VMI asks for its guest."""
    domain = vmi["spec"]["domain"]
    resources = domain.get("resources") or {}
    requests, limits = resources.get("requests") or {}, resources.get("limits") or {}
    guest = (domain.get("memory") or {}).get("guest")
    return quantity.whole(requests.get("memory") or limits.get("memory") or guest or "0")


def guest_cpu(vmi: Object) -> str:
    """The CPU request of the guest; KubeVirt's default allots a tenth of a core per vCPU."""
    domain = vmi["spec"]["domain"]
    resources, cpu = domain.get("resources") or {}, domain.get("cpu") or {}
    vcpus = cpu.get("cores", 1) * cpu.get("sockets", 1) * cpu.get("threads", 1)
    asked = {**(resources.get("limits") or {}), **(resources.get("requests") or {})}
    return str(asked.get("cpu", f"{100 * vcpus}m"))


def launcher_pod(profile: Profile, vmi: Object, qemu_timeout: int) -> Object:
    """The pod for a VMI; `qemu_timeout` in seconds is what its launcher waits for the domain."""
    metadata, spec = vmi["metadata"], vmi["spec"]
    name, launcher = metadata["name"], profile.kubevirt.launcher
    new = profile.kubevirt.objects == "1.9"
    needs = overhead(profile, vmi)
    devices = {f"devices.kubevirt.io/{each}": "1" for each in DEVICES}
    grace = grace_period(vmi)
    compute = {
        "name": "compute",
        "image": image(profile, "virt-launcher"),
        "command": ["/usr/bin/virt-launcher-monitor" if new else "/usr/bin/virt-launcher"],
        "args": [
            QEMU_TIMEOUT_ARGUMENT, f"{qemu_timeout}s",
            "--name", name, "--uid", metadata["uid"], "--namespace", metadata["namespace"],
            "--grace-period-seconds", str(grace + 15),
        ],
        "resources": {
            "limits": devices,
            "requests": {
                "cpu": guest_cpu(vmi), **devices,
                **({"ephemeral-storage": "50M"} if new else {}),
                "memory": _memory_request(vmi, needs),
            },
        },
    }  # fmt: skip
    containers: list[Object] = [compute]
    init_containers: list[Object] = []
    for volume in spec.get("volumes") or []:
        if "containerDisk" in volume:
            disk = _container_disk(volume, launcher.container_disk_memory, new)
            (containers if launcher.container_disk == "container" else init_containers).append(disk)
    if quantity.whole(launcher.console_log_memory):
        init_containers.insert(0, _console_log(profile))
    labels = {k: v for k, v in (metadata.get("labels") or {}).items() if k != NODE_LABEL}
    if new:
        labels["vmi.kubevirt.io/id"] = name[:_LONGEST_LABEL]
    selector = {**(spec.get("nodeSelector") or {}), "kubevirt.io/schedulable": "true"}
    if new:
        machine = (spec["domain"].get("machine") or {}).get("type", "q35")
        selector["kubernetes.io/arch"] = spec.get("architecture", "amd64")
        selector[f"{MACHINE_LABEL}{machine}"] = "true"
    return {
        "metadata": {
            "generateName": f"virt-launcher-{name}-",
            "labels": {
                "kubevirt.io": "virt-launcher",
                VMI_LABEL: metadata["uid"],
                **labels,
                "vm.kubevirt.io/name": name[:_LONGEST_LABEL],
            },
            "annotations": _annotations(vmi, needs) if new else {"kubevirt.io/domain": name},
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
            "nodeSelector": selector,
            "tolerations": spec.get("tolerations") or [],
            "schedulerName": "default-scheduler",
            "hostname": name[:63],
            "readinessGates": [{"conditionType": UNPAUSED}],
        },
        "status": {"phase": "Pending", "qosClass": "Burstable"},
    }


def _annotations(vmi: Object, needs: int) -> Object:
    """What KubeVirt 1.9 notes on a launcher pod; a VMI's own annotations of KubeVirt's go along."""
    metadata = vmi["metadata"]
    own = metadata.get("annotations") or {}
    inherited = {key: value for key, value in own.items() if key == PCI_TOPOLOGY}
    target = f'"--name", "{metadata["name"]}", "--namespace", "{metadata["namespace"]}"]'
    return {
        **inherited,
        "descheduler.alpha.kubernetes.io/request-evict-only": "",
        "kubectl.kubernetes.io/default-container": "compute",
        "kubevirt.io/domain": metadata["name"],
        "kubevirt.io/memory-overhead-bytes": str(needs),
        "kubevirt.io/migrationTransportUnix": "true",
        "post.hook.backup.velero.io/command": f'["/usr/bin/virt-freezer", "--unfreeze", {target}',
        "post.hook.backup.velero.io/container": "compute",
        "pre.hook.backup.velero.io/command": f'["/usr/bin/virt-freezer", "--freeze", {target}',
        "pre.hook.backup.velero.io/container": "compute",
        "pre.hook.backup.velero.io/timeout": "60s",
    }


def _container_disk(volume: Object, memory: str, as_volume: bool) -> Object:
    disk = volume["containerDisk"]
    return {
        "name": f"volume{volume['name']}",
        "image": disk["image"],
        "imagePullPolicy": disk.get("imagePullPolicy", "IfNotPresent"),
        # An image volume brings the program along; before, the disk's image had to hold it.
        "command": [f"{'/container-disk-binary' if as_volume else ''}/usr/bin/container-disk"],
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
