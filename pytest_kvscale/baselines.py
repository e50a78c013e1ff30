"""Runs as files: read from where the user says, and kept for others to be compared with."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from pytest_kvscale import json_files
from pytest_kvscale.errors import ConfigurationError
from pytest_kvscale.judge.runs import RunFile, run_files

RESULTS = "results.json"


def read(paths: Sequence[Path], both_sides: bool = False) -> list[RunFile]:
    """The runs of files, run folders, folders of runs and kept folders, by their start; each once.

    Of an upgrade's run it is what came after it, or with `both_sides` also what came before.
    Raises `ConfigurationError` for a path with no run, and for a file that is none.
    """
    found: dict[str, RunFile] = {}
    for file in dict.fromkeys(each.resolve() for path in paths for each in _files(path)):
        runs = run_files(json_files.read(file), _shown(file))
        for run in runs if both_sides else runs[-1:]:
            known = found.setdefault(run.id, run)
            if known.as_json() != run.as_json():
                raise ConfigurationError(
                    f"{known.source} and {run.source} both say that they are run {run.id}, and "
                    "differ: remove the one that is wrong"
                )
    return sorted(found.values(), key=lambda run: (run.began or 0.0, run.id))


def is_many(path: Path) -> bool:
    """Whether a path is a folder of runs, of which those that fit may be used."""
    return path.is_dir() and not (path / RESULTS).exists()


def _files(path: Path) -> Iterator[Path]:
    """The files a path stands for."""
    if not path.exists():
        raise ConfigurationError(f"{path} does not exist: expected results.json, or a folder")
    if not path.is_dir():
        yield path
        return
    if not is_many(path):
        yield path / RESULTS
        return
    try:
        inside = sorted(path.iterdir())
        files = [
            each / RESULTS if each.is_dir() else each
            for each in inside
            if each.suffix == ".json" or (each / RESULTS).is_file()
        ]
    except OSError as problem:
        raise ConfigurationError(f"{path} cannot be read: {problem.strerror or problem}") from None
    if not files:
        raise ConfigurationError(
            f"{path} has no runs: expected {RESULTS}, folders that have one, or files that "
            "`baseline add` made"
        )
    yield from files


def _shown(file: Path) -> str:
    """A file as short as it can be said from here."""
    here = Path.cwd()
    return str(file.relative_to(here) if file.is_relative_to(here) else file)
