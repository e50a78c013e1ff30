"""The journal on disk: one file a run, in place before anything is changed.

Files lie where the next run on this machine finds them, by the cluster's uid. A lock on a file
beside it tells whether the run is alive: the system frees it when a process ends, however it does.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO

from pytest_kvscale.cluster.journal_record import Record, read
from pytest_kvscale.errors import ConfigurationError

_ENDING = ".json"


def state_dir(environment: Mapping[str, str]) -> Path:
    """Where journals lie: `$XDG_STATE_HOME/pytest-kvscale`, by default below ~/.local/state."""
    given = environment.get("XDG_STATE_HOME", "")
    base = Path(given) if given.startswith("/") else Path("~/.local/state").expanduser()
    return base / "pytest-kvscale"


class Folder:
    """The journals of all runs on one cluster, as far as they ran on this machine."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def is_writable(self) -> bool:
        """Whether anything can be written here."""
        try:
            self.path.mkdir(parents=True, exist_ok=True)
        except OSError:
            return False
        return os.access(self.path, os.W_OK | os.X_OK)

    def records(self) -> Iterator[Record]:
        """What is there. Raises `ConfigurationError` for a file that cannot be read."""
        for path in sorted(self.path.glob(f"*{_ENDING}")):
            found = _read(path)
            if found is not None:
                yield found

    def find(self, run: str) -> Record | None:
        """A run's journal."""
        return _read(self._file(run))

    def write(self, record: Record) -> None:
        """Write a run's journal; when this returns it is on the disk, whatever happens next.

        Raises `ConfigurationError` if that cannot be.
        """
        path = self._file(record.run)
        new = path.with_name(f".{path.name}.new")
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            with new.open("w", encoding="utf-8") as file:
                file.write(record.text())
                file.flush()
                os.fsync(file.fileno())
            new.replace(path)
            _sync(self.path)
        except OSError as problem:
            raise ConfigurationError(
                f"the journal cannot be written to {self.path}: {problem.strerror or problem}: "
                "without it what this run changes could not be undone (XDG_STATE_HOME names "
                "another place)"
            ) from None

    def remove(self, run: str) -> None:
        """Forget a run."""
        # On a disk that became read-only it stays; the cluster's copy tells that it is undone.
        with contextlib.suppress(OSError):
            for path in (self._file(run), self._lock(run)):
                path.unlink(missing_ok=True)
            self.path.rmdir()

    def hold(self, run: str) -> IO[str] | None:
        """Show that a run is alive, until the file returned is closed; None if it is already."""
        with contextlib.suppress(OSError):
            self.path.mkdir(parents=True, exist_ok=True)
            file = self._lock(run).open("w", encoding="utf-8")
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                file.close()
            else:
                return file
        return None

    def is_alive(self, run: str) -> bool:
        """Whether a run's process is."""
        if not self._lock(run).exists():
            return False
        held = self.hold(run)
        if held is None:
            return True
        held.close()
        return False

    def is_dead(self, run: str) -> bool:
        """Whether a run is known to have ended: it ran on this machine, and its process is gone."""
        return self._file(run).exists() and not self.is_alive(run)

    def _file(self, run: str) -> Path:
        return self.path / f"{run}{_ENDING}"

    def _lock(self, run: str) -> Path:
        return self.path / f"{run}.lock"


def _read(path: Path) -> Record | None:
    """The journal in a file; None if it has just been removed."""
    where = f"the journal {path}"
    try:
        return read(path.read_text(encoding="utf-8"), where)
    except FileNotFoundError:
        return None
    except UnicodeDecodeError:
        raise ConfigurationError(f"{where} is not text (UTF-8)") from None
    except OSError as problem:
        raise ConfigurationError(
            f"{where} cannot be read: {problem.strerror or problem}"
        ) from None  # fmt: skip


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
