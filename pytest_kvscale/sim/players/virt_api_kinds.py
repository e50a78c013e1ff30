"""virt-api's webhooks for VirtualMachines and replica sets: which ones are refused, in its words.

What the CRD's schema asks for the API server itself refuses, in other words; it comes after the
mutating webhook (VirtualMachines have one) and before the validating one.
"""

from __future__ import annotations

from pytest_kvscale.sim import errors, quantity, selectors
from pytest_kvscale.sim.errors import Object, StatusError
from pytest_kvscale.sim.players.vm_strategy import STRATEGIES
from pytest_kvscale.sim.resources import VMIRS

_VM_MUTATOR = "virtualmachines-mutator.kubevirt.io"
_VM_VALIDATOR = "virtualmachine-validator.kubevirt.io"
_VMIRS_VALIDATOR = "virtualmachinereplicaset-validator.kubevirt.io"
_MOST_REPLICAS = 2**31 - 1
_INVALID, _REQUIRED = "FieldValueInvalid", "FieldValueRequired"


def denied(webhook: str, causes: list[Object]) -> StatusError:
    """422: a webhook refuses; its causes' messages in one."""
    words = ", ".join(each["message"] for each in causes)
    message = f'admission webhook "{webhook}" denied the request: {words}'
    return StatusError(422, "Invalid", message, {"causes": causes})


def fill_vm(vm: Object) -> Object:
    """The VirtualMachine as its mutating webhook writes it: with what KubeVirt never leaves out."""
    spec = vm.get("spec")
    template = spec.get("template") if isinstance(spec, dict) else None
    inner = template.get("spec") if isinstance(template, dict) else None
    domain = inner.get("domain") if isinstance(inner, dict) else None
    if not isinstance(domain, dict) or "devices" in domain:
        return vm
    inner = {**(inner or {}), "domain": {"devices": {}, **domain}}
    return {**vm, "spec": {**(spec or {}), "template": {**(template or {}), "spec": inner}}}


def check_vm(vm: Object) -> None:
    """Raise `StatusError` for a VirtualMachine that is refused."""
    spec = vm.get("spec")
    field, found = "spec", spec
    for step in ("template", "spec", "domain"):
        if not isinstance(found, dict):
            break
        field, found = f"{field}.{step}", found.get(step)
    if not isinstance(spec, dict) or not isinstance(found, dict):
        raise denied(_VM_MUTATOR, [{"message": f"{field} in body is required"}])
    causes = [*_template_causes(spec["template"]), *_strategy_causes(spec)]
    if causes:
        raise denied(_VM_VALIDATOR, causes)


def _strategy_causes(spec: Object) -> list[Object]:
    running, wanted = spec.get("running"), spec.get("runStrategy")
    if running is not None and wanted is not None:
        text = (
            "Running and RunStrategy are mutually exclusive. Note that Running is deprecated, "
            "please use RunStrategy instead"
        )
        return [errors.cause(_INVALID, "spec.running", text)]
    if running is None and wanted is None:
        return [errors.cause(_INVALID, "spec.running", "RunStrategy must be specified")]
    if wanted is not None and wanted not in STRATEGIES:
        text = f"Invalid RunStrategy ({wanted})"
        return [errors.cause(_INVALID, "spec.runStrategy", text)]
    return []


def check_replica_set(replica_set: Object) -> None:
    """Raise `StatusError` for a VirtualMachineInstanceReplicaSet that is refused."""
    spec = replica_set.get("spec")
    spec = spec if isinstance(spec, dict) else {}
    template, selector = spec.get("template"), spec.get("selector")
    missing = [key for key in ("selector", "template") if not isinstance(spec.get(key), dict)]
    if missing:
        gaps = [errors.cause(_REQUIRED, f"spec.{each}", "Required value") for each in missing]
        raise errors.invalid(VMIRS, replica_set["metadata"]["name"], gaps)
    replicas = spec.get("replicas", 1)
    problem = _replicas_problem(replicas)
    if problem:
        text = f"Invalid value: {replicas}: {problem}"
        cause = errors.cause(_INVALID, ".spec.replicas", text)
        raise errors.invalid(VMIRS, replica_set["metadata"]["name"], [cause])
    causes = _template_causes(template or {})
    labels = {"metadata": {"labels": ((template or {}).get("metadata") or {}).get("labels")}}
    try:
        if not selectors.labels(selectors.of_spec(selector or {}))(labels):
            text = "selector does not match labels."
            causes.append(errors.cause(_INVALID, "spec.selector", text))
    except (ValueError, StatusError) as problem_of_it:
        causes.append(errors.cause(_INVALID, "spec.selector", str(problem_of_it)))
    if causes:
        raise denied(_VMIRS_VALIDATOR, causes)


def _replicas_problem(replicas: object) -> str:
    if isinstance(replicas, bool) or not isinstance(replicas, int):
        return "must be of type integer"
    if replicas < 0:
        return "should be a non-negative integer"
    return f"should be less than or equal to {_MOST_REPLICAS}" if replicas > _MOST_REPLICAS else ""


def _template_causes(template: Object) -> list[Object]:
    """What is wrong with the VMI a template describes."""
    domain = (template.get("spec") or {}).get("domain") or {}
    requests = (domain.get("resources") or {}).get("requests") or {}
    causes = []
    for key, value in requests.items():
        field = f"spec.template.spec.domain.resources.requests.{key}"
        try:
            negative = quantity.parse(value) < 0
        except ValueError as problem:
            causes.append(errors.cause(_INVALID, field, f"{field}: {problem}"))
        else:
            if negative:
                text = f"{field} '{value}': must be greater than or equal to 0."
                causes.append(errors.cause(_INVALID, field, text))
    return causes
