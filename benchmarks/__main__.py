"""`python -m benchmarks`: what a run on the embedded cluster costs, and our plugin other runs.

Every figure is measured in processes of its own; times are the machine's. Ratios of one session
can be compared, absolute figures only on one machine.
"""

from __future__ import annotations

import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).parents[1]
ROUNDS = 9
LEVEL = 400


def main() -> None:
    """Print all figures."""
    with tempfile.TemporaryDirectory() as folder:
        run_a_level(Path(folder))
    with tempfile.TemporaryDirectory() as folder:
        run_without_us(Path(folder))


def run_a_level(folder: Path) -> None:
    """A density run, from the start of the process to its end."""
    command = [
        sys.executable, "-m", "pytest", str(ROOT / "suites" / "density"), "-q", "-k", str(LEVEL),
        "-p", "no:cacheprovider", "-p", "no:hypothesispytest",
        "--kvscale-cluster=sim", f"--kvscale-report-dir={folder}",
    ]  # fmt: skip
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    begun = time.perf_counter()
    subprocess.run(command, check=True, capture_output=True, cwd=ROOT)
    wall = time.perf_counter() - begun
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = used.ru_utime + used.ru_stime - before.ru_utime - before.ru_stime
    results = json.loads((folder / "latest" / "results.json").read_text(encoding="utf-8"))
    (level,) = results["levels"]
    harness = level["harness"]
    requests = sum(harness["api_requests"].values())
    cluster_seconds = level["phases"]["Running"]["max"] + level["deletion"]["max"]
    print(f"{LEVEL} VMIs on the embedded cluster ({results['run']['profile']}), {level['verdict']}")
    print(f"  wall                  {wall:8.1f} s, of {cluster_seconds:.0f} s of cluster time")
    print(f"  CPU, whole process    {cpu:8.1f} s, {1000 * cpu / LEVEL:.1f} ms a VMI")
    print(f"  CPU, the level        {harness['cpu_s']:8.1f} s, "
          f"{1000 * harness['cpu_s'] / LEVEL:.1f} ms a VMI (harness and cluster)")  # fmt: skip
    print(f"  API requests          {requests:8d}, {requests / LEVEL:.3f} a VMI")
    print(f"  peak memory           {used.ru_maxrss / 1024:8.0f} MiB")


def run_without_us(folder: Path) -> None:
    """A pytest run of other tests, with the plugin and with it blocked, in turns."""
    (folder / "test_other.py").write_text("def test_other(): pass\n", encoding="utf-8")
    times: dict[str, list[float]] = {"with": [], "without": []}
    for _ in range(ROUNDS):
        for name, more in (("with", []), ("without", ["-p", "no:kvscale"])):
            command = [sys.executable, "-m", "pytest", "-q", "-p", "no:hypothesispytest", *more]
            begun = time.perf_counter()
            subprocess.run(command, check=True, capture_output=True, cwd=folder, env=os.environ)
            times[name].append(time.perf_counter() - begun)
    with_us, without = (statistics.median(times[name]) for name in ("with", "without"))
    print(f"a run of one other test, median of {ROUNDS}")
    print(f"  with the plugin       {1000 * with_us:8.0f} ms")
    print(f"  without it            {1000 * without:8.0f} ms")
    print(f"  difference            {1000 * (with_us - without):8.0f} ms, "
          f"{100 * (with_us / without - 1):.0f} %")  # fmt: skip


if __name__ == "__main__":
    main()
