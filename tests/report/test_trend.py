"""The trend as people and programs see it, and the command that makes it."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
import yaml

from pytest_kvscale.__main__ import main
from pytest_kvscale.judge.runs import run_file
from pytest_kvscale.judge.trend import trend
from pytest_kvscale.report.trend import as_json, lines, page
from pytest_kvscale.report.trend_plot import level_over_runs
from tests.judge.made_runs import level, results

WORSE_FROM = 10
_NOISE = (0.3, -0.4, 0.1, -0.2, 0.5, 0.0, -0.3, 0.2, -0.1, 0.4)


def night(number: int, times: float = 1.0, version: str = "v1.9.0", **more: Any) -> dict[str, Any]:
    """A run of two levels with noise of about 1 %."""
    noise = 1 + _NOISE[number % len(_NOISE)] / 30 + number / 1e5
    levels = [
        level(each * noise * times, count, deletion=20 * noise, rate=60 / noise, requests=9 * noise)
        for each, count in ((30.0, 100), (80.0, 200))
    ]
    return results(number, levels, version, **more)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Twenty nights; from the eleventh on, a new version, latencies are a third higher."""
    path = tmp_path / "runs"
    path.mkdir()
    for number in range(20):
        worse = number >= WORSE_FROM
        content = night(number, 4 / 3 if worse else 1.0, "v1.10.0" if worse else "v1.9.0")
        (path / f"{number:02d}.json").write_text(json.dumps(content), encoding="utf-8")
    return path


