"""Under pytest-xdist: all tests of ours on one worker, in order, and whole reports.

Workers collect; the controller only learns the names of what they found. So each worker leaves
a note about our tests where the controller can read it (both are on one machine), before it
reports what it collected.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import tempfile
from collections.abc import Generator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from execnet.gateway_base import RemoteError
from xdist.scheduler import LoadFileScheduling, LoadScopeScheduling

from pytest_kvscale import state
from pytest_kvscale.collection import found

if TYPE_CHECKING:
    from pytest_kvscale.plugin import Hooks
    from pytest_kvscale.session import Run

_KEY = "kvscale"
_GRACE = 60.0
"""Seconds a worker is given beyond its deletion's timeout."""


class Notes:
    """What the workers found: our tests, their folders, or what is wrong with them."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def leave(self, worker: str, items: Sequence[pytest.Item], problem: str, left_out: int) -> None:
        """Write it down (in a worker)."""
        content = {
            "ids": [item.nodeid for item in items],
            "tests": found(items, left_out),
            "problem": problem,
            "pid": os.getpid(),
        }
        # The controller may look while it is written.
        new = self._folder / f"{worker}.new"
        new.write_text(json.dumps(content), encoding="utf-8")
        new.replace(self._folder / f"{worker}.json")

    def pid(self, worker: str) -> int | None:
        """The process of a worker that found tests of ours (in the controller)."""
        path = self._folder / f"{worker}.json"
        if not path.is_file():
            return None
        return int(json.loads(path.read_text(encoding="utf-8"))["pid"])

    def read(self) -> dict[str, Any] | None:
        """What a worker that found something wrote (in the controller); all find the same."""
        for path in sorted(self._folder.glob("*.json")):
            content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
            return content
        return None


class OneWorkerScheduling(LoadScopeScheduling):  # type: ignore[misc]
    """Like the scheduler the user asked for, but our tests are one unit of work."""

    def __init__(self, config: pytest.Config, log: Any, ours: frozenset[str], dist: str) -> None:
        super().__init__(config, log)
        self._ours = ours
        self._dist = dist

    def _split_scope(self, nodeid: str) -> str:
        if nodeid in self._ours:
            return _KEY
        if self._dist == "loadscope":
            return str(super()._split_scope(nodeid))
        if self._dist == "loadfile":
            return str(LoadFileScheduling._split_scope(self, nodeid))
        return nodeid


class Scheduling:
    """The user's scheduler until a worker reports tests of ours, then `OneWorkerScheduling`."""

    def __init__(self, config: pytest.Config, log: Any, usual: Any, notes: Notes) -> None:
        self._config = config
        self._log = log
        self._inner = usual
        self._notes = notes
        self._decided = False

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    def add_node_collection(self, node: Any, collection: Sequence[str]) -> None:
        """See xdist's protocol of a scheduler."""
        if not self._decided:
            self._decided = True
            found = self._notes.read()
            if found is not None and found["ids"]:
                dist = self._config.getvalue("dist")
                ours = OneWorkerScheduling(
                    self._config, self._log, frozenset(found["ids"]), str(dist)
                )
                for each in self._inner.nodes:
                    ours.add_node(each)
                self._inner = ours
        self._inner.add_node_collection(node, collection)


class Controller:
    """Hooks of the process that distributes the tests."""

    def __init__(self, hooks: Hooks) -> None:
        self._hooks = hooks
        self._folder = tempfile.TemporaryDirectory(prefix="kvscale-", ignore_cleanup_errors=True)
        self._notes = Notes(Path(self._folder.name))
        self._begun = False

    @pytest.hookimpl(optionalhook=True)
    def pytest_configure_node(self, node: Any) -> None:
        """Tell each worker the run's id, and where to leave its note."""
        run = state.run_of(node.config)
        node.workerinput[_KEY] = {"run": run.id, "notes": self._folder.name}

    @pytest.hookimpl(optionalhook=True, wrapper=True)
    def pytest_xdist_make_scheduler(
        self, config: pytest.Config, log: Any
    ) -> Generator[None, Any, Any]:
        """Put our scheduler around the one that is used otherwise."""
        return Scheduling(config, log, (yield), self._notes)

    @pytest.hookimpl(optionalhook=True)
    def pytest_xdist_node_collection_finished(self, node: Any) -> None:
        """Check everything before the first test is handed out."""
        noted = self._notes.read()
        if noted is None or self._begun:
            return
        self._begun = True
        config, hooks = node.config, self._hooks
        if config.getvalue("dist") == "each":
            hooks.stop("--dist each would run the levels in several workers at once")
        session = config.pluginmanager.get_plugin("session")
        hooks.begin(session, noted["tests"], noted["problem"])
        reporter = config.pluginmanager.get_plugin("terminalreporter")
        for line in hooks.pytest_report_collectionfinish() if reporter is not None else []:
            reporter.write_line(line)
        if state.run_of(config).settings.plan:
            pytest.exit("kvscale: that was the plan (--kvscale-plan)", returncode=0)
        # The worker that runs the tests connects for itself.
        state.run_of(config).close_unless_shared()

    def finish(self) -> None:
        """After the last test: wait for a worker that is still deleting, and do what it left.

        xdist would kill it after some seconds. A second Ctrl-C ends the waiting.
        """
        run = state.run_of(self._hooks.config)
        session = self._hooks.config.pluginmanager.get_plugin("dsession")
        try:
            with self._hooks.interrupts.waiting():
                for node in list(getattr(session, "_active_nodes", ())):
                    self._wait_for(node, run)
        except KeyboardInterrupt:
            run.undoing.abandon()
        with contextlib.suppress(KeyboardInterrupt), self._hooks.interrupts.waiting():
            run.undoing.finish()

    def _wait_for(self, node: Any, run: Run) -> None:
        if not run.undoing.under_way():
            return
        name = node.gateway.id
        run.tell(f"waiting for worker {name} to undo what it has under way")
        # Whoever interrupted us may not have told the worker; who did has told it nothing new.
        pid = self._notes.pid(name)
        if pid is not None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGTERM)
        # What the channel raises if the worker died is told by xdist.
        with contextlib.suppress(OSError, EOFError, RemoteError):
            upgrade = run.settings.upgrade_timeout if run.undoing.has_upgrade() else 0.0
            node.channel.waitclose(run.settings.delete_timeout + upgrade + _GRACE)

    def pytest_unconfigure(self) -> None:
        """Remove the notes."""
        self._folder.cleanup()


class Worker:
    """A process that runs tests for a controller."""

    def __init__(self, config: pytest.Config) -> None:
        given: dict[str, Any] = config.workerinput  # type: ignore[attr-defined]
        self.run_id: str = given[_KEY]["run"]
        self._notes = Notes(Path(given[_KEY]["notes"]))
        self._id: str = given["workerid"]

    def found(self, items: Sequence[pytest.Item], problem: str, left_out: int) -> None:
        """Let the controller know of tests of ours, or of what is wrong with them."""
        self._notes.leave(self._id, items, problem, left_out)
