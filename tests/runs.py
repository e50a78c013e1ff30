"""Results of runs for tests: a real file of the embedded cluster, with some things changed."""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pytest_kvscale.judge.runs import RunFile, run_file
from tests.conftest import DATA

REAL = json.loads((DATA / "results-5.json").read_text(encoding="utf-8"))
"""One level of 5 VMIs on the profile upgrade-from."""
Json = dict[str, Any]


def level(
    number: int = 5,
    *,
    p95: float | None = 5.0,
    failures: Mapping[str, int] | None = None,
    requests: float | None = None,
    **changed: Any,
) -> Json:
    """A level of so many VMIs; `p95` None: half of them never ran."""
    made: Json = copy.deepcopy(REAL["levels"][0])
    came = number if p95 is not None else number // 2
    running = {"n": came, "censored": number - came, "p50": p95 and round(0.9 * p95, 6),
               "p90": p95, "p95": p95, "p99": p95, "max": p95, "mean": p95}  # fmt: skip
    for phase in ("Scheduling", "Scheduled"):
        made["phases"][phase].update(n=number, censored=0)
    made["phases"]["Running"] = {**running, "p50": running["p50"] if came * 2 >= number else None}
    made["deletion"].update(n=number, censored=0)
    made.update(
        level=number, requested=number, created=number, running=came, deleted=number,
        failures=dict(failures or {}), verdict="fail" if failures else "pass",
    )  # fmt: skip
    if requests is not None:
        made["control_plane"]["requests_per_vmi"] = {"virt-handler": {"PATCH x": requests}}
    return {**made, **changed}


def results(name: str, *levels: Json, kubevirt: str = "v1.9.0", **changed: Any) -> Json:
    """The content of a `results.json`; `changed` are keys of `comparable`, with `_` for `.`."""
    content: Json = copy.deepcopy(REAL)
    content["run"]["id"] = name
    day = 1 + sum(map(ord, name)) % 28
    content["run"]["started"] = f"2026-03-{day:02d}T08:00:00+00:00"
    cluster = content["cluster"]
    cluster["kubevirt"] = kubevirt
    cluster["comparable"]["versions.kubevirt"] = kubevirt
    for key, value in changed.items():
        cluster["comparable"][key.replace("_", ".", 1)] = value
        if key == "simulated":
            content["run"]["simulated"] = value
    content["levels"] = list(levels) or [level()]
    return content


def run(name: str, *levels: Json, **changed: Any) -> RunFile:
    """A run with these levels."""
    return run_file(results(name, *levels, **changed), f"{name}.json")


def side(
    name: str, values: Sequence[float | None], number: int = 5, **changed: Any
) -> list[RunFile]:
    """A run for each p95."""
    return [
        run(f"{name}{index}", level(number, p95=each), **changed)
        for index, each in enumerate(values)
    ]


def write(folder: Path, content: Json) -> Path:
    """The content as a run's folder has it."""
    path: Path = folder / content["run"]["id"] / "results.json"
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps(content), encoding="utf-8")
    return path
