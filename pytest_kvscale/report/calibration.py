"""How a calibration is shown: lines for a terminal, a part of the HTML page, Markdown."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from pytest_kvscale.judge.calibration import SIDES, LevelCalibration, MetricCalibration
from pytest_kvscale.report.pages import aligned, markdown_table, templates

_RUNS = tuple("1 run" if each == 1 else f"{each} runs" for each in SIDES)
HEADER = ("level", "what", "median", "noise", *_RUNS)
EXPLAINED = (
    "noise is how far equal runs lie apart (standard deviation, with its 95 % interval)",
    "so many runs on each side find a worsening of so much in nine of ten cases (-: none)",
)


def rows(found: Sequence[LevelCalibration]) -> list[tuple[str, ...]]:
    """The cells of the table, as `HEADER` has them."""
    return [
        (str(each.level), metric.metric.title, *_cells(metric))
        for each in found
        for metric in each.metrics
    ]


def table(found: Sequence[LevelCalibration]) -> Iterator[str]:
    """The calibration as lines."""
    yield from (f"calibration: {each}" for each in EXPLAINED)
    cells = [HEADER, *rows(found)]
    yield from aligned(cells, left=(1,))
    for each in found:
        yield from (f"level {each.level}: {line}" for line in _said(each))


def section(found: Sequence[LevelCalibration]) -> str:
    """The calibration as a part of an HTML page."""
    return templates().get_template("calibration.html.jinja").render(
        header=HEADER, rows=rows(found), explained=_explained(),
        said=[f"Level {each.level}: {line}" for each in found for line in _said(each)],
    )  # fmt: skip


def markdown(found: Sequence[LevelCalibration]) -> str:
    """The calibration for a CI job's page."""
    from pytest_kvscale.report.markdown import escape

    lines = [
        "## Calibration", "", _explained(), "",
        *markdown_table(HEADER, [[escape(cell) for cell in row] for row in rows(found)]),
    ]  # fmt: skip
    said = [f"- level {each.level}: {escape(line)}" for each in found for line in _said(each)]
    return "\n".join([*lines, *(["", *said] if said else [])]) + "\n"


def _explained() -> str:
    return " ".join(f"{each[0].upper()}{each[1:]}." for each in EXPLAINED)


def _said(found: LevelCalibration) -> list[str]:
    return [*found.left_out, *(f"warning: {each}" for each in found.warnings)]


def _cells(found: MetricCalibration) -> Iterator[str]:
    unit = f" {found.metric.unit}" if found.metric.unit else ""
    yield "-" if found.median is None else f"{found.median:.4g}{unit}"
    if found.noise is None or found.low is None or found.high is None:
        yield "-"
    else:
        low, high = _percent(found.low), _percent(found.high)
        yield f"{_percent(found.noise.sd)} % [{low}, {high}]"
    for runs in SIDES:
        smallest = found.detectable.get(runs)
        yield "-" if smallest is None else f"{_percent(smallest)} %"


def _percent(share: float) -> str:
    return f"{100 * share:.2g}" if share < 1 else f"{100 * share:.0f}"
