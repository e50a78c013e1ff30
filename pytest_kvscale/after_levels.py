"""Tests that come after all levels: each asserts one thing that was judged over the whole run.

They are appended to the tests that were collected, whatever suite those are of; so JUnit has a test
case for each, and a run in which something could not be judged is not green.
"""

from __future__ import annotations

import abc
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from pytest_kvscale import state

if TYPE_CHECKING:
    from pytest_kvscale.gating import Judged
    from pytest_kvscale.session import Run

GROUP = "kvscale"


class JudgedItem(pytest.Item):
    """A test of what was judged."""

    @abc.abstractmethod
    def judged(self, run: Run) -> Judged:
        """What came of it."""

    def runtest(self) -> None:
        """Fail with the sentence, or pass with it in the report."""
        run = state.run_of(self.config)
        found = self.judged(run)
        self.user_properties += [
            ("kvscale.verdict", found.verdict), ("kvscale.reason", found.text),
        ]  # fmt: skip
        if found.verdict == "fail" or (found.verdict == "inconclusive" and run.settings.strict):
            pytest.fail(found.text, pytrace=False)
        if found.verdict == "inconclusive":
            self.add_report_section("call", GROUP, found.text)

    def reportinfo(self) -> tuple[Path, None, str]:
        """Where it is said to stand: in no file."""
        return self.config.rootpath / GROUP, None, self.name


class ComparisonItem(JudgedItem):
    """A metric of a level, or its failures, compared with the baseline."""

    def __init__(self, *, level: int, key: str, **more: Any) -> None:
        super().__init__(**more)
        self.level, self._key = level, key

    def judged(self, run: Run) -> Judged:
        """See `JudgedItem`."""
        return run.comparing.judged(self.level, self._key)


class OthersItem(JudgedItem):
    """The levels of tests that did not say before which they run: they are compared as well."""

    def __init__(self, *, levels: Sequence[int], **more: Any) -> None:
        super().__init__(**more)
        self._levels = levels
        """Those that have tests of their own."""

    def judged(self, run: Run) -> Judged:
        """See `JudgedItem`."""
        return run.comparing.judged_others(self._levels)


class CalibrationItem(JudgedItem):
    """Whether the runs of a level can be used as a calibration."""

    def __init__(self, *, level: int, **more: Any) -> None:
        super().__init__(**more)
        self.level = level

    def judged(self, run: Run) -> Judged:
        """See `JudgedItem`."""
        return run.calibrating.judged(self.level)


def append(
    session: pytest.Session,
    run: Run,
    items: list[pytest.Item],
    levels: tuple[Sequence[int], Sequence[int]],
    unnamed: bool,
) -> None:
    """Append a test for each row of the comparison, if there is one, and each calibrated level.

    `levels` are those that ordinary tests run, and those of calibrations; `unnamed`: there are
    tests that do not say which levels they run.
    """
    compared, calibrated = levels
    if compared and run.comparing.is_wanted:
        items += [
            ComparisonItem.from_parent(
                session, name=name, nodeid=f"{GROUP}::{name}", level=level, key=key
            )
            for level in compared
            for key in run.comparing.what()
            for name in (f"comparison[{level} {key}]",)
        ]
        name = "comparison[other levels]"
        items += [
            OthersItem.from_parent(session, name=name, nodeid=f"{GROUP}::{name}", levels=compared)
            for _ in range(unnamed)
        ]
    items += [
        CalibrationItem.from_parent(session, name=name, nodeid=f"{GROUP}::{name}", level=level)
        for level in calibrated
        for name in (f"calibration[{level}]",)
    ]
