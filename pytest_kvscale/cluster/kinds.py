"""The kinds of objects a run can create: where they are served, and how to read them.

A VMI is what is measured. A VirtualMachine and a VirtualMachineInstanceReplicaSet are owners: they
are created, and make VMIs. A Pod is measured itself, as a base line beside VMIs.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any, Literal

from pytest_kvscale.cluster.client import PODS, VMIS, Object, Resource
from pytest_kvscale.errors import ConfigurationError

Stream = Literal["vmis", "pods", "vms"]
"""The watch, and the stream of a recording, an object is seen in; owners are in `vms`."""

VMS = Resource("kubevirt.io/v1", "virtualmachines")
VMIRS = Resource("kubevirt.io/v1", "virtualmachineinstancereplicasets")
_STARTING = ("Always", "RerunOnFailure", "Once")


@dataclasses.dataclass(frozen=True)
class Kind:
    """One kind; its functions take objects that `check` let pass."""

    name: str
    api_version: str
    resource: Resource
    stream: Stream

    @property
    def is_owner(self) -> bool:
        """Whether it makes VMIs rather than being what is measured."""
        return self.stream == "vms"

    @property
    def is_pod(self) -> bool:
        """Whether it is a plain pod: KubeVirt has no part in it."""
        return self.stream == "pods"

    def check(self, obj: Object) -> None:
        """Raise `ConfigurationError` if an object cannot come to run as it is, or is malformed."""
        spec = obj.get("spec")
        inner = spec.get("template") if self.is_owner and isinstance(spec, dict) else obj
        if not isinstance(inner, dict) or not isinstance(inner.get("spec"), dict):
            where = "spec.template.spec" if self.is_owner else "spec"
            raise ConfigurationError(f"lacks {where}")
        for labelled in (obj, inner):
            labels = (labelled.get("metadata") or {}).get("labels") or {}
            if not isinstance(labels, dict):
                raise ConfigurationError("has metadata.labels that are no mapping")
        if self.resource is VMS:
            _check_strategy(obj["spec"])
        if self.resource is VMIRS:
            _check_replicas(obj["spec"])

    def vmis(self, obj: Object) -> int:
        """How many VMIs (or pods) an object makes."""
        return int(obj["spec"].get("replicas", 1)) if self.resource is VMIRS else 1

    def machine(self, obj: Object) -> Object:
        """The spec of the VMI (or pod) that will run: node selector, tolerations."""
        inner: Object = obj["spec"]["template"]["spec"] if self.is_owner else obj["spec"]
        return inner

    def metadata(self, obj: Object) -> Iterator[Object]:
        """The metadata of the object, and of what it makes."""
        yield obj["metadata"]
        if self.is_owner:
            inner = obj["spec"]["template"]
            inner["metadata"] = inner.get("metadata") or {}
            yield inner["metadata"]


KINDS: Mapping[tuple[str, str], Kind] = {
    (each.api_version, each.name): each
    for each in (
        Kind("VirtualMachineInstance", "kubevirt.io/v1", VMIS, "vmis"),
        Kind("VirtualMachine", "kubevirt.io/v1", VMS, "vms"),
        Kind("VirtualMachineInstanceReplicaSet", "kubevirt.io/v1", VMIRS, "vms"),
        Kind("Pod", "v1", PODS, "pods"),
    )
}


def kind_of(obj: Mapping[str, Any]) -> Kind:
    """The kind of an object. Raises `ConfigurationError` for one whose readiness we cannot read."""
    version, name = obj.get("apiVersion"), obj.get("kind")
    found = KINDS.get((str(version), str(name)))
    if found is None:
        expected = " or ".join(f"{each} ({api})" for api, each in sorted(KINDS))
        raise ConfigurationError(f"makes a {name} ({version}): expected {expected}")
    return found


def _check_strategy(spec: Object) -> None:
    strategy = spec.get("runStrategy")
    if strategy not in _STARTING and spec.get("running") is not True:
        given = f"runStrategy {strategy}" if strategy else f"running {spec.get('running')}"
        raise ConfigurationError(
            f"makes a VirtualMachine that would not start ({given}): expected runStrategy "
            + " or ".join(_STARTING)
        )


def _check_replicas(spec: Object) -> None:
    replicas = spec.get("replicas", 1)
    if not isinstance(replicas, int) or replicas < 1:
        raise ConfigurationError(
            f"has spec.replicas {replicas!r}: expected a whole number of VMIs above 0"
        )
