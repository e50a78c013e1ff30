"""Runs as files: read from where the user says, and kept for others to be compared with."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from pytest_kvscale import json_files
from pytest_kvscale.errors import ConfigurationError
from pytest_kvscale.judge import samples
from pytest_kvscale.judge.runs import RunFile, run_files

RESULTS = "results.json"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


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


def add(paths: Sequence[Path], to: Path, name: str | None = None) -> Iterator[str]:
    """Keep runs in a folder, one small file each; yields a sentence for each run.

    A file is called by KubeVirt's version (or `name`), the fingerprint and the run; it has what
    comparisons need, in an order that does not change, so that it fits in a git repository. A run
    that is kept already is told, not kept twice. Raises `ConfigurationError`, before anything is
    written, for a run that has no level that counts (of a folder those are left out, and told, if
    there are others), or of which another version is kept.
    """
    if name is not None and not _NAME.fullmatch(name):
        raise ConfigurationError(
            f"{name!r} cannot be part of a file's name: expected letters, digits, '.', '_' and '-'"
        )
    if to.exists() and not to.is_dir():
        raise ConfigurationError(f"{to} is no folder: runs are kept in one")
    kept = {run.id: run for run in (read([to]) if any(to.glob("*.json")) else ())}
    runs = read(paths)
    counting = [run for run in runs if _counts(run)]
    # Who names a run means it; of a folder those are meant that can be kept.
    named = {run.id for path in paths if not is_many(path) for run in read([path])}
    for run in runs:
        if run not in counting and (run.id in named or not counting):
            raise ConfigurationError(
                f"run {run.id} ({run.source}) has no level that was measured to its end: there is "
                "nothing to keep"
            )
        known = kept.get(run.id)
        if known is not None and known.as_json() != run.as_json():
            raise ConfigurationError(
                f"{known.source} has run {run.id} already, and {run.source} differs: remove the "
                "one that is wrong"
            )
    for run in runs:
        if run not in counting:
            yield f"run {run.id} is left out: it has no level that was measured to its end"
            continue
        if run.id in kept:
            yield f"run {run.id} is there already: {kept[run.id].source}"
            continue
        path = to / file_name(run, name)
        json_files.write(path, json.dumps(run.as_json(), indent=1, sort_keys=True) + "\n")
        yield f"run {run.id} is kept: {json_files.showable(str(path))}"


def file_name(run: RunFile, name: str | None = None) -> str:
    """What the file of a kept run is called: `v1.9.0-<fingerprint>-<run id>.json`."""
    parts = (name or run.kubevirt, run.fingerprint, run.id)
    return "-".join(re.sub(r"[^A-Za-z0-9._-]", "-", each).lstrip(".-") for each in parts) + ".json"


def _counts(run: RunFile) -> bool:
    """Whether a level of it was measured to its end."""
    return any(each.standing == "whole" for each in samples.level_runs([run]))


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
    shown = file.relative_to(here) if file.is_relative_to(here) else file
    return json_files.showable(str(shown))
