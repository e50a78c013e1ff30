"""A run that is killed in the middle of an upgrade leaves KubeVirt as it was, in real time."""

from __future__ import annotations

import shutil
from pathlib import Path

from tests.killing.doomed import ROOT, Ground, undone_by_the_next
from tests.standalone import running

NEXT = """
extends: fast
versions: {kubevirt: v0.47.0}
kubevirt: {max_devices: 110}
"""
UPGRADED = 19
"""The note that follows the upgrade; settings, the canary and the VMIs made nine before it."""


def test_an_upgrade_of_a_killed_run_is_undone_from_another_machine(tmp_path: Path) -> None:
    (tmp_path / "next.yaml").write_text(NEXT, encoding="utf-8")
    (tmp_path / "first.yaml").write_text("extends: fast\nupgrades: [next.yaml]\n", encoding="utf-8")
    with running(tmp_path, str(tmp_path / "first.yaml")) as cluster:
        ground = Ground(tmp_path, cluster)
        shutil.copy(ROOT / "suites" / "upgrade" / "test_upgrade.py", tmp_path)
        code, output = ground.run(
            f"kill:{UPGRADED}", "test_upgrade.py::test_upgrade", "--kvscale-upgrade-to=v0.47.0",
            "--kvscale-upgrade-back", "--kvscale-upgrade-vmis=2",
        )  # fmt: skip
        assert code == -9, output
        (found,) = ground.get("/apis/kubevirt.io/v1/kubevirts")["items"]
        assert found["status"]["observedKubeVirtVersion"] == "v0.47.0"
        undone_by_the_next(ground, "elsewhere")
        (found,) = ground.get("/apis/kubevirt.io/v1/kubevirts")["items"]
        assert found["status"]["observedKubeVirtVersion"] == "v0.46.1"
        assert found["status"]["observedGeneration"] == found["metadata"]["generation"]
