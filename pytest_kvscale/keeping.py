"""The commands `baseline add`, `list` and `show`: a folder of runs to compare others with."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pytest_kvscale.judge.runs import RunFile
    from pytest_kvscale.judge.samples import LevelRun

FOLDER = Path("baselines")
"""Where runs are kept by default."""
_HEADER = ("began", "run", "KubeVirt", "Kubernetes", "cluster", "fingerprint", "levels (p95)")
_LONG = 100
"""Characters of a value that are shown."""


def add_to(commands: Any) -> None:
    """Add the command to the parser's."""
    command = commands.add_parser(
        "baseline",
        help="keep runs that others are compared with: add, list, show",
        description="Keep runs that others are compared with, in a folder that fits in a git "
        "repository: a small file for each run.",
    )
    kinds = command.add_subparsers(metavar="add|list|show", required=True)
    add = kinds.add_parser("add", help="keep runs", description="Keep runs; of an upgrade's run, "
                           "what came after it.")  # fmt: skip
    add.add_argument("runs", type=Path, nargs="+", metavar="RESULTS",
                     help="results.json, run folders, folders of runs")  # fmt: skip
    add.add_argument("--to", type=Path, default=FOLDER, metavar="DIR",
                     help=f"the folder (default: {FOLDER})")  # fmt: skip
    add.add_argument("--name", metavar="NAME",
                     help="begins the files' names (default: KubeVirt's version)")  # fmt: skip
    add.set_defaults(run=_add)
    for name, text, function in (
        ("list", "a table of the runs", _list),
        ("show", "what the runs were measured on, which are comparable, and their figures", _show),
    ):
        kind = kinds.add_parser(name, help=text, description=f"Print {text}.")
        kind.add_argument("runs", type=Path, nargs="*", default=[FOLDER], metavar="DIR|RUN",
                          help=f"a folder of runs, or a run (default: {FOLDER})")  # fmt: skip
        kind.set_defaults(run=function)


def _add(given: argparse.Namespace, tell: Callable[[str], None] = print) -> int:
    from pytest_kvscale import baselines

    # All are kept before anything is told: whoever listens may go away.
    for line in [*baselines.add(given.runs, given.to, given.name)]:
        tell(line)
    return 0


def _list(given: argparse.Namespace, tell: Callable[[str], None] = print) -> int:
    from pytest_kvscale import baselines

    for line in table(baselines.read(given.runs, both_sides=True)):
        tell(line)
    return 0


def _show(given: argparse.Namespace, tell: Callable[[str], None] = print) -> int:
    from pytest_kvscale import baselines

    for line in details(baselines.read(given.runs, both_sides=True)):
        tell(line)
    return 0


def table(runs: Sequence[RunFile]) -> Iterator[str]:
    """Runs as lines of a table, by their start."""
    from pytest_kvscale.report.pages import aligned

    yield from aligned([_HEADER, *(_row(run) for run in runs)], left=range(len(_HEADER)))


def _row(run: RunFile) -> tuple[str, ...]:
    cluster = "real" if run.simulated == "false" else f"{run.simulated} {run.profile or ''}".strip()
    levels = ", ".join(
        f"{level}{f' x{len(of)}' if len(of) > 1 else ''} ({', '.join(map(_p95, of))})"
        for level, of in _by_level(run).items()
    )
    return (
        (run.started or "unknown")[:16].replace("T", " "), run.id, run.kubevirt, run.kubernetes,
        cluster, run.fingerprint, levels or "none",
    )  # fmt: skip


def _by_level(run: RunFile) -> dict[int, list[LevelRun]]:
    from pytest_kvscale.judge import samples

    found: dict[int, list[LevelRun]] = {}
    for each in samples.level_runs([run]):
        found.setdefault(each.number, []).append(each)
    return dict(sorted(found.items()))


def _p95(level: LevelRun) -> str:
    from pytest_kvscale.report.terminal import seconds

    if level.standing != "whole":
        return "does not count"
    return seconds(level.level["phases"]["Running"]["p95"])


def details(runs: Sequence[RunFile]) -> Iterator[str]:
    """Groups of runs that can be compared with each other, what they ran on, and their figures."""
    from pytest_kvscale.judge.comparable import differences

    groups: dict[str, list[RunFile]] = {}
    for run in runs:
        groups.setdefault(run.fingerprint, []).append(run)
    first = runs[0]
    for number, group in enumerate(groups.values()):
        head = group[0]
        if number:
            yield ""
            yield f"fingerprint {head.fingerprint} differs from {first.fingerprint} in:"
            for each in differences(first.comparable, head.comparable):
                yield f"  {each.text()}"
        else:
            yield f"fingerprint {head.fingerprint}:"
            for name, value in head.comparable.items():
                yield f"  {name}: {_brief(value)}"
        for run in group:
            yield from _figures(run)


def _figures(run: RunFile) -> Iterator[str]:
    from pytest_kvscale.judge import samples

    yield f"run {run.id}, begun {run.started or 'at an unknown time'} ({run.source})"
    for level in (each for of in _by_level(run).values() for each in of):
        if level.standing != "whole":
            yield f"  level {level.level['label']} does not count: {' '.join(level.why.split())}"
            continue
        parts = []
        for metric in samples.METRICS:
            found = level.sample(metric)
            if found is not None:
                value = "not reached" if found.value is None else f"{found.value:.4g}"
                parts.append(f"{metric.title} {value} {metric.unit}".rstrip())
        failed = ", ".join(f"{name} {number}" for name, number in level.failures.items())
        parts.append(f"failed: {failed or 'none'}")
        yield f"  level {level.level['label']}: {', '.join(parts)}"


def _brief(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value)
    lines = text.splitlines() or [""]
    text = lines[0] if len(lines[0]) <= _LONG else f"{lines[0][:_LONG]}…"
    return text if len(lines) == 1 else f"{text} (and {len(lines) - 1} more lines)"
