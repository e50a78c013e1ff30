"""A run beside its baseline: whether it can be compared at all, and what came of it.

What can be known is checked before anything is created. The comparison itself is made once, over
all levels, when the levels are done, by the process that ran them: false alarms are controlled over
the whole of it.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from pytest_kvscale.errors import ConfigurationError

if TYPE_CHECKING:
    from pytest_kvscale.judge.change import Rules, Verdict
    from pytest_kvscale.judge.comparison import Comparison
    from pytest_kvscale.judge.runs import RunFile
    from pytest_kvscale.judge.samples import LevelRun
    from pytest_kvscale.session import Run

Json = dict[str, Any]
FAILURES = "failures"
_WORST_FIRST: tuple[Verdict, ...] = ("fail", "inconclusive", "pass")
_BY_TUNING = ("settings", "settings.*", "node.devices")
"""What a tuning may change before the first level."""
_BY_UPGRADE = ("node.devices",)
"""What a version of KubeVirt decides, where no setting does."""


@dataclasses.dataclass(frozen=True)
class Judged:
    """What came of one thing that is judged beside the levels."""

    verdict: Verdict
    text: str
    """Why, in words."""


class Comparing:
    """The comparison of a run."""

    def __init__(self, run: Run) -> None:
        self._run = run
        self._own_before = False
        self.comparison: Comparison | None = None
        """Once it has been made."""
        self.is_off = False
        """Nothing is compared, whatever the settings say."""

    @property
    def is_wanted(self) -> bool:
        """Whether the run is compared with anything."""
        return not self.is_off and (bool(self._run.settings.baseline) or self._own_before)

    def with_own_before(self) -> None:
        """Compare the two sides of this run with each other: it is one of an upgrade.

        It has to be said before the collection of tests ends, in every process.
        """
        self._own_before = True

    @staticmethod
    def what() -> tuple[str, ...]:
        """What is compared of each level."""
        from pytest_kvscale.judge.samples import METRICS

        return (*(each.key for each in METRICS), FAILURES)

    # Before anything is created -------------------------------------------------------------

    def read(self) -> None:
        """Read the files. Raises `ConfigurationError` for one that cannot be used."""
        if not self.is_wanted:
            return
        if self._own_before and self._run.settings.baseline:
            raise ConfigurationError(
                "--kvscale-baseline: these tests measure what they compare with themselves: leave "
                "it out (-o kvscale_baseline= if it stands in the ini file)"
            )
        _ = self.baseline, self.calibration

    def expect(self, levels: Sequence[int], unnamed: Sequence[str]) -> None:
        """Raise `ConfigurationError` if levels are run, and none of them could be compared.

        `unnamed` are the tests that do not say which level they run.
        """
        if self.is_wanted and unnamed and not levels:
            raise ConfigurationError(
                f"{unnamed[0]} does not say which level it runs (by the fixture density_level): "
                "nothing could be compared"
            )

    def check(self, levels: Sequence[int]) -> None:
        """Find out whether the levels can be compared, as far as that is known.

        Raises `ConfigurationError`: the baseline is of another kind of cluster, of other settings,
        or has not all the levels.
        """
        if not self.is_wanted:
            if self._run.settings.calibration is not None and not self.is_off:
                self._run.tell("note: nothing is compared: --kvscale-calibration has no use")
            return
        if not levels:
            return
        from pytest_kvscale.judge import fitting, runs

        run, settings = self._run, self._run.settings
        begun = {"schema": runs.SCHEMA, "run": run.run_object(), "cluster": run.cluster_object(),
                 "levels": []}  # fmt: skip
        unknown = () if run.tuning_name == "none" else _BY_TUNING
        may_differ = (*settings.may_differ, *unknown)
        own = [runs.run_file(begun, "this one")]
        if self._own_before:
            fitting.calibrating(self.calibration, own, own, may_differ, [])
            return
        fitting.check_sides(self.baseline, own)
        fit = fitting.those_that_fit(self.baseline, own, may_differ, True, [])
        fit = [*fitting.one_version(fit, may_differ, None, [])]
        fitting.check_alike(fit, may_differ, "before")
        fitting.calibrating(self.calibration, fit, own, may_differ, [])
        there = {each["level"] for found in fit for each in found.levels}
        missing = sorted(set(levels) - there)
        if missing:
            known = ", ".join(str(each) for each in sorted(there)) or "none"
            raise ConfigurationError(
                f"the baseline ({', '.join(each.source for each in fit)}) has no run of level "
                f"{', '.join(str(each) for each in missing)}; it has {known}: select those, or "
                "measure the others for it"
            )

    # The sides ------------------------------------------------------------------------------

    @functools.cached_property
    def baseline(self) -> list[RunFile]:
        """The runs of the baseline."""
        from pytest_kvscale import baselines

        return baselines.read(self._run.settings.baseline) if self._run.settings.baseline else []

    @functools.cached_property
    def calibration(self) -> list[RunFile]:
        """The runs of the calibration."""
        from pytest_kvscale import baselines

        path = self._run.settings.calibration
        return [] if path is None else baselines.read([path])

    def sides(self) -> tuple[Sequence[RunFile], Sequence[RunFile]]:
        """What is compared with what: before, after."""
        from pytest_kvscale.judge import runs

        own = runs.run_files(self._run.levels.results(), "this run")
        return (own[:1] if self._own_before else self.baseline), own[-1:]

    # When the levels are done ---------------------------------------------------------------

    @functools.cached_property
    def _made(self) -> tuple[Comparison | None, str]:
        """The comparison, or why it cannot be made."""
        from pytest_kvscale.judge.comparison import compare

        settings, levels = self._run.settings, self._run.levels
        may_differ = settings.may_differ
        if self._own_before:
            if self._run.upgrading.failed:
                return None, f"nothing was compared: {self._run.upgrading.failed}"
            may_differ = (*may_differ, *_BY_UPGRADE)
        try:
            before, after = self.sides()
            found = compare(
                before, after, self._rules(), self.calibration, may_differ,
                levels=[each["level"]["level"] for each in levels.reports],
            )  # fmt: skip
        except ConfigurationError as problem:
            return None, f"nothing was compared: {problem}"
        levels.beside["comparison"] = found.as_json()
        self.comparison = found
        self._show(found)
        return found, ""

    @functools.cached_property
    def _ran(self) -> list[LevelRun]:
        """The runs of levels after, and whether they count."""
        from pytest_kvscale.judge import samples

        return samples.level_runs(self.sides()[1])

    def _rules(self) -> Rules:
        from pytest_kvscale.judge.change import Rules

        return Rules(relative=self._run.settings.relative)

    def judged(self, level: int, key: str) -> Judged:
        """What came of a metric of a level, or of its failures."""
        if not self._run.levels.reports:
            return Judged("fail", f"level {level} was not measured: nothing was compared")
        found, problem = self._made
        if found is None:
            return Judged("fail", problem)
        ran = [
            each for each in self._ran
            if each.number == level
            and (each.standing == "whole" or (each.standing == "refused" and key == FAILURES))
        ]  # fmt: skip
        row = next((each for each in found.rows() if (each.level, each.key) == (level, key)), None)
        if not ran:
            why = f" ({row.text})" if row is not None else ""
            return Judged("fail", f"level {level} was not measured: nothing was compared{why}")
        if row is None:
            return Judged("inconclusive", f"level {level}: {key} was not measured on either side")
        change = next(
            (each for each in found.changes
             if (each.pair.level, each.pair.metric.key) == (level, key)), None,
        )  # fmt: skip
        where = found.where(change) if change is not None and row.verdict != "pass" else ""
        return Judged(row.verdict, f"{row.text}\n{where}" if where else row.text)

    def judged_others(self, named: Sequence[int]) -> Judged:
        """What came of all levels that were run beside those that tests name."""
        from pytest_kvscale.judge import samples

        reports = self._run.levels.reports
        others = sorted({each["level"]["level"] for each in reports} - {*named})
        if not others:
            return Judged("pass", "no level was run but those that have tests of their own")
        if self._made[0] is None:
            return Judged("fail", self._made[1])
        there = {each.number for each in samples.level_runs(self.sides()[0])}
        found = [self.judged(level, key) for level in others if level in there
                 for key in self.what()]  # fmt: skip
        found += [
            Judged("fail", f"level {level} was not compared: there is no run of it before")
            for level in others
            if level not in there
        ]
        worst = next(
            each for each in _WORST_FIRST if any(one.verdict == each for one in found)
        )  # fmt: skip
        told = [each.text for each in found if each.verdict == worst]
        return Judged(worst, "\n".join(dict.fromkeys(told)))

    def _show(self, found: Comparison) -> None:
        """Write the comparison down, and how it is shown, for whoever writes the reports."""
        from pytest_kvscale.report import comparison as reports

        run = self._run
        properties = {
            f"kvscale.comparison.{each.level}.{each.key}": each.verdict for each in found.rows()
        }
        run.folder.write_shown(
            "comparison",
            {
                "lines": list(reports.table(found)),
                "html": reports.section(found),
                "properties": {"kvscale.comparison": found.verdict, **properties},
            },
        )
        run.levels.write_results()
