"""`python -m pytest_kvscale compare` and `baseline`."""

from __future__ import annotations

import copy
import json
import os
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest

from pytest_kvscale import baselines
from pytest_kvscale.__main__ import main
from pytest_kvscale.errors import ConfigurationError
from tests.runs import REAL, level, results, side, write

BEFORE, SAME, SLOWER = (5.0, 5.1, 4.95, 5.05), (5.01, 5.08, 4.97, 5.04), (8.0, 8.2, 8.1, 7.9)


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with runs before, and runs after that are the same or slower."""
    for name, values, version in (
        ("before", BEFORE, "v1.9.0"), ("same", SAME, "v1.10.0"), ("slower", SLOWER, "v1.10.0"),
    ):  # fmt: skip
        for index, each in enumerate(values):
            write(
                tmp_path / name,
                results(f"{name}{index}", level(5, p95=each), kubevirt=version),
            )
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_what_got_worse_exits_with_1_and_is_written_as_asked(
    capsys: pytest.CaptureFixture[str], here: Path
) -> None:
    asked = ["--json", "c.json", "--markdown", "c.md", "--junit", "out/c.xml", "--html", "c.html"]
    assert main(["compare", "before", "slower", *asked]) == 1
    out = capsys.readouterr().out
    assert "KubeVirt v1.9.0 -> v1.10.0: fail" in out
    assert "page: c.html" in out
    assert json.loads((here / "c.json").read_text())["verdict"] == "fail"
    assert "❌ fail" in (here / "c.md").read_text()
    assert ElementTree.parse(here / "out/c.xml").getroot()[0].get("failures") == "2"  # noqa: S314
    assert "<!DOCTYPE html>" in (here / "c.html").read_text()


def test_what_did_not_exits_with_0_and_writes_a_page(here: Path) -> None:
    assert main(["compare", "before", "same"]) == 0
    assert "pass" in (here / "kvscale-comparison.html").read_text()


def test_what_is_inconclusive_exits_with_0_or_strictly_with_1() -> None:
    few = ["compare", "before/before0/results.json", "slower/slower0"]
    assert main(few) == 0
    assert main([*few, "--strict"]) == 1


def test_what_cannot_be_compared_exits_with_4_and_a_sentence(
    capsys: pytest.CaptureFixture[str], here: Path
) -> None:
    write(here, results("other", node_cpu=1.0))
    for arguments, said in (
        (["before", "before/before1"], "run before1 is on both sides"),
        (["before", "other"], "node.cpu: 48.0 -> 1.0"),
        (["before", "nowhere"], "nowhere does not exist"),
        (["before"], "before is not the run of an upgrade, and there is nothing to compare it"),
        (["before", "same", "--calibration", "other"], "the calibration is of another cluster"),
        (["before", "same", "--version", "v7"], "there is no run of KubeVirt v7 before"),
        (["before", "same", "--html", "before"], "before cannot be written"),
    ):
        assert main(["compare", *arguments, "--junit", "c.xml"]) == 4
        shown = capsys.readouterr().err
        assert shown.startswith("error: ")
        assert said in shown
        assert shown.count("\n") == 1
        if "--html" not in arguments:
            assert "<error" in (here / "c.xml").read_text()


def test_more_of_the_side_before_and_what_may_differ_can_be_named(here: Path) -> None:
    for index, each in enumerate(SLOWER):
        write(here / "other", results(f"other{index}", level(5, p95=each), node_cpu=1.0))
    more = [part for number in (1, 2, 3) for part in ("--before", f"before/before{number}")]
    assert main(["compare", "before/before0", "slower", *more]) == 1
    assert main(["compare", "before/before0", "other", *more]) == 4
    assert main(["compare", "before/before0", "other", *more, "--may-differ", "node.*"]) == 1


def test_the_relative_threshold_is_the_users() -> None:
    assert main(["compare", "before", "slower", "--relative", "100%"]) == 0
    with pytest.raises(SystemExit) as ended:
        main(["compare", "before", "slower", "--relative", "much"])
    assert ended.value.code == 4


def test_the_run_of_an_upgrade_is_compared_with_itself(
    capsys: pytest.CaptureFixture[str], here: Path
) -> None:
    sides = [("before", BEFORE), ("after", SLOWER)]
    levels = [level(5, p95=each, side=name) for name, values in sides for each in values]
    content = results("up", *levels, kubevirt="v1.10.0")
    old = copy.deepcopy(content["cluster"])
    old["kubevirt"] = old["comparable"]["versions.kubevirt"] = "v1.9.0"
    content["upgrade"] = {"from": "v1.9.0", "to": "v1.10.0", "before": old}
    write(here, content)
    assert main(["compare", "up"]) == 1
    assert (
        "compared with run up:before, KubeVirt v1.9.0 -> v1.10.0: fail" in capsys.readouterr().out
    )
    assert main(["baseline", "add", "up"]) == 0
    (kept,) = baselines.read([here / "baselines"])
    assert (kept.id, kept.kubevirt) == ("up:after", "v1.10.0")
    assert ":" not in Path(kept.source).name


# Keeping ------------------------------------------------------------------------------------


def test_runs_are_kept_once_in_small_files_that_compare_as_the_runs_do(
    capsys: pytest.CaptureFixture[str], here: Path
) -> None:
    assert main(["baseline", "add", "before", "--to", "kept"]) == 0
    assert "run before0 is kept: kept/v1.9.0-" in capsys.readouterr().out
    files = sorted((here / "kept").iterdir())
    assert len(files) == 4
    before = [each.read_bytes() for each in files]
    assert main(["baseline", "add", "before/before1", "before", "--to", "kept"]) == 0
    assert capsys.readouterr().out.count("is there already: kept/v1.9.0-") == 4
    assert [each.read_bytes() for each in sorted((here / "kept").iterdir())] == before
    assert main(["compare", "kept", "slower"]) == 1
    assert main(["compare", "kept", "before"]) == 4
    text = files[0].read_text()
    assert len(text) < len((here / "before/before0/results.json").read_text()) * 1.1
    assert text == json.dumps(json.loads(text), indent=1, sort_keys=True) + "\n"
    assert not {"harness", "preflight.sentence"} & set(json.loads(text)["levels"][0])


def test_all_runs_are_kept_though_nobody_reads_what_is_told(here: Path) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    command = [sys.executable, "-m", "pytest_kvscale", "baseline", "add", "before", "--to", "kept"]
    ended = subprocess.run(command, cwd=here, stdout=writer, stderr=subprocess.PIPE, check=False)
    os.close(writer)
    assert (ended.returncode, ended.stderr) == (141, b"")
    assert len(list((here / "kept").glob("*.json"))) == len(list((here / "before").iterdir()))


def test_another_version_of_a_kept_run_is_refused(
    capsys: pytest.CaptureFixture[str], here: Path
) -> None:
    assert main(["baseline", "add", "before", "--to", "kept"]) == 0
    write(here / "edited", results("before0", level(5, p95=1.0)))
    assert main(["baseline", "add", "edited", "--to", "kept"]) == 4
    assert "has run before0 already, and edited" in capsys.readouterr().err
    with pytest.raises(ConfigurationError, match="both say that they are run before0"):
        baselines.read([here / "kept", here / "edited"])


def test_a_run_with_nothing_that_counts_is_not_kept(
    capsys: pytest.CaptureFixture[str], here: Path
) -> None:
    write(here, results("cut", level(5, ended="interrupted", verdict="fail")))
    assert main(["baseline", "add", "cut/results.json", "before"]) == 4
    assert "run cut (cut/results.json) has no level that was measured" in capsys.readouterr().err
    assert not (here / "baselines").exists()
    assert main(["baseline", "add", "before", "--name", "../x"]) == 4
    assert main(["baseline", "add", "before", "--to", "cut/results.json"]) == 4


def test_of_a_folder_the_runs_that_count_are_kept(
    capsys: pytest.CaptureFixture[str], here: Path
) -> None:
    cut = results("cut", level(5, ended="interrupted", verdict="fail"))
    write(here / "before", cut)
    write(here / "cuts", cut)
    assert main(["baseline", "add", "before"]) == 0
    assert "run cut is left out: it has no level that was measured" in capsys.readouterr().out
    assert len([*(here / "baselines").iterdir()]) == len(BEFORE)
    assert main(["baseline", "add", "cuts"]) == 4


def test_kept_runs_are_listed_and_shown(capsys: pytest.CaptureFixture[str], here: Path) -> None:
    write(here / "more", results("other", level(5), level(5, p95=9.0), level(8), node_cpu=1.0))
    assert main(["baseline", "add", "before", "more", "--name", "lab"]) == 0
    assert all(each.name.startswith("lab-") for each in (here / "baselines").iterdir())
    capsys.readouterr()
    assert main(["baseline", "list"]) == 0
    out = capsys.readouterr().out
    assert "sim upgrade-from" in out
    assert "5 x2 (5.00 s, 9.00 s), 8 (5.00 s)" in out
    assert main(["baseline", "show"]) == 0
    out = capsys.readouterr().out
    assert "node.cpu: 48.0" in out
    assert "  node.cpu: 48.0 -> 1.0" in out or "  node.cpu: 1.0 -> 48.0" in out
    assert "level 5-2: p50 creation to Running 8.1 s, p95 creation to Running 9 s" in out
    assert main(["baseline", "list", "nowhere"]) == 4


# Reading ------------------------------------------------------------------------------------


def test_runs_are_read_from_files_folders_and_links_each_once_by_their_start(here: Path) -> None:
    (here / "before" / "latest").symlink_to("before2")
    found = baselines.read([here / "before", here / "before" / "before2" / "results.json"])
    assert {each.id for each in found} == {f"before{index}" for index in range(4)}
    assert [each.began for each in found] == sorted(each.began or 0 for each in found)


def test_a_folder_without_runs_and_a_file_that_is_none_are_sentences(here: Path) -> None:
    (here / "empty").mkdir()
    with pytest.raises(ConfigurationError, match="empty has no runs: expected"):
        baselines.read([here / "empty"])
    (here / "empty" / "x.json").write_text("[1]")
    with pytest.raises(ConfigurationError, match=r"empty/x\.json is no results\.json"):
        baselines.read([here / "empty"])


def test_a_real_file_is_kept_without_what_is_not_needed(here: Path) -> None:
    write(here, REAL)
    (line,) = baselines.add([here / REAL["run"]["id"]], here / "kept")
    (kept,) = (here / "kept").iterdir()
    assert line.endswith(str(kept))
    assert kept.stat().st_size < 10_000
    assert baselines.read([kept])[0].levels == baselines.read([here / REAL["run"]["id"]])[0].levels
    assert side("x", [5.0])[0].comparable == baselines.read([kept])[0].comparable
