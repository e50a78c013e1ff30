"""How true the harness's figures are: beside the embedded cluster's own commits, in real time.

The cluster runs in a process of its own and notes when it wrote each phase of each VMI; both
processes read one clock (CLOCK_MONOTONIC), so the times can be compared as they are.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.options import Options
from pytest_kvscale.cluster import choose, facts
from pytest_kvscale.cluster.choose import Connection
from pytest_kvscale.cluster.templates import Place, Templates
from pytest_kvscale.density import LevelPlan, LevelRun
from pytest_kvscale.measure.figures import Figures
from pytest_kvscale.measure.percentiles import nearest_rank
from pytest_kvscale.measure.timeline import PHASES
from pytest_kvscale.options import Settings
from pytest_kvscale.session import new_run_id

LEVEL = 400
WANTED = 0.020
"""Seconds that p95 may be from the truth."""
PROFILE = "extends: fast\nnode: {memory: 512Gi, cpu: 200, max_pods: 1000, pod_network_prefix: 22}\n"
PATIENCE = 1800.0


class Never:
    """A turn that is not lost."""

    def __init__(self) -> None:
        self.lost: asyncio.Future[str] = asyncio.get_running_loop().create_future()


def measure(options: Options) -> None:
    """Print p95 by the harness and by the commits, for each phase, and how late watches told."""
    del options  # Only a cluster of our own has a log of its commits.
    with tempfile.TemporaryDirectory() as folder:
        profile, kubeconfig, log = (Path(folder, each) for each in ("p.yaml", "kc.yaml", "log"))
        profile.write_text(PROFILE, encoding="utf-8")
        command = [sys.executable, "-m", "benchmarks.truth", str(log),
                   "--profile", str(profile), "--kubeconfig", str(kubeconfig)]  # fmt: skip
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None  # noqa: S101 - it was asked for
            process.stdout.readline()
            try:
                figures = _level(kubeconfig)
            finally:
                process.terminate()
        _print(figures, json.loads(log.read_text(encoding="utf-8")))


def _level(kubeconfig: Path) -> Figures:
    settings = Settings(cluster="kube", kubeconfig=kubeconfig, allow_simulated=True)
    connection = choose.connect(settings)
    try:
        return connection.run(_run(connection))
    finally:
        connection.close()


async def _run(connection: Connection) -> Figures:
    templates = Templates((), {})
    found = await facts.gather(connection.client, None, {}, templates)
    run = f"truth-{new_run_id()[-6:]}"
    place = Place(run, f"kvscale-{run}", found.node["name"], dict(found.selector))
    plan = LevelPlan(
        level=LEVEL, place=place, objects=templates.level(LEVEL, place), qps=20, burst=20,
        timeout=PATIENCE, stall=PATIENCE, delete_timeout=PATIENCE,
    )  # fmt: skip
    running = LevelRun(connection.client, plan, Never())
    await running.run()
    figures = running.figures()
    assert figures.running == LEVEL, running.problem or running.ended  # noqa: S101
    return figures


def _print(figures: Figures, commits: dict[str, dict[str, float]]) -> None:
    print(f"{LEVEL} VMIs in real time, the harness beside the cluster's commits")
    for phase in PHASES:
        written = sorted(
            commits[each.name][phase] - (each.sent or 0.0) for each in figures.timelines
        )
        late = sorted(each.phases[phase] - commits[each.name][phase] for each in figures.timelines)
        truth, ours = nearest_rank(written, LEVEL, 95) or 0.0, figures.phases[phase]["p95"] or 0.0
        delay = nearest_rank(late, LEVEL, 99) or 0.0
        off, told = 1000 * abs(ours - truth), 1000 * delay
        print(f"  {phase:<11} p95 {ours:8.3f} s, truth {truth:8.3f} s, off by {off:5.1f} ms; "
              f"watches told after {told:5.1f} ms (p99)")  # fmt: skip
    print(f"  (wanted: off by at most {1000 * WANTED:.0f} ms)")


def serve(log: Path, arguments: list[str]) -> int:
    """Be the cluster, and write down when each phase was committed."""
    from pytest_kvscale.sim import __main__ as standalone
    from pytest_kvscale.sim import cluster, resources
    from pytest_kvscale.sim.store import Event

    commits: dict[str, dict[str, float]] = {}

    class Logged(cluster.EmbeddedCluster):
        async def start(self, *given: object, **named: object) -> str:
            self.store.listen(resources.VMIS, note)
            return await super().start(*given, **named)  # type: ignore[arg-type]

    def note(event: Event) -> None:
        obj = event.stored.obj
        phase = (obj.get("status") or {}).get("phase")
        if phase:
            commits.setdefault(obj["metadata"]["name"], {}).setdefault(phase, time.monotonic())

    vars(standalone)["EmbeddedCluster"] = Logged
    code = standalone.main(arguments)
    log.write_text(json.dumps(commits), encoding="utf-8")
    return code


if __name__ == "__main__":
    sys.exit(serve(Path(sys.argv[1]), sys.argv[2:]))
