"""Roles and bindings as JSON: what the API adds to them, and what it does not take. Pure."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from pytest_kvscale.sim import errors, selectors
from pytest_kvscale.sim.authorization import GROUP
from pytest_kvscale.sim.errors import Object
from pytest_kvscale.sim.resources import CLUSTER_ROLE_BINDINGS, CLUSTER_ROLES, Resource

_SELECTORS = "clusterRoleSelectors"
_SUBJECT_GROUPS = {"ServiceAccount": "", "User": GROUP, "Group": GROUP}


class _Json(BaseModel):
    model_config = ConfigDict(strict=True, extra="ignore")


class _Rule(_Json):
    verbs: list[str] | None = None
    apiGroups: list[str] | None = None  # noqa: N815 - these are the API's own names
    resources: list[str] | None = None
    resourceNames: list[str] | None = None  # noqa: N815
    nonResourceURLs: list[str] | None = None  # noqa: N815


class _Requirement(_Json):
    key: str
    operator: str
    values: list[str] | None = None


class _Selector(_Json):
    matchLabels: dict[str, str] | None = None  # noqa: N815
    matchExpressions: list[_Requirement] | None = None  # noqa: N815


class _Aggregation(_Json):
    clusterRoleSelectors: list[_Selector] | None = None  # noqa: N815


class _Role(_Json):
    rules: list[_Rule] | None = None
    aggregationRule: _Aggregation | None = None  # noqa: N815


class _Reference(_Json):
    apiGroup: str | None = None  # noqa: N815
    kind: str | None = None
    name: str | None = None


class _Subject(_Json):
    apiGroup: str | None = None  # noqa: N815
    kind: str | None = None
    name: str | None = None
    namespace: str | None = None


class _Binding(_Json):
    roleRef: _Reference | None = None  # noqa: N815
    subjects: list[_Subject] | None = None


def role_defaults(obj: Object) -> Object:
    """A role as it is stored: `rules` is always there."""
    return {**obj, "rules": obj.get("rules")}


def binding_defaults(obj: Object) -> Object:
    """A binding with the API groups that may be left out."""
    _read(_Binding, obj)
    reference = {"apiGroup": GROUP, **_without_none(obj.get("roleRef") or {})}
    subjects = []
    for each in obj.get("subjects") or ():
        group = _SUBJECT_GROUPS.get(each.get("kind"), "")
        subjects.append({**({"apiGroup": group} if group else {}), **_without_none(each)})
    return {**obj, "roleRef": reference, **({"subjects": subjects} if subjects else {})}


def check_role(kind: Resource, obj: Object) -> None:
    """400 or 422 for a role that may not be stored."""
    role = _read(_Role, obj)
    causes: list[Object] = []
    for index, rule in enumerate(role.rules or ()):
        causes += _rule_problems(f"rules[{index}]", rule, kind is CLUSTER_ROLES)
    for index, selector in enumerate((obj.get("aggregationRule") or {}).get(_SELECTORS) or ()):
        try:
            selectors.labels(selectors.of_spec(selector))
        except (ValueError, errors.StatusError) as problem:
            field = f"aggregationRule.{_SELECTORS}[{index}]"
            causes.append(errors.cause("FieldValueInvalid", field, f"Invalid value: {problem}"))
    _refuse(kind, obj, causes)


def _rule_problems(field: str, rule: _Rule, of_cluster: bool) -> list[Object]:
    causes = []
    if not rule.verbs:
        causes.append(_required(f"{field}.verbs", "verbs must contain at least one value"))
    if rule.nonResourceURLs:
        if not of_cluster:
            text = (
                f"Invalid value: {_go(rule.nonResourceURLs)}: namespaced rules cannot apply to "
                "non-resource URLs"
            )
            causes.append(errors.cause("FieldValueInvalid", f"{field}.nonResourceURLs", text))
        if rule.apiGroups or rule.resources or rule.resourceNames:
            text = (
                f"Invalid value: {_go(rule.nonResourceURLs)}: rules cannot apply to both regular "
                "resources and non-resource URLs"
            )
            causes.append(errors.cause("FieldValueInvalid", f"{field}.nonResourceURLs", text))
        return causes
    if not rule.apiGroups:
        text = "resource rules must supply at least one api group"
        causes.append(_required(f"{field}.apiGroups", text))
    if not rule.resources:
        text = "resource rules must supply at least one resource"
        causes.append(_required(f"{field}.resources", text))
    return causes


def check_binding(kind: Resource, obj: Object) -> None:
    """400 or 422 for a binding that may not be stored."""
    binding = _read(_Binding, obj)
    reference = binding.roleRef or _Reference()
    causes: list[Object] = []
    if (reference.apiGroup or GROUP) != GROUP:
        causes.append(_unsupported("roleRef.apiGroup", str(reference.apiGroup), GROUP))
    kinds = ("ClusterRole",) if kind is CLUSTER_ROLE_BINDINGS else ("Role", "ClusterRole")
    if reference.kind not in kinds:
        causes.append(_unsupported("roleRef.kind", reference.kind or "", *kinds))
    if not reference.name:
        causes.append(_required("roleRef.name"))
    for index, subject in enumerate(binding.subjects or ()):
        field = f"subjects[{index}]"
        if not subject.name:
            causes.append(_required(f"{field}.name"))
        expected = _SUBJECT_GROUPS.get(subject.kind or "")
        if expected is None:
            causes.append(_unsupported(f"{field}.kind", subject.kind or "", *_SUBJECT_GROUPS))
        elif (subject.apiGroup or expected) != expected:
            causes.append(_unsupported(f"{field}.apiGroup", subject.apiGroup or "", expected))
        needs = subject.kind == "ServiceAccount" and not subject.namespace
        if needs and kind is CLUSTER_ROLE_BINDINGS:
            causes.append(_required(f"{field}.namespace"))
    _refuse(kind, obj, causes)


def check_same_role(kind: Resource, new: Object, old: Object) -> None:
    """422 for a binding that is to refer to another role than it did."""
    reference = {"apiGroup": GROUP, **_without_none(new["roleRef"])}
    if reference != old["roleRef"]:
        given = ", ".join(
            f'{key}:"{reference.get(field, "")}"'
            for key, field in (("APIGroup", "apiGroup"), ("Kind", "kind"), ("Name", "name"))
        )
        text = f"Invalid value: rbac.RoleRef{{{given}}}: cannot change roleRef"
        _refuse(kind, new, [errors.cause("FieldValueInvalid", "roleRef", text)])


def _read(model: type[Any], obj: Object) -> Any:
    try:
        return model.model_validate(obj)
    except ValidationError as problem:
        first = problem.errors()[0]
        field = ".".join(str(step) for step in first["loc"])
        raise errors.bad_request(
            f'{obj["kind"]} in version "v1" cannot be handled as a {obj["kind"]}: '
            f"{field}: {first['msg']}"
        ) from None


def _refuse(kind: Resource, obj: Object, causes: list[Object]) -> None:
    if causes:
        raise errors.invalid(kind, obj["metadata"]["name"], causes)


def _required(field: str, why: str = "") -> Object:
    return errors.cause("FieldValueRequired", field, f"Required value{': ' if why else ''}{why}")


def _unsupported(field: str, value: str, *known: str) -> Object:
    supported = ", ".join(f'"{each}"' for each in known)
    text = f'Unsupported value: "{value}": supported values: {supported}'
    return errors.cause("FieldValueNotSupported", field, text)


def _go(values: list[str]) -> str:
    """A list of texts as Go's `%#v` shows it."""
    return "[]string{" + ", ".join(f'"{value}"' for value in values) + "}"


def _without_none(obj: Object) -> Object:
    return {key: value for key, value in obj.items() if value is not None}
