"""A trend for people and programs: a page, lines for the terminal, JSON."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from pytest_kvscale.judge.rows import per_cent
from pytest_kvscale.judge.trend import LevelTrend, Row, Section, Trend
from pytest_kvscale.judge.trend_changes import TrendChange
from pytest_kvscale.judge.trend_series import Point
from pytest_kvscale.report.pages import aligned, templates
from pytest_kvscale.report.terminal import seconds
from pytest_kvscale.report.trend_plot import level_over_runs

SCHEMA = "kvscale-trend/v1"
_TITLES = {
    "Running.p50": "p50", "Running.p95": "p95", "deletion.p95": "deletion p95",
    "running_per_min": "VMIs/min", "requests_per_vmi": "requests/VMI",
}  # fmt: skip
"""The metrics in the order of the tables."""
_MOST_ROWS = 15
"""Runs of a level that are printed; the page has all."""
_LONGEST = 300
"""Characters of a note that are printed."""


def page(trend: Trend, folder: str) -> str:
    """The whole HTML page: it needs no scripts and no network."""
    import markupsafe

    environment = templates()
    environment.filters.update(words=words, entry=entry, about=about)
    plots = [
        [
            markupsafe.Markup(level_over_runs(level, f"{number}-{level.level}"))  # noqa: S704 - matplotlib escapes
            for level in section.levels
        ]
        for number, section in enumerate(trend.sections)
    ]
    return environment.get_template("trend.html.jinja").render(
        trend=trend, folder=folder, plots=plots, titles=_TITLES, figure=_figure, date=_date
    )


def lines(trend: Trend) -> Iterator[str]:
    """For the terminal: tables of the runs, the changes, and what to do about them."""
    for section in trend.sections:
        yield from about(section)
        for level in section.levels:
            yield f"level {level.level}"
            yield from _table(level)
            yield from (f"  {words(each)}" for each in level.changes)
            if not level.changes:
                yield "  no change found"
            yield ""
    for stale in trend.stale:
        yield f"stale: nothing changed as acknowledged for {stale.where}: remove the entry"
    if trend.failing:
        yield "to accept what is worse, put this under `acknowledged:` and say why and who:"
        for each in trend.failing:
            yield from entry(each).splitlines()


def about(section: Section) -> list[str]:
    """What the section's runs are, and in what they differ from those of the first."""
    real = "of a real cluster"
    if section.clusters > 1:
        real = f"of {section.clusters} real clusters: what changed may be the cluster's"
    label = {"sim": f"SIMULATED (sim), profile {section.profile}", "hollow": "SIMULATED (hollow)"}
    runs = "1 run" if section.runs == 1 else f"{section.runs} runs"
    text = f"{runs}, {label.get(section.simulated, real)}"
    return [text, *(f"  not comparable with the first: {each.text()}" for each in section.differs)]


def words(change: TrendChange) -> str:
    """A change in a sentence."""
    metric = change.metric
    size = ""
    if change.ratio is not None and change.low is not None and change.high is not None:
        ends = (per_cent(each - 1).removeprefix("+") for each in (change.low, change.high))
        size = f"{per_cent(change.ratio - 1)} % [{', '.join(ends)}], "
    before, after = (_number(each, metric.unit) for each in (change.before, change.after))
    unit = f" {metric.unit}" if metric.unit not in ("", "s") else ""
    version = change.kubevirt
    if change.from_kubevirt != version:
        version = f"{change.from_kubevirt} -> {version}"
    verdict = "worse" if change.worse else "better"
    if change.worse and change.is_accepted:
        verdict = f"worse, acknowledged: {change.acknowledged[0].reason}"
    elif change.worse and change.acknowledged:
        verdict = f"worse than acknowledged ({change.acknowledged[0].accepted})"
    where = f": {change.where}" if change.where else ""
    return (
        f"{verdict}: {metric.title} {size}{before} -> {after}{unit}, since run {change.run} "
        f"({version}){where}"
    )


def entry(change: TrendChange) -> str:
    """The YAML that acknowledges a change, once it says why, who and when."""
    told = [f"{key}: {json.dumps(value)}" for key, value in change.accepting.items()]
    told += [f'{key}: ""' for key in ("reason", "by", "date")]
    return "\n".join(f"{'- ' if not number else '  '}{each}" for number, each in enumerate(told))


def as_json(trend: Trend) -> dict[str, Any]:
    """As plain data."""
    return {
        "schema": SCHEMA,
        "sections": [
            {
                "simulated": section.simulated,
                "profile": section.profile,
                "runs": section.runs,
                "differs": [each.text() for each in section.differs],
                "levels": [_level(level) for level in section.levels],
            }
            for section in trend.sections
        ],
        "stale": [each.model_dump(mode="json", exclude_none=True) for each in trend.stale],
        "failing": len(trend.failing),
    }


def _level(found: LevelTrend) -> dict[str, Any]:
    return {
        "level": found.level,
        "runs": [
            {
                "run": row.run, "started": row.started, "kubevirt": row.kubevirt,
                "executions": row.executions, "verdict": row.verdict, "note": row.note,
                "metrics": {
                    key: {"value": each.value, "low": each.low, "high": each.high}
                    for key, each in row.points.items()
                },
            }
            for row in found.rows
        ],
        "noise": {
            each.metric.key: {"sd": each.sd, "from": each.noise_from} for each in found.series
        },
        "changes": [
            {
                "metric": each.metric.key, "run": each.run, "kubevirt": each.kubevirt,
                "from_kubevirt": each.from_kubevirt, "before": each.before, "after": each.after,
                "ratio": each.ratio, "low": each.low, "high": each.high, "p": each.p,
                "worse": each.worse, "where": each.where or None,
                "acknowledged": each.is_accepted, "fails": each.fails,
            }
            for each in found.changes
        ],
    }  # fmt: skip


def _table(found: LevelTrend) -> Iterator[str]:
    rows = found.rows[-_MOST_ROWS:]
    if len(found.rows) > len(rows):
        yield f"  (the latest {len(rows)} of {len(found.rows)} runs; the page has all)"
    keys = [each for each in _TITLES if any(each in row.points for row in found.rows)]
    head = ("run", "date", "version", "n", *(_TITLES[each] for each in keys), "verdict")
    cells = [head, *(_cells(row, keys) for row in rows)]
    left = (0, 1, 2, len(head) - 1)
    yield from (f"  {line}" for line in aligned(cells, left))
    yield from (f"  {row.run} {_brief(row.note)}" for row in rows if row.note)


def _brief(note: str) -> str:
    note = " ".join(note.split())
    return note if len(note) <= _LONGEST else f"{note[:_LONGEST]}…"


def _cells(row: Row, keys: list[str]) -> tuple[str, ...]:
    return (
        row.run, _date(row), row.kubevirt, str(row.executions),
        *(_figure(key, row.points.get(key)) for key in keys), row.verdict,
    )  # fmt: skip


def _date(row: Row) -> str:
    return (row.started or "unknown")[:10]


def _figure(key: str, point: Point | None) -> str:
    if point is None:
        return "-"
    return _number(point.value, "" if key in ("running_per_min", "requests_per_vmi") else "s")


def _number(value: float | None, unit: str) -> str:
    if value is None:
        return "not reached"
    return seconds(value) if unit == "s" else f"{value:.1f}"
