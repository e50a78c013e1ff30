"""The table at the end of a run, for people."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pytest_kvscale.report.pages import aligned

Json = Mapping[str, Any]

_HEADER = ("level", "running", "p50", "p95", "p99", "VMIs/min (peak)", "failures", "verdict")


def table(reports: Sequence[Json]) -> list[str]:
    """The levels as lines of a table: creation to Running, in seconds.

    VMIs a minute are those of the whole level, and of its busiest minute.
    """
    rows = [_HEADER, *(_row(each["label"], each["level"]) for each in reports)]
    return [*aligned(rows, left=(6, 7))]


def _row(label: str, level: Json) -> tuple[str, ...]:
    running, rate = level["phases"]["Running"], level["rates"]["running_per_min"]
    failures = ", ".join(f"{name} {number}" for name, number in level["failures"].items())
    return (
        label,
        f"{level['running']}/{level['requested']}",
        *(seconds(running[each]) for each in ("p50", "p95", "p99")),
        "-" if rate["peak"] is None else f"{rate['mean']:.1f} ({rate['peak']:.0f})",
        failures or "none",
        verdict(level),
    )


def verdict(level: Json) -> str:
    """The verdict, and that the suite's own test failed where the level did not."""
    failed = level.get("test") == "failed" and level["verdict"] == "pass"
    return f"{level['verdict']} (but its test failed)" if failed else str(level["verdict"])


def seconds(value: float | None) -> str:
    """Seconds with as many digits as are worth reading; `-` for what was not reached."""
    if value is None:
        return "-"
    return f"{value:.2f} s" if value < 10 else f"{value:.1f} s"
