"""`python -m pytest_kvscale trend FOLDER`: how a cluster's figures went over its runs."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pytest_kvscale import json_files
from pytest_kvscale import options as option_readers
from pytest_kvscale.errors import ConfigurationError, nearest

if TYPE_CHECKING:
    from pytest_kvscale.judge.acknowledged import Entry
    from pytest_kvscale.judge.change import Metric

ACKNOWLEDGED = "acknowledged.yaml"
PAGE = "trend.html"
WORSE = 1


def add_to(commands: Any) -> None:
    """Add `trend` to the commands of a parser."""
    command = commands.add_parser(
        "trend",
        help="draw figures over runs and versions, and find where they changed",
        description="Read all runs in a folder, print and draw latencies, rate and cost over runs "
        "and versions of KubeVirt, and find where they changed. It exits with 1 if something "
        "became worse that is not acknowledged, and with 4 if a file cannot be used.",
    )
    command.add_argument("folder", type=Path, metavar="FOLDER")
    command.add_argument(
        "--acknowledged", type=Path, metavar="FILE",
        help=f"changes that are accepted (default: {ACKNOWLEDGED} in the folder, if it is there)",
    )  # fmt: skip
    command.add_argument("--level", type=_level, action="append", metavar="N",
                         help="only this level; may be given several times")  # fmt: skip
    command.add_argument("--metric", action="append", metavar="NAME",
                         help="only this metric; may be given several times")  # fmt: skip
    command.add_argument("--last", type=_level, metavar="N", help="only the latest N runs")
    command.add_argument(
        "--may-differ", action="append", default=[], metavar="NAME",
        help="what else may differ between runs that are compared, beside versions.kubevirt",
    )  # fmt: skip
    command.add_argument("--relative", type=_per_cent, default=0.05, metavar="PERCENT",
                         help="the least relative change that is told (default: 5)")  # fmt: skip
    command.add_argument("--html", type=Path, metavar="FILE",
                         help=f"where the page goes (default: {PAGE} in the folder)")  # fmt: skip
    command.add_argument("--json", type=Path, metavar="FILE", help="the same as JSON")
    command.set_defaults(run=lambda options: run(options, print))


def _level(text: str) -> int:
    if not text.isascii() or not text.isdecimal() or not int(text):
        raise argparse.ArgumentTypeError(f"expected a number from 1 on, got {text!r}")
    return int(text)


def _per_cent(text: str) -> float:
    try:
        return option_readers.percent(text)
    except ValueError as problem:
        raise argparse.ArgumentTypeError(str(problem)) from None


def run(options: argparse.Namespace, say: Callable[[str], None]) -> int:
    """Do it; returns the exit code. Raises `ConfigurationError` for files that cannot be used."""
    from pytest_kvscale import baselines
    from pytest_kvscale.judge.trend import trend
    from pytest_kvscale.report import trend as report

    folder: Path = options.folder
    metrics = _metrics(options.metric or ())
    page = options.html or (folder / PAGE if folder.is_dir() else Path(PAGE))
    if options.json is not None:
        _check_is_no_run(options.json, folder)
    runs = baselines.read([folder], both_sides=True)
    found = trend(
        runs,
        _acknowledged(options),
        options.may_differ,
        options.level or (),
        metrics,
        options.last,
        options.relative,
    )
    if not found.sections:
        wanted = ", ".join(str(each) for each in options.level or ()) or "any"
        there = sorted({int(level["level"]) for each in runs for level in each.levels})
        known = ", ".join(map(str, there)) or "none"
        raise ConfigurationError(f"{folder} has no run of level {wanted}: there are {known}")
    for line in report.lines(found):
        say(line)
    json_files.write(page, report.page(found, str(folder)))
    say(f"page: {page}")
    if options.json is not None:
        json_files.write(
            options.json, json.dumps(report.as_json(found), indent=1, allow_nan=False) + "\n"
        )
        say(f"json: {options.json}")
    return WORSE if found.failing else 0


def _metrics(names: Any) -> tuple[Metric, ...]:
    from pytest_kvscale.judge.trend import METRICS

    known = {each.key: each for each in METRICS}
    for name in names:
        if name not in known:
            hint = nearest(name, known) or f"; expected one of {', '.join(known)}"
            raise ConfigurationError(f"there is no metric {name!r}{hint}")
    return tuple(each for key, each in known.items() if not names or key in names)


def _acknowledged(options: argparse.Namespace) -> tuple[Entry, ...]:
    from pytest_kvscale.documents import read_mapping
    from pytest_kvscale.judge.acknowledged import entries

    path = options.acknowledged or options.folder / ACKNOWLEDGED
    if options.acknowledged is None and not path.exists():
        return ()
    what = "file of acknowledged changes"
    return entries(read_mapping(path, what), f"the {what} {path}")


def _check_is_no_run(path: Path, folder: Path) -> None:
    """A JSON file among the runs would be read as one the next time."""
    if path.suffix == ".json" and path.resolve().parent == folder.resolve():
        raise ConfigurationError(
            f"{path} would lie among the runs in {folder}, and be read as one: name another folder"
        )
