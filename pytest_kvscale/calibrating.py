"""Equal runs of a cluster, made to learn how far they lie apart (`suites/calibrate`)."""

from __future__ import annotations

import collections
import functools
from collections.abc import Sequence
from typing import TYPE_CHECKING

from pytest_kvscale.errors import ConfigurationError
from pytest_kvscale.gating import Judged

if TYPE_CHECKING:
    from pytest_kvscale.judge.calibration import LevelCalibration
    from pytest_kvscale.session import Run

LEVEL, RUNS = 100, 10
"""What a calibration runs, if nothing else is asked for."""


class Calibrating:
    """The calibration of a run."""

    def __init__(self, run: Run) -> None:
        self._run = run

    def check(
        self, calibrated: Sequence[int], levels: Sequence[int], compared: Sequence[int]
    ) -> None:
        """Raise `ConfigurationError` for a level that is run too seldom to be calibrated.

        `levels` are all that are run, each as often as it is; `compared` those that are compared
        with a baseline. Calibrations are compared with nothing.
        """
        if not calibrated:
            return
        self._run.comparing.is_off = not compared
        from pytest_kvscale.judge.calibration import LEAST_RUNS

        runs = collections.Counter(levels)
        for level in calibrated:
            if runs[level] < LEAST_RUNS:
                raise ConfigurationError(
                    f"level {level} cannot be calibrated by {runs[level]} run"
                    f"{'s' * (runs[level] > 1)}: at least {LEAST_RUNS} are needed "
                    "(--kvscale-repeat)"
                )

    @functools.cached_property
    def _made(self) -> dict[int, LevelCalibration]:
        """What came of it, by level, once all are run."""
        from pytest_kvscale.judge import runs, samples
        from pytest_kvscale.judge.calibration import calibrate
        from pytest_kvscale.judge.change import Rules
        from pytest_kvscale.report import calibration as reports

        run, levels = self._run, self._run.levels
        if not levels.reports:
            return {}
        own = runs.run_files(levels.results(), "this run")[-1]
        by_level: dict[int, list[samples.LevelRun]] = collections.defaultdict(list)
        for each in samples.level_runs([own]):
            by_level[each.number].append(each)
        rules = Rules(relative=run.settings.relative)
        made = {level: calibrate(level, each, rules) for level, each in by_level.items()}
        shown = [*made.values()]
        levels.beside["calibration"] = {"levels": [each.as_json() for each in shown]}
        levels.summary.append(reports.markdown(shown))
        run.folder.write_shown(
            "calibration",
            {
                "lines": list(reports.table(shown)),
                "html": reports.section(shown),
                "properties": {
                    f"kvscale.calibration.{each.level}.{found.metric.key}.sd": str(found.noise.sd)
                    for each in shown
                    for found in each.metrics
                    if found.noise is not None
                },
            },
        )
        levels.write_results()
        return made

    def judged(self, level: int) -> Judged:
        """What came of the calibration of a level."""
        found = self._made.get(level)
        if found is None:
            return Judged("fail", f"level {level} was not measured: nothing was calibrated")
        return Judged(found.verdict, found.text())
