"""Plots as SVG text, to stand in a page without scripts."""

from __future__ import annotations

import io
from collections.abc import Mapping
from typing import Any

_COLOURS = {
    "Pending": "#c9c9c9",
    "Scheduling": "#b39ddb",
    "Scheduled": "#7fb3e0",
    "Running": "#5cb85c",
    "Ended": "#e08a7f",
}


def phases_over_time(
    occupancy: Mapping[str, Any], level: int, end: float | None, label: str = ""
) -> str:
    """How many VMIs were in each phase over time, as an inline `<svg>` element.

    `end` is where the level ended and the deletion began, in seconds since the first send; `label`
    is what the run of the level is called, if not by its number.
    """
    import matplotlib
    from matplotlib.figure import Figure

    # Text stays text (small, and readable by programs); the same data give the same bytes.
    settings: Any = {"svg.fonttype": "none", "svg.hashsalt": f"kvscale-{level}", "font.size": 9.0}
    with matplotlib.rc_context(settings):
        figure = Figure(figsize=(8, 3.4), layout="constrained")
        axes = figure.add_subplot()
        phases = {name: counts for name, counts in occupancy["phases"].items() if any(counts)}
        if phases:
            axes.stackplot(
                occupancy["moments"],
                *phases.values(),
                labels=[*phases],
                colors=[_COLOURS[name] for name in phases],
                step="post",
            )
            axes.set_xlim(0, max(occupancy["moments"][-1], 1e-3))
            axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5), frameon=False, reverse=True)
        if end is not None:
            axes.axvline(end, color="#222222", linewidth=0.9, linestyle=":")
            axes.annotate("deletion", (end, level), fontsize=8, va="top", ha="left",
                          xytext=(3, 0), textcoords="offset points")  # fmt: skip
        axes.set_xlabel("seconds since the first creation was sent")
        axes.set_ylabel("VMIs in each phase")
        axes.set_ylim(0, max(1, level) * 1.02)
        axes.grid(visible=True, linewidth=0.3)
        file = io.StringIO()
        figure.savefig(file, format="svg", metadata={"Date": None, "Creator": None})
    text = file.getvalue()
    svg = text[text.index("<svg") :]
    title = f"<title>VMIs in each phase over time, level {label or level}</title>"
    end_of_tag = svg.index(">") + 1
    return f"{svg[:end_of_tag]}{title}{svg[end_of_tag:]}"
