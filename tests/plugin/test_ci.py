"""The recipes of docs/ci, run as they stand: what a CI system keeps is there, and red is red."""

from __future__ import annotations

import contextlib
import os
import re
import select
import shutil
import stat
import subprocess
import textwrap
import xml.etree.ElementTree as ET
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import scipy.stats  # noqa: F401 - imported once, not in each inner run
import yaml

from tests.plugin import baselines
from tests.plugin.api import api, kubeconfig_for
from tests.plugin.conftest import Suite
from tests.plugin.test_baseline import GONE, KEYS, RUNNING

RECIPES = Path(__file__).parents[2] / "docs" / "ci"
DOCUMENT = RECIPES.parent / "ci.md"
SIMULATED = ("--kvscale-cluster=sim", "--kvscale-sim-profile=quick.yaml", "--kvscale-tune=none")
"""What docs/ci.md says to add to try a recipe without a cluster."""
SMALL = ("--kvscale-levels=2", "--kvscale-repeat=1")
Json = dict[str, Any]


def read(name: str) -> Json:
    """A recipe that is YAML."""
    content: Json = yaml.safe_load((RECIPES / name).read_text(encoding="utf-8"))
    return content


class Recipe:
    """What a recipe runs, and where it says that files will be."""

    def __init__(
        self, shell: Sequence[str], script: str, env: Mapping[str, str], junit: str,
        summary: str, kept: Sequence[str],
    ) -> None:  # fmt: skip
        self.shell, self.script, self.env = shell, script, env
        self.junit, self.summary, self.kept = junit, summary, kept


def github() -> Recipe:
    (job,) = read("github.yaml")["jobs"].values()
    steps = {each.get("name"): each for each in job["steps"]}
    assert steps["keep"]["if"] == "always()"
    kept = [each for each in steps["keep"]["with"]["path"].split() if not each.startswith("!")]
    return Recipe(
        ["bash", "-e"], steps["density"]["run"],
        {"KUBECONFIG": "kubeconfig", "KUBECONFIG_CONTENT": "", "GITHUB_STEP_SUMMARY": "job.md"},
        "density.xml", "job.md", kept,
    )  # fmt: skip


def gitlab() -> Recipe:
    job = read("gitlab.yaml")["density"]
    artifacts = job["artifacts"]
    assert artifacts["when"] == "always"
    return Recipe(
        ["sh", "-e"], "\n".join(job["script"]), {"KUBECONFIG": "kubeconfig"},
        artifacts["reports"]["junit"], "summary.md", artifacts["paths"],
    )  # fmt: skip


def jenkins() -> Recipe:
    text = (RECIPES / "Jenkinsfile").read_text(encoding="utf-8")
    assert text.count("{") == text.count("}")
    _, script = re.findall(r"sh '''\n(.*?)'''", text, re.DOTALL)
    (junit,) = re.findall(r"junit testResults: '([^']*)'", text)
    (kept,) = re.findall(r"archiveArtifacts artifacts: '([^']*)'", text)
    assert "always {" in text.partition("post {")[2]
    return Recipe(
        ["sh", "-e"], textwrap.dedent(script), {"KUBECONFIG": "kubeconfig"}, junit, "summary.md",
        [each.strip() for each in kept.split(",")],
    )  # fmt: skip


def prow(kind: str = "periodics") -> Recipe:
    found = read("prow.yaml")
    (job,) = found["periodics"] if kind == "periodics" else found["presubmits"]["example/density"]
    assert job["decorate"]
    (container,) = job["spec"]["containers"]
    (script,) = container["args"]
    env = {each["name"]: "kubeconfig" for each in container["env"]}
    # TestGrid takes what is called junit_*.xml, Spyglass all that lies in $ARTIFACTS.
    return Recipe(
        container["command"], script, {**env, "ARTIFACTS": "artifacts"},
        "artifacts/junit_kvscale.xml", "artifacts/summary.md", ["artifacts/kvscale/"],
    )  # fmt: skip


