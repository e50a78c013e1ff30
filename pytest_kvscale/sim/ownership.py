"""The owners of each stored object's fields, kept beside it and worked out when they are asked for.

Stored objects carry no `managedFields`: most versions of an object are never read by anybody who
would see them. A write remembers what was there before and who wrote; the first reader pays.
"""

from __future__ import annotations

import dataclasses
from typing import Any

from pytest_kvscale.sim import managed_fields, schema
from pytest_kvscale.sim.errors import Object
from pytest_kvscale.sim.managed_fields import Managed, Writer
from pytest_kvscale.sim.resources import Resource

LONGEST_CHAIN = 16
"""So many writes wait at most to have their owners worked out: each keeps an old object alive."""


class Ownership:
    """The owners of one version of an object, known or still to be worked out."""

    __slots__ = ("_managed", "_pending", "_raw", "length")

    def __init__(self, managed: Managed, pending: _Pending | None = None) -> None:
        self._managed = managed
        self._pending = pending
        self._raw: bytes | None = None
        self.length: int = 0 if pending is None else pending.before.length + 1
        """How many writes, this one included, are still to be worked out."""

    @property
    def managed(self) -> Managed:
        """The owners."""
        if self._pending is not None:
            self._managed = self._pending.work_out()
            self._pending = None
            self.length = 0
        return self._managed

    @property
    def raw(self) -> bytes:
        """The owners as JSON; nothing if there are none."""
        if self._raw is None:
            entries = sorted(self.managed.values(), key=lambda entry: entry.order)
            texts = b",".join(entry.raw for entry in entries)
            self._raw = b"[" + texts + b"]" if texts else b""
        return self._raw


@dataclasses.dataclass(frozen=True, slots=True)
class _Pending:
    """A write whose owners nobody has asked for yet."""

    before: Ownership
    old: Object
    new: Object
    resource: Resource
    writer: Writer
    now: str

    def work_out(self) -> Managed:
        managed = self.before.managed
        if not managed and self.before is not NOBODY:
            return managed  # Owners were forgotten on request; only an apply tells them anew.
        version = self.resource.api_version
        kind = schema.of(self.resource)
        return managed_fields.after_update(
            managed, self.old, self.new, kind, self.writer, version, self.now
        )


NOBODY = Ownership({})
"""The owners of what was never written."""


def written(
    before: Ownership, old: Object, new: Object, resource: Resource, writer: Writer, now: str
) -> Ownership:
    """The owners after a write that is no apply."""
    after = Ownership({}, _Pending(before, old, new, resource, writer, now))
    if after.length > LONGEST_CHAIN:
        _ = after.managed
    return after


By = Writer | Ownership
"""Whose write it is; an apply has worked out the owners itself."""
BY_ITSELF = Writer("kube-apiserver")
"""What the API writes of its own accord."""


def of_new(resource: Resource, obj: Object, by: By, now: str) -> Ownership:
    """The owners of an object that is made."""
    if isinstance(by, Ownership):
        return by
    skipped = managed_fields.unowned(resource)
    if skipped:
        obj = {key: value for key, value in obj.items() if f"f:{key}" not in skipped}
    return written(NOBODY, schema.empty(resource), obj, resource, by, now)


def of_changed(
    before: Ownership, old: Object, new: Object, resource: Resource, by: By, now: str
) -> Ownership:
    """The owners of an object that is changed; the same if nothing is."""
    if isinstance(by, Ownership):
        return by
    return before if old == new else written(before, old, new, resource, by, now)


def asked_for(held: Ownership, entries: Any, subresource: str) -> Ownership:
    """The owners a write begins with: those that are there, or those it gives itself."""
    if entries is None or subresource:
        return held
    if managed_fields.is_reset(entries):
        return held if not held.managed else Ownership({})
    given = managed_fields.decode(entries)
    if not given or given == held.managed:
        return held
    return Ownership(given)


def shown(obj: Object, owners: Ownership) -> Object:
    """The object as a client sees it, with its `managedFields`."""
    entries = managed_fields.encode(owners.managed)
    if not entries:
        return obj
    return {**obj, "metadata": {**obj["metadata"], "managedFields": entries}}
