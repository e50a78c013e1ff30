"""pytest's hooks: each a line or two. Nothing heavy is imported before a density test needs it."""

from __future__ import annotations

import contextlib
from collections.abc import Generator
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import pytest

from pytest_kvscale import after_levels, collection, options, state, upgrade_tests
from pytest_kvscale.errors import ConfigurationError
from pytest_kvscale.fixtures import (  # noqa: F401 - pytest finds fixtures by name
    density_level,
    density_run,
    kv_after,
    kv_before,
    kv_cluster,
    kv_namespace,
    kv_node,
    kv_prometheus,
    kv_settings,
    kv_tuning,
    kv_upgrade,
    kv_upgrade_step,
    slo,
)
from pytest_kvscale.interrupts import Interrupts
from pytest_kvscale.session import Run

if TYPE_CHECKING:
    from pytest_kvscale.distributed import Controller, Worker
    from pytest_kvscale.files import ReportFiles


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add our options and ini keys."""
    options.add_to(parser)


def pytest_configure(config: pytest.Config) -> None:
    """Read the settings; a mistake in them is told before anything else happens."""
    config.addinivalue_line(
        "markers", "density(levels=...): a density test; levels replaces --kvscale-levels"
    )
    config.addinivalue_line(
        "markers",
        "calibration: equal runs, to learn how far they lie apart; of level 100, ten times, unless "
        "--kvscale-levels and --kvscale-repeat are given",
    )
    config.pluginmanager.register(Hooks(config), "kvscale-hooks")


class Hooks:
    """The hooks of one pytest session.

    What is wrong with the settings or the tests is kept until it is known whether there are tests
    of ours at all: other runs are not touched by it.
    """

    def __init__(self, config: pytest.Config) -> None:
        self.config = config
        self._files: ReportFiles | None = None
        self._worker: Worker | None = None
        self._controller: Controller | None = None
        self._problem = ""
        self._selection_failed = False
        self._cooldown_problem: Exception | None = None
        self.interrupts = Interrupts()
        settings, run_id = options.Settings(), None
        try:
            settings = options.read(config.getoption, config.getini)
        except ConfigurationError as problem:
            self._problem = str(problem)
        if hasattr(config, "workerinput"):
            from pytest_kvscale.distributed import Worker

            self._worker = Worker(config)
            run_id = self._worker.run_id
        elif getattr(config.option, "dist", "no") != "no":
            from pytest_kvscale.distributed import Controller

            self._controller = Controller(self)
            config.pluginmanager.register(self._controller, "kvscale-controller")
        self._run = config.stash[state.RUN] = Run(settings, run_id, self._worker is None)

    # Collection -----------------------------------------------------------------------------

    def pytest_generate_tests(self, metafunc: pytest.Metafunc) -> None:
        """One test for each run of a density level."""
        settings = self._run.settings
        try:
            collection.parametrize(metafunc, settings)
        except ConfigurationError as problem:
            self._problem = self._problem or str(problem)
            metafunc.parametrize(collection.LEVEL, settings.levels, indirect=True)
        upgrade_tests.parametrize(metafunc, settings.repeat, settings.upgrade_back)

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_collection_modifyitems(
        self, session: pytest.Session, config: pytest.Config, items: list[pytest.Item]
    ) -> Generator[None, None, None]:
        """Let a number in -k mean a level; put tests of an upgrade in order, then what judges."""
        given = config.option.keyword
        try:
            config.option.keyword = collection.select_levels(items, given)
        except ConfigurationError as problem:
            self._problem = self._problem or str(problem)
            self._selection_failed = True
        try:
            result = yield
        finally:
            config.option.keyword = given
        try:
            left_out = upgrade_tests.arrange(self._run, items)
        except ConfigurationError as problem:
            self._problem = self._problem or str(problem)
            return result
        if left_out:
            config.hook.pytest_deselected(items=left_out)
        unnamed = bool(collection.unnamed(items))
        after_levels.append(session, self._run, items, collection.levels_run(items), unnamed)
        return result

    @pytest.hookimpl(tryfirst=True)
    def pytest_collection_finish(self, session: pytest.Session) -> None:
        """Check everything and connect, before the first test runs."""
        ours = [item for item in session.items if collection.is_ours(item)]
        if not ours and not self._selection_failed:
            return
        if session.testsfailed and not session.config.option.continue_on_collection_errors:
            return  # pytest will run no test.
        if self._worker is not None:
            self._worker.found(ours, self._problem, self._run.upgrading.left_out)
            self.interrupts.begin()
        elif not session.config.option.collectonly:
            left_out = self._run.upgrading.left_out
            self.begin(session, collection.found(ours, left_out), self._problem)

    def pytest_report_collectionfinish(self) -> list[str]:
        """Say which cluster it is, and whether it is simulated."""
        return self._run.header() if self._files is not None else []

    def begin(self, session: pytest.Session, found: collection.Found, problem: str) -> None:
        """Begin a run of ours; stops pytest with exit code 4 if it cannot."""
        from pytest_kvscale.files import ReportFiles

        try:
            if problem:
                raise ConfigurationError(problem)
            self._run.calibrating.check(found["calibrated"], found["levels"], found["compared"])
            self._run.comparing.expect(found["compared"], found["unnamed"])
            self._run.tell = self._tell
            self.interrupts.begin()
            upgrading, suites = self._run.upgrading, [Path(each) for each in found["suites"]]
            upgrading.left_out = found["left_out"]
            if found["upgrade"] and not upgrading.is_wanted:
                # A controller has seen no test.
                upgrading.want(bool(found["compared"] or found["unnamed"]))
            self._run.check(suites, found["levels"], found["compared"])
            self._files = ReportFiles(session.config, self._run)
            self._files.begin(session)
        except ConfigurationError as mistake:
            self.stop(str(mistake))

    def _tell(self, line: str) -> None:
        """Write a line for people; a quiet pytest stays quiet."""
        reporter = self.config.pluginmanager.get_plugin("terminalreporter")
        if reporter is None or reporter.verbosity < 0:
            return
        capture = self.config.pluginmanager.get_plugin("capturemanager")
        # A level runs inside a test, whose output is captured.
        with capture.global_and_fixture_disabled() if capture else contextlib.nullcontext():
            reporter.ensure_newline()
            reporter.write_line(f"kvscale: {line}")
            reporter.flush()  # Somebody may be waiting for it, at a pipe too.

    def stop(self, sentence: str) -> NoReturn:
        """End pytest with exit code 4, one sentence, and a JUnit file that has it."""
        from pytest_kvscale.files import write_error

        self._run.close()
        write_error(self.config, self._run, sentence)
        raise pytest.UsageError(f"kvscale: {sentence}")

    # Tests ----------------------------------------------------------------------------------

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtestloop(self) -> bool | None:
        """Run no test, if only the plan was asked for."""
        return True if self._run.settings.plan and self._files is not None else None

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Generator[None, object, object]:
        """Let the cluster rest before a level; that is no test's time."""
        if collection.runs_levels(item):
            try:
                self._run.levels.cool_down(collection.level_of(item))
            except Exception as problem:  # noqa: BLE001 - the test's setup fails with it
                self._cooldown_problem = problem
        return (yield)

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_setup(self) -> None:
        """Fail here with what went wrong while the cluster rested."""
        problem, self._cooldown_problem = self._cooldown_problem, None
        if problem is None:
            return
        from pytest_kvscale.cluster.cooldown import NotSettledError

        # What a worker of xdist could not do that its controller could is a sentence as well.
        if isinstance(problem, NotSettledError | ConfigurationError):
            pytest.fail(str(problem), pytrace=False)
        raise problem

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(
        self, item: pytest.Item
    ) -> Generator[None, pytest.TestReport, pytest.TestReport]:
        """Keep with the levels of a test how it ended."""
        report = yield
        if report.when == "call" and collection.is_ours(item):
            self._run.levels.test_ended(report.outcome)
        return report

    @pytest.hookimpl(tryfirst=True)
    def pytest_keyboard_interrupt(self) -> None:
        """Let the run end, whatever signal comes."""
        self.interrupts.ending()

    # Reports --------------------------------------------------------------------------------

    @pytest.hookimpl(wrapper=True)
    def pytest_sessionfinish(self) -> Generator[None, None, None]:
        """Finish what was begun, add the figures to JUnit, and keep a copy of it."""
        if self._files is not None:
            if self._controller is not None:
                self._controller.finish()
            else:
                self._run.undoing.finish()
            self._files.before_they_are_written()
        result = yield
        if self._files is not None:
            self._files.after_they_were_written()
        return result

    @pytest.hookimpl(optionalhook=True)
    def pytest_html_report_title(self, report: Any) -> None:
        """Name our own report after the run."""
        if self._files is not None:
            self._files.title(report)

    @pytest.hookimpl(optionalhook=True)
    def pytest_html_results_summary(self, prefix: list[str]) -> None:
        """Add what was measured to the HTML reports."""
        if self._files is not None and self._files.reports:
            prefix.append(self._files.html_content())

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        """Write the table of levels, and where the report is."""
        if self._files is not None:
            terminalreporter.section("kvscale")
            for line in self._files.summary():
                terminalreporter.write_line(line)

    def pytest_unconfigure(self) -> None:
        """Give back the turn and disconnect, however the tests ended."""
        self._run.close()
        self.interrupts.end()
