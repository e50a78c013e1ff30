"""What a level notes in the journal: its objects before they are made, and when they are gone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

from pytest_kvscale.cluster.journal import Journal
from pytest_kvscale.cluster.journal_record import ObjectsNote
from pytest_kvscale.cluster.templates import Planned


class LevelNotes(Protocol):
    """Is told how far a level has come."""

    async def planned(self) -> None:
        """Namespace and objects are about to be made."""
        ...

    async def has_namespace(self, uid: str) -> None:
        """A namespace of our own is there."""
        ...

    async def created(self, uids: Mapping[str, str]) -> None:
        """All creates are answered; uids by name, as far as they are known."""
        ...

    async def over(self, gone: bool, kept: bool) -> None:
        """The level has ended; whether all is gone, or was kept on purpose."""
        ...


class NoNotes:
    """Where there is no journal."""

    async def planned(self) -> None:
        """See `LevelNotes`."""

    async def has_namespace(self, uid: str) -> None:
        """See `LevelNotes`."""

    async def created(self, uids: Mapping[str, str]) -> None:
        """See `LevelNotes`."""

    async def over(self, gone: bool, kept: bool) -> None:
        """See `LevelNotes`."""


class Noted:
    """The notes of one level in a run's journal."""

    def __init__(
        self, journal: Journal, what: str, namespace: str, own: bool, objects: Sequence[Planned]
    ) -> None:
        self._journal = journal
        self._left: ObjectsNote | None = None
        """What an earlier level of the run could not remove: it is not to be forgotten."""
        self._note = ObjectsNote(
            what=what,
            namespace=namespace,
            own=own,
            kinds=tuple(dict.fromkeys((e.kind.api_version, e.kind.name) for e in objects)),
            names=tuple(each.name for each in objects),
        )

    async def planned(self) -> None:
        """See `LevelNotes`."""
        self._left = self._journal.record.objects
        if self._left is not None:
            self._note = _beside(self._left, self._note)
        await self._journal.before(objects=self._note)

    async def has_namespace(self, uid: str) -> None:
        """See `LevelNotes`."""
        self._note = self._note.model_copy(update={"namespace_uid": uid})
        await self._journal.before(objects=self._note)

    async def created(self, uids: Mapping[str, str]) -> None:
        """See `LevelNotes`."""
        known = {**self._note.uids, **uids}
        self._note = self._note.model_copy(update={"uids": known})
        await self._journal.before(objects=self._note)

    async def over(self, gone: bool, kept: bool) -> None:
        """See `LevelNotes`."""
        # With a namespace of our own all that was in it went.
        rest = None if self._note.namespace_uid else self._left
        if not gone:
            rest = self._note.model_copy(update={"over": True, "kept": kept})
        await self._journal.after(objects=rest)


def _beside(left: ObjectsNote, note: ObjectsNote) -> ObjectsNote:
    """A note of what is about to be made, and of what an earlier level left in its namespace."""
    names = dict.fromkeys((*left.names, *note.names))
    # One of a name that is made anew has another uid.
    uids = {name: uid for name, uid in left.uids.items() if name not in note.names}
    kinds = dict.fromkeys((*left.kinds, *note.kinds))
    return note.model_copy(
        update={"what": f"{left.what} and {note.what}", "names": tuple(names),
                "kinds": tuple(kinds), "uids": uids}
    )  # fmt: skip
