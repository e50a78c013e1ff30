"""Level objects of the embedded cluster before and after six changes, made once and kept.

`python -m tests.judge.made_levels` makes them anew: level 20 with three seeds each, by the command
line that users have, so that they are what stands in `results.json`. What no attribution reads is
left out.
"""

from __future__ import annotations

import copy
import gzip
import json
import subprocess
import sys
import tempfile
from functools import cache
from pathlib import Path
from typing import Any

FILE = Path(__file__).parent.parent / "data" / "changed-levels-20.json.gz"
SEEDS = (1, 2, 3)
LEVEL = 20
_KEPT = (
    "level", "requested", "created", "running", "failures", "phases", "slowest", "deletion",
    "rates", "control_plane",
)  # fmt: skip
_SLOW_CONTROLLER = """
configuration:
  controllerConfiguration:
    restClient: {rateLimiter: {tokenBucketRateLimiter: {qps: 5, burst: 10}}}
"""
CHANGES = {
    "before": {},
    "slower launcher": {"--kvscale-sim-profile": "upgrade-slower"},
    "slower sandbox": {"profile": "times: {sandbox: {work: 2.6}}"},
    "slower deletion": {"profile": "times: {tear_down: 4}"},
    "fewer devices": {"profile": "kubevirt: {max_devices: 12}"},
    "slower controller": {"tune": _SLOW_CONTROLLER},
}
"""By what a run differs from those before: an option, or the text of a profile or settings."""


def levels(change: str) -> list[dict[str, Any]]:
    """The level objects of the three equal runs of one side; the caller's own to change."""
    found: list[dict[str, Any]] = copy.deepcopy(_all()[change])
    return found


@cache
def _all() -> dict[str, list[dict[str, Any]]]:
    with gzip.open(FILE, "rt", encoding="utf-8") as file:
        found: dict[str, list[dict[str, Any]]] = json.load(file)
    return found


def _make(change: dict[str, str], seed: int, folder: Path) -> dict[str, Any]:
    profile, tune = folder / "profile.yaml", folder / "tune.yaml"
    profile.write_text(f"extends: upgrade-from\n{change.get('profile', '')}\n", encoding="utf-8")
    tune.write_text(change.get("tune", ""), encoding="utf-8")
    options = {
        "--kvscale-cluster": "sim",
        "--kvscale-sim-profile": str(profile),
        "--kvscale-sim-seed": str(seed),
        "--kvscale-tune": str(tune) if "tune" in change else "none",
        "--kvscale-levels": str(LEVEL),
        "--kvscale-report-dir": str(folder / "reports"),
        **{name: value for name, value in change.items() if name.startswith("--")},
    }
    given = [text for pair in options.items() for text in pair]
    command = [sys.executable, "-m", "pytest", "suites/density", "-q", "--kvscale-force", *given]
    subprocess.run(command, stdout=subprocess.DEVNULL, check=False)
    results = json.loads((folder / "reports" / "latest" / "results.json").read_bytes())
    return {name: value for name, value in results["levels"][0].items() if name in _KEPT}


def main() -> None:
    """Make all of them, and write the file."""
    made: dict[str, list[dict[str, Any]]] = {}
    for name, change in CHANGES.items():
        for seed in SEEDS:
            with tempfile.TemporaryDirectory() as folder:
                made.setdefault(name, []).append(_make(change, seed, Path(folder)))
    content = json.dumps(made, separators=(",", ":")).encode()
    FILE.write_bytes(gzip.compress(content, mtime=0))


if __name__ == "__main__":
    main()
