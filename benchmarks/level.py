"""What a whole density run on the embedded cluster costs."""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.options import Options

ROOT = Path(__file__).parents[1]
LEVEL = 400


def measure(_: Options) -> None:
    """A density run, from the start of the process to its end."""
    with tempfile.TemporaryDirectory() as folder:
        _run(Path(folder))


def _run(folder: Path) -> None:
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
