"""What the user got wrong is told in one sentence, with exit code 4, alone and under xdist."""

from __future__ import annotations

import xml.etree.ElementTree as ET

import pytest

from tests.plugin.conftest import Suite

HEAD = "apiVersion: kubevirt.io/v1\nkind: VirtualMachineInstance\n"
FILES = {
    "profile.yaml": "extends: blog-2021\nnode: {cpus: 3}\n",
    "broken.yaml": "a: [\n",
    "slo-key.yaml": "levels: {50: {Runing p95: 3s}}\n",
    "slo-value.yaml": "default: {Running p95: soon}\n",
    "no-kind.yaml": "apiVersion: v1\nmetadata: {name: '{{ name }}'}\n",
    "no-name.yaml": HEAD + "metadata: {}\n",
    "tuning.yaml": "configuraton: {}\n",
}
CASES = [
    ("--kvscale-timeout=5x", "--kvscale-timeout: '5x' is no duration: write e.g. 90, 90s, 5m"),
    ("--kvscale-cooldown=", "--kvscale-cooldown: '' is no duration"),
    ("--kvscale-qps=0", "--kvscale-qps: '0' is no rate: expected a number above 0, or max"),
    ("--kvscale-qps=-2", "--kvscale-qps: '-2' is no rate"),
    ("--kvscale-qps=nan", "--kvscale-qps: 'nan' is not a number above 0, or max"),
    ("--kvscale-burst=0", "--kvscale-burst: '0' is too small"),
    ("--kvscale-levels=", "--kvscale-levels: no level is given"),
    ("--kvscale-levels=50,50", "--kvscale-levels: the level 50 is given twice"),
    ("--kvscale-levels=50,", "--kvscale-levels: '' is not a level"),
    ("--kvscale-levels=5.5", "--kvscale-levels: '5.5' is not a level"),
    ("--kvscale-sim-profile=blog2021", "unknown profile 'blog2021' (did you mean 'blog-2021'?)"),
    ("--kvscale-sim-profile=profile.yaml", "the profile profile.yaml: unknown key 'node.cpus'"),
    ("--kvscale-sim-profile=broken.yaml", "the profile broken.yaml is not YAML in line 2"),
    ("--kvscale-slo=slo-key.yaml", "the objectives slo-key.yaml: levels: unknown objective"),
    ("--kvscale-slo=slo-value.yaml", "default.Running p95.limit: 'soon' is no duration"),
    ("--kvscale-slo=none.yaml", "the objectives none.yaml cannot be read: No such file"),
    ("--kvscale-template=broken.yaml", "the template broken.yaml is not YAML in line"),
    ("--kvscale-template=no-kind.yaml", "the template no-kind.yaml lacks kind"),
    ("--kvscale-template=no-name.yaml", "the template no-name.yaml lacks metadata.name"),
    ("--kvscale-tune=tuning.yaml", "unknown key 'configuraton' (did you mean 'configuration'?)"),
    ("--kvscale-tune=dense", "unknown tuning 'dense'"),
    ("--kvscale-set=image", "--kvscale-set: 'image' is not a variable: expected NAME=VALUE"),
    ("--kvscale-cluster=cube", "--kvscale-cluster: 'cube' (did you mean 'kube'?)"),
    ("--kvscale-cluster=kube", "no cluster to connect to"),
    ("--kvscale-node=nope", "there is no node 'nope' in the cluster"),
    ("--kvscale-node-selector=zone", "'zone' is not a label: expected NAME=VALUE"),
    ("--kvscale-namespace=Not_One", "'Not_One' is no namespace"),
    ("--kvscale-report-dir=broken.yaml/x", "/broken.yaml/x/"),
]  # fmt: skip


@pytest.fixture
def files(suite: Suite) -> None:
    for name, text in FILES.items():
        (suite.path / name).write_text(text, encoding="utf-8")


def errors(result: pytest.RunResult) -> list[str]:
    return [line for line in result.errlines if line.startswith("ERROR: kvscale: ")]


def check(result: pytest.RunResult, sentence: str) -> None:
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    (told,) = errors(result)
    assert sentence in told
    output = "\n".join([*result.outlines, *result.errlines])
    assert "Traceback" not in output
    assert "INTERNALERROR" not in output


@pytest.mark.usefixtures("files")
@pytest.mark.parametrize(("argument", "sentence"), CASES)
def test_a_mistake_is_told(suite: Suite, argument: str, sentence: str) -> None:
    check(suite.run(argument), sentence)


@pytest.mark.usefixtures("files")
@pytest.mark.parametrize(
    ("argument", "sentence"),
    [
        case
        for case in CASES
        if case[0].split("=")[0] in
        ("--kvscale-timeout", "--kvscale-levels", "--kvscale-sim-profile", "--kvscale-slo",
         "--kvscale-template", "--kvscale-node")
    ],
)  # fmt: skip
def test_a_mistake_is_told_under_xdist(suite: Suite, argument: str, sentence: str) -> None:
    check(suite.run(argument, workers=2), sentence)


@pytest.mark.parametrize("workers", [0, 2])
def test_a_mistake_in_a_selection_is_told(suite: Suite, workers: int) -> None:
    sentence = "-k 401: 401 is no level; the levels are 50, 100, 200, 300, 400"
    check(suite.run("-k", "401", workers=workers), sentence)


@pytest.mark.parametrize("workers", [0, 2])
def test_a_mistake_in_the_objectives_beside_the_suite_is_told(suite: Suite, workers: int) -> None:
    (suite.path / "slo.yaml").write_text("levels: {50: 3}", encoding="utf-8")
    check(suite.run(workers=workers), "slo.yaml: levels: expected a mapping of objectives")


def test_a_mistake_in_the_ini_file_names_its_key(suite: Suite) -> None:
    suite.pytester.makeini("[pytest]\nkvscale_qps = fast\n")
    check(suite.run(), "kvscale_qps: 'fast' is not a number above 0, or max")


@pytest.mark.parametrize("workers", [0, 2])
def test_the_mistake_stands_in_a_junit_file(suite: Suite, workers: int) -> None:
    suite.run("--kvscale-qps=0", "--junitxml=mine.xml", workers=workers)
    for path in (suite.path / "mine.xml", suite.latest / "junit.xml"):
        (testsuite,) = ET.parse(path).getroot()  # noqa: S314 - our own file
        assert testsuite.attrib["errors"] == "1"
        (case,) = testsuite.findall("testcase")
        (error,) = case.findall("error")
        assert error.text == "--kvscale-qps: '0' is no rate: expected a number above 0, or max"


@pytest.mark.parametrize("workers", [0, 2])
def test_a_mistake_does_not_matter_where_no_test_of_ours_is_selected(
    suite: Suite, workers: int
) -> None:
    suite.pytester.makeini("[pytest]\nkvscale_qps = fast\n")
    suite.pytester.makepyfile(test_other="def test_other(): pass")
    result = suite.run("test_other.py", workers=workers)
    result.assert_outcomes(passed=1)
    assert not (suite.path / "reports").exists()


def test_each_worker_running_the_levels_is_refused(suite: Suite) -> None:
    check(suite.run("--dist=each", workers=2), "--dist each would run the levels in several")
