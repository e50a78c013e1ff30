"""However a run ends, what it created is removed; on a cluster of its own process, in real time."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
import xml.etree.ElementTree as ET
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from pytest_kvscale.cluster.templates import DEFAULT
from tests.standalone import PATIENCE, Standalone, running

SUITE = Path(__file__).parents[2] / "suites" / "density" / "test_density.py"
SLOW = 60
"""Seconds a deletion takes: longer than xdist and execnet wait for a worker (10 and 15 s)."""


@contextlib.contextmanager
def slow_cluster(folder: Path) -> Iterator[Standalone]:
    """A cluster on which VMIs of levels, not canaries, take long to go."""
    folder.mkdir()
    profile = folder / "slow.yaml"
    profile.write_text("extends: fast\ntimes: {guest_ignores_shutdown: true}\n", encoding="utf-8")
    with running(folder, str(profile)) as cluster:
        yield cluster


@pytest.fixture
def slow(tmp_path: Path) -> Iterator[Standalone]:
    """Such a cluster."""
    with slow_cluster(tmp_path / "cluster") as cluster:
        yield cluster


class Started:
    """A pytest run in a process group of its own, as a terminal starts it."""

    def __init__(self, folder: Path, cluster: Standalone, *arguments: str) -> None:
        self.folder = folder
        for source in (SUITE, DEFAULT):
            text = source.read_text(encoding="utf-8")
            text = text.replace("{{ grace ", "{{ 1 if name.startswith('canary') else grace ")
            (folder / source.name).write_text(text, encoding="utf-8")
        environment = {
            key: value for key, value in os.environ.items() if not key.startswith(("CI", "PYTEST"))
        }
        environment |= {
            "KUBECONFIG": str(cluster.kubeconfig), "PYTHONUNBUFFERED": "1",
            "XDG_STATE_HOME": str(folder / "state"),
        }  # fmt: skip
        self.process = subprocess.Popen(
            [sys.executable, "-m", "pytest", "-p", "no:hypothesispytest", "-p", "no:cacheprovider",
             "--kvscale-allow-simulated", "--kvscale-cooldown=0",
             f"--kvscale-template={DEFAULT.name}", *arguments],
            cwd=folder, env=environment, text=True, start_new_session=True,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip

    def signal(self) -> None:
        """Ctrl-C: the terminal sends it to all processes of the group."""
        os.killpg(self.process.pid, signal.SIGINT)

    def signal_alone(self, number: int) -> None:
        """What CI systems do: only the process they started is told."""
        os.kill(self.process.pid, number)

    def end(self) -> tuple[int, str]:
        """Exit code and output."""
        output, _ = self.process.communicate(timeout=3 * PATIENCE)
        return self.process.returncode, output

    def under_way(self) -> Any:
        """What the run's journal says it has under way."""
        for path in self.folder.glob("state/pytest-kvscale/*/*.json"):
            with contextlib.suppress(FileNotFoundError, ValueError):
                return json.loads(path.read_text(encoding="utf-8"))["objects"]["what"]
        return None

    @property
    def level(self) -> Any:
        """The only level of the results."""
        path = self.folder / "reports" / "latest" / "results.json"
        (level,) = json.loads(path.read_text(encoding="utf-8"))["levels"]
        return level

    def properties(self) -> dict[str, str]:
        """The properties in the JUnit file."""
        root = ET.parse(self.folder / "reports" / "latest" / "junit.xml")  # noqa: S314 - ours
        return {each.attrib["name"]: each.attrib["value"] for each in root.iter("property")}


def until(true: Callable[[], object]) -> None:
    """Wait for something other processes do."""
    deadline = time.monotonic() + PATIENCE
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def left(cluster: Standalone) -> list[str]:
    """VMIs, pods and namespaces of runs."""
    found = json.loads(cluster.kubectl("get", "vmi,pods,ns", "-A", "-o", "json"))["items"]
    labelled = [each for each in found if "kvscale.io/run" in each["metadata"].get("labels", {})]
    return [each["metadata"]["name"] for each in labelled]


def vmis(cluster: Standalone) -> int:
    """How many VMIs of levels run."""
    lines = cluster.kubectl("get", "vmi", "-A", "--no-headers").splitlines()
    return sum("density-" in line and "Running" in line for line in lines)


WAYS: dict[str, tuple[int, Callable[[Started], None]]] = {
    "ctrl-c": (0, Started.signal),
    "ctrl-c with workers": (2, Started.signal),
    "SIGTERM": (0, lambda run: run.signal_alone(signal.SIGTERM)),
    "SIGINT for the controller only": (2, lambda run: run.signal_alone(signal.SIGINT)),
}


