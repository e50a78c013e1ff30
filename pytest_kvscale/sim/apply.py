"""Server-side apply: merging what a manager wants into what is there, field by field.

A manager applies a configuration: it owns the fields named there. What it applied before, names no
more, and nobody else owns goes away. A field that another manager owns and that would change is a
conflict, unless the change is forced. Arithmetic on objects and sets of fields only.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator
from typing import Any

from pytest_kvscale.sim import errors, fields, managed_fields, schema
from pytest_kvscale.sim.errors import Object, StatusError
from pytest_kvscale.sim.fields import Fields
from pytest_kvscale.sim.managed_fields import BEFORE_FIRST_APPLY, STRIPPED, Entry, Key, Managed
from pytest_kvscale.sim.resources import Resource
from pytest_kvscale.sim.schema import Type

LAST_APPLIED = "kubectl.kubernetes.io/last-applied-configuration"
KUBECTL = "kubectl"
"""The manager whose annotation of client-side apply is kept in step, and allows a migration."""
_MISSING = object()


@dataclasses.dataclass(frozen=True, slots=True)
class Request:
    """One apply: what, by whom, and whether conflicts are overruled."""

    config: Object
    manager: str
    force: bool
    subresource: str
    now: str


@dataclasses.dataclass(frozen=True, slots=True)
class Conflict:
    """A field that somebody else owns and that would change."""

    owner: Entry
    path: fields.Path


class ConflictsError(Exception):
    """An apply that meets fields of others; `conflicts` are in order."""

    def __init__(self, conflicts: list[Conflict]) -> None:
        super().__init__(f"{len(conflicts)} conflicts")
        self.conflicts = conflicts


def check(resource: Resource, config: Any) -> Object:
    """The configuration, if it can be applied to objects of a kind; raises `StatusError` (400)."""
    if not isinstance(config, dict):
        raise errors.bad_request(
            f"error decoding YAML: a configuration is an object, not {type(config).__name__}"
        )
    group, _, version = str(config.get("apiVersion") or "").rpartition("/")
    if (config.get("apiVersion"), config.get("kind")) != (resource.api_version, resource.kind):
        kind = config.get("kind") or ""
        raise errors.bad_request(f"invalid object type: {group}/{version}, Kind={kind}")
    metadata = config.get("metadata")
    if metadata is not None and not isinstance(metadata, dict):
        raise errors.bad_request("metadata must be an object")
    if (metadata or {}).get("managedFields") is not None:
        raise errors.bad_request("metadata.managedFields must be nil")
    problem = next(_problems(config, schema.of(resource), ""), None)
    if problem is not None:
        named = metadata or {}
        where = f"{named.get('namespace') or '<unknown>'}/{named.get('name') or '<unknown>'}"
        kind = f"{group}/{version}, Kind={resource.kind}"
        raise errors.bad_request(
            f"failed to create typed patch object ({where}; {kind}): {problem}"
        )
    return config


def check_place(
    config: Object, resource: Resource, namespace: str, name: str, exists: bool
) -> None:
    """400 or 409 for a configuration of another object than the path names."""
    metadata = config.get("metadata") or {}
    given = metadata.get("name")
    if not given and not exists:
        raise errors.bad_request(
            f"the name of the object ({name} based on URL) was undeterminable: "
            "name must be provided"
        )
    if given and given != name:
        raise errors.bad_request(
            f"the name of the object ({given}) does not match the name on the URL ({name})"
        )
    if resource.namespaced and metadata.get("namespace", namespace) not in ("", namespace):
        raise errors.bad_request(
            "the namespace of the provided object does not match the namespace sent on the request"
        )
    if exists:
        return
    uid, version = metadata.get("uid"), metadata.get("resourceVersion")
    if uid:
        why = (
            f"uid mismatch: the provided object specified uid {uid}, and no existing object was "
            "found"
        )
        raise errors.conflict(resource, name, why)
    if version:
        raise errors.conflict(
            resource, name, "resourceVersion should not be set on objects to be created"
        )


def apply(
    resource: Resource, live: Object, managed: Managed, request: Request
) -> tuple[Object, Managed]:
    """The object with a configuration applied, and who owns what then.

    Raises `StatusError` (409) with a cause for each conflict.
    """
    if not managed and "uid" in (live.get("metadata") or {}):
        managed = managed_fields.after_update(
            managed,
            schema.empty(resource),
            live,
            schema.of(resource),
            managed_fields.Writer(BEFORE_FIRST_APPLY),
            resource.api_version,
            request.now,
        )
    try:
        new, owners = _apply(resource, live, managed, request)
    except ConflictsError as refusal:
        left = refusal.conflicts
        if request.manager == KUBECTL:
            allowed = _still_as_applied(resource, live)
            left = [each for each in left if not fields.has(allowed, each.path)]
        if left:
            raise _refusal(left) from None
        forced = dataclasses.replace(request, force=True)
        new, owners = _apply(resource, live, managed, forced)
    annotations = (live.get("metadata") or {}).get("annotations") or {}
    if request.manager == KUBECTL and LAST_APPLIED in annotations:
        new = _with_last_applied(new, request.config)
    return new, owners


def _apply(
    resource: Resource, live: Object, managed: Managed, request: Request
) -> tuple[Object, Managed]:
    kind = schema.of(resource)
    skipped = managed_fields.unowned(resource, request.subresource)
    config = {
        key: value
        for key, value in request.config.items()
        if not fields.has(skipped, (f"f:{key}",)) or key == "metadata"
    }
    claimed = fields.without_trees(fields.applied(config, kind), skipped)
    entry = Entry(
        request.manager, "Apply", resource.api_version, request.now, request.subresource, claimed
    )
    last = managed.get(entry.key)
    # What is pruned is weighed with the fields of the API itself: they are claimed by naming them.
    claims = [claimed, *(each.fields for key, each in managed.items() if key != entry.key)]
    new = merge(live, config, kind)
    if last is not None:
        new = _prune(new, last.fields, claims, kind)
    removed, changed = fields.compare(live, new, kind)
    conflicts = [] if request.force else list(_conflicts(managed, entry.key, changed))
    if conflicts:
        raise ConflictsError(conflicts)
    owners: Managed = {}
    lost = fields.union(removed, changed)
    for key, each in managed.items():
        rest = each.fields if key == entry.key else fields.difference(each.fields, lost)
        if rest:
            owners[key] = each if rest is each.fields else dataclasses.replace(each, fields=rest)
    own = fields.difference(claimed, STRIPPED)
    if last is not None and last.fields == own and not lost:
        owners[entry.key] = last
    elif own:
        owners[entry.key] = dataclasses.replace(entry, fields=own)
    else:
        owners.pop(entry.key, None)
    return new, owners


def _conflicts(managed: Managed, own: Key, changed: Fields) -> Iterator[Conflict]:
    for key in sorted(managed):
        if key != own:
            owner = managed[key]
            for path in fields.paths(fields.intersection(owner.fields, changed)):
                yield Conflict(owner, path)


def _refusal(conflicts: list[Conflict]) -> StatusError:
    causes = [
        errors.cause(
            "FieldManagerConflict",
            fields.dotted(each.path),
            f"conflict with {_described(each.owner)}",
        )
        for each in conflicts
    ]
    if len(conflicts) == 1:
        only = conflicts[0]
        what = f"1 conflict: conflict with {_described(only.owner)}: {fields.dotted(only.path)}"
    else:
        by_owner: dict[str, list[str]] = {}
        for each in conflicts:
            by_owner.setdefault(_described(each.owner), []).append(fields.dotted(each.path))
        lines = [
            line
            for owner in by_owner
            for line in (f"conflicts with {owner}:", *(f"- {path}" for path in by_owner[owner]))
        ]
        what = f"{len(conflicts)} conflicts: " + "\n".join(lines)
    return StatusError(409, "Conflict", f"Apply failed with {what}", {"causes": causes})


def _described(owner: Entry) -> str:
    text = json.dumps(owner.manager)
    if owner.subresource:
        text += f" with subresource {json.dumps(owner.subresource)}"
    return f"{text} using {owner.api_version}" if owner.operation == "Update" else text


# From client-side to server-side apply ----------------------------------------------------------


def _still_as_applied(resource: Resource, live: Object) -> Fields:
    """The fields of the last client-side apply that still have the value applied then."""
    text = ((live.get("metadata") or {}).get("annotations") or {}).get(LAST_APPLIED) or ""
    try:
        config = json.loads(text)
    except ValueError:
        return {}
    if not isinstance(config, dict) or config.get("apiVersion") != resource.api_version:
        return {}
    kind = schema.of(resource)
    removed, changed = fields.compare(config, live, kind)
    return fields.difference(fields.applied(config, kind), fields.union(removed, changed))


def _with_last_applied(obj: Object, config: Object) -> Object:
    metadata = dict(config.get("metadata") or {})
    kept = {k: v for k, v in (metadata.get("annotations") or {}).items() if k != LAST_APPLIED}
    metadata["annotations"] = kept
    text = json.dumps({**config, "metadata": metadata}, separators=(",", ":"), sort_keys=True)
    held = obj["metadata"]
    annotations = {**(held.get("annotations") or {}), LAST_APPLIED: text + "\n"}
    return {**obj, "metadata": {**held, "annotations": annotations}}


# Merging and pruning ----------------------------------------------------------------------------


def merge(live: Any, config: Any, kind: Type) -> Any:
    """What is there with a configuration over it; lists that are maps are joined by their keys."""
    if config is _MISSING:
        return live
    if not config and not kind.atomic and live and isinstance(live, dict | list):
        return live  # Naming a map or a list takes nothing out of it.
    walk = fields.shape(config, kind)
    if walk == "leaf" or live is _MISSING or not live or fields.shape(live, kind) != walk:
        return _plain(config)
    if isinstance(config, dict):
        merged = dict(live)
        for key, value in config.items():
            merged[key] = merge(live.get(key, _MISSING), value, kind.child(key))
            if merged[key] is None:
                del merged[key]
        return merged
    return _merge_items(live, config, kind)


def _plain(config: Any) -> Any:
    """A configuration where nothing is yet: fields that are null are not there."""
    if isinstance(config, dict):
        return {key: _plain(each) for key, each in config.items() if each is not None}
    return config


def _merge_items(live: list[Any], config: list[Any], kind: Type) -> list[Any]:
    """The items of both lists, each once: the order of the configuration, kept about the others.

    Items of one side only keep their place among those both have.
    """
    left, right = fields.items_of(live, kind), fields.items_of(config, kind)
    left_order, right_order = list(left), list(right)
    shared = [element for element in right_order if element in left]
    result: list[Any] = []

    def take(element: str) -> None:
        held, wanted = left.get(element, _MISSING), right.get(element, _MISSING)
        result.append(merge(held, wanted, kind.element))

    i = j = 0
    while i < len(left_order) or j < len(right_order):
        if i < len(left_order) and j < len(right_order):
            element = left_order[i]
            if element == right_order[j]:
                take(element)
                i, j = i + 1, j + 1
                shared = shared[1:]
                continue
            if element in right and shared and shared[0] != element:
                i += 1  # It comes later in the configuration's order.
                continue
        if i < len(left_order) and left_order[i] not in right:
            take(left_order[i])
            i += 1
            continue
        if j < len(right_order):
            element = right_order[j]
            take(element)
            j += 1
            if shared and shared[0] == element:
                shared = shared[1:]
            continue
        i += 1
    return result


def _prune(new: Object, last: Fields, claims: list[Fields], kind: Type) -> Object:
    """What is merged, without what was applied before and is claimed by nobody now."""

    def full(some: Fields) -> Fields:
        return fields.with_named_parents(some, kind)

    merged, before = full(fields.applied(new, kind)), full(last)
    held: Fields = {}
    for each in claims:
        held = fields.union(held, each)
    pruned = without(new, before, kind)
    kept = fields.union(full(fields.applied(pruned, kind)), full(held))
    pruned = without(new, fields.difference(merged, kept), kind)
    rest = full(fields.applied(pruned, kind))
    gone = fields.intersection(fields.difference(merged, rest), before)
    result = without(new, gone, kind)
    return result if isinstance(result, dict) else {}


def without(value: Any, gone: Fields, kind: Type) -> Any:
    """A value without the fields and items of a set."""
    walk = fields.shape(value, kind)
    if not gone or walk == "leaf" or not value:
        return value
    if walk == "map":
        kept: Object = {}
        for key, each in value.items():
            below = gone.get("f:" + key)
            if below is None:
                kept[key] = each
            elif below and "." not in below:
                rest = _emptied(each, below, kind.child(key))
                if rest is not None:
                    kept[key] = rest
        return kept
    items = []
    for each in value:
        below = gone.get(fields.element_of(each, kind))
        if below is None:
            items.append(each)
        elif below and "." not in below:
            items.append(without(each, below, kind.element))
    return items


def _emptied(value: Any, gone: Fields, kind: Type) -> Any:
    """A value without fields; None if nothing is left of it."""
    rest = without(value, gone, kind)
    return None if value and rest in ({}, []) else rest


# What a configuration may not be ----------------------------------------------------------------


def _problems(value: Any, kind: Type, path: str) -> Iterator[str]:
    """What keeps a configuration from being of its type."""
    if value is None:
        return
    if kind.form in ("struct", "map"):
        if not isinstance(value, dict):
            yield f"{path}: expected map, got {json.dumps(value)}"
            return
        for key, each in value.items():
            declared = kind.field(key)
            if declared is None and kind.form == "struct" and not kind.open:
                yield f"{path}.{key}: field not declared in schema"
                continue
            yield from _problems(each, declared or kind.element, f"{path}.{key}")
    elif kind.form == "list":
        yield from _list_problems(value, kind, path)
    elif kind.form == "scalar" and not _fits(value, kind.scalar):
        yield f"{path}: expected {_EXPECTED.get(kind.scalar, 'string')}, got {json.dumps(value)}"


def _list_problems(value: Any, kind: Type, path: str) -> Iterator[str]:
    if not isinstance(value, list):
        yield f"{path}: expected list, got {json.dumps(value)}"
        return
    seen = set()
    for index, each in enumerate(value):
        where = f"{path}[{index}]"
        if not kind.atomic:
            lacking = [
                key
                for key in kind.keys
                if not (isinstance(each, dict) and (key in each or key in kind.element.defaults))
            ]
            if lacking:
                yield (
                    f"{path}: element {index}: associative list with keys has an element that "
                    f'omits key field "{lacking[0]}" (and doesn\'t have default value)'
                )
                continue
            element = fields.element_of(each, kind)
            where = f"{path}{fields.dotted((element,))}"
            if element in seen:
                yield f"{path}: duplicate entries for key {fields.dotted((element,))}"
            seen.add(element)
        yield from _problems(each, kind.element, where)


_EXPECTED = {"integer": "numeric", "number": "numeric", "boolean": "boolean"}


def _fits(value: Any, scalar: str) -> bool:
    if isinstance(value, dict | list):
        return False
    number = isinstance(value, int | float) and not isinstance(value, bool)
    match scalar:
        case "integer" | "number":
            return number
        case "boolean":
            return isinstance(value, bool)
        case "int-or-string" | "int-or-quantity" | "quantity":
            return number or isinstance(value, str)
    return isinstance(value, str)
