"""The results of a run as files: `results.json` and one line a VMI in `<level>-vmis.jsonl`.

They are written after every level, by the process that measured it, so that nothing measured is
lost, however the run ends.
"""

from __future__ import annotations

import contextlib
import json
import shutil
from pathlib import Path
from typing import Any

from pytest_kvscale.errors import ConfigurationError
from pytest_kvscale.judge.verdict import DensityResult
from pytest_kvscale.measure.cost import requests_per_vmi
from pytest_kvscale.measure.figures import row

SCHEMA = "kvscale/v1"
LATEST = "latest"
SUMMARY = "summary.md"
REPORTS = ".levels"
Json = dict[str, Any]


def level_object(result: DensityResult, label: str = "") -> Json:
    """One run of a level as `results.json` has it; `label` is what the run is called."""
    figures = result.figures
    return {
        "level": result.level,
        "label": label or str(result.level),
        "verdict": result.verdict,
        "reasons": list(result.reasons),
        "test": None,
        "ended": result.ended,
        "requested": figures.requested,
        "created": figures.created,
        "running": figures.running,
        "deleted": figures.deleted,
        "left_behind": figures.left_behind,
        "failures": dict(result.failures),
        "phases": figures.phases,
        "slowest": figures.slowest,
        "deletion": figures.deletion,
        "clocks": {
            each: value
            for each, value in figures.clocks.items()
            if each not in ("by_vmi", "distance", "warnings")
        },
        "warnings": list(result.warnings),
        "rates": figures.rates,
        "pacing": figures.pacing,
        "slo": [
            {
                "name": each.name,
                "limit": each.limit,
                "value": each.value,
                "ok": each.ok,
                "label": each.label,
                "operator": each.operator,
                "unit": each.unit,
                "margin": each.margin,
            }
            for each in result.objectives
        ],
        "slo_note": result.objectives_note,
        "prometheus": dict(result.counted.phases),
        "prometheus_note": result.counted.note,
        "control_plane": {
            **result.counted.cost,
            "requests_per_vmi": {
                name: {request: round(number, 3) for request, number in each.items()}
                for name, each in requests_per_vmi(result.counted.cost).items()
            },
        },
        "harness": dict(result.harness),
        "cooldown": dict(result.cooldown),
    }


def vmi_rows(result: DensityResult) -> list[Json]:
    """Every VMI of a level, in the order of their creation."""
    rows = []
    for timeline in result.figures.timelines:
        finding = result.findings.get(timeline.name)
        name, evidence = (finding.name, finding.evidence) if finding else (None, ())
        disagrees = result.figures.clocks["by_vmi"].get(timeline.name, ())
        rows.append(row(timeline, name, evidence, disagrees))
    return rows


class ResultsFolder:
    """The folder of one run; made when something is to be written to it."""

    def __init__(self, report_dir: Path, run: str) -> None:
        self.path = report_dir / run
        self._report_dir = report_dir

    def make(self) -> Path:
        """Make the folder, and let `latest` point at it.

        Raises `ConfigurationError` if it cannot be written to.
        """
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            link, new = self._report_dir / LATEST, self._report_dir / f".{LATEST}-{self.path.name}"
            if link.is_symlink() or not link.exists():
                with contextlib.suppress(FileNotFoundError):
                    new.unlink()
                new.symlink_to(self.path.name, target_is_directory=True)
                new.replace(link)
        except OSError as problem:
            raise ConfigurationError(
                f"results cannot be written to {self.path}: {problem.strerror or problem}"
            ) from None
        return self.path

    def write_report(self, number: int, report: Json) -> None:
        """Write the report of the run's n-th level (from 1), for another process to read."""
        folder = self.make() / REPORTS
        folder.mkdir(exist_ok=True)
        (folder / f"{number:03d}.json").write_text(json.dumps(report), encoding="utf-8")

    def read_reports(self) -> list[Json]:
        """The reports of all levels, in order."""
        paths = sorted((self.path / REPORTS).glob("[0-9]*.json"))
        return [json.loads(each.read_text(encoding="utf-8")) for each in paths]

    def write_shown(self, name: str, shown: Json) -> None:
        """Write how something that was judged is shown, for another process to read."""
        folder = self.make() / REPORTS
        folder.mkdir(exist_ok=True)
        (folder / f"{name}.json").write_text(json.dumps(shown), encoding="utf-8")

    def read_shown(self) -> list[Json]:
        """What `write_shown` wrote, by name."""
        paths = sorted((self.path / REPORTS).glob("[a-z]*.json"))
        return [json.loads(each.read_text(encoding="utf-8")) for each in paths]

    def forget_reports(self) -> None:
        """Remove what `write_report` wrote; it is in the reports now."""
        shutil.rmtree(self.path / REPORTS, ignore_errors=True)

    def write_level(self, result: DensityResult, label: str) -> None:
        """Write a level's `<label>-vmis.jsonl`."""
        lines = (json.dumps(each, separators=(",", ":")) + "\n" for each in vmi_rows(result))
        self._write(f"{label}-vmis.jsonl", "".join(lines))

    def write_results(self, content: Json) -> None:
        """Write `results.json`, the old one being replaced at once."""
        self._write("results.json", json.dumps(content, indent=1) + "\n")

    def write_summary(self, text: str) -> None:
        """Write the summary in Markdown."""
        self._write(SUMMARY, text)

    def _write(self, name: str, text: str) -> None:
        path = self.make() / name
        new = path.with_name(f".{name}.new")
        new.write_text(text, encoding="utf-8")
        new.replace(path)
