"""Recordings of a real control plane, measured and judged as a live run would be.

The expected figures are worked out here by other means: straight from the lines, with none of
the project's code.
"""

from __future__ import annotations

import gzip
import json
import math
from pathlib import Path
from typing import Any

import pytest

from pytest_kvscale.errors import ConfigurationError
from pytest_kvscale.judge.verdict import DensityResult, judge
from pytest_kvscale.measure import recording
from pytest_kvscale.measure.figures import figures
from pytest_kvscale.measure.timeline import Creation
from tests.conftest import DATA

NAMES = [
    "a-100", "b-devices110-130", "c-crash-sandbox-60", "e-vm-10", "f-vmirs-10",
    "g-controller-qps5-60",
]  # fmt: skip
PHASES = ("Scheduling", "Scheduled", "Running")


def path_of(name: str) -> Path:
    return DATA / f"{name}.jsonl.gz"


def judged(name: str) -> DensityResult:
    found = figures(recording.replay(recording.read(path_of(name))))
    return judge(found.requested, found)


def by_hand(name: str) -> tuple[dict[str, dict[str, float]], int]:
    """Seconds from send to watch by phase and VMI, and how many were asked for."""
    with gzip.open(path_of(name), "rt", encoding="utf-8") as file:
        lines: list[dict[str, Any]] = [json.loads(line) for line in file]
    end = next(line["t"] for line in lines if line["stream"] == "delete")
    sent = {line["name"]: line["sent"] for line in lines if line["stream"] == "create"}
    found: dict[str, dict[str, float]] = {phase: {} for phase in PHASES}
    vmis = set()
    for line in lines:
        if line["stream"] != "vmis" or "event" not in line or line["t"] > end:
            continue
        if line["event"]["type"] == "BOOKMARK":
            continue
        vmi = line["event"]["object"]
        metadata, phase = vmi["metadata"], vmi["status"].get("phase")
        vmis.add(metadata["name"])
        begun = sent.get(metadata["name"])
        if begun is None:
            (begun,) = sent.values()
        if phase in PHASES:
            found[phase].setdefault(metadata["name"], line["t"] - begun)
    return found, len(vmis)


@pytest.mark.parametrize("name", NAMES)
def test_percentiles_agree_to_the_millisecond(name: str) -> None:
    expected, total = by_hand(name)
    result = judged(name)
    assert result.figures.requested == total
    for phase in PHASES:
        ordered = sorted(expected[phase].values())
        summary = dict(result.figures.phases[phase])
        assert summary["n"] == len(ordered)
        for per_cent in (50, 90, 95, 99):
            rank = math.ceil(per_cent * total / 100)
            value = ordered[rank - 1] if rank <= len(ordered) else None
            if value is None:
                assert summary[f"p{per_cent}"] is None
            else:
                assert summary[f"p{per_cent}"] == pytest.approx(value, abs=0.001)


def test_the_published_figures_of_a_are_met() -> None:
    running = judged("a-100").figures.phases["Running"]
    assert running["p50"] == pytest.approx(15.271, abs=0.0005)
    assert running["p95"] == pytest.approx(24.015, abs=0.0005)


@pytest.mark.parametrize(
    ("name", "running", "failures"),
    [
        ("a-100", 100, {}),
        ("b-devices110-130", 110, {"DeviceLimit": 20}),
        ("c-crash-sandbox-60", 46, {"KillPodSandbox": 8, "QemuTimeout": 6}),
        ("e-vm-10", 10, {}),
        ("f-vmirs-10", 10, {}),
        ("g-controller-qps5-60", 60, {}),
    ],
)
def test_every_vmi_gets_its_right_class(name: str, running: int, failures: dict[str, int]) -> None:
    result = judged(name)
    assert result.running == running
    assert result.failures == failures
    assert result.verdict == ("fail" if failures else "pass")
    assert result.figures.deleted == result.figures.created
    assert result.figures.left_behind == 0


def test_each_vmi_is_classed_by_what_the_recording_says_of_it() -> None:
    """VMI by VMI, against the pods' and events' own words."""
    with gzip.open(path_of("c-crash-sandbox-60"), "rt", encoding="utf-8") as file:
        lines = [json.loads(line) for line in file]
    end = next(line["t"] for line in lines if line["stream"] == "delete")
    panicked, killed = set(), set()
    for line in lines:
        text = json.dumps(line)
        if line["t"] > end or "event" not in line:
            continue
        metadata = line["event"]["object"].get("metadata", {})
        if line["stream"] == "pods" and "timed out waiting for domain to be defined" in text:
            panicked.add(metadata["labels"]["vm.kubevirt.io/name"])
        if line["stream"] == "events" and "KillPodSandboxError" in text:
            pod = line["event"]["object"]["involvedObject"]["name"]
            killed.add(pod.removeprefix("virt-launcher-").rpartition("-")[0])
    findings = judged("c-crash-sandbox-60").findings
    assert {name for name, each in findings.items() if each.name == "QemuTimeout"} == panicked
    assert {name for name, each in findings.items() if each.name == "KillPodSandbox"} == killed


