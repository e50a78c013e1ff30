"""The suite on a cluster that asks who may do what, with the roles of `deploy/rbac.yaml` only."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cluster.test_permissions import BESIDE, FILE, WAYS
from tests.plugin.test_ending import SUITE
from tests.standalone import PATIENCE, Standalone, running

TOKENS = 'root-token,root,1,"system:masters"\nann-token,ann,2\n'


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Standalone]:
    """A cluster that lets in its administrator and ann, whom the roles are for."""
    folder = tmp_path_factory.mktemp("guarded")
    tokens = folder / "tokens.csv"
    tokens.write_text(TOKENS, encoding="utf-8")
    with running(folder, "fast", "--tls", "--tokens", str(tokens)) as cluster:
        cluster.kubectl("create", "namespace", "density")
        cluster.kubectl("apply", "-f", str(FILE))
        yield cluster


def bind(cluster: Standalone, names: tuple[str, ...]) -> None:
    """Give ann these roles."""
    for name in names:
        namespace = {"kvscale-own-namespace": "density", "kvscale-system": "kvscale-system"}
        role = ("--role", name, "-n", namespace[name]) if name in namespace else (
            "--clusterrole", name,
        )  # fmt: skip
        kind = "rolebinding" if name in namespace else "clusterrolebinding"
        text = cluster.kubectl("create", kind, name, *role, "--user", "ann", "--dry-run=client",
                               "-o", "json")  # fmt: skip
        cluster.kubectl("apply", "-f", "-", text=text)


def suite(cluster: Standalone, folder: Path, *arguments: str) -> tuple[int, str]:
    """Run a small level as ann; exit code and output."""
    config = folder / "ann.yaml"
    text = cluster.kubeconfig.read_text(encoding="utf-8").replace("root-token", "ann-token")
    config.write_text(text, encoding="utf-8")
    (folder / SUITE.name).write_text(SUITE.read_text(encoding="utf-8"), encoding="utf-8")
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("CI", "PYTEST"))}
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "no:hypothesispytest", "-p", "no:cacheprovider",
         "-p", "no:html", "--kvscale-allow-simulated", "--kvscale-cooldown=0",
         "--kvscale-levels=2", "--kvscale-set=grace=1", *arguments],
        cwd=folder, env={**kept, "KUBECONFIG": str(config)}, text=True, timeout=PATIENCE,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False,
    )  # fmt: skip
    return done.returncode, done.stdout


def test_without_roles_all_that_is_missing_is_told(guarded: Standalone, tmp_path: Path) -> None:
    code, output = suite(guarded, tmp_path)
    assert code == 4, output
    for each in ("list nodes", "create namespaces", "list kubevirts.kubevirt.io"):
        assert each in output
    assert "deploy/rbac.yaml" in output


@pytest.mark.parametrize(
    ("way", "arguments"),
    [("own", ["--kvscale-namespace=density"]), ("tuning", ["--kvscale-tune=density"])],
)
def test_the_suite_passes_with_its_roles(
    guarded: Standalone, tmp_path: Path, way: str, arguments: list[str]
) -> None:
    bind(guarded, (*WAYS[way][1], *BESIDE))
    code, output = suite(guarded, tmp_path, *arguments)
    assert code == 0, output
    assert "note: " not in output
    results = json.loads(
        (tmp_path / "reports" / "latest" / "results.json").read_text(encoding="utf-8")
    )
    (level,) = results["levels"]
    assert (level["verdict"], level["deleted"]) == ("pass", 2)
    assert len(results["cluster"]["tuning"]["changes"]) == (10 if way == "tuning" else 0)
    assert "density" in guarded.kubectl("get", "namespaces", "-o", "name")