class Seen(HTMLParser):
    """What stands in a page: its elements and text; elements that are not closed in their order."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.open: list[str] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: object) -> None:
        self.tags.append(tag)
        if tag not in ("meta", "br"):
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: object) -> None:
        self.tags.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def test_a_regression_fails_once_and_again_only_if_more_becomes_worse(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["trend", str(folder), "--level", "100", "--metric", "Running.p50"]
    command += ["--metric", "Running.p95"]
    assert main(command) == 1
    said = capsys.readouterr().out
    assert re.search(
        r"worse: p95 creation to Running \+3\d % \[\d+, \d+\], 30\.\d s -> 40\.\d s, since run "
        r"night-010 \(v1.9.0 -> v1.10.0\): all of it in Scheduled→Running",
        said,
    )
    # What is printed to be pasted is a file of acknowledged changes, once it says why and who.
    pasted = "acknowledged:\n" + said[said.index("- level:") : said.index("page: ")]
    for empty, given in (('reason: ""', "reason: known"), ('by: ""', "by: me"),
                         ('date: ""', "date: 2026-09-20")):  # fmt: skip
        pasted = pasted.replace(empty, given)
    file = folder / "acknowledged.yaml"
    file.write_text(pasted, encoding="utf-8")
    assert main(command) == 0
    assert "worse, acknowledged: known" in capsys.readouterr().out
    entries = yaml.safe_load(pasted)["acknowledged"]
    assert {each["metric"] for each in entries} == {"Running.p50", "Running.p95"}
    for each in entries:
        each["accepted"] = 1.1
    file.write_text(yaml.safe_dump({"acknowledged": entries}), encoding="utf-8")
    assert main(command) == 1
    assert "worse than acknowledged (1.1)" in capsys.readouterr().out


def test_the_page_shows_runs_versions_and_changes(folder: Path, tmp_path: Path) -> None:
    html, data = tmp_path / "page.html", tmp_path / "data.json"
    arguments = [
        "--level",
        "100",
        "--metric",
        "Running.p95",
        "--html",
        str(html),
        "--json",
        str(data),
    ]
    assert main(["trend", str(folder), *arguments]) == 1
    text = html.read_text(encoding="utf-8")
    seen = Seen(text)
    assert not seen.open
    assert seen.tags.count("tr") == 1 + 20
    assert seen.tags.count("svg") == 1
    assert "script" not in seen.tags
    assert not re.search(r'(src|href)="(?!#)', re.sub(r"xmlns:?\w*=\"[^\"]*\"", "", text))
    assert text.count('<tr class="boundary">') == 1
    assert {"v1.9.0", "v1.10.0", "night-019"} <= set(re.split(r"[\s<>]+", text))
    found = json.loads(data.read_text(encoding="utf-8"))
    assert (found["schema"], found["failing"]) == ("kvscale-trend/v1", 1)
    [change] = found["sections"][0]["levels"][0]["changes"]
    assert (change["run"], change["fails"]) == ("night-010", True)


@pytest.mark.parametrize("nights", [5, 200])
def test_a_plot_of_few_or_many_runs_names_no_more_than_can_be_read(nights: int) -> None:
    runs = [run_file(night(number, version=f"v1.{number}.0"), "made") for number in range(nights)]
    [section] = trend(runs, levels=[100], find=lambda *_: ()).sections
    svg = level_over_runs(section.levels[0], "0")
    assert svg == level_over_runs(section.levels[0], "0")
    assert 1 < len(re.findall(r">v1\.\d+\.0<", svg)) <= 10
    assert 1 < len(re.findall(r">20\d\d-\d\d-\d\d<", svg)) <= 8
    assert len(svg) < 400_000


def test_what_files_say_is_text_wherever_it_is_shown() -> None:
    hostile = "<script>alert(1)</script>$x"
    runs = [run_file(night(0, version=hostile), "made"),
            run_file(night(1, 1.0, "v1.9.0", **{"node.runtime": hostile}), "made")]  # fmt: skip
    found = trend(runs, levels=[100], find=lambda *_: ())
    seen = Seen(page(found, "<b>folder</b>"))
    assert not {"script", "b"} & set(seen.tags)
    assert seen.text.count("<script>alert(1)") == 3  # The table, the plot, what differs.
    assert hostile in "\n".join(lines(found))
    json.dumps(as_json(found), allow_nan=False)


def test_the_terminal_says_why_a_run_does_not_count() -> None:
    cut = night(3)
    cut["levels"] = [{**each, "ended": "interrupted\nby x"} for each in cut["levels"]]
    runs = [run_file(each, "x") for each in (night(1), night(2), cut)]
    said = [*lines(trend(runs))]
    assert "  night-003 100: it was cut short: interrupted by x" in said
    assert sum("night-002" in each for each in said) == 2


def test_runs_of_several_real_clusters_are_called_so() -> None:
    other = night(3)
    other["cluster"]["uid"] = "another"
    runs = [run_file(each, "x") for each in (night(1), night(2), other)]
    assert next(lines(trend(runs))) == (
        "3 runs, of 2 real clusters: what changed may be the cluster's"
    )
    assert next(lines(trend(runs[:2]))) == "2 runs, of a real cluster"


def test_simulated_runs_are_called_so(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    content = night(30, simulated="sim")
    content["run"]["profile"] = "modern"
    (folder / "sim.json").write_text(json.dumps(content), encoding="utf-8")
    assert main(["trend", str(folder), "--metric", "requests_per_vmi", "--level", "100"]) == 0
    said = capsys.readouterr().out
    assert "1 run, SIMULATED (sim), profile modern" in said
    assert "not comparable with the first: simulated: false -> sim" in said
    assert "these are not figures of real hardware" in (folder / "trend.html").read_text("utf-8")


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (
            ["--metric", "Runing.p95"],
            "there is no metric 'Runing.p95' (did you mean 'Running.p95'?)",
        ),
        (["--level", "7"], "has no run of level 7: there are 100, 200"),
        (["--json", "FOLDER/trend.json"], "would lie among the runs"),
        (
            ["--metric", "Running.p50", "--level", "100", "--html", "FOLDER/00.json/page.html"],
            "cannot be written",
        ),
        (["--acknowledged", "FOLDER/none.yaml"], "none.yaml cannot be read: No such file"),
        (["--acknowledged", "FOLDER/00.json"], "unknown key"),
        (["--acknowledged", "FOLDER"], "cannot be read"),
    ],
)
def test_a_mistake_is_told_in_a_sentence(
    folder: Path, arguments: list[str], sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    given = [each.replace("FOLDER", str(folder)) for each in arguments]
    assert main(["trend", str(folder), *given]) == 4
    said = capsys.readouterr().err
    assert sentence in said
    assert said.count("\n") == 1


@pytest.mark.parametrize("content", ["", "{", '{"schema": "kvscale/v9"}', "[]", '{"a": NaN}'])
def test_a_file_that_is_no_run_is_named(
    folder: Path, content: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "x.json").write_text(content, encoding="utf-8")
    assert main(["trend", str(folder)]) == 4
    assert "x.json" in capsys.readouterr().err
