"""virt-api's webhooks: what happens to a VMI before it is stored."""

from __future__ import annotations

from pytest_kvscale.sim import errors, kubevirt_cr, quantity
from pytest_kvscale.sim.api import Admission
from pytest_kvscale.sim.clock import Calendar
from pytest_kvscale.sim.draws import Draws
from pytest_kvscale.sim.errors import Object, StatusError
from pytest_kvscale.sim.players import vmi_defaults
from pytest_kvscale.sim.players.launcher_pod import PCI_TOPOLOGY
from pytest_kvscale.sim.profile import Profile
from pytest_kvscale.sim.resources import KUBEVIRTS, VMIS

FINALIZERS = {
    "0.46": "foregroundDeleteVirtualMachine",
    "1.9": "kubevirt.io/foregroundDeleteVirtualMachine",
}
"""What keeps a VMI until virt-controller has seen its end, by version."""
_VALIDATOR = "virtualmachineinstances-create-validator.kubevirt.io"


def vmi_admission(profile: Profile, calendar: Calendar, draws: Draws) -> Admission:
    """The mutating and validating webhooks for the creation of a VMI."""

    def admit(vmi: Object) -> Object:
        metadata, spec = vmi["metadata"], vmi.get("spec")
        name = metadata["name"]
        if not isinstance(spec, dict) or not isinstance(spec.get("domain"), dict):
            missing = errors.cause("FieldValueRequired", "spec.domain", "Required value")
            raise errors.invalid(VMIS, name, [missing])
        requests = (spec["domain"].get("resources") or {}).get("requests") or {}
        for key, value in requests.items():
            try:
                quantity.parse(value)
            except ValueError as problem:
                raise _denied(f"spec.domain.resources.requests.{key}: {problem}") from None
        if draws.chance(profile.faults.share("create_rejected", name), "create_rejected", name):
            raise _denied("rejected on request (profile: faults.create_rejected)")
        stamp = calendar.stamp()
        finalizers = [*(metadata.get("finalizers") or []), FINALIZERS[profile.kubevirt.objects]]
        metadata = {**metadata, "finalizers": [*dict.fromkeys(finalizers)]}
        # The webhook writes the whole spec anew, with what KubeVirt never leaves out.
        spec = {**spec, "domain": {"devices": {}, **spec["domain"]}}
        more: Object = {}
        if profile.kubevirt.objects == "1.9":
            spec = vmi_defaults.spec(spec, draws, name)
            more = vmi_defaults.status(spec)
            annotations = {PCI_TOPOLOGY: "v3", **(metadata.get("annotations") or {})}
            metadata["annotations"] = annotations
        return {
            **vmi,
            "metadata": metadata,
            "spec": spec,
            "status": {
                **more,
                **_kept(vmi),
                "phase": "Pending",
                "phaseTransitionTimestamps": [
                    {"phase": "Pending", "phaseTransitionTimestamp": stamp}
                ],
            },
        }

    return admit


def _kept(vmi: Object) -> Object:
    """What whoever makes a VMI may say in its status: the revision of its VM."""
    key = "virtualMachineRevisionName"
    status = vmi.get("status") or {}
    return {key: status[key]} if key in status else {}


def _denied(why: str) -> StatusError:
    message = f'admission webhook "{_VALIDATOR}" denied the request: {why}'
    return StatusError(422, "Invalid", message)


def check_kubevirt(obj: Object) -> None:
    """422 for settings in the KubeVirt CR that the players could not read."""
    causes = [
        errors.cause("FieldValueInvalid", f"spec.{path}", why)
        for path, why in kubevirt_cr.problems(obj.get("spec"))
    ]
    if causes:
        raise errors.invalid(KUBEVIRTS, obj["metadata"]["name"], causes)
