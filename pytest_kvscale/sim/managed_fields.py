"""Who owns which fields of an object, as `metadata.managedFields` tells it.

Each write that is no apply takes what it changed from everybody else; what it removes nobody owns
any more. Arithmetic on sets of fields only; `ownership` keeps the owners beside the objects.
"""

from __future__ import annotations

import dataclasses
import json
from typing import Any, Literal

from pytest_kvscale.sim import fields, schema
from pytest_kvscale.sim.errors import Object
from pytest_kvscale.sim.fields import Fields
from pytest_kvscale.sim.resources import NAMESPACES, Resource

Operation = Literal["Apply", "Update"]
_dumps = json.JSONEncoder(separators=(",", ":")).encode
MOST_UPDATERS = 10
"""So many managers that update are told apart; the oldest beyond become `ANCIENT`."""
ANCIENT = "ancient-changes"
BEFORE_FIRST_APPLY = "before-first-apply"

STRIPPED = fields.of_paths(
    ("f:apiVersion",),
    ("f:kind",),
    ("f:metadata",),
    *(
        ("f:metadata", f"f:{name}")
        for name in (
            "name", "namespace", "creationTimestamp", "selfLink", "uid", "clusterName",
            "generation", "managedFields", "resourceVersion",
        )
    ),
)  # fmt: skip
"""Fields that belong to the API itself: nobody owns them."""


@dataclasses.dataclass(frozen=True, slots=True)
class Writer:
    """Who writes, and through which door."""

    manager: str
    subresource: str = ""


@dataclasses.dataclass(frozen=True, slots=True)
class Entry:
    """What one manager owns by one kind of operation."""

    manager: str
    operation: Operation
    api_version: str
    time: str
    subresource: str
    fields: Fields
    _raw: bytes | None = dataclasses.field(default=None, init=False, compare=False, repr=False)

    @property
    def key(self) -> Key:
        """What tells entries apart; an applier is the same whatever version it applied."""
        version = self.api_version if self.operation == "Update" else ""
        return self.operation, self.manager, version, self.subresource

    @property
    def order(self) -> tuple[str, str, str, str, str]:
        """By which the entries of an object are sorted."""
        return self.operation, self.time, self.manager, self.api_version, self.subresource

    @property
    def raw(self) -> bytes:
        """The entry as JSON, encoded at most once."""
        if self._raw is None:
            object.__setattr__(self, "_raw", _dumps(_encoded(self)).encode())
        assert self._raw is not None  # noqa: S101 - just made
        return self._raw


Key = tuple[str, str, str, str]
Managed = dict[Key, Entry]
"""The owners of one object; never changed once it is made."""


# The rules --------------------------------------------------------------------------------------


def after_update(
    managed: Managed, old: Any, new: Any, kind: schema.Type, writer: Writer, version: str, now: str
) -> Managed:
    """The owners after a write that is no apply, from `old` to `new`."""
    removed, changed = fields.compare(old, new, kind)
    if not removed and not changed:
        return managed
    managed = _taken(managed, fields.union(removed, changed))
    own = fields.difference(changed, STRIPPED)
    if own:
        manager = writer.manager or "unknown"
        entry = Entry(manager, "Update", version, now, writer.subresource, own)
        held = managed.get(entry.key)
        if held is not None:
            entry = dataclasses.replace(entry, fields=fields.union(held.fields, own))
        managed = {**managed, entry.key: entry}
        if len(managed) > MOST_UPDATERS:
            managed = _capped(managed)
    return managed


def _taken(managed: Managed, lost: Fields) -> Managed:
    """The owners, without what was changed or removed."""
    kept: Managed = {}
    for key, entry in managed.items():
        rest = fields.difference(entry.fields, lost)
        if rest is entry.fields:
            kept[key] = entry
        elif rest:
            kept[key] = dataclasses.replace(entry, fields=rest)
    return kept


def _capped(managed: Managed) -> Managed:
    """The owners, with the oldest updaters beyond the most that are kept made one."""
    updaters = sorted(
        (entry for entry in managed.values() if entry.operation == "Update"),
        key=lambda entry: entry.order,
    )
    surplus = len(updaters) - MOST_UPDATERS
    if surplus <= 0:
        return managed
    result = dict(managed)
    # The bucket takes a place itself.
    for entry in updaters[: surplus + 1]:
        del result[entry.key]
        bucket = dataclasses.replace(entry, manager=ANCIENT, subresource="")
        held = result.get(bucket.key)
        if held is not None:
            bucket = dataclasses.replace(bucket, fields=fields.union(held.fields, bucket.fields))
        result[bucket.key] = bucket
    return result


def unowned(resource: Resource, subresource: str = "") -> Fields:
    """The fields that a door of a kind never gives its writers: they are not written there."""
    if subresource:
        return _BESIDE_STATUS_OF_CUSTOM if resource.custom else _BESIDE_STATUS
    if resource is NAMESPACES:
        return _BESIDE_METADATA
    return _STATUS if resource.status_subresource else {}


_STATUS = fields.of_paths(("f:status",))
_BESIDE_STATUS = fields.of_paths(("f:spec",))
_BESIDE_STATUS_OF_CUSTOM = fields.of_paths(("f:spec",), ("f:metadata",))
_BESIDE_METADATA = fields.of_paths(("f:spec",), ("f:status",))


# As JSON ----------------------------------------------------------------------------------------


def encode(managed: Managed) -> list[Object]:
    """The owners as `managedFields` has them."""
    return [_encoded(entry) for entry in sorted(managed.values(), key=lambda entry: entry.order)]


def _encoded(entry: Entry) -> Object:
    return {
        "manager": entry.manager,
        "operation": entry.operation,
        "apiVersion": entry.api_version,
        **({"time": entry.time} if entry.time else {}),
        "fieldsType": "FieldsV1",
        "fieldsV1": fields.ordered(entry.fields),
        **({"subresource": entry.subresource} if entry.subresource else {}),
    }


def decode(entries: Any) -> Managed | None:
    """The owners that a list of entries names; None if it is none that can be read."""
    if not isinstance(entries, list):
        return None
    managed: Managed = {}
    for each in entries:
        if not isinstance(each, dict) or each.get("operation") not in ("Apply", "Update"):
            return None
        owned = each.get("fieldsV1") or {}
        if each.get("fieldsType") != "FieldsV1" or not _is_fields(owned):
            return None
        texts = [each.get(key) or "" for key in ("manager", "apiVersion", "time", "subresource")]
        if not all(isinstance(text, str) for text in texts) or not texts[1]:
            return None
        manager, version, time, subresource = texts
        entry = Entry(manager, each["operation"], version, time, subresource, owned)
        managed[entry.key] = entry
    return managed


def _is_fields(node: Any) -> bool:
    if not isinstance(node, dict):
        return False
    for element, below in node.items():
        if element == ".":
            if below != {}:
                return False
            continue
        kind, colon, rest = element.partition(":")
        if not colon or kind not in ("f", "k", "v", "i") or not _is_fields(below):
            return False
        if kind in ("k", "v", "i"):
            try:
                value = json.loads(rest)
            except ValueError:
                return False
            if kind == "k" and not isinstance(value, dict):
                return False
    return True


def is_reset(entries: Any) -> bool:
    """Whether a writer asks to forget all owners."""
    if not isinstance(entries, list):
        return False
    return entries == [] or (len(entries) == 1 and entries[0] in ({}, None))
