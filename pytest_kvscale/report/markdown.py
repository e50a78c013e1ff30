"""What a CI job's page shows: GitHub's job summary, a comment, GitLab's or Jenkins' page.

All text that is not ours is escaped: a version or an event may hold anything, and these pages
render HTML, links and mentions.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from pytest_kvscale.judge.comparison import Comparison
from pytest_kvscale.report import comparison as reports
from pytest_kvscale.report.pages import markdown_table
from pytest_kvscale.report.terminal import seconds, verdict
from pytest_kvscale.report.upgrade import lines as upgrade_lines

Json = Mapping[str, Any]
_MARKS = {"pass": "✅ pass", "fail": "❌ fail", "inconclusive": "⚠️ inconclusive"}
_LEVELS = ("Level", "Running", "p50", "p95", "p99", "VMIs/min", "Deletion p95", "Failures",
           "Verdict")  # fmt: skip
_CHANGES = ("Level", "What", "Before", "After", "Change", "Runs", "p", "Verdict")
_MEANS_SOMETHING = re.compile(
    r"[\\`*_{}\[\]#!|~<>&@$^]"  # HTML, emphasis, links, tables, mentions, mathematics
    r"|(?<=:)//|(?<=www)\.",  # addresses, which become links by themselves
    re.IGNORECASE,
)
_BEGINS_SOMETHING = re.compile(r"(?:[-+]|\d{1,9}[.)])(?=\s)|[-=]{2,}")
"""At the beginning of a line: a list, a heading."""
_BREAKS = re.compile(r"\s*[\r\n\v\f\x1c-\x1e\x85\u2028\u2029]\s*")


def escape(text: str) -> str:
    """Text as Markdown that shows exactly this text, in one line.

    References to characters stand for no mark-up in any dialect.
    """
    line = _MEANS_SOMETHING.sub(_reference, _BREAKS.sub(" ", text).strip())
    lead = _BEGINS_SOMETHING.match(line)
    if lead is None:
        return line
    return lead[0][:-1] + f"&#{ord(lead[0][-1])};" + line[lead.end() :]


def _reference(found: re.Match[str]) -> str:
    return "".join(f"&#{ord(each)};" for each in found[0])


def comparison(found: Comparison) -> str:
    """A comparison: its verdict, the table, where it got worse, what was left out."""
    return "\n".join(_comparison(found)) + "\n"


def summary(
    run: Json,
    cluster: Json,
    level_reports: Sequence[Json],
    found: Comparison | None,
    upgrade: Json | None = None,
) -> str:
    """A run: what it ran on, its levels, why one is no pass; upgrade and comparison, if any."""
    lines = [*_summary(run, cluster, level_reports)]
    if upgrade is not None:
        told = (f"- {escape(each)}" for each in upgrade_lines(upgrade))
        lines += ["", "## Upgrade", "", *told]
    if found is not None:
        lines += ["", *_comparison(found)]
    return "\n".join(lines) + "\n"


def _summary(run: Json, cluster: Json, level_reports: Sequence[Json]) -> Iterator[str]:
    yield "## KubeVirt density"
    yield ""
    if run["simulated"] != "false":
        yield _simulated(str(run["simulated"]))
        yield ""
    node = cluster["node"]["name"]
    yield escape(
        f"Run {run['id']}, Kubernetes {cluster['kubernetes']}, KubeVirt {cluster['kubevirt']}, "
        f"node {node}"
    )
    yield ""
    if not level_reports:
        yield "No level was measured."
    else:
        yield from markdown_table(
            _LEVELS, [_level(each["label"], each["level"]) for each in level_reports]
        )
    for each in level_reports:
        level = each["level"]
        reasons = [*level["reasons"], *level["warnings"]]
        if reasons:
            yield ""
            yield f"Level {escape(each['label'])}:"
            yield ""
            yield from (f"- {escape(reason)}" for reason in reasons)


def _level(label: str, level: Json) -> tuple[str, ...]:
    running, rate = level["phases"]["Running"], level["rates"]["running_per_min"]
    failures = ", ".join(f"{name} {number}" for name, number in level["failures"].items())
    return (
        escape(label),
        f"{level['running']}/{level['requested']}",
        *(seconds(running[each]) for each in ("p50", "p95", "p99")),
        "-" if rate["mean"] is None else f"{rate['mean']:.1f}",
        seconds(level["deletion"]["p95"]),
        escape(failures or "none"),
        verdict(level).replace(level["verdict"], _MARKS[level["verdict"]], 1),
    )


def _comparison(found: Comparison) -> Iterator[str]:
    yield f"## Comparison: {_MARKS[found.verdict]}"
    yield ""
    if found.simulated != "false":
        yield _simulated(found.simulated)
        yield ""
    sides = f"before: {', '.join(found.before)}; after: {', '.join(found.after)}"
    yield escape(f"{reports.versions(found)}; {sides}")
    yield ""
    shown = reports.rows(found)
    yield from markdown_table(
        _CHANGES,
        [(*(escape(cell) for cell in each.cells()[:-1]), _MARKS[each.verdict]) for each in shown],
    )
    said = [
        f"- level {each.level}, {escape(each.what)}: **{each.verdict}**: {escape(each.reason)}"
        + (f"<br>{escape(each.where)}" if each.where else "")
        for each in shown
        if each.verdict != "pass"
    ]
    said += [f"- differs, and may: {escape(each.text())}" for each in found.differs]
    said += [f"- {escape(each)}" for each in found.notes]
    if said:
        yield ""
        yield from said


def _simulated(kind: str) -> str:
    return f"**SIMULATED ({escape(kind)}): these are not figures of real hardware.**"
