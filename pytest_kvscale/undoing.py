"""What runs leave is undone: by their own end, or by the start of the next run.

The journal (`cluster/journal.py`) says what there is to undo. The process that leads a run does
it: pytest's own, or xdist's controller.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Sequence
from typing import IO, TYPE_CHECKING, Any

from pytest_kvscale.errors import ConfigurationError

if TYPE_CHECKING:
    from pytest_kvscale.cluster.journal import Journal
    from pytest_kvscale.cluster.journal_disk import Folder
    from pytest_kvscale.cluster.journal_record import Record
    from pytest_kvscale.cluster.recovery import Back, Undone
    from pytest_kvscale.session import Run

_PRIVATE = ".journal"
"""In the run's folder: the journal of a run whose cluster nobody else can see."""
RECOVER = "python -m pytest_kvscale recover"


class Undoing:
    """The journal of a run, and what is done by it."""

    def __init__(self, run: Run) -> None:
        self._run = run
        self._alive: IO[str] | None = None
        self.abandoned = False
        """Nobody waits for the deletion any more (a second Ctrl-C)."""
        self.left = ""
        """What could not be undone, and how to do it."""

    @functools.cached_property
    def _folder(self) -> Folder:
        from pytest_kvscale.cluster.journal_disk import Folder, state_dir

        run = self._run
        state = Folder(state_dir(os.environ) / run.cluster_uid) if run.connection.shared else None
        if state is not None and state.is_writable():
            return state
        # A pod may have no home; then the next run on this machine finds nothing here.
        return Folder(run.folder.path / _PRIVATE)

    @functools.cached_property
    def journal(self) -> Journal:
        """The run's journal; what another process of the run has noted is in it."""
        from pytest_kvscale.cluster.journal import Journal

        run = self._run
        journal = Journal(run.connection.client, run.id, run.cluster_uid, self._folder)
        journal.load()
        return journal

    def begin(self, alone: bool) -> bool:
        """Undo what other runs left, and show that this one is alive; whether anything was undone.

        `alone`: we have the turn on the cluster. Raises `ConfigurationError` if something of
        another run cannot be undone, or read.
        """
        run = self._run
        if not run.connection.shared:
            return False
        undone = self.undo_others(alone, kept=False)
        self._alive = self.journal.alive()
        return undone > 0

    def undo_others(self, alone: bool, kept: bool) -> int:
        """Undo what other runs left; returns how many there were.

        `kept`: also what was left on purpose (--kvscale-keep).
        """
        from pytest_kvscale.cluster import journal, recovery

        run, connection = self._run, self._run.connection
        client = connection.client
        found = connection.ask(
            journal.unfinished(client, run.cluster_uid, self._folder, run.id, alone)
        )
        if not alone:
            self._tell_of(connection.ask(journal.doubtful(client, self._folder, run.id)), kept)
        for record in found:
            rest = record
            if record.objects is not None and record.objects.kept and not kept:
                run.tell(
                    f"run {record.run} ({record.by}) kept the objects of {record.objects.what} in "
                    f"the namespace {record.objects.namespace} (--kvscale-keep): {RECOVER} "
                    "removes them"
                )
                rest = record.model_copy(update={"objects": None})
                if rest.idle:
                    continue
            run.tell(f"run {record.run} ({record.by}) did not finish: undoing {_what(rest)}")
            try:
                undone = self._undo(rest)
                connection.run(self._forget(record, rest))
            except recovery.NotUndoneError as problem:
                if problem.settings_back:
                    connection.run(self._forget(record, rest, objects=False))
                raise ConfigurationError(f"an unfinished run is in the way: {problem}") from None
            run.tell(f"run {record.run}: {undone.text()}")
        return len(found)

    def _tell_of(self, doubtful: Sequence[Record], asked: bool) -> None:
        """Say which runs may be alive; raise if it was asked to undo them."""
        for record in doubtful:
            sentence = (
                f"run {record.run} ({record.by}) has not finished, and may be alive: without "
                "turns that cannot be told from here. Run it on that machine, or allow Leases in "
                f"the namespace {_system()}: {RECOVER}"
            )
            if asked:
                raise ConfigurationError(sentence)
            self._run.tell(f"note: {sentence}")

    def _undo(self, record: Record) -> Undone:
        """Undo it, and note that a level's objects have just gone: the cluster is to rest."""
        from pytest_kvscale.cluster import cooldown, recovery

        run, connection = self._run, self._run.connection
        undone = connection.run(
            recovery.undo(connection.client, record, run.settings.delete_timeout, self._back())
        )
        if undone.removed:
            # How the node was before that run, nobody knows any more.
            connection.run(cooldown.remember(connection.client, record.run, "", None))
        return undone

    def _back(self) -> Back:
        """The command that brings KubeVirt back, if one was given."""
        from pytest_kvscale.cluster.recovery import Back

        run = self._run
        return Back(run.settings.upgrade_back_command, run.connection.environment())

    async def _forget(self, record: Record, undone: Record, objects: bool = True) -> None:
        """Note that what was undone is; `objects`: they too."""
        from pytest_kvscale.cluster.journal import Journal

        journal = Journal(
            self._run.connection.client, record.run, record.cluster, self._folder
        )  # fmt: skip
        journal.record = record
        parts: dict[str, Any] = {"tuning": None, "upgrade": None}
        if undone.objects is not None and objects:
            parts["objects"] = None
        await journal.after(**parts)

    # Its own end ----------------------------------------------------------------------------

    def under_way(self) -> bool:
        """Whether a process of this run has something under way, or had when it died."""
        found = self._folder.find(self._run.id)
        if found is None:
            return False
        return found.upgrade is not None or (found.objects is not None and not found.objects.over)

    def has_upgrade(self) -> bool:
        """Whether a process of this run has noted an upgrade that is not undone, and not kept."""
        found = self._folder.find(self._run.id)
        return found is not None and found.upgrade is not None

    def abandon(self) -> None:
        """Nobody waits any more for what is under way to go: say how to remove it."""
        from pytest_kvscale.cluster import recovery

        run = self._run
        self.abandoned = True
        self.left = (
            "interrupted twice: what this run created was not seen to go. To remove it: "
            + recovery.command(run.namespace, run.id, run.makes_namespace)
        )
        run.tell(self.left)

    def finish(self) -> None:
        """Undo what this run has left, if it broke off."""
        from pytest_kvscale.cluster import recovery

        run = self._run
        record = self._folder.find(run.id)
        if record is None or record.idle:
            return
        if not run.connected or not run.connection.shared:
            self._folder.remove(run.id)  # What it left goes with its own cluster.
            return
        if record.objects is not None and (record.objects.over or self.abandoned):
            record = record.model_copy(update={"objects": None})
        changed = record.tuning is not None or record.upgrade is not None
        if changed and self.is_done_by_others():
            record = record.model_copy(update={"tuning": None, "upgrade": None})
        if record.idle:
            return
        try:
            undone = self._undo(record)
            run.connection.run(self._forget(self.journal.load(), record))
        except recovery.NotUndoneError as problem:
            self.left = str(problem)
            if problem.settings_back:
                run.connection.run(self._forget(self.journal.load(), record, objects=False))
        except KeyboardInterrupt:
            self.left = f"interrupted while {_what(record)} was undone: {RECOVER} does it"
        else:
            run.tell(f"undid what was under way: {undone.text()}")
        if self.left:
            run.tell(self.left)

    def is_done_by_others(self) -> bool:
        """Whether our turn was lost, and whoever has had it since has undone what we changed.

        What is there now may be theirs, though it be the same.
        """
        run = self._run
        if not run.turn_is_lost:
            return False
        return run.connection.run(self.journal.is_gone())

    def close(self) -> None:
        """The run is over."""
        if self._alive is not None:
            self._alive.close()
            self._alive = None
            if self._folder.find(self._run.id) is None:
                self._folder.remove(self._run.id)


def _system() -> str:
    from pytest_kvscale.cluster.system import NAMESPACE

    return NAMESPACE


def _what(record: Record) -> str:
    parts = []
    if record.objects is not None:
        parts.append(record.objects.what)
    if record.upgrade is not None:
        to = record.upgrade.to or "another version"
        parts.append(f"the upgrade of KubeVirt from {record.upgrade.version} to {to}")
    if record.tuning is not None:
        parts.append(f"{len(record.tuning.fields)} KubeVirt settings")
    return " and ".join(parts)