def test_every_failure_keeps_its_evidence() -> None:
    for name in ("b-devices110-130", "c-crash-sandbox-60"):
        for finding in judged(name).findings.values():
            assert finding.evidence
            assert all(finding.evidence)


def test_refusals_after_the_levels_end_do_not_count() -> None:
    """Devices freed by the deletion let b's blocked pods run: they were blocked all the same."""
    lines = recording.read(path_of("b-devices110-130"))
    end = next(line["t"] for line in lines if line["stream"] == "delete")
    later = [line for line in lines if line["t"] > end and line["stream"] == "pods"]
    assert any(line["event"]["object"]["spec"].get("nodeName") for line in later)
    assert judged("b-devices110-130").failures == {"DeviceLimit": 20}


@pytest.mark.parametrize("late", ["vmis", "pods", "events"])
@pytest.mark.parametrize("name", ["b-devices110-130", "c-crash-sandbox-60"])
def test_a_watch_that_lags_behind_the_others_changes_no_class(name: str, late: str) -> None:
    lines = recording.read(path_of(name))
    shifted = [
        {**line, "t": line["t"] + 0.75} if line["stream"] == late else line for line in lines
    ]
    found = figures(recording.replay(shifted))
    assert judge(1, found).failures == judged(name).failures


def test_without_any_event_the_pods_own_word_is_enough() -> None:
    lines = recording.read(path_of("b-devices110-130"))
    silent = [line for line in lines if line["stream"] != "events"]
    found = figures(recording.replay(silent))
    assert judge(1, found).failures == {"DeviceLimit": 20}


def test_without_pods_a_vmi_still_tells() -> None:
    lines = recording.read(path_of("b-devices110-130"))
    vmis = [line for line in lines if line["stream"] in ("create", "delete", "vmis")]
    found = figures(recording.replay(vmis))
    assert judge(1, found).failures == {"DeviceLimit": 20}


def test_a_recording_without_a_deletion_ends_with_its_last_line() -> None:
    lines = recording.read(path_of("a-100"))
    end = next(line["t"] for line in lines if line["stream"] == "delete")
    found = figures(recording.replay([line for line in lines if line["t"] < end]))
    assert found.running == 100
    assert found.left_behind == 100


def test_what_is_recorded_is_read_back(tmp_path: Path) -> None:
    path = tmp_path / "r.jsonl.gz"
    recorder = recording.Recorder(path, 100.0)
    creation = Creation("one", 101.0, 101.5)
    recorder.create(creation, 102.0, 201)
    recorder.write("vmis", 103.0, event={"type": "ADDED", "object": {}})
    recorder.close()
    assert recording.read(path) == [
        {"t": 2.0, "stream": "create", "name": "one", "due": 1.0, "sent": 1.5, "status": 201},
        {"t": 3.0, "stream": "vmis", "event": {"type": "ADDED", "object": {}}},
    ]


def test_the_same_recording_has_the_same_bytes(tmp_path: Path) -> None:
    for name in ("x", "y"):
        recorder = recording.Recorder(tmp_path / name, 0.0)
        recorder.write("delete", 1.0)
        recorder.close()
    assert (tmp_path / "x").read_bytes() == (tmp_path / "y").read_bytes()


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"", "nothing was created"),
        (b"not json\n", "line 1"),
        (b'{"t": 1}\n', "expected an object with 't' and 'stream'"),
        (b'{"t": 1, "stream": "create"}\n', "cannot be replayed"),
        (b"\x1f\x8b\x08broken", "is damaged"),
        (b"\xff\xfe\xfd", "is damaged"),
    ],
)
def test_what_is_no_recording_is_refused_in_a_sentence(
    tmp_path: Path, content: bytes, sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    from pytest_kvscale.__main__ import main

    path = tmp_path / "r.jsonl.gz"
    path.write_bytes(content)
    assert main(["replay", str(path)]) == 4
    printed = capsys.readouterr()
    assert sentence in printed.err
    assert printed.err.count("\n") == 1
    assert not printed.out


def test_a_recording_that_is_cut_off_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "r.jsonl.gz"
    path.write_bytes(path_of("e-vm-10").read_bytes()[:-2000])
    with pytest.raises(ConfigurationError, match="is damaged"):
        recording.read(path)


def test_a_missing_recording_is_told(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="No such file"):
        recording.read(tmp_path / "none.jsonl.gz")


def test_replay_prints_the_level_object(capsys: pytest.CaptureFixture[str]) -> None:
    from pytest_kvscale.__main__ import main

    assert main(["replay", str(path_of("c-crash-sandbox-60"))]) == 0
    level = json.loads(capsys.readouterr().out)
    assert (level["level"], level["verdict"], level["running"]) == (60, "fail", 46)
    assert level["failures"] == {"KillPodSandbox": 8, "QemuTimeout": 6}
    assert set(level) >= {
        "level", "verdict", "requested", "created", "running", "deleted", "left_behind",
        "failures", "phases", "deletion", "rates", "pacing", "slo", "prometheus", "harness",
        "cooldown",
    }  # fmt: skip
