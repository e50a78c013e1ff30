"""The command `compare`: two sides of runs from files, without pytest and without a cluster."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pytest_kvscale import json_files, options
from pytest_kvscale.errors import ConfigurationError

if TYPE_CHECKING:
    from pytest_kvscale.judge.comparison import Comparison
    from pytest_kvscale.judge.runs import RunFile

HTML = Path("kvscale-comparison.html")
WORSE = 1
"""The exit code of a comparison that fails."""


def add_to(commands: Any) -> None:
    """Add the command to the parser's."""
    command = commands.add_parser(
        "compare",
        help="compare runs with those before, and say whether anything became worse",
        description="Compare runs. The first path is the side before, all others together are the "
        "side after; each is a results.json, a run's folder, a folder of runs, or one that "
        "`baseline add` keeps. The run of an upgrade alone is compared with itself: what came "
        "before the upgrade with what came after it. It prints a table, writes an HTML page, and "
        "exits with 0 (not worse), 1 (worse), 4 (cannot be compared) or, if it is inconclusive, 0 "
        "(1 with --strict).",
    )
    command.add_argument("runs", type=Path, nargs="+", metavar="RUNS",
                         help="BEFORE AFTER [AFTER...], or the run of an upgrade")  # fmt: skip
    add = command.add_argument
    add("--before", type=Path, action="append", default=[], metavar="RUNS",
        help="more runs of the side before; may be given several times")  # fmt: skip
    add("--version", metavar="VERSION",
        help="the KubeVirt version to compare with, if there are several before (default: that of "
        "the run that began last)")  # fmt: skip
    add("--levels", type=_read(options.levels), metavar="N,N,...",
        help="the levels to compare (default: all that either side has)")  # fmt: skip
    add("--calibration", type=Path, action="append", default=[], metavar="RUNS",
        help="runs of a calibration of this cluster: how far equal runs lie apart")  # fmt: skip
    add("--may-differ", action="append", default=[], metavar="NAME",
        help="what may differ beside KubeVirt's version: a name or a pattern")  # fmt: skip
    add("--relative", type=_read(options.percent), default=0.05, metavar="PERCENT",
        help="the least relative change that fails, in per cent (default: 5)")  # fmt: skip
    add("--strict", action="store_true", help="exit with 1 if it is inconclusive")
    add("--html", type=Path, default=HTML, metavar="FILE",
        help=f"where the page goes (default: {HTML})")  # fmt: skip
    add("--json", type=Path, metavar="FILE", help="write the comparison as JSON")
    add("--markdown", type=Path, metavar="FILE", help="write a summary for a CI job's page")
    add("--junit", type=Path, metavar="FILE", help="write JUnit XML, a test case for each row")
    command.set_defaults(run=run)


def run(given: argparse.Namespace, tell: Callable[[str], None] = print) -> int:
    """Compare, tell and write; returns the exit code.

    Raises `ConfigurationError` for runs that cannot be read or compared; a JUnit file has it too.
    """
    from pytest_kvscale.report import comparison as reports
    from pytest_kvscale.report import junit, markdown

    try:
        found = _compare(given)
    except ConfigurationError as problem:
        if given.junit is not None:
            json_files.write(given.junit, junit.comparison_error(str(problem)))
        raise
    for line in reports.table(found):
        tell(line)
    json_files.write(given.html, reports.page(found))
    if given.json is not None:
        content = json.dumps(found.as_json(), indent=1, allow_nan=False)
        json_files.write(given.json, content + "\n")
    if given.markdown is not None:
        json_files.write(given.markdown, markdown.comparison(found))
    if given.junit is not None:
        json_files.write(given.junit, junit.comparison(found, given.strict))
    tell(f"page: {json_files.showable(str(given.html))}")
    failing = found.verdict == "fail" or (given.strict and found.verdict == "inconclusive")
    return WORSE if failing else 0


def _compare(given: argparse.Namespace) -> Comparison:
    from pytest_kvscale import baselines
    from pytest_kvscale.judge.change import Rules
    from pytest_kvscale.judge.comparison import compare

    before, after = _sides(given.runs, given.before)
    return compare(
        before,
        after,
        Rules(relative=given.relative),
        baselines.read(given.calibration),
        given.may_differ,
        # Who names a run means it; of a folder those that fit are meant.
        leave_out=any(baselines.is_many(each) for each in (given.runs[0], *given.before)),
        version=given.version,
        levels=given.levels,
    )


def _sides(
    paths: Sequence[Path], more: Sequence[Path]
) -> tuple[Sequence[RunFile], Sequence[RunFile]]:
    from pytest_kvscale import baselines

    if len(paths) > 1:
        return baselines.read([paths[0], *more]), baselines.read(paths[1:])
    if more:
        return baselines.read(more), baselines.read(paths)
    found = baselines.read(paths, both_sides=True)
    if len(found) != 2 or not found[0].is_of_upgrade or not found[1].is_of_upgrade:
        raise ConfigurationError(
            f"{paths[0]} is not the run of an upgrade, and there is nothing to compare it with: "
            "expected BEFORE AFTER"
        )
    # Both have the same start: which is which, their ids say.
    found.sort(key=lambda each: each.id.endswith(":after"))
    return found[:1], found[1:]


def _read(reading: Callable[[str], Any]) -> Callable[[str], Any]:
    """A reader of an option as argparse wants it: its error says what was expected."""

    def read(text: str) -> Any:
        try:
            return reading(text)
        except ValueError as problem:
            raise argparse.ArgumentTypeError(str(problem)) from None

    return read
