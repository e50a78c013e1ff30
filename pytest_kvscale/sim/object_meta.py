"""What the metadata of an object must be like, the same for all kinds."""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator
from typing import Any

from pytest_kvscale.sim import errors
from pytest_kvscale.sim.deletion import FOREGROUND, ORPHAN
from pytest_kvscale.sim.errors import Object
from pytest_kvscale.sim.resources import NameRule, Resource

_LABEL = r"[a-z0-9]([-a-z0-9]*[a-z0-9])?"
_SUBDOMAIN = rf"{_LABEL}(\.{_LABEL})*"
_RULES: dict[NameRule, tuple[str, int, str]] = {
    "subdomain": (
        _SUBDOMAIN,
        253,
        (
            "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, "
            "'-' or '.', and must start and end with an alphanumeric character (e.g. "
            "'example.com'"
        ),
    ),
    "label": (
        _LABEL,
        63,
        (
            "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or "
            "'-', and must start and end with an alphanumeric character (e.g. 'my-name',  or "
            "'123-abc'"
        ),
    ),
    "service": (
        r"[a-z]([-a-z0-9]*[a-z0-9])?",
        63,
        (
            "a DNS-1035 label must consist of lower case alphanumeric characters or '-', start "
            "with an alphabetic character, and end with an alphanumeric character (e.g. "
            "'my-name',  or 'abc-123'"
        ),
    ),
}
_COMPILED = {rule: re.compile(pattern) for rule, (pattern, _, _) in _RULES.items()}
_QUALIFIED = re.compile(r"([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]")
_LABEL_VALUE = re.compile(r"(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?")
TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)")
"""How a time is written."""
_STANDARD_FINALIZERS = ("kubernetes", ORPHAN, FOREGROUND)
_LONGEST_ANNOTATIONS = 256 * 1024
SUFFIX_LENGTH = 5
LONGEST_GENERATED = 63
"""Characters of a generated name; a longer `generateName` is cut."""


# Names ------------------------------------------------------------------------------------------


@functools.lru_cache(maxsize=4096)
def name_problems(rule: NameRule, name: str, prefix: bool = False) -> tuple[str, ...]:
    """What is wrong with a name; `prefix`: with one that something is added to."""
    if rule == "segment":
        return tuple(_segment_problems(name, prefix))
    if prefix and len(name) > 1 and name.endswith("-"):
        name = name[:-1] + "a"
    pattern, longest, words = _RULES[rule]
    problems = []
    if len(name) > longest:
        problems.append(f"must be no more than {longest} bytes")
    if not _COMPILED[rule].fullmatch(name):
        problems.append(f"{words}, regex used for validation is '{pattern}')")
    return tuple(problems)


def _segment_problems(name: str, prefix: bool) -> Iterator[str]:
    if not prefix and name in (".", ".."):
        yield f"may not be '{name}'"
    for each in ("/", "%"):
        if each in name:
            yield f"may not contain '{each}'"


@functools.lru_cache(maxsize=4096)
def qualified_name_problems(name: str) -> tuple[str, ...]:
    """What is wrong with the key of a label, annotation or the name of a finalizer."""
    prefix, slash, rest = name.rpartition("/")
    problems: list[str] = []
    if slash and "/" in prefix:
        return ("a qualified name must consist of alphanumeric characters, '-', '_' or '.'",)
    if slash:
        if not prefix:
            problems.append("prefix part must be non-empty")
        else:
            problems += [f"prefix part {each}" for each in name_problems("subdomain", prefix)]
    if not rest:
        problems.append("name part must be non-empty")
    elif len(rest) > 63:
        problems.append("name part must be no more than 63 bytes")
    if not _QUALIFIED.fullmatch(rest):
        problems.append(
            "name part must consist of alphanumeric characters, '-', '_' or '.', and must start "
            "and end with an alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', "
            f"regex used for validation is '{_QUALIFIED.pattern}')"
        )
    return tuple(problems)


@functools.lru_cache(maxsize=4096)
def label_value_problems(value: str) -> tuple[str, ...]:
    """What is wrong with the value of a label."""
    problems = []
    if len(value) > 63:
        problems.append("must be no more than 63 bytes")
    if not _LABEL_VALUE.fullmatch(value):
        problems.append(
            "a valid label must be an empty string or consist of alphanumeric characters, '-', "
            "'_' or '.', and must start and end with an alphanumeric character (e.g. 'MyValue',  "
            f"or 'my_value',  or '12345', regex used for validation is '{_LABEL_VALUE.pattern}')"
        )
    return tuple(problems)


# Types ------------------------------------------------------------------------------------------

_TEXTS = (
    "name", "generateName", "namespace", "uid", "resourceVersion", "selfLink",
)  # fmt: skip
_OWNER_TEXTS = ("apiVersion", "kind", "name", "uid")


def check_types(resource: Resource, obj: Object) -> None:
    """400 for metadata that cannot be read."""
    metadata = obj.get("metadata")
    if metadata is None:
        return
    problem = _type_problem(metadata)
    if problem:
        raise errors.bad_request(
            f'{resource.kind} in version "{resource.version}" cannot be handled as a '
            f"{resource.kind}: json: cannot unmarshal into Go struct field {problem}"
        )


