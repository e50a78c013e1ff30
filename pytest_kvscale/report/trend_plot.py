"""The trend of a level as SVG text: one panel a metric, the runs from left to right."""

from __future__ import annotations

import io
import itertools
import math
from collections.abc import Iterable, Sequence
from typing import Any

from pytest_kvscale.judge.trend import LevelTrend
from pytest_kvscale.judge.trend_changes import TrendChange
from pytest_kvscale.judge.trend_series import Point, Series

_SAMPLE, _WORSE, _BETTER, _VERSION = "#3b6ea5", "#b00020", "#17691a", "#8a8a8a"
_MOST_TICKS, _MOST_VERSIONS = 8, 10
_INCHES = 9.0
_PANEL = 1.7
"""Height of a panel, in inches."""


def level_over_runs(found: LevelTrend, name: str) -> str:
    """The metrics of a level over runs, as an inline `<svg>` element; empty if there are none.

    Lines are the medians between changes. `name` tells this plot from others in a page.
    """
    import matplotlib
    from matplotlib.figure import Figure

    series = [
        each for each in found.series if any(each.metric.key in row.points for row in found.rows)
    ]
    if not series:
        return ""
    # Text stays text; the same data give the same bytes; names of versions are no formulas.
    settings: Any = {
        "svg.fonttype": "none", "svg.hashsalt": f"kvscale-trend-{name}", "font.size": 8.0,
        "text.parse_math": False,
    }  # fmt: skip
    with matplotlib.rc_context(settings):
        figure = Figure(figsize=(_INCHES, 0.7 + _PANEL * len(series)), layout="constrained")
        panels = [*figure.subplots(len(series), 1, sharex=True, squeeze=False)[:, 0]]
        for axes, each in zip(panels, series, strict=True):
            _panel(axes, found, each)
        _versions(panels, found)
        ticks = _spread(range(len(found.rows)), _MOST_TICKS)
        panels[-1].set_xticks(ticks, [_date(found.rows[each].started) or found.rows[each].run
                                      for each in ticks])  # fmt: skip
        panels[-1].set_xlim(-0.6, len(found.rows) - 0.4)
        file = io.StringIO()
        figure.savefig(file, format="svg", metadata={"Date": None, "Creator": None})
    text = file.getvalue()
    svg = text[text.index("<svg") :]
    title = f"<title>Level {found.level} over {len(found.rows)} runs</title>"
    end_of_tag = svg.index(">") + 1
    return f"{svg[:end_of_tag]}{title}{svg[end_of_tag:]}"


def _panel(axes: Any, found: LevelTrend, series: Series) -> None:
    key, many = series.metric.key, len(found.rows)
    points = [
        (number, row.points[key]) for number, row in enumerate(found.rows) if key in row.points
    ]
    reached = [(number, each) for number, each in points if each.value is not None]
    size = max(1.5, min(5.0, 220 / many))
    ends = [(each, point.low, point.high) for each, point in reached]
    _upright(axes, ends, color=_SAMPLE, alpha=0.45, linewidth=1)
    axes.plot(
        [number for number, _ in reached], [each.value for _, each in reached],
        linestyle="none", marker="o", markersize=size, color=_SAMPLE,
    )  # fmt: skip
    _medians(axes, points, found.of(series.metric))
    axes.set_ylim(0, _top(reached))
    lost = [number for number, each in points if each.value is None]
    # At the upper edge, whatever the scale: later than anything that was reached.
    axes.plot(lost, [0.97] * len(lost), linestyle="none", marker="x", color=_WORSE,
              transform=axes.get_xaxis_transform())  # fmt: skip
    unit = f", {series.metric.unit}" if series.metric.unit else ""
    axes.set_title(f"{series.metric.title}{unit}", loc="left", fontsize=8.5)
    axes.grid(visible=True, axis="y", linewidth=0.3)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)


def _top(reached: Sequence[tuple[int, Point]]) -> float:
    """The upper end of the scale; an interval far above all values is cut off."""
    values = [each.value or 0.0 for _, each in reached]
    ends = [each.high or each.value or 0.0 for _, each in reached]
    return 1.08 * min(max(ends, default=1.0), 2 * max(values, default=1.0)) or 1.0


def _medians(
    axes: Any, points: Sequence[tuple[int, Point]], changes: Sequence[TrendChange]
) -> None:
    """The typical value between changes, and each change in its colour."""
    if not points:
        return
    bounds = [points[0][0], *(each.index for each in changes), points[-1][0] + 1]
    for number, (begin, end) in enumerate(itertools.pairwise(bounds)):
        inside = sorted(
            math.inf if each.value is None else each.value
            for at, each in points
            if begin <= at < end
        )
        middle = inside[len(inside) // 2] if inside else math.inf
        change = changes[number - 1] if number else None
        colour = _SAMPLE if change is None else _WORSE if change.worse else _BETTER
        if math.isfinite(middle):
            axes.plot([begin - 0.4, end - 0.6], [middle, middle], color=colour, linewidth=1.4)
        if change is not None:
            axes.axvline(begin - 0.5, color=colour, linewidth=1.2)


def _versions(panels: Sequence[Any], found: LevelTrend) -> None:
    """A dotted line where the version of KubeVirt changed, with the new one above."""
    begins = [
        number
        for number, row in enumerate(found.rows)
        if not number or row.kubevirt != found.rows[number - 1].kubevirt
    ]
    for axes in panels:
        edges = [(number - 0.5, 0.0, 1.0) for number in begins[1:]]
        _upright(axes, edges, color=_VERSION, linewidth=0.8, linestyle=":",
                 transform=axes.get_xaxis_transform())  # fmt: skip
    for number in _spread(begins, _MOST_VERSIONS):
        panels[0].annotate(
            found.rows[number].kubevirt[:16], (number - 0.5, 1.0),
            xycoords=("data", "axes fraction"), xytext=(1, 17), textcoords="offset points",
            fontsize=7, color="#444444", annotation_clip=False,
        )  # fmt: skip


def _upright(
    axes: Any, lines: Iterable[tuple[float, float | None, float | None]], **how: Any
) -> None:
    """Upright lines (where, from, to) as one element: hundreds make a page large and slow."""
    known = [each for each in lines if each[1] is not None]
    axes.plot(
        [where for at, _, _ in known for where in (at, at, math.nan)],
        [end for _, low, high in known for end in (low, high, math.nan)],
        **how,
    )


def _spread(numbers: Sequence[int], most: int) -> list[int]:
    """At most so many of the numbers, evenly, with the first."""
    step = -(-len(numbers) // most)
    return list(numbers[::step]) if numbers else []


def _date(started: str | None) -> str:
    return (started or "")[:10]
