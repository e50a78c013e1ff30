"""Having pytest write its own reports into the run's folder, beside where the user wants them.

JUnit and HTML are written by pytest and pytest-html; nothing is registered with them before a
density test was found, so that other runs are not touched.
"""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from _pytest import junitxml

from pytest_kvscale.errors import ConfigurationError
from pytest_kvscale.report import junit, terminal
from pytest_kvscale.report.results import SUMMARY, Json

if TYPE_CHECKING:
    from pytest_kvscale.session import Run

JUNIT, HTML = "junit.xml", "report.html"
_NOTHING = "## KubeVirt density\n\nNo level was measured.\n"


class ReportFiles:
    """The reports of one pytest session that has density tests."""

    def __init__(self, config: pytest.Config, run: Run) -> None:
        self._config = config
        self._run = run
        self._junit = config.pluginmanager.has_plugin("junitxml")
        self._given = config.option.xmlpath if self._junit else None
        self._own_html: Any = None
        self._reports: list[Json] | None = None
        self._shown: list[Json] | None = None
        self.html_missing = ""
        """Why there is no report.html, if there is none."""

    @property
    def reports(self) -> list[Json]:
        """The level reports; they were written by the process that ran the levels."""
        return self._run.folder.read_reports() if self._reports is None else self._reports

    @property
    def shown(self) -> list[Json]:
        """How what was judged of all levels is shown; it was written as the reports were."""
        return self._run.folder.read_shown() if self._shown is None else self._shown

    def begin(self, session: pytest.Session) -> None:
        """From here on, tests are written down for our files."""
        _append_summary(self._run, "")  # Now, rather than when all is measured.
        config, folder = self._config, self._run.folder.make()
        if self._junit and not self._given:
            config.option.xmlpath = str(folder / JUNIT)
            junitxml.pytest_configure(config)
            config.stash[junitxml.xml_key].pytest_sessionstart()
        if not config.pluginmanager.has_plugin("html"):
            self.html_missing = "no report.html: pytest-html is switched off (-p no:html)"
            return
        self._own_html = _make_html(config, folder / HTML)
        self._own_html.pytest_sessionstart(session)
        self._own_html.pytest_collection_finish(session)

    def title(self, report: Any) -> None:
        """Name our report after the run."""
        if self._own_html is not None and report is self._own_html._report:
            report.title = f"pytest-kvscale: run {self._run.id}"

    def before_they_are_written(self) -> None:
        """Add the figures to the JUnit file."""
        reports, shown = self.reports, self.shown
        self._reports, self._shown = reports, shown
        xml = self._config.stash.get(junitxml.xml_key, None)
        if xml is None or not reports:
            return
        run, cluster = reports[-1]["run"], reports[-1]["cluster"]
        for name, value in junit.properties(run, cluster, reports):
            xml.add_global_property(name, value)
        for each in shown:
            for name, value in each["properties"].items():
                xml.add_global_property(name, value)

    def html_content(self) -> str:
        """What stands in every HTML report of this session."""
        from pytest_kvscale.report import html

        reports = self.reports
        judged = [each["html"] for each in self.shown]
        return html.page(reports[-1]["run"], reports[-1]["cluster"], reports, judged)

    def summary(self) -> Iterator[str]:
        """The table of levels, and where the files are."""
        reports = self.reports
        folder = self._run.folder.path
        if not reports:
            yield f"no level was measured; what there is lies in {folder}"
            return
        simulated = reports[-1]["run"]["simulated"]
        mark = f"SIMULATED ({simulated}): these are not figures of real hardware"
        if simulated != "false":
            yield mark
        yield from terminal.table(reports)
        for each in self.shown:
            yield from (line for line in each["lines"] if line != mark)
        if self._run.comparing.is_wanted and not self.shown:
            yield "nothing was compared with the baseline"
        here = self._config.invocation_params.dir
        shown = folder.relative_to(here) if folder.is_relative_to(here) else folder
        yield self.html_missing or f"report: {shown / HTML}"
        yield f"results: {shown / 'results.json'}"
        if self._run.undoing.left:
            yield self._run.undoing.left

    def _summary(self) -> str:
        """The summary in Markdown; it was written by the process that ran the levels."""
        path = self._run.folder.path / SUMMARY
        if not path.is_file():
            self._run.folder.write_summary(_NOTHING)
        return path.read_text(encoding="utf-8")

    def after_they_were_written(self) -> None:
        """Put a copy of the user's own JUnit file into the run's folder."""
        xml = self._config.stash.get(junitxml.xml_key, None)
        target = self._run.folder.path / JUNIT
        if self._given and xml is not None and Path(xml.logfile) != target.absolute():
            shutil.copyfile(xml.logfile, target)
        try:
            _append_summary(self._run, self._summary())
        except ConfigurationError as problem:
            self._run.tell(f"note: {problem}")
        self._run.folder.forget_reports()


def write_error(config: pytest.Config, run: Run, sentence: str) -> None:
    """A JUnit file with one error: the sentence why the run could not begin."""
    from pytest_kvscale.report import markdown

    said = markdown.escape(sentence)
    with contextlib.suppress(ConfigurationError):
        _append_summary(run, f"## KubeVirt density\n\n**The run could not begin:** {said}\n")
    error = pytest.CollectReport("pytest_kvscale::configuration", "failed", sentence, [])
    users = config.stash.get(junitxml.xml_key, None)
    if users is not None:
        users.pytest_collectreport(error)  # pytest writes it when the session ends.
    if not config.pluginmanager.has_plugin("junitxml"):
        return
    try:
        target = run.folder.make() / JUNIT
    except ConfigurationError:
        return  # The folder is what is wrong; the sentence says so.
    ours = junitxml.LogXML(
        str(target), config.option.junitprefix, config.getini("junit_suite_name"),
        family=config.getini("junit_family"),
    )  # fmt: skip
    ours.pytest_sessionstart()
    ours.pytest_collectreport(error)
    ours.pytest_sessionfinish()


def _append_summary(run: Run, text: str) -> None:
    """Append a summary to the file that the user named for it, if there is one."""
    path = run.settings.summary
    if path is None:
        return
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a", encoding="utf-8") as file:
            file.write(text)
    except OSError as problem:
        raise ConfigurationError(
            f"--kvscale-summary: {path} cannot be written: {problem.strerror or problem}"
        ) from None


def _make_html(config: pytest.Config, path: Path) -> Any:
    """A self-contained report of pytest-html at this path, made by the plugin itself."""
    from pytest_html import plugin

    option, manager = config.option, config.pluginmanager
    before = set(map(id, manager.get_plugins()))
    saved = option.htmlpath, option.self_contained_html
    option.htmlpath, option.self_contained_html = str(path), True
    try:
        plugin.pytest_configure(config)
    finally:
        option.htmlpath, option.self_contained_html = saved
    return next(each for each in manager.get_plugins() if id(each) not in before)
