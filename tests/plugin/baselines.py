"""Baselines for the quick node, made without running a level."""

from __future__ import annotations

import functools
import json
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pytest_kvscale.judge import runs
from pytest_kvscale.options import Settings
from pytest_kvscale.session import Run
from tests.plugin.conftest import QUICK
from tests.report.test_report import report

Json = dict[str, Any]


@functools.cache
def _begun() -> str:
    """What the results of a run on the quick node say before its first level."""
    with tempfile.TemporaryDirectory() as folder:
        profile = Path(folder) / "quick.yaml"
        profile.write_text(f"extends: blog-2021\n{QUICK}", encoding="utf-8")
        run = Run(Settings(cluster="sim", sim_profile=str(profile), report_dir=Path(folder)))
        try:
            content = {"schema": runs.SCHEMA, "run": run.run_object(),
                       "cluster": run.cluster_object(), "levels": []}  # fmt: skip
        finally:
            run.close()
    return json.dumps(content)


def level(number: int, running: float, deletion: float) -> Json:
    """A run of a level in which all VMIs took so many seconds."""
    content: Json = report(*[running] * number)["level"]
    for name in ("p50", "p90", "p95", "p99"):
        content["deletion"][name] = deletion
    return {**content, "ended": "settled after 5s", "began": None}


def content(number: int, *levels: Json, comparable: Mapping[str, Any] | None = None) -> Json:
    """The results of a run with these levels, the `number`-th one; `comparable` differs."""
    found: Json = json.loads(_begun())
    found["run"].update(id=f"before-{number}", started=f"2026-01-0{number}T00:00:00+00:00")
    found["cluster"]["comparable"].update(comparable or {})
    found["run"]["simulated"] = found["cluster"]["comparable"]["simulated"]
    found["levels"] = [*levels]
    return found


def write(path: Path, found: Json) -> Path:
    """Write results where they can be read."""
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(found), encoding="utf-8")
    return path
