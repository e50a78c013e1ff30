"""Plots as SVG text, to stand in a page without scripts."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence

Curve = Sequence[Sequence[float]]

_COLOURS = {
    "Created": "#7f7f7f",
    "Scheduling": "#9467bd",
    "Scheduled": "#1f77b4",
    "Running": "#2ca02c",
    "Gone": "#d62728",
}


def phases_over_time(curves: Mapping[str, Curve], level: int, running_end: float | None) -> str:
    """How many VMIs had reached each phase over time, as an inline `<svg>` element.

    A curve is points of (seconds since the first send, VMIs). `running_end` is where the level
    ended and the deletion began.
    """
    import matplotlib
    from matplotlib.figure import Figure

    # Text stays text (small, and readable by programs); the same curves give the same bytes.
    settings = {"svg.fonttype": "none", "svg.hashsalt": f"kvscale-{level}", "font.size": 9.0}
    with matplotlib.rc_context(settings):
        figure = Figure(figsize=(8, 3.4), layout="constrained")
        axes = figure.add_subplot()
        for name, curve in curves.items():
            if curve:
                moments = [0.0, *(point[0] for point in curve)]
                counts = [0.0, *(point[1] for point in curve)]
                axes.step(moments, counts, where="post", label=name, color=_COLOURS.get(name))
        if running_end is not None:
            axes.axvline(running_end, color="#444444", linewidth=0.8, linestyle=":")
        axes.set_xlabel("seconds since the first creation was sent")
        axes.set_ylabel("VMIs that reached the phase")
        axes.set_ylim(0, max(1, level) * 1.05)
        axes.set_xlim(left=0)
        axes.grid(visible=True, linewidth=0.3)
        if axes.get_legend_handles_labels()[0]:
            axes.legend(loc="center right", frameon=False)
        file = io.StringIO()
        figure.savefig(file, format="svg", metadata={"Date": None, "Creator": None})
    text = file.getvalue()
    svg = text[text.index("<svg") :]
    title = f"<title>VMIs in each phase over time, level {level}</title>"
    end_of_tag = svg.index(">") + 1
    return f'{svg[:end_of_tag]}{title}{svg[end_of_tag:]}'
