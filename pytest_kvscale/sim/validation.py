"""What an object must be before the API takes it: of the right type, named as its path says.

For custom kinds also what their definitions ask for.
"""

from __future__ import annotations

from typing import Any

from pytest_kvscale.sim import errors, schema
from pytest_kvscale.sim.errors import Object
from pytest_kvscale.sim.field_check import FieldCheck
from pytest_kvscale.sim.resources import KUBEVIRTS, VMIRS, VMIS, VMS, Resource


def check_type(resource: Resource, obj: Object, patched: bool = False) -> None:
    """400 for an object of another kind or version than the path says.

    A custom one of the right version can be read, but its kind may not be that (422).
    """
    kind, version = obj.get("kind"), obj.get("apiVersion")
    if resource.custom and isinstance(kind, str | None) and isinstance(version, str | None):
        _check_custom_type(resource, obj, patched)
    if kind not in (None, "", resource.kind):
        raise errors.bad_request(
            f"{kind} in version {version!r} cannot be handled as a {resource.kind}: "
            "no kind is registered for the type"
        )
    if version not in (None, "") and version not in _api_versions(resource):
        raise errors.bad_request(
            f"the API version in the data ({version}) does not match the expected API "
            f"version ({resource.api_version})"
        )
    if not isinstance(obj.get("metadata") or {}, dict):
        raise errors.bad_request("metadata must be an object")


def _check_custom_type(resource: Resource, obj: Object, patched: bool) -> None:
    kind, version = obj.get("kind") or resource.kind, obj.get("apiVersion")
    if patched and not (obj.get("kind") and version):
        raise errors.bad_request("Object 'Kind' is missing")
    if not version or version in _api_versions(resource):
        version = resource.api_version
    wrong = (
        errors.invalid_value(field, found, f"must be {expected}")
        for field, found, expected in (
            ("kind", kind, resource.kind),
            ("apiVersion", version, resource.api_version),
        )
        if found != expected
    )
    causes = list(wrong)
    if causes and (patched or version == resource.api_version):
        name = str((obj.get("metadata") or {}).get("name") or "")
        raise errors.invalid(resource, name, causes)


def _api_versions(resource: Resource) -> list[str]:
    group = f"{resource.group}/" if resource.group else ""
    return [f"{group}{version}" for version in resource.versions]


def check_names(namespace: str, name: str, obj: Object) -> None:
    """400 for an object that is not the one that the path names."""
    metadata = obj.get("metadata") or {}
    given, place = metadata.get("name") or "", metadata.get("namespace") or ""
    if not given:
        raise errors.bad_request(
            f"the name of the object ({name} based on URL) was undeterminable: name must be "
            "provided"
        )
    if given != name:
        raise errors.bad_request(
            f"the name of the object ({given}) does not match the name on the URL ({name})"
        )
    if place and namespace and place != namespace:
        raise errors.bad_request(
            f"the namespace of the object ({place}) does not match the namespace on the request "
            f"({namespace})"
        )


def check_said(resource: Resource, obj: Object) -> None:
    """400 for a client's custom object that does not say of which kind and version it is."""
    if not resource.custom:
        return
    if not obj.get("kind"):
        raise errors.bad_request(
            f"the object provided is unrecognized (must be of type {resource.kind}): Object "
            "'Kind' is missing"
        )
    if not obj.get("apiVersion"):
        raise errors.bad_request(
            "the API version in the data (/) does not match the expected API version "
            f"({resource.api_version})"
        )


# Custom kinds -----------------------------------------------------------------------------------

_REQUIRED: dict[Resource, tuple[tuple[str, ...], ...]] = {
    VMIS: (("spec",), ("spec", "domain"), ("spec", "domain", "devices")),
    VMS: (("spec",), ("spec", "template")),
    VMIRS: (("spec",), ("spec", "selector"), ("spec", "template")),
    KUBEVIRTS: (("spec",),),
}
"""Objects that must be there; one is asked for where the one around it is there."""
_BLOCKING = (
    "FieldValueRequired", "FieldValueTypeInvalid", "FieldValueNotSupported", "FieldValueTooLong",
)  # fmt: skip


def custom_problems(
    resource: Resource,
    obj: Object,
    old: Object | None,
    causes: list[Object],
    fields: FieldCheck | None,
) -> list[Object]:
    """These causes and those for which the definition of a custom kind refuses an object.

    Where there are grave ones, rules beyond the schema are not looked at, which is one more. The
    players' objects (no `fields`) are of the right types; what they make them of need not be.
    """
    if fields is not None and has_schema(resource):
        causes = [*causes, *fields.problems(resource, obj, old)]
    else:
        causes = [*causes, *_schema_problems(resource, obj)]
    if resource.checked and any(each["reason"] in _BLOCKING for each in causes):
        why = (
            "some validation rules were not checked because the object was invalid; correct the "
            "existing errors to complete validation"
        )
        causes.append(errors.invalid_value("<nil>", None, why))
    return causes


def has_schema(resource: Resource) -> bool:
    """Whether the types of a kind's fields are known."""
    return schema.of(resource).field("spec") is not None


def _schema_problems(resource: Resource, obj: Object) -> list[Object]:
    found = []
    for path in _REQUIRED.get(resource, ()):
        around: Any = obj
        for step in path[:-1]:
            around = around.get(step) if isinstance(around, dict) else None
        if not isinstance(around, dict):
            continue
        value, field = around.get(path[-1]), ".".join(path)
        if value is None:
            found.append(errors.required(field))
        elif not isinstance(value, dict):
            why = f"{field} in body must be of type object"
            found.append(
                {**errors.invalid_value(field, value, why), "reason": "FieldValueTypeInvalid"}
            )
    return found
