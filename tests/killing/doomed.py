"""Runs that come to a bad end on purpose, on a cluster of its own process, and what is left."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import urllib.request
from pathlib import Path
from typing import Any

from tests.plugin.test_ending import SUITE
from tests.standalone import Standalone

Json = dict[str, Any]
ROOT = Path(__file__).parents[2]
PATIENCE = 300
STEPS = 20
"""Moments around the notes of a run of one level that tunes: before and after each of ten."""
DOOM = '''
"""Does to the run what DOOM says, at a note of its journal or after so many seconds."""

import asyncio
import os
import signal
import threading
import urllib.request

from pytest_kvscale.cluster import lease
from pytest_kvscale.cluster.journal import Journal

# A dead run's turn must not take a minute to end.
lease.DURATION, lease.RENEW_EVERY, lease.GIVE_UP_AFTER, lease.LOOK_EVERY = 3.0, 0.7, 2.0, 0.3
MODE, _, AT = os.environ.get("DOOM", "none:0").partition(":")
URL, COUNT = os.environ.get("DOOM_URL", ""), [0]


def strike():
    me = os.getpid()
    if MODE in ("kill", "time"):
        os.kill(me, signal.SIGKILL)
    elif MODE in ("interrupt", "interrupt-twice"):
        os.kill(me, signal.SIGINT)
        if MODE == "interrupt-twice":
            threading.Timer(0.2, os.kill, (me, signal.SIGINT)).start()
    elif MODE == "unreachable":
        fault = b'{"kind": "restart", "seconds": 1.5}'
        request = urllib.request.Request(URL + "/_sim/faults", data=fault,
                                         headers={"Content-Type": "application/json"})
        threading.Thread(target=lambda: urllib.request.urlopen(request).close()).start()


def count():
    COUNT[0] += 1
    if MODE not in ("time", "none") and COUNT[0] == int(AT):
        strike()


def around(note):
    async def wrapped(self, **parts):
        count()
        await note(self, **parts)
        count()
    return wrapped


Journal.before, Journal.after = around(Journal.before), around(Journal.after)
if MODE == "time":
    threading.Timer(float(AT), strike).start()
'''


class Ground:
    """A cluster, a machine's state, and runs on it."""

    def __init__(self, folder: Path, cluster: Standalone) -> None:
        self.folder = folder
        self.cluster = cluster
        self.number = 0
        (folder / "doom.py").write_text(DOOM, encoding="utf-8")
        text = SUITE.read_text(encoding="utf-8")
        (folder / "test_density.py").write_text(text, encoding="utf-8")

    def _environment(self, doom: str, machine: str) -> dict[str, str]:
        kept = {key: value for key, value in os.environ.items()
                if not key.startswith(("CI", "PYTEST"))}  # fmt: skip
        return kept | {
            "KUBECONFIG": str(self.cluster.kubeconfig), "DOOM": doom,
            "DOOM_URL": self.cluster.url, "PYTHONPATH": f"{self.folder}{os.pathsep}{ROOT}",
            "XDG_STATE_HOME": str(self.folder / machine),
        }  # fmt: skip

    def run(self, doom: str = "none:0", *arguments: str) -> tuple[int, str]:
        """A run of one level that tunes; exit code and output."""
        return self._end(self._run(doom, *arguments))

    def run_two(self) -> list[tuple[int, str]]:
        """Two runs at once."""
        return [self._end(each) for each in [self._run("none:0"), self._run("none:0")]]

    def _run(self, doom: str, *arguments: str) -> subprocess.Popen[str]:
        return self._program(
            ["-m", "pytest", "-p", "doom", "-p", "no:hypothesispytest", "-p", "no:cacheprovider",
             "-p", "no:html", "--kvscale-allow-simulated", "--kvscale-cooldown=0",
             "--kvscale-tune=density", "--kvscale-levels=3", "--kvscale-set=grace=1",
             *arguments],
            doom, "here",
        )  # fmt: skip

    def recover(self, machine: str = "here") -> tuple[int, str]:
        """Undo what is left, from a machine."""
        program = (
            "import doom, sys; from pytest_kvscale.__main__ import main; sys.exit(main("
            "['recover', '--kvscale-allow-simulated']))"
        )
        return self._end(self._program(["-c", program], "none:0", machine))

    def _program(self, arguments: list[str], doom: str, machine: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, *arguments], cwd=self.folder, text=True,
            env=self._environment(doom, machine), stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT, start_new_session=True,
        )  # fmt: skip

    @staticmethod
    def _end(process: subprocess.Popen[str]) -> tuple[int, str]:
        output, _ = process.communicate(timeout=PATIENCE)
        return process.returncode, output

    # What is there --------------------------------------------------------------------------

    def get(self, path: str) -> Json:
        """What the API answers."""
        with urllib.request.urlopen(self.cluster.url + path, timeout=60) as answer:  # noqa: S310
            found: Json = json.loads(answer.read())
        return found

    def meddle(self) -> None:
        """Somebody else sets something of KubeVirt's, another value each time."""
        self.number += 1
        migrations = {"parallelMigrationsPerCluster": self.number}
        change = {"spec": {"configuration": {"migrations": migrations}}}
        request = urllib.request.Request(  # noqa: S310 - our own server
            self.cluster.url + "/apis/kubevirt.io/v1/namespaces/kubevirt/kubevirts/kubevirt",
            data=json.dumps(change).encode(), method="PATCH",
            headers={"Content-Type": "application/merge-patch+json"},
        )  # fmt: skip
        with urllib.request.urlopen(request, timeout=60):  # noqa: S310
            pass

    @property
    def spec(self) -> str:
        """The KubeVirt CR's spec, as text."""
        items = self.get("/apis/kubevirt.io/v1/kubevirts")["items"]
        return json.dumps(items[0]["spec"])

    @property
    def undisturbed(self) -> str:
        """The spec as it is to be when nothing of ours is left."""
        migrations = {"parallelMigrationsPerCluster": self.number}
        theirs = {"migrations": migrations} if self.number else {}
        return json.dumps({"configuration": theirs})

    def left(self) -> list[str]:
        """VMIs, pods, namespaces and journals of runs."""
        label = "?labelSelector=kvscale.io%2Frun"
        paths = [f"/apis/kubevirt.io/v1/virtualmachineinstances{label}", f"/api/v1/pods{label}",
                 f"/api/v1/namespaces{label}",
                 "/api/v1/configmaps?labelSelector=kvscale.io%2Fjournal"]  # fmt: skip
        return [each["metadata"]["name"] for path in paths for each in self.get(path)["items"]]


def undone_by_the_next(ground: Ground, machine: str) -> None:
    """Somebody sets something; `recover` undoes what is left, and no more."""
    ground.meddle()
    code, output = ground.recover(machine)
    assert code == 0, output
    assert (ground.left(), ground.spec) == ([], ground.undisturbed), (
        ground.left(),
        ground.spec,
        output,
    )