def test_the_first_interrupt_deletes_waits_and_writes(tmp_path: Path) -> None:
    """Alone and with workers; side by side, since each waits for a minute and does nothing."""
    with contextlib.ExitStack() as stack:
        begun: dict[str, tuple[Standalone, Started]] = {}
        for name, (workers, _) in WAYS.items():
            folder = tmp_path / str(len(begun))
            cluster = stack.enter_context(slow_cluster(folder))
            spread = ["-n", str(workers)] if workers else []
            begun[name] = cluster, Started(
                folder, cluster, "--kvscale-levels=4", "--kvscale-qps=0.001",
                "--kvscale-burst=3", *spread, f"--kvscale-set=grace={SLOW}",
            )  # fmt: skip
        for name, (cluster, started) in begun.items():
            until(partial(has_created, started, cluster, 3))
            WAYS[name][1](started)
        for cluster, started in begun.values():
            check_that_it_was_undone(cluster, started)


def has_created(started: Started, cluster: Standalone, number: int) -> bool:
    return started.under_way() == "level 4" and vmis(cluster) == number


def check_that_it_was_undone(cluster: Standalone, started: Started) -> None:
    code, output = started.end()
    assert code == 2, output
    assert "Traceback" not in output
    level = started.level
    assert level["reasons"][0] == "the level was interrupted"
    assert (level["created"], level["deleted"], level["left_behind"]) == (3, 3, 0)
    assert level["deletion"]["max"] >= SLOW
    assert started.properties()["kvscale.4.verdict"] == "fail"
    assert "fail" in output.rpartition("= kvscale =")[2]
    assert left(cluster) == []
    assert not list(started.folder.glob("reports/*/.*"))
    assert not list(started.folder.glob("state/pytest-kvscale/*/*"))


@pytest.mark.parametrize("workers", [0, 2])
def test_a_second_ctrl_c_says_what_is_left_and_how_to_remove_it(
    slow: Standalone, tmp_path: Path, workers: int
) -> None:
    spread = ["-n", str(workers)] if workers else []
    started = Started(tmp_path, slow, "--kvscale-levels=2", f"--kvscale-set=grace={SLOW}", *spread)
    until(lambda: started.under_way() == "level 2" and vmis(slow) == 2)
    started.signal()
    until(lambda: "deletionTimestamp" in slow.kubectl("get", "vmi", "-A", "-o", "json"))
    started.signal()
    code, output = started.end()
    assert code == 2, output
    assert "Traceback" not in output
    if not workers:
        assert "vmi density-2-0000 is still there: kubectl get vmi density-2-0000 -n" in output
    run = (tmp_path / "reports" / "latest").resolve().name
    command = f"kubectl delete vm,vmirs,vmi,pod -n kvscale-{run} -l kvscale.io/run={run}"
    assert command in " ".join(output.split())
    assert f"kvscale-{run}" in left(slow)
    slow.kubectl(*command.split()[1:], "--wait=false")
    slow.kubectl("delete", "namespace", f"kvscale-{run}", "--wait=false")


def test_what_a_killed_worker_left_is_removed_by_the_controller(
    slow: Standalone, tmp_path: Path
) -> None:
    started = Started(tmp_path, slow, "--kvscale-levels=3", "-n1", "--kvscale-set=grace=1",
                      "--max-worker-restart=0")  # fmt: skip
    until(lambda: started.under_way() == "level 3" and vmis(slow) == 3)
    children = Path(f"/proc/{started.process.pid}/task/{started.process.pid}/children")
    (worker,) = children.read_text(encoding="ascii").split()
    os.kill(int(worker), signal.SIGKILL)
    code, output = started.end()
    assert code in (1, 2), output
    assert "undid what was under way: removed 4 objects (" in output
    assert left(slow) == []


def test_two_runs_take_turns(slow: Standalone, tmp_path: Path) -> None:
    """The second one waits for the first and says so, or fails, as it was told."""
    folders = [tmp_path / name for name in ("first", "second", "third")]
    for folder in folders:
        folder.mkdir()
    level = ("--kvscale-levels=2", "--kvscale-set=grace=1")
    first = Started(folders[0], slow, *level, "--kvscale-qps=0.001", "--kvscale-burst=1")
    until(lambda: first.under_way() == "level 2")
    (name,) = [each.name for each in (folders[0] / "reports").iterdir() if each.name != "latest"]
    second = Started(folders[1], slow, *level, "-n1")
    assert second.process.stdout is not None
    until(lambda: f"kvscale: waiting for run {name} (" in second.process.stdout.readline())  # type: ignore[union-attr]
    code, output = Started(folders[2], slow, *level, "--kvscale-no-wait").end()
    assert code == 4, output
    assert f"is in use by run {name} (" in output
    first.signal()
    assert first.end()[0] == 2
    code, output = second.end()
    assert code == 0, output
    times = [
        json.loads((each / "reports" / "latest" / "results.json").read_text(encoding="utf-8"))
        for each in folders[:2]
    ]
    assert times[0]["run"]["finished"] <= times[1]["run"]["started"]
