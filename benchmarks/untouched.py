"""What our plugin costs a pytest run that has no density test."""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.options import Options

ROUNDS = 9


def measure(options: Options) -> None:
    """A run of one other test, with the plugin and with it blocked, in turns."""
    times: dict[str, list[float]] = {"with": [], "without": []}
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "test_other.py").write_text("def test_other(): pass\n", encoding="utf-8")
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
