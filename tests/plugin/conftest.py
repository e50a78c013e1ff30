"""A folder with a density suite, and pytest to run in it."""

from __future__ import annotations

import importlib
import json
import pkgutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import aiohttp.web  # noqa: F401
import kubernetes.aio.client  # noqa: F401
import matplotlib.backends.backend_svg
import matplotlib.figure  # noqa: F401
import pytest
import trustme  # noqa: F401

import pytest_kvscale
from tests.conftest import DATA

# pytester forgets what an inner run imported; but numpy cannot be imported twice, and half of our
# modules imported anew would not know the objects of the other half.
for _module in pkgutil.walk_packages(pytest_kvscale.__path__, "pytest_kvscale."):
    if not _module.name.endswith("__main__"):
        importlib.import_module(_module.name)

Json = dict[str, Any]

SUITE = """
import pytest
import trustme  # noqa: F401

@pytest.mark.density
def test_density(density_level, density_run, slo):
    result = density_run(density_level)
    slo.check(result)
"""
QUICK = "times: {sandbox: {work: 2}, launcher: {work: 3}, guest_demand: 0}\n"
"""A node that does not slow down, so that levels are quick to compute."""


class Suite:
    """A folder with a density suite."""

    def __init__(self, pytester: pytest.Pytester) -> None:
        self.pytester = pytester
        self.path = pytester.path
        pytester.makepyfile(test_density=SUITE)

    def run(self, *arguments: str, workers: int = 0) -> pytest.RunResult:
        """Run pytest here, in this process or with so many workers."""
        spread = ["-n", str(workers)] if workers else ["-p", "no:xdist"]
        # hypothesis' plugin takes half a second to import, in every run.
        return self.pytester.runpytest(*spread, "-p", "no:hypothesispytest", *arguments)

    def quick(self, *arguments: str, levels: str = "3", workers: int = 0) -> pytest.RunResult:
        """Run small levels on a quick node."""
        self.profile()
        return self.run(
            "--kvscale-sim-profile=quick.yaml", f"--kvscale-levels={levels}", *arguments,
            workers=workers,
        )  # fmt: skip

    def profile(self, more: str = "") -> None:
        """Write the profile of the quick node, with more YAML."""
        text = f"extends: blog-2021\n{QUICK}{more}"
        (self.path / "quick.yaml").write_text(text, encoding="utf-8")

    @property
    def latest(self) -> Path:
        """The newest run's folder."""
        return (self.path / "reports" / "latest").resolve()

    @property
    def results(self) -> Json:
        """The newest run's results."""
        found: Json = json.loads((self.latest / "results.json").read_text(encoding="utf-8"))
        return found

    def vmis(self, level: int) -> list[Json]:
        """The newest run's VMIs of a level."""
        text = (self.latest / f"{level}-vmis.jsonl").read_text(encoding="utf-8")
        return [json.loads(line) for line in text.splitlines()]


@pytest.fixture
def suite(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> Suite:
    """A folder with a density suite, where no kubeconfig is to be found."""
    # In CI pytest prints the whole message of a failure twice.
    for name in ("KUBECONFIG", "KUBERNETES_SERVICE_HOST", "CI", "BUILD_NUMBER"):
        monkeypatch.delenv(name, raising=False)
    return Suite(pytester)


@pytest.fixture
def recording() -> Callable[[str], Path]:
    """A recording of a real control plane."""
    return lambda name: DATA / f"{name}.jsonl.gz"
