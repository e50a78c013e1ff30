"""What a journal says of one run: what it has created or changed, and what was there before."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import Field

from pytest_kvscale.cluster.kinds import KINDS
from pytest_kvscale.cluster.tuning import ABSENT, Change
from pytest_kvscale.documents import Document, validate
from pytest_kvscale.errors import ConfigurationError

VERSION = 1


class FieldNote(Document):
    """One field of the KubeVirt CR's spec; see `tuning.Change`."""

    path: tuple[str, ...]
    absent: bool
    """It was not there before."""
    before: Any
    after: Any
    present: int
    added: tuple[Any, ...] = ()


class TuningNote(Document):
    """Settings of KubeVirt that are, or are about to be, other than they were."""

    namespace: str
    name: str
    uid: str
    """Of the KubeVirt CR."""
    node: str
    devices: str | None
    """What the node offered of kvm before."""
    fields: tuple[FieldNote, ...]

    @property
    def changes(self) -> list[Change]:
        """What was changed."""
        return _changes(self.fields)


class UpgradeNote(Document):
    """KubeVirt is, or is about to be, of another version than it was."""

    namespace: str
    name: str
    uid: str
    """Of the KubeVirt CR."""
    version: str
    """What it was."""
    to: str
    """What it is to be; "": what the command makes of it."""
    fields: tuple[FieldNote, ...] = ()
    """Of the CR; none if a command of the user's upgrades it. The command is not noted: it may
    hold what is secret."""
    timeout: float
    """Seconds that a version is given to be rolled out."""

    @property
    def changes(self) -> list[Change]:
        """What was changed."""
        return _changes(self.fields)


class ObjectsNote(Document):
    """Objects that are there, or are about to be created; all carry the run's label."""

    what: str
    """`level 400`, or `the canary`."""
    namespace: str
    own: bool
    """The namespace is none that was there before."""
    namespace_uid: str = ""
    """Of a namespace of our own, once it is there."""
    kinds: tuple[tuple[str, str], ...]
    """API version and kind."""
    names: tuple[str, ...]
    uids: Mapping[str, str] = Field(default_factory=dict)
    """By name, as far as they are known: an object of one of the names with another is none of
    ours."""
    over: bool = False
    """The level has ended, and could not remove all of it."""
    kept: bool = False
    """It was left on purpose (--kvscale-keep)."""


class Record(Document):
    """The journal of one run."""

    version: int = VERSION
    step: int = 0
    """Counts what was noted."""
    run: str
    by: str
    """Who, on which machine."""
    cluster: str
    """The uid of kube-system."""
    system: str = ""
    """The uid of kvscale-system, where the journal is kept as well."""
    tuning: TuningNote | None = None
    upgrade: UpgradeNote | None = None
    objects: ObjectsNote | None = None

    @property
    def idle(self) -> bool:
        """Whether there is nothing to undo."""
        return self.tuning is None and self.upgrade is None and self.objects is None

    def text(self) -> str:
        """As JSON."""
        return self.model_dump_json()


def read(text: str, where: str) -> Record:
    """The record in a text. Raises `ConfigurationError` if it is none that we can read."""
    try:
        content = json.loads(text)
    except ValueError:
        raise ConfigurationError(f"{where} is not JSON") from None
    if not isinstance(content, dict) or content.get("version") != VERSION:
        raise ConfigurationError(f"{where} is no journal of this version of pytest-kvscale")
    record = validate(Record, content, where)
    for kind in () if record.objects is None else record.objects.kinds:
        if kind not in KINDS:
            raise ConfigurationError(f"{where} names the unknown kind {'/'.join(kind)}")
    return record


def field_note(change: Change) -> FieldNote:
    """A change, as it is noted."""
    absent = change.before is ABSENT
    return FieldNote(
        path=change.path, absent=absent, before=None if absent else change.before,
        after=change.after, present=change.present, added=change.added,
    )  # fmt: skip


def _changes(fields: Sequence[FieldNote]) -> list[Change]:
    return [
        Change(each.path, ABSENT if each.absent else each.before, each.after, each.present,
               each.added)
        for each in fields
    ]  # fmt: skip