RECIPES_BY_NAME: dict[str, Callable[[], Recipe]] = {
    "github": github, "gitlab": gitlab, "jenkins": jenkins, "prow": prow,
}  # fmt: skip


class Job:
    """A CI job in the suite's folder, by a recipe.

    The recipe's shell runs; for `pytest` it asks us through a pipe, and we run it in this process,
    which takes a third of the time.
    """

    def __init__(self, suite: Suite) -> None:
        self.suite = suite
        self.folder = suite.path
        (self.folder / "density").mkdir()
        shutil.move(self.folder / "test_density.py", self.folder / "density" / "test_density.py")
        shutil.copy(RECIPES / "pytest.ini", self.folder)
        suite.profile()
        self.keep(baselines.level(2, RUNNING, GONE))
        (self.folder / "artifacts").mkdir()
        self._program = self.folder / "bin" / "pytest"
        self._program.parent.mkdir()
        self._asked, self._answered = self.folder / "asked", self.folder / "answered"
        text = 'printf "%s\\n" "$@" > asked; read code < answered; exit $code\n'
        self._program.write_text(f"#!/bin/sh\n{text}", encoding="utf-8")
        self._program.chmod(self._program.stat().st_mode | stat.S_IXUSR)

    def keep(self, *levels: Json) -> None:
        """The baseline that lies in the repository."""
        path = self.folder / "baselines" / "v1.json"
        baselines.write(path, baselines.content(1, *levels))

    def run(self, recipe: Recipe, *more: str) -> int:
        """Run the recipe with more options for pytest; returns the job's exit code."""
        for pipe in (self._asked, self._answered):
            os.mkfifo(pipe)
        env = {"PATH": f"{self._program.parent}:{os.environ['PATH']}", **recipe.env}
        given = self.folder / "kubeconfig"
        if "KUBECONFIG_CONTENT" in env and given.exists():
            env["KUBECONFIG_CONTENT"] = given.read_text(encoding="utf-8")
        command = [*recipe.shell, *(["-c"] if "-c" not in recipe.shell else []), recipe.script]
        with subprocess.Popen(command, cwd=self.folder, env=env) as shell:
            arguments = self._ask(shell)
            with pytest.MonkeyPatch.context() as patch:
                patch.setenv("KUBECONFIG", str(self.folder / env["KUBECONFIG"]))
                code = self.suite.run(*arguments, *more).ret
            self._answered.write_text(f"{int(code)}\n", encoding="utf-8")
        return shell.returncode

    def _ask(self, shell: subprocess.Popen[bytes]) -> list[str]:
        """What the recipe calls pytest with."""
        pipe = os.open(self._asked, os.O_RDONLY | os.O_NONBLOCK)
        with open(pipe, encoding="utf-8") as asked:  # noqa: PTH123 - it is open already
            while not select.select([asked], [], [], 0.1)[0]:
                assert shell.poll() is None, "the recipe ended without running pytest"
            os.set_blocking(pipe, True)
            return asked.read().splitlines()

    def cases(self, recipe: Recipe) -> dict[str, list[str]]:
        """The test cases of the JUnit file that the system reads, each with what is wrong."""
        root = ET.parse(self.folder / recipe.junit).getroot()  # noqa: S314 - our own file
        return {
            each.attrib["name"]: [child.tag for child in each if child.tag in ("failure", "error")]
            for each in root.iter("testcase")
        }

    def kept(self, recipe: Recipe) -> list[str]:
        """The names of the files that the system keeps."""
        found: set[str] = set()
        for path in recipe.kept:
            there = self.folder / path.removesuffix("**")
            assert there.exists(), path
            found |= {each.name for each in ([there] if there.is_file() else there.rglob("*"))}
        return sorted(found)


@pytest.fixture
def job(suite: Suite) -> Job:
    """A CI job's workspace: the suite, its ini file and a baseline."""
    return Job(suite)


