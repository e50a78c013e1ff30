"""What to do about a failure, and where its cause stands."""

from __future__ import annotations

from pytest_kvscale.judge.remedies import node_log_command
from pytest_kvscale.judge.verdict import judge
from pytest_kvscale.measure import recording, signs
from pytest_kvscale.measure.figures import figures
from pytest_kvscale.measure.timeline import Creation, Timeline
from tests.conftest import DATA


def test_without_the_nodes_log_the_command_that_shows_it_is_told() -> None:
    lines = recording.read(DATA / "c-crash-sandbox-60.jsonl.gz")
    text = judge(60, figures(recording.replay(lines))).explanation()
    (told,) = [line for line in text.splitlines() if "journalctl --utc" in line]
    assert told.startswith("    the cause, on ")
    assert "--since '2026-11-23 18:51:1" in told
    assert "| grep " in told


def test_where_nothing_came_to_a_node_there_is_no_command() -> None:
    assert node_log_command([Timeline("one", Creation("one", 0.0))]) is None


def test_of_a_log_the_lines_that_tell_are_kept() -> None:
    lines = [
        '{"component":"virt-launcher","level":"info","msg":"Collected all requested hooks"}',
        '{"component":"virt-launcher","level":"error","msg":"oh no","reason":"timed out"}',
        "panic: timed out waiting for domain to be defined",
        "",
        "goroutine 1 [running]:",
        "main.waitForDomainUUID(0x45d964b800)",
        "\t/root/go/src/virt-launcher.go:228 +0x44b",
        '{"component":"virt-launcher-monitor","msg":"dirty virt-launcher shutdown: exit-code 2"}',
    ]
    found = signs.of_log("log", lines, 3.0)
    assert [each.message for each in found] == [
        "oh no: timed out", "panic: timed out waiting for domain to be defined",
        "dirty virt-launcher shutdown: exit-code 2",
    ]  # fmt: skip
    assert {(each.at, each.source) for each in found} == {(3.0, "log")}


def test_of_a_log_that_tells_nothing_the_last_line_is_kept() -> None:
    assert [each.message for each in signs.of_log("log", ["a", "b", ""], 1.0)] == ["b"]
    assert signs.of_log("log", ["", "  "], 1.0) == []
