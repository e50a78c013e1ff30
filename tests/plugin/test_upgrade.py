"""The upgrade suite from pytest's command line to the verdict, on the embedded cluster."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
import scipy.stats  # noqa: F401 - imported once, not in each inner run

from pytest_kvscale.judge.runs import run_files
from pytest_kvscale.session import Run
from pytest_kvscale.upgrade_tests import Step, place
from pytest_kvscale.upgrading import UpgradeFailedError, Upgrading
from tests.plugin.conftest import Suite

SHIPPED = Path(__file__).parents[2] / "suites" / "upgrade"
Json = dict[str, Any]


@pytest.fixture
def upgrade(suite: Suite) -> Suite:
    """The shipped suite, in the place of the suite."""
    (suite.path / "test_density.py").unlink()
    for each in SHIPPED.iterdir():
        if each.is_file():
            (suite.path / each.name).write_text(each.read_text(encoding="utf-8"))
    return suite


def run(suite: Suite, to: str, *arguments: str, workers: int = 0) -> pytest.RunResult:
    return suite.run(
        "--kvscale-sim-profile=upgrade-from", f"--kvscale-upgrade-to={to}",
        "--kvscale-cooldown=0", "--kvscale-upgrade-vmis=2", "-p", "no:html", *arguments,
        workers=workers,
    )  # fmt: skip


def rows(suite: Suite) -> dict[str, str]:
    """The verdict of each row of the comparison."""
    found = suite.results["comparison"]
    return {
        **{f"{e['level']} {e['metric']['key']}": e["verdict"] for e in found["changes"]},
        **{f"{e['level']} failures": e["verdict"] for e in found["failures"]},
    }


# The order ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("repeat", "back", "order"),
    [
        (1, False, "B U A"), (3, False, "B B B U A A A"), (1, True, "B U A"),
        (2, True, "B U A A U B"), (4, True, "B U A A U B B U A A U B"),
    ],
)  # fmt: skip
def test_rounds_are_interleaved_where_there_is_a_way_back(
    repeat: int, back: bool, order: str
) -> None:
    rounds = range(1, repeat + 1)
    tests = [
        *((place("before", nth, repeat, back), "B") for nth in rounds),
        *((place("after", nth, repeat, back), "A") for nth in rounds),
        *((place(None, nth, repeat, back), "U") for nth in (rounds if back else [1])),
    ]
    assert " ".join(what for _, what in sorted(tests)) == order


def test_changes_of_version_are_named_by_their_direction() -> None:
    steps = [Step(nth) for nth in range(1, 5)]
    assert [each.label for each in steps] == ["1", "back-1", "2", "back-2"]
    assert [each.to for each in steps] == ["after", "before", "after", "before"]


# What comes of an upgrade -------------------------------------------------------------------------


def test_an_upgrade_that_changes_nothing_passes(upgrade: Suite) -> None:
    result = run(
        upgrade, "v1.10.0", "--kvscale-levels=3", "--kvscale-repeat=4", "--kvscale-upgrade-back",
        "--kvscale-upgrade-vmis=1", "--kvscale-relative=20%",
    )  # fmt: skip
    assert result.ret == 0
    assert set(rows(upgrade).values()) == {"pass"}
    found = upgrade.results
    labels = [each["label"] for each in found["levels"]]
    assert labels[:5] == ["before-3", "after-3", "after-3-2", "before-3-2", "before-3-3"]
    assert found["upgrade"]["vmis"] == {
        "requested": 1, "ran": 1, "lost": [], "left_behind": 0,
        "migrations": {"succeeded": 0, "failed": 0, "running": 0}, "migrations_note": "",
    }  # fmt: skip
    steps = [(each["direction"], each["to"]) for each in found["upgrade"]["steps"]]
    assert steps == [("upgrade", "v1.10.0"), ("back", "v1.9.0")] * 2
    assert all(each["rolled_out_s"] > 20 for each in found["upgrade"]["steps"])


def test_a_slower_one_fails_and_says_where(upgrade: Suite) -> None:
    result = run(upgrade, "v1.10.1", "--kvscale-levels=12", "--kvscale-repeat=4", "-v")
    result.assert_outcomes(passed=4 + 1 + 4 + 4, failed=1)
    verdicts = rows(upgrade)
    assert (verdicts["12 Running.p95"], verdicts["12 failures"]) == ("fail", "pass")
    result.stdout.fnmatch_lines(
        [
            "kvscale: upgrade from v1.9.0 to v1.10.1 by the KubeVirt CR, 2 VMIs run meanwhile",
            "kvscale: upgrading KubeVirt from v1.9.0 to v1.10.1",
            "kvscale: KubeVirt is v1.10.1: rolled out in * s",
            "level 12: p95 creation to Running +* %*: fail (worse by *",
            "p95 +* %*, all of it in Scheduled*Running*",
            "upgrade v1.9.0 -> v1.10.1: rolled out in * s, 2 VMIs ran, none lost, no migrations",
        ]
    )
    order = [
        "test_before[12]", "test_before[12-2]", "test_before[12-3]", "test_before[12-4]",
        "test_upgrade", "test_after[12]",
    ]  # fmt: skip
    ran = [name for line in result.outlines if "PASSED" in line
           for name in re.findall(r"::(test_\S+)", line)]  # fmt: skip
    assert ran[:6] == order
    found = upgrade.results
    assert found["cluster"]["kubevirt"] == "v1.10.1"
    assert found["upgrade"]["before"]["kubevirt"] == "v1.9.0"
    before, after = run_files(found, "it")
    assert (before.kubevirt, after.kubevirt) == ("v1.9.0", "v1.10.1")
    assert [len(each.levels) for each in (before, after)] == [4, 4]
    assert (upgrade.latest / "upgrade-vmis.jsonl").read_text().count("\n") == 2


def test_one_that_breaks_at_110_fails_with_its_class(upgrade: Suite) -> None:
    result = run(upgrade, "v1.10.2", "--kvscale-levels=118", "--kvscale-tune=none")
    assert result.ret == 1
    (failure,) = upgrade.results["comparison"]["failures"]
    assert failure["verdict"] == "fail"
    assert failure["text"].startswith("level 118: failures DeviceLimit 0 -> 8 (")
    result.stdout.fnmatch_lines(
        ["*test_after?118?*", "*118 requested, 110 fit: devices.kubevirt.io/kvm is the first*",
         "*differs, and may: node.devices: 1000 -> 110"]
    )  # fmt: skip


def test_one_that_hangs_is_its_own_failure_and_is_undone(upgrade: Suite) -> None:
    result = run(upgrade, "v1.10.4", "--kvscale-levels=2", "--kvscale-upgrade-timeout=5m")
    result.assert_outcomes(passed=1, failed=1 + 5, errors=1)
    said = ("the upgrade to v1.10.4 failed: KubeVirt v1.10.4 was not rolled out within 5m "
            "(--kvscale-upgrade-timeout): virt-controller: 1 of 2 pods updated, 2 ready "
            "(virt-controller-*: ImagePullBackOff, *); it has been undone")  # fmt: skip
    result.stdout.fnmatch_lines(
        ["*ERROR at setup of test_after?2?*", said, "*_ test_upgrade _*", said,
         "nothing was compared: the upgrade to v1.10.4 failed"]
    )  # fmt: skip
    found = upgrade.results
    assert found["cluster"]["kubevirt"] == "v1.9.0"
    assert [each["side"] for each in found["levels"]] == ["before"]
    assert found["upgrade"]["rolled_out_s"] is None
    assert found["upgrade"]["vmis"]["lost"] == []


def test_nothing_is_measured_on_either_side_of_an_upgrade_that_failed(upgrade: Suite) -> None:
    """Not even on the side that KubeVirt was on: it may be half of another version."""
    result = run(
        upgrade, "v1.10.4", "--kvscale-levels=2", "--kvscale-upgrade-timeout=5m",
        "--kvscale-upgrade-back", "--kvscale-repeat=2", "--kvscale-upgrade-vmis=0",
    )  # fmt: skip
    result.assert_outcomes(passed=1, failed=2 + 5, errors=3)
    assert [each["label"] for each in upgrade.results["levels"]] == ["before-2"]


def test_an_upgrade_ends_with_the_turn_on_the_cluster(upgrade: Suite) -> None:
    """Whoever has the turn then may upgrade KubeVirt, too: that is not ours to undo."""
    upgrade.pytester.makeconftest(
        """
        import pytest

        @pytest.fixture(autouse=True)
        def lose(request, kv_cluster):
            if request.node.name == "test_upgrade":
                run = request.config.stash[__import__("pytest_kvscale.state").state.RUN]
                lost = run.take_turn(wait=False).lost
                kv_cluster.clock.loop.call_later(90, lost.set_result, "it was taken")
        """
    )
    result = run(upgrade, "v1.10.4", "--kvscale-levels=2")
    result.assert_outcomes(passed=1, failed=1 + 5, errors=1)
    (step,) = upgrade.results["upgrade"]["steps"]
    assert step["problem"] == "our turn on the cluster is lost: it was taken"


def test_what_the_end_of_the_run_has_undone_is_not_undone_again(upgrade: Suite) -> None:
    """A command is not run twice; the embedded cluster ends with its run, and needs none."""
    program = upgrade.path / "patch.py"
    program.write_text(
        "import os, re, sys, urllib.request\n"
        'server = re.search(r"server: (\\S+)", open(os.environ["KUBECONFIG"]).read())[1]\n'
        'path = "/apis/kubevirt.io/v1/namespaces/kubevirt/kubevirts/kubevirt"\n'
        "urllib.request.urlopen(urllib.request.Request(server + path, method='PATCH',\n"
        '    data=b\'{"spec": {"imageTag": "v1.10.0"}}\',\n'
        "    headers={'Content-Type': 'application/merge-patch+json'})).close()\n"
    )
    upgrade.pytester.makeconftest(
        """
        import pytest

        @pytest.fixture(autouse=True)
        def stop(request):
            yield
            if request.node.name == "test_upgrade":
                pytest.exit("enough", returncode=2)
        """
    )
    result = upgrade.run(
        "--kvscale-sim-profile=upgrade-from", "--kvscale-levels=2", "--kvscale-cooldown=0",
        "--kvscale-upgrade-vmis=0", "-p", "no:html", "--kvscale-upgrade-back",
        f"--kvscale-upgrade-command={sys.executable} -S {program}",
        "--kvscale-upgrade-back-command=touch back",
    )  # fmt: skip
    assert result.ret == pytest.ExitCode.INTERRUPTED
    assert upgrade.results["upgrade"]["to"] == "v1.10.0"
    assert not (upgrade.path / "back").exists()


def test_after_a_process_that_died_no_side_is_known() -> None:
    """A worker that takes the place of a dead one finds KubeVirt of whichever version."""
    upgrading = Upgrading(
        cast(Run, SimpleNamespace(undoing=SimpleNamespace(has_upgrade=lambda: True)))
    )
    for side in ("before", "after"):
        with pytest.raises(UpgradeFailedError, match="died after it had begun an upgrade: on whi"):
            upgrading.bring(side)
    assert upgrading.failed


def outline(suite: Suite) -> str:
    """All that must be the same in two runs of one seed."""
    found = suite.results
    text = json.dumps([found["levels"], found["upgrade"]]).replace(found["run"]["id"], "ID")
    return re.sub(r'"(cpu_s|max_rss)": [\d.]+', "", text)


def test_vmis_that_are_lost_meanwhile_are_named_the_same_in_every_run(upgrade: Suite) -> None:
    outlines = []
    for _ in range(2):
        result = run(
            upgrade, "v1.10.3", "--kvscale-levels=2", "--kvscale-upgrade-vmis=6",
            "--kvscale-upgrade-back",
        )  # fmt: skip
        outlines.append(outline(upgrade))
    assert outlines[0] == outlines[1]
    assert upgrade.results["upgrade"]["steps"][1]["to"] == "v1.9.0"
    result.assert_outcomes(passed=1 + 1 + 5, failed=1)
    lost = upgrade.results["upgrade"]["vmis"]["lost"]
    assert 0 < len(lost) < 6
    assert {each["class"] for each in lost} == {"GuestCrash"}
    result.stdout.fnmatch_lines(
        ["*_ test_upgrade _*", f"*fail: {6 - len(lost)} of 6 running*",
         f"    {lost[0]['name']}: event Stopped: The VirtualMachineInstance crashed.",
         f"  lost: {lost[0]['name']} (GuestCrash): event Stopped: *"]
    )  # fmt: skip


def test_lost_vmis_are_told_though_the_test_of_the_upgrade_is_not_selected(
    upgrade: Suite,
) -> None:
    result = run(
        upgrade, "v1.10.3", "--kvscale-levels=2", "--kvscale-upgrade-vmis=6", "-k", "test_after"
    )
    result.assert_outcomes(passed=1, failed=5, errors=1, deselected=2)
    result.stdout.fnmatch_lines(["*ERROR at teardown of *", "*of 6 running*", "*GuestCrash: *"])


def test_levels_are_selected_on_both_sides_and_no_version_is_compared_with_itself(
    upgrade: Suite,
) -> None:
    """Under xdist as well."""
    result = run(upgrade, "v1.10.0", "--kvscale-levels=2,3", "-k", "3", workers=2)
    result.assert_outcomes(passed=2 + 5)
    found = upgrade.results
    assert [each["label"] for each in found["levels"]] == ["before-3", "after-3"]
    assert found["comparison"]["kubevirt"] == {"before": "v1.9.0", "after": "v1.10.0"}
    assert found["levels"][1]["cooldown"]["required"] == 0


# What is no run of an upgrade ---------------------------------------------------------------------


def refused(result: pytest.RunResult, sentence: str) -> None:
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines([f"ERROR: kvscale: {sentence}"])


def test_without_a_version_it_is_a_usage_error(upgrade: Suite) -> None:
    refused(upgrade.run(), "these tests upgrade KubeVirt: say to which version (--kvscale-upgra*")
    assert upgrade.run("--collect-only").ret == 0


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("--kvscale-upgrade-to=v1.9.0",), "KubeVirt is v1.9.0 already *"),
        (("--kvscale-upgrade-to=v2", "--kvscale-baseline=."), "--kvscale-baseline: these tests *"),
        (("--kvscale-upgrade-command=x", "--kvscale-upgrade-back"), "*-upgrade-back-command"),
        (("--kvscale-upgrade-to=v2", "--kvscale-upgrade-back-command=x"), "*both, or neither"),
        (("--kvscale-upgrade-command=x", "--kvscale-upgrade-registry=y"), "*itself where images*"),
        (("--kvscale-upgrade-command=x 'y",), "the command *cannot be read: No closing quotation"),
        (("--kvscale-upgrade-vmis=-1",), "*-upgrade-vmis: '-1' is too small: *"),
    ],
)
def test_what_does_not_go_together_is_told(
    upgrade: Suite, arguments: tuple[str, ...], sentence: str
) -> None:
    refused(upgrade.run("--kvscale-sim-profile=upgrade-from", *arguments), sentence)


def test_beside_other_suites_an_upgrade_is_left_out_or_refused(upgrade: Suite) -> None:
    upgrade.pytester.makepyfile(
        test_other="""
        import pytest

        @pytest.mark.density(levels=2)
        def test_other(density_level, density_run): density_run(density_level)
        """
    )
    result = upgrade.quick("-p", "no:html", levels="2")
    result.assert_outcomes(passed=1, deselected=3)
    result.stdout.fnmatch_lines(
        ["kvscale: 3 tests of an upgrade are left out: there is no --kvscale-upgrade-to"]
    )
    assert "upgrade" not in upgrade.results
    refused(
        run(upgrade, "v1.10.0", "--kvscale-levels=2"), "an upgrade is measured in a run of its own*"
    )