def _type_problem(metadata: Any) -> str:
    if not isinstance(metadata, dict):
        return "ObjectMeta"
    for key in _TEXTS:
        if not isinstance(metadata.get(key), str | None):
            return f"ObjectMeta.metadata.{key} of type string"
    for key in ("creationTimestamp", "deletionTimestamp"):
        held = metadata.get(key)
        if held is not None and not (isinstance(held, str) and TIME.fullmatch(held)):
            return f"ObjectMeta.metadata.{key} of type Time"
    for key in ("labels", "annotations"):
        held = metadata.get(key)
        if held is None:
            continue
        if not isinstance(held, dict) or not all(
            isinstance(each, str | None) for each in held.values()
        ):
            return f"ObjectMeta.metadata.{key} of type string"
    finalizers = metadata.get("finalizers")
    if finalizers is not None and not (
        isinstance(finalizers, list) and all(isinstance(each, str) for each in finalizers)
    ):
        return "ObjectMeta.metadata.finalizers of type string"
    return _owner_type_problem(metadata)


def _owner_type_problem(metadata: Object) -> str:
    owners = metadata.get("ownerReferences")
    if owners is not None and not isinstance(owners, list):
        return "ObjectMeta.metadata.ownerReferences"
    for owner in owners or ():
        if not isinstance(owner, dict):
            return "ObjectMeta.metadata.ownerReferences"
        for key in _OWNER_TEXTS:
            if not isinstance(owner.get(key), str | None):
                return f"OwnerReference.metadata.ownerReferences.{key} of type string"
        for key in ("controller", "blockOwnerDeletion"):
            if not isinstance(owner.get(key), bool | None):
                return f"OwnerReference.metadata.ownerReferences.{key} of type bool"
    for key in ("generation", "deletionGracePeriodSeconds"):
        value = metadata.get(key)
        if isinstance(value, bool) or not isinstance(value, int | None):
            return f"ObjectMeta.metadata.{key} of type int64"
    return ""


# Rules ------------------------------------------------------------------------------------------


def problems_of_new(resource: Resource, metadata: Object) -> Iterator[Object]:
    """Causes for metadata that a new object may not have."""
    base, name = metadata.get("generateName") or "", metadata.get("name") or ""
    if base:
        for why in name_problems(resource.names, base, prefix=True):
            yield errors.invalid_value("metadata.generateName", base, why)
    if not name:
        yield errors.required("metadata.name", "name or generateName is required")
    else:
        for why in name_problems(resource.names, name):
            yield errors.invalid_value("metadata.name", name, why)
    yield from _problems(resource, metadata, {})


def problems_of_change(resource: Resource, held: Object, given: Object) -> Iterator[Object]:
    """Causes for a change of metadata that may not be."""
    if given.get("uid") and given["uid"] != held["uid"]:
        yield errors.invalid_value("metadata.uid", given["uid"], "field is immutable")
    if "deletionTimestamp" in held:
        had = held.get("finalizers") or []
        new = [each for each in given.get("finalizers") or [] if each not in had]
        if new:
            yield errors.not_allowed(
                "metadata.finalizers",
                "no new finalizers can be added if the object is being deleted, found new "
                f"finalizers {new}",
            )
    yield from _problems(resource, given, held)


def _problems(resource: Resource, given: Object, held: Object) -> Iterator[Object]:
    """What is wrong with the parts that are not as they were."""
    for key, check in _CHECKS.items():
        value = given.get(key)
        if value and value != held.get(key):
            yield from check(value)
    finalizers = given.get("finalizers")
    if finalizers and not resource.custom and finalizers != held.get("finalizers"):
        for index, each in enumerate(finalizers):
            if "/" not in each and each not in _STANDARD_FINALIZERS:
                why = "name is neither a standard finalizer name nor is it fully qualified"
                yield errors.invalid_value(f"metadata.finalizers[{index}]", each, why)


def _label_problems(labels: dict[str, str | None]) -> Iterator[Object]:
    for key, value in labels.items():
        for why in qualified_name_problems(key):
            yield errors.invalid_value("metadata.labels", key, why)
        for why in label_value_problems(value or ""):
            yield errors.invalid_value("metadata.labels", value, why)


def _annotation_problems(annotations: dict[str, str | None]) -> Iterator[Object]:
    size = 0
    for key, value in annotations.items():
        size += len(key) + len(value or "")
        for why in qualified_name_problems(key.lower()):
            yield errors.invalid_value("metadata.annotations", key, why)
    if size > _LONGEST_ANNOTATIONS:
        yield errors.too_long("metadata.annotations", _LONGEST_ANNOTATIONS)


def _finalizer_problems(finalizers: list[str]) -> Iterator[Object]:
    for each in finalizers:
        for why in qualified_name_problems(each):
            yield errors.invalid_value("metadata.finalizers", each, why)
    if ORPHAN in finalizers and FOREGROUND in finalizers:
        why = f"finalizer {ORPHAN} and {FOREGROUND} cannot be both set"
        yield errors.invalid_value("metadata.finalizers", finalizers, why)


def _owner_problems(owners: list[Object]) -> Iterator[Object]:
    field = "metadata.ownerReferences"
    controllers = []
    for owner in owners:
        version = owner.get("apiVersion") or ""
        if not version or version.count("/") > 1 or version.endswith("/"):
            yield errors.invalid_value(f"{field}.apiVersion", version, "version must not be empty")
        for key in ("kind", "name", "uid"):
            if not owner.get(key):
                yield errors.invalid_value(f"{field}.{key}", "", f"{key} must not be empty")
        if (version, owner.get("kind")) == ("v1", "Event"):
            why = "/v1, Kind=Event is disallowed from being an owner"
            yield errors.invalid_value(field, owner, why)
        if owner.get("controller"):
            controllers.append(owner.get("name"))
    if len(controllers) > 1:
        why = (
            "Only one reference can have Controller set to true. Found "
            f'"true" in references for {" and ".join(map(str, controllers[:2]))}'
        )
        yield errors.invalid_value(field, owners, why)


_CHECKS: dict[str, Any] = {
    "labels": _label_problems,
    "annotations": _annotation_problems,
    "finalizers": _finalizer_problems,
    "ownerReferences": _owner_problems,
}
