"""`python -m benchmarks.equal_runs [SEEDS]`: equal runs of the embedded cluster, for `error_rates`.

Runs `suites/density` at levels 50 and 100 with profile `upgrade-from`, once with each seed, and
keeps what a comparison judges in `benchmarks/data/equal-runs.json`: for each level and metric one
value a seed, null where a percentile was not reached. It takes about six seconds a seed.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

LEVELS = (50, 100)
PROFILE = "upgrade-from"
KEPT = Path(__file__).parent / "data" / "equal-runs.json"
SUITE = Path(__file__).parents[1] / "suites" / "density"


def main(seeds: int) -> None:
    """Run all seeds, one after the other, and write the file."""
    runs = [_run(seed) for seed in range(1, seeds + 1)]
    content = {
        "made": f"python -m benchmarks.equal_runs {seeds}",
        "profile": PROFILE,
        "seeds": [1, seeds],
        "levels": {
            str(level): {
                key: [run[level][key] for run in runs] for key in runs[0][level]
            }
            for level in LEVELS
        },
    }  # fmt: skip
    KEPT.parent.mkdir(exist_ok=True)
    KEPT.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def _run(seed: int) -> dict[int, dict[str, float | None]]:
    with tempfile.TemporaryDirectory() as folder:
        command = [
            sys.executable, "-m", "pytest", str(SUITE), "-q", "-p", "no:cacheprovider",
            "--kvscale-levels", ",".join(map(str, LEVELS)), "--kvscale-cluster", "sim",
            "--kvscale-sim-profile", PROFILE, "--kvscale-sim-seed", str(seed),
            "--kvscale-report-dir", folder,
        ]  # fmt: skip
        subprocess.run(command, check=False, stdout=subprocess.DEVNULL, cwd=folder)
        results = json.loads(Path(folder, "latest", "results.json").read_text(encoding="utf-8"))
    return {level["level"]: _metrics(level) for level in results["levels"]}


def _metrics(level: dict[str, Any]) -> dict[str, float | None]:
    kubevirt = {
        name: requests
        for name, requests in level["control_plane"]["requests_per_vmi"].items()
        if name.startswith("virt-")
    }
    return {
        "Running.p50": level["phases"]["Running"]["p50"],
        "Running.p95": level["phases"]["Running"]["p95"],
        "deletion.p95": level["deletion"]["p95"],
        "requests_per_vmi": round(sum(sum(each.values()) for each in kubevirt.values()), 6),
    }


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 150)
