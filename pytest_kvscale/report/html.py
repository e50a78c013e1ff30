"""The content of the HTML report: plain HTML and SVG that reads without scripts.

All text is escaped by the template engine; it comes from the cluster as much as from us.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pytest_kvscale.judge.objectives import show
from pytest_kvscale.judge.quantities import Unit
from pytest_kvscale.report.pages import templates
from pytest_kvscale.report.plot import phases_over_time
from pytest_kvscale.report.terminal import seconds

Json = Mapping[str, Any]
_STATISTICS = ("p50", "p90", "p95", "p99", "max", "mean")


def page(run: Json, cluster: Json, reports: Sequence[Json], judged: Sequence[str] = ()) -> str:
    """The report's content. A report is a level's object with its plot's data and explanation.

    `judged` are sections, HTML already, of what was judged of all levels: they stand before the
    levels' own.
    """
    import markupsafe

    environment = templates()
    environment.filters.update(show=_show, gib=_gib, seconds=seconds, quantity=_quantity)
    details = [
        {
            "explanation": each["explanation"],
            "plot": markupsafe.Markup(  # noqa: S704 - matplotlib escapes the text in its SVG
                phases_over_time(
                    each["occupancy"], each["level"]["level"], each["end"], each["label"]
                )
            ),
        }
        for each in reports
    ]
    return environment.get_template("page.html.jinja").render(
        run=run,
        cluster=cluster,
        levels=[{**each["level"], "label": each["label"]} for each in reports],
        details=details,
        judged=[markupsafe.Markup(each) for each in judged],  # noqa: S704 - made by our templates
        statistics=_STATISTICS,
    )


def _show(value: Any, missing: str = "unknown") -> str:
    if value is None:
        return missing
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _quantity(value: float | None, unit: Unit) -> str:
    return "-" if value is None else show(value, unit, exact=True)


def _gib(value: float | None) -> str:
    return "unknown memory" if value is None else f"{value / 2**30:.1f} GiB"
