"""Made-up runs of a cluster: contents of `results.json`, with the figures a test wants."""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from typing import Any

from pytest_kvscale.judge.runs import RunFile, run_file

BEGUN = datetime.datetime(2026, 9, 1, 2, 0, tzinfo=datetime.UTC)


def level(
    p95: float | None,
    number: int = 100,
    deletion: float = 20.0,
    rate: float = 60.0,
    requests: float = 9.0,
    **more: Any,
) -> dict[str, Any]:
    """A level object; p50 is half of p95. Without p95 ten VMIs in a hundred never ran."""
    ran = number if p95 is not None else number - number // 10
    running = {
        "n": ran, "censored": number - ran, "p50": 15.0 if p95 is None else p95 / 2,
        "p90": p95, "p95": p95, "p99": p95, "max": p95, "mean": p95,
    }  # fmt: skip
    if p95 is None:
        running["p90"] = 18.0
    return {
        "level": number, "verdict": "pass" if p95 is not None else "fail", "reasons": [],
        "test": "passed", "ended": "settled after 1m", "requested": number, "created": number,
        "running": ran, "deleted": number, "left_behind": 0,
        "failures": {} if p95 is not None else {"QemuTimeout": number - ran},
        "phases": {
            "Scheduling": _all(0.2, number), "Scheduled": _all(4.0, number), "Running": running,
        },
        "deletion": _all(deletion, number),
        "rates": {"running_per_min": {"mean": rate, "peak": 2 * rate}},
        "control_plane": {
            "source": "components", "vmis": number,
            "components": {"virt-handler": {"requests": {"PATCH vmis": requests * number}}},
            "requests_per_vmi": {"virt-handler": {"PATCH vmis": requests}},
        },
        **more,
    }  # fmt: skip


def _all(seconds: float, number: int) -> dict[str, Any]:
    percentiles = dict.fromkeys(("p50", "p90", "p95", "p99", "max", "mean"), seconds)
    return {"n": number, "censored": 0, **percentiles}


def results(
    number: int, levels: Sequence[dict[str, Any]], version: str = "v1.9.0", **comparable: Any
) -> dict[str, Any]:
    """The content of the n-th night's `results.json`."""
    begun = BEGUN + datetime.timedelta(days=number)
    return {
        "schema": "kvscale/v1",
        "run": {
            "id": f"night-{number:03d}", "started": begun.isoformat(),
            "simulated": comparable.get("simulated", "false"), "profile": None, "seed": None,
        },
        "cluster": {
            "uid": "u", "kubernetes": "v1.36.0", "kubevirt": version,
            "comparable": {"simulated": "false", "node.cpu": 48.0, "versions.kubevirt": version,
                           **comparable},
        },
        "levels": list(levels),
    }  # fmt: skip


def run(
    number: int, levels: Sequence[dict[str, Any]], version: str = "v1.9.0", **comparable: Any
) -> RunFile:
    """The same as it is read."""
    return run_file(results(number, levels, version, **comparable), f"night {number}")
