"""`python -m pytest_kvscale`: what can be done beside pytest."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from pytest_kvscale import comparing, keeping, trending
from pytest_kvscale.errors import ConfigurationError

if TYPE_CHECKING:
    from pytest_kvscale.options import Settings

USAGE_ERROR = 4
NOBODY_READS = 128 + 13
"""The exit code where whoever read the output has gone, as that of a program that SIGPIPE ends."""


class _Parser(argparse.ArgumentParser):
    """A parser that ends with pytest's exit code for bad usage; argparse's means interrupted."""

    def error(self, message: str) -> NoReturn:
        """Say what is wrong, and how it is used."""
        self.print_usage(sys.stderr)
        self.exit(USAGE_ERROR, f"error: {message}\n")


def main(arguments: list[str] | None = None) -> int:
    """Run a command; returns the exit code."""
    parser = _Parser(prog="python -m pytest_kvscale", description=__doc__)
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    command = commands.add_parser(
        "replay",
        help="measure and judge a recording, and print its level object",
        description="Measure and judge a recording (--kvscale-record) as a live run would be, and "
        "print the level object as it would stand in results.json. The exit code is 0 whatever "
        "the verdict is.",
    )
    command.add_argument("recording", type=Path, metavar="RECORDING.jsonl.gz")
    command.add_argument(
        "--kvscale-slo", dest="slo", type=Path, metavar="FILE",
        help="objectives to judge it by (default: none; failures alone judge)",
    )  # fmt: skip
    command.set_defaults(run=_replay)
    _add_cluster_command(
        commands, "recover", _recover,
        "undo what runs left that did not finish",
        "Undo what runs left on a cluster that did not finish, or kept (--kvscale-keep): VMIs, "
        "pods, namespaces, KubeVirt's settings. Waits for its turn as a run does.",
    )  # fmt: skip
    _add_cluster_command(
        commands, "uninstall", _uninstall,
        "recover, then remove the namespace kvscale-system",
        "Undo what runs left, then remove the namespace kvscale-system with its lease and the "
        "memory of the last level: all that stays of runs on a cluster.",
    )  # fmt: skip
    comparing.add_to(commands)
    keeping.add_to(commands)
    trending.add_to(commands)
    options = parser.parse_args(arguments)
    try:
        code = int(options.run(options))
        sys.stdout.flush()
    except ConfigurationError as problem:
        print(f"error: {problem}", file=sys.stderr)
        return USAGE_ERROR
    except BrokenPipeError:
        # Python would write what is left once more when it ends.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return NOBODY_READS
    return code


def _add_cluster_command(
    commands: Any, name: str, run: Callable[[argparse.Namespace], int], short: str, long: str
) -> None:
    from pytest_kvscale import options

    command = commands.add_parser(name, help=short, description=long)
    names = ("no-wait", "delete-timeout", "upgrade-back-command")
    wanted = [each for each in options.OPTIONS if each.name in names]
    options.add_to_command(command, [*options.CLUSTER_OPTIONS, *wanted])
    command.set_defaults(run=run)


def _recover(options: argparse.Namespace) -> int:
    from pytest_kvscale.recovering import recover

    return recover(_settings(options), print)


def _uninstall(options: argparse.Namespace) -> int:
    from pytest_kvscale.recovering import uninstall

    return uninstall(_settings(options), print)


def _settings(given: argparse.Namespace) -> Settings:
    from pytest_kvscale import options

    return options.read(lambda name: getattr(given, name, None), lambda _: None)


def _replay(options: argparse.Namespace) -> int:
    print(json.dumps(replay(options.recording, options.slo), indent=1))
    return 0


def replay(path: Path, slo: Path | None = None) -> dict[str, object]:
    """The level object of a recording, judged by a file of objectives if one is given.

    Raises `ConfigurationError` if it is no whole recording, or the file cannot be used.
    """
    from pytest_kvscale.judge import objectives
    from pytest_kvscale.judge.verdict import judge
    from pytest_kvscale.measure import recording
    from pytest_kvscale.measure.figures import figures
    from pytest_kvscale.report.results import level_object

    lines = recording.read(path)
    plan = next((line for line in lines if line["stream"] == "plan"), {})
    by = next((line for line in lines if line["stream"] == "judged"), {})
    try:
        found = figures(recording.replay(lines), plan.get("level"), plan.get("qps"))
    except (ValueError, KeyError, TypeError, AttributeError) as problem:
        raise ConfigurationError(f"the recording {path} cannot be replayed: {problem}") from None
    ended = next(
        (str(line["how"]) for line in lines if line["stream"] == "end"), "end of recording"
    )
    _, limits = (None, objectives.NO_OBJECTIVES) if slo is None else objectives.load(slo)
    result = judge(
        found.requested, found, limits, by.get("max_lag"), ended, by.get("problem", ""),
        doubts=by.get("doubts", ()), kept=by.get("kept", ""),
    )  # fmt: skip
    return level_object(result)


if __name__ == "__main__":
    sys.exit(main())
