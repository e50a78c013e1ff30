"""The embedded cluster in a process of its own, at the wall's pace."""

from __future__ import annotations

import contextlib
import json
import re
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.programs import program

COMMAND = [sys.executable, "-m", "pytest_kvscale.sim"]
PATIENCE = 60


class Standalone:
    """A running cluster of its own process."""

    def __init__(self, process: subprocess.Popen[str], url: str, kubeconfig: Path) -> None:
        self.process = process
        self.url = url
        self.kubeconfig = kubeconfig

    def kubectl(self, *arguments: str, text: str | None = None) -> str:
        """What kubectl prints."""
        done = subprocess.run(
            [program("kubectl"), "--kubeconfig", str(self.kubeconfig), *arguments],
            input=text, capture_output=True, text=True, timeout=PATIENCE, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        return done.stdout

    def post(self, path: str, body: Any) -> None:
        """Create something."""
        request = urllib.request.Request(  # noqa: S310 - our own server
            self.url + path,
            data=json.dumps(body).encode(),
            headers={"Content-Type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=PATIENCE) as answer:  # noqa: S310
            assert answer.status == 201

    def watches(self, agent: str, plural: str) -> int:
        """How many watches clients whose name begins like this have opened, of a kind."""
        with urllib.request.urlopen(f"{self.url}/_sim/served", timeout=PATIENCE) as answer:  # noqa: S310
            rows = json.load(answer)["rows"]
        return sum(
            row["count"]
            for row in rows
            if row["agent"].startswith(agent)
            and (row["verb"], row["resource"], row["code"]) == ("watch", plural, 200)
        )


@contextlib.contextmanager
def running(folder: Path, profile: str = "fast", *more: str) -> Iterator[Standalone]:
    """A cluster of this profile; its kubeconfig lies in the folder."""
    kubeconfig = folder / "kubeconfig.yaml"
    process = subprocess.Popen(
        [*COMMAND, "--profile", profile, "--kubeconfig", str(kubeconfig), *more],
        stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stdout is not None
    line = process.stdout.readline()
    found = re.fullmatch(r"serving an embedded cluster \(SIMULATED, .+\) on (\S+)\n", line)
    assert found, line
    yield Standalone(process, found[1], kubeconfig)
    process.send_signal(signal.SIGTERM)
    assert process.wait(PATIENCE) == 0
    process.stdout.close()
