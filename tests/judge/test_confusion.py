"""What befell each VMI of the embedded cluster, against the class it was given: a matrix.

What befell it is known from the cluster's own draws, or from the wall that was put up; none of the
judging code is asked for it.
"""

from __future__ import annotations

import collections
from collections.abc import Mapping
from pathlib import Path

import pytest

from pytest_kvscale.sim.draws import Draws
from tests.cluster.trouble import Outcome, play

LEVEL = 60
SHARES = {
    "create_rejected": 0.1, "stuck": 0.1, "kill_pod_sandbox": 0.12, "sandbox_timeout": 0.12,
    "launcher_crash": 0.15, "qemu_timeout": 0.15,
}  # fmt: skip
"""In the order in which one that befalls a VMI hides the next."""
CLASS_OF = {
    "create_rejected": "CreateRejected", "stuck": "Unexplained",
    "kill_pod_sandbox": "KillPodSandbox", "sandbox_timeout": "SandboxTimeout",
    "launcher_crash": "LauncherCrash", "qemu_timeout": "QemuTimeout", "nothing": "runs",
}  # fmt: skip
WALLS = {
    "node: {max_pods: 7}": "PodLimit",
    "node: {memory: 3300Mi}": "MemoryLimit",
    "node: {cpu: 600m}": "CpuLimit",
    "node: {pod_network_prefix: 29}": "PodIPExhausted",
    "kubevirt: {max_devices: 5}": "DeviceLimit",
}
PROFILE = """
extends: fast
times:
  sandbox_retry: 20
  sandbox_deadline: 10
  sandbox: {{parallel: 4, work: 0.3, spread: 0.2}}
  launcher: {{parallel: 4, work: 0.3, spread: 0.2}}
{more}
"""


def profile(folder: Path, more: str) -> Path:
    path = folder / f"{len(list(folder.iterdir()))}.yaml"
    path.write_text(PROFILE.format(more=more), encoding="utf-8")
    return path


def befell(name: str) -> str:
    draws = Draws(0)
    hit = (each for each, share in SHARES.items() if draws.chance(share, each, name))
    return next(hit, "nothing")


def classes(outcome: Outcome) -> dict[str, str]:
    return {row["name"]: row["class"] or "runs" for row in outcome.rows}


def text(matrix: Mapping[tuple[str, str], int]) -> str:
    """Rows: what befell the VMIs; columns: their classes."""
    columns = sorted({found for _, found in matrix})
    lines = ["befell".ljust(18) + "".join(each.rjust(len(each) + 2) for each in columns)]
    for cause in sorted({cause for cause, _ in matrix}):
        cells = (str(matrix.get((cause, each), 0)).rjust(len(each) + 2) for each in columns)
        lines.append(cause.ljust(18) + "".join(cells))
    return "\n".join(lines)


def test_every_fault_gets_its_class(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shares = ", ".join(f"{name}: {share}" for name, share in SHARES.items())
    outcome = play(profile(tmp_path, f"faults: {{{shares}}}"), level=LEVEL)
    matrix: collections.Counter[tuple[str, str]] = collections.Counter()
    for name, found in classes(outcome).items():
        matrix[befell(name), found] += 1
    for more, expected in WALLS.items():
        walled = classes(play(profile(tmp_path, more), level=12))
        for name, found in walled.items():
            matrix[f"wall {expected}" if found != "runs" else "nothing", found] += 1
            assert name
    with capsys.disabled():
        print(f"\n{text(matrix)}")  # noqa: T201 - the matrix is to be read
    assert {cause for cause, _ in matrix} == {
        *SHARES, "nothing", *(f"wall {each}" for each in WALLS.values()),
    }  # fmt: skip
    for (cause, found), number in matrix.items():
        assert number
        assert found == CLASS_OF.get(cause, cause.removeprefix("wall "))


def test_vmis_of_a_lost_node_are_said_to_be_lost_with_it(tmp_path: Path) -> None:
    lost = {"kind": "lose-node", "after": 2}
    outcome = play(profile(tmp_path, ""), [lost], level=30)
    assert outcome.result.failures["NodeLost"] == 30
    assert "vmi NodeUnresponsive" in outcome.rows[0]["evidence"]


def test_every_class_keeps_evidence_of_each_vmi(tmp_path: Path) -> None:
    shares = ", ".join(f"{name}: {share}" for name, share in SHARES.items())
    outcome = play(profile(tmp_path, f"faults: {{{shares}}}"), level=LEVEL)
    for row in outcome.rows:
        assert bool(row["class"]) is bool(row["evidence"])
