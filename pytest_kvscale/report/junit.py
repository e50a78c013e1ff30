"""What stands in the JUnit file: figures as properties of the test suite, and a run's one error.

pytest writes the file; properties of the suite are what its default family (xunit2) allows.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

Json = Mapping[str, Any]


def properties(run: Json, cluster: Json, reports: Sequence[Json]) -> Iterator[tuple[str, str]]:
    """Names and values, e.g. `kvscale.400.p95`; what was not reached is left out.

    A report has a level's object and its label (`400`; `400-2` if it was run twice).
    """
    yield "kvscale.run", str(run["id"])
    yield "kvscale.simulated", str(run["simulated"])
    for name in ("kubernetes", "kubevirt", "fingerprint"):
        yield f"kvscale.{name}", str(cluster.get(name, ""))
    for report in reports:
        yield from _level(report["level"], f"kvscale.{report['label']}")


def _level(level: Json, prefix: str) -> Iterator[tuple[str, str]]:
    for name in ("verdict", "requested", "created", "running", "deleted", "left_behind"):
        yield f"{prefix}.{name}", str(level[name])
    ends = ("p50_low", "p50_high", "p95_low", "p95_high")
    for name in ("p50", "p90", "p95", "p99", "max", "mean", *ends):
        value = level["phases"]["Running"][name]
        if value is not None:
            yield f"{prefix}.{name}", str(value)
    if level["deletion"]["p95"] is not None:
        yield f"{prefix}.deletion.p95", str(level["deletion"]["p95"])
    for name, value in level["rates"]["running_per_min"].items():
        if value is not None:
            yield f"{prefix}.running_per_min.{name}", str(value)
    for name, number in level["failures"].items():
        yield f"{prefix}.failures.{name}", str(number)
    for each in level["slo"]:
        if each["value"] is not None:
            yield f"{prefix}.slo.{each['name'].replace(' ', '.')}", str(each["limit"])
    for name, value in level["cooldown"].items():
        if value is not None:
            yield f"{prefix}.cooldown.{name}", str(value)