@pytest.mark.parametrize("name", RECIPES_BY_NAME)
def test_a_recipe_keeps_all_that_it_says(job: Job, name: str) -> None:
    recipe = RECIPES_BY_NAME[name]()
    assert job.run(recipe, *SIMULATED, *SMALL) == 0
    assert job.cases(recipe) == {
        each: [] for each in ["test_density[2]", *(f"comparison[2 {key}]" for key in KEYS)]
    }
    summary = (job.folder / recipe.summary).read_text(encoding="utf-8")
    assert "| 2 | 2/2 |" in summary
    assert "## Comparison: " in summary
    assert {"report.html", "results.json", "junit.xml"} <= {*job.kept(recipe)}


def test_a_release_that_lets_fewer_run_is_red_in_every_row(job: Job) -> None:
    """On demand only one level is run, so that a request does not wait for all."""
    recipe = prow("presubmits")
    recipe.script = recipe.script.replace("-k 100", "-k 2")
    job.suite.profile("kubevirt: {max_devices: 1}")
    more = ("--kvscale-levels=2,3", "--kvscale-repeat=2", "--kvscale-may-differ=node.devices")
    assert job.run(recipe, *SIMULATED, *more) == 1
    cases = job.cases(recipe)
    rows = [f"comparison[2 {key}]" for key in KEYS]
    assert cases == {each: ["failure"] for each in ["test_density[2]", "test_density[2-2]", *rows]}
    assert "❌ fail" in (job.folder / recipe.summary).read_text(encoding="utf-8")


Trouble = Callable[[Job, contextlib.ExitStack], tuple[str, ...]]


def no_cluster(job: Job, stack: contextlib.ExitStack) -> tuple[str, ...]:
    kubeconfig_for(job.folder, "https://127.0.0.1:1")
    return ()


def no_kubeconfig(job: Job, stack: contextlib.ExitStack) -> tuple[str, ...]:
    return ()


def simulated(job: Job, stack: contextlib.ExitStack) -> tuple[str, ...]:
    version = {"gitVersion": "v1.36.0", "simulated": {"kind": "sim", "profile": "p", "seed": 0}}
    kubeconfig_for(job.folder, stack.enter_context(api({"/version": version})))
    return ()


def no_baseline(job: Job, stack: contextlib.ExitStack) -> tuple[str, ...]:
    shutil.rmtree(job.folder / "baselines")
    return SIMULATED


def no_level(job: Job, stack: contextlib.ExitStack) -> tuple[str, ...]:
    return (*SIMULATED, "--kvscale-levels=3")


@pytest.mark.parametrize(
    ("recipe", "trouble", "said"),
    [
        (gitlab, no_cluster, "does not answer"),
        (jenkins, no_kubeconfig, "kubeconfig"),
        (github, simulated, "must be real"),
        (prow, simulated, "must be real"),
        (prow, no_baseline, "baselines does not exist"),
        (github, no_level, "has no run of level 3"),
    ],
)
def test_what_cannot_be_measured_or_compared_is_red(
    job: Job, recipe: Callable[[], Recipe], trouble: Trouble, said: str
) -> None:
    found = recipe()
    with contextlib.ExitStack() as stack:
        more = trouble(job, stack)
        assert job.run(found, *SMALL, *more) == pytest.ExitCode.USAGE_ERROR
    assert job.cases(found) == {"configuration": ["error"]}
    assert said in (job.folder / found.junit).read_text(encoding="utf-8")
    summary = (job.folder / found.summary).read_text(encoding="utf-8")
    assert "The run could not begin" in summary
    assert said in summary


def test_the_page_names_every_recipe_and_what_to_add_to_try_them() -> None:
    text = DOCUMENT.read_text(encoding="utf-8")
    for path in RECIPES.iterdir():
        assert f"(ci/{path.name})" in text
    for option in SIMULATED[::2]:
        assert option in text
