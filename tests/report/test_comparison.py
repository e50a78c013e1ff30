"""How comparisons are shown."""

from __future__ import annotations

import dataclasses
import re
from html.parser import HTMLParser
from xml.etree import ElementTree

import pytest

from pytest_kvscale.judge.comparison import Comparison, compare
from pytest_kvscale.judge.rows import shift_text
from pytest_kvscale.report import comparison as reports
from pytest_kvscale.report import junit, markdown
from tests.report.test_report import CLUSTER, RUN, report
from tests.runs import level, run, side

EVIL = "v1|<script>alert(1)</script>`x`[a](javascript:b)"


@pytest.fixture(scope="module")
def worse() -> Comparison:
    old = side("a", [5.0, 5.1, 4.95, 5.05, 5.02])
    return compare(old, side("b", [8.0, 8.2, 8.1, 7.9, 8.05], kubevirt=EVIL))


class _Reader(HTMLParser):
    """Tags as they are opened, and that each is closed."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.open: list[str] = []

    def handle_starttag(self, tag: str, attrs: object) -> None:
        self.tags.append(tag)
        if tag not in ("meta", "br", "line", "rect", "circle"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag not in ("line", "rect", "circle"):
            assert self.open.pop() == tag


def read(html: str) -> _Reader:
    reader = _Reader()
    reader.feed(html)
    assert not reader.open
    return reader


def test_a_page_stands_alone_and_a_section_stands_in_another(worse: Comparison) -> None:
    page, section = reports.page(worse), reports.section(worse)
    tags = read(page).tags
    assert page.startswith("<!DOCTYPE html>")
    assert tags.count("svg") == 4
    assert section in page
    assert "html" not in read(section).tags
    assert not {"script", "link", "img"} & set(tags)
    assert "http" not in page
    assert "SIMULATED" in page


def test_the_page_says_how_sure_an_interval_is(worse: Comparison) -> None:
    assert worse.as_json()["confidence"] == 0.98
    assert "with 98 % confidence" in reports.page(worse)
    tested = dataclasses.replace(worse, confidence=0.99)
    assert "with 99 % confidence" in reports.page(tested)


def test_no_change_has_no_sign(worse: Comparison) -> None:
    (change, *_) = worse.changes
    for shift, low, high, said in (
        (-0.001, -0.004, 0.004, "0 % [0, 0]"), (0.004, -0.016, None, "0 % [-2, …]"),
        (0.234, 0.151, 0.309, "+23 % [15, 31]"), (-0.2, None, None, "-20 %"),
    ):  # fmt: skip
        assert shift_text(dataclasses.replace(change, shift=shift, low=low, high=high)) == said


def test_no_text_of_a_file_becomes_html(worse: Comparison) -> None:
    page = reports.page(worse)
    assert "<script" not in page
    assert "&lt;script&gt;alert(1)" in page


def test_bars_lie_on_their_scale(worse: Comparison) -> None:
    for each in reports.rows(worse):
        if each.bar is not None:
            assert 0 <= each.bar.low <= each.bar.shift <= each.bar.high <= 220
    slow = reports.rows(worse)[1].bar
    assert slow is not None
    assert slow.threshold is not None
    assert slow.zero < slow.threshold < slow.low


def test_a_change_that_cannot_be_told_has_no_bar() -> None:
    found = compare(side("a", [5.0]), side("b", [None]))
    shown = {each.what: each for each in reports.rows(found)}
    assert shown["p95 creation to Running"].after == "not reached"
    assert shown["p95 creation to Running"].bar is None
    read(reports.page(found))


def test_the_table_is_aligned_and_says_what_failed_and_where(worse: Comparison) -> None:
    lines = list(reports.table(worse))
    assert lines[0].startswith("SIMULATED (sim)")
    header = next(line for line in lines if line.startswith("level "))
    row = next(line for line in lines if "p95 creation" in line)
    assert row.endswith("  fail")
    assert header.index("verdict") == row.index("fail")
    assert any(line.startswith("level 5, p95 creation to Running: fail: ") for line in lines)
    assert any(line.startswith("  p95 +60 % [") for line in lines)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("a|b", "a&#124;b"),
        ("`c` <d> & **e** _f_", "&#96;c&#96; &#60;d&#62; &#38; &#42;&#42;e&#42;&#42; &#95;f&#95;"),
        ("![x](http://y)", "&#33;&#91;x&#93;(http:&#47;&#47;y)"),
        ("ask @me about #1", "ask &#64;me about &#35;1"),
        ("a\r\n\n| b |", "a &#124; b &#124;"),
        ("- a", "&#45; a"),
        ("1. a", "1&#46; a"),
        ("-1.5 to 10.5 s (p 0.01)", "-1.5 to 10.5 s (p 0.01)"),
        ("---", "--&#45;"),
    ],
)
def test_markdown_shows_text_as_it_is(text: str, shown: str) -> None:
    assert markdown.escape(text) == shown


def test_markdown_of_a_comparison_is_one_table_with_nothing_of_a_file_in_it(
    worse: Comparison,
) -> None:
    text = markdown.comparison(worse)
    assert "<script" not in text
    assert "`x`" not in text
    rows = [line for line in text.splitlines() if line.startswith("|")]
    assert len(rows) == 2 + 5
    assert {line.count("|") for line in rows} == {9}
    assert "❌ fail" in text
    assert "SIMULATED" in text


def test_a_summary_has_levels_reasons_and_the_comparison(worse: Comparison) -> None:
    reports_of_levels = [report(1.0, None), report(1.0, 2.0)]
    for each in reports_of_levels:
        each["level"]["warnings"] = ["a <b>|c"]
    text = markdown.summary({**RUN, "simulated": "sim"}, CLUSTER, reports_of_levels, worse)
    assert "| 2 | 1/2 | 1.00 s | - |" in text
    assert "Unexplained 1 | ❌ fail |" in text
    assert "- 1 of 2 VMIs did not run" in text
    assert "- a &#60;b&#62;&#124;c" in text
    assert "node &#60;n&#62;" in text
    assert "## Comparison: ❌ fail" in text
    bare = markdown.summary(RUN, CLUSTER, [], None)
    assert "No level was measured." in bare
    assert "Comparison" not in bare
    assert "SIMULATED" not in bare


def test_a_summary_tells_of_the_upgrade_and_what_it_lost() -> None:
    lost = {"name": "vmi-1", "class": "GuestCrash", "evidence": ["a|b <script>"]}
    vmis = {"ran": 10, "lost": [lost], "migrations": {"succeeded": 9, "failed": 0, "running": 0}}
    step = {"direction": "upgrade", "from": "v1.9.0", "to": "v1.10.0", "rolled_out_s": 29.4,
            "vmis": vmis}  # fmt: skip
    text = markdown.summary(RUN, CLUSTER, [report(1.0)], None, {"steps": [step]})
    assert "## Upgrade" in text
    assert "v1.10.0: rolled out in 29 s, 10 VMIs ran, 1 lost, migrations: 9 succeeded" in text
    assert "lost: vmi-1 (GuestCrash): a&#124;b &#60;script&#62;" in text


def test_junit_has_a_case_for_each_row_and_fails_what_failed(worse: Comparison) -> None:
    suite = ElementTree.fromstring(junit.comparison(worse, strict=False))[0]  # noqa: S314
    names = [each.get("name") for each in suite.findall("testcase")]
    assert names == ["5 Running.p50", "5 Running.p95", "5 deletion.p95", "5 requests_per_vmi",
                     "5 failures"]  # fmt: skip
    assert (suite.get("tests"), suite.get("failures")) == ("5", "2")
    unsure = compare(side("a", [5.0]), [run("b", level(5, p95=9.0))])
    for strict, failures in ((False, 0), (True, 4)):
        text = junit.comparison(unsure, strict)
        assert len(re.findall("<failure", text)) == failures
    error = ElementTree.fromstring(junit.comparison_error("a < b\x00"))[0]  # noqa: S314
    assert error.get("errors") == "1"
