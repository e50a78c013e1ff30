"""kubectl as users have it, against one standalone cluster."""

from __future__ import annotations

import concurrent.futures
import contextlib
import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from tests.programs import program
from tests.standalone import PATIENCE, Standalone

Json = dict[str, Any]


class Kubectl:
    """One version of kubectl, at work in a namespace of its own."""

    def __init__(self, version: str, cluster: Standalone, home: Path) -> None:
        self.version = version
        self.namespace = f"kubectl-{version.replace('.', '-')}"
        self.home = home
        self._environment = {
            "HOME": str(home), "PATH": os.environ["PATH"], "KUBE_EDITOR": "sed -i s/before/after/",
        }  # fmt: skip
        self._command = [
            program(f"kubectl-{version}"), "--kubeconfig", str(cluster.kubeconfig),
            "--cache-dir", str(home / "cache"), "--namespace", self.namespace,
        ]  # fmt: skip

    @property
    def minor(self) -> int:
        """Its minor version."""
        return int(self.version.partition(".")[2])

    def run(self, *arguments: str, text: str | None = None) -> subprocess.CompletedProcess[str]:
        """Run it to its end."""
        return subprocess.run(
            [*self._command, *arguments], input=text, capture_output=True, text=True,
            timeout=PATIENCE, check=False, env=self._environment,
        )  # fmt: skip

    def __call__(self, *arguments: str, text: str | None = None) -> str:
        """What it prints; it must succeed."""
        done = self.run(*arguments, text=text)
        assert done.returncode == 0, f"kubectl {' '.join(arguments)}: {done.stderr}{done.stdout}"
        return done.stdout

    def fails(self, *arguments: str, text: str | None = None) -> str:
        """What it complains of; it must fail."""
        done = self.run(*arguments, text=text)
        assert done.returncode != 0, f"kubectl {' '.join(arguments)}: {done.stdout}"
        return done.stderr

    def together(self, *commands: str) -> list[str]:
        """What several commands print, run at the same time; none has a space in an argument."""
        with concurrent.futures.ThreadPoolExecutor(4) as pool:
            return list(pool.map(lambda command: self(*command.split()), commands))

    def get(self, what: str, name: str) -> Json:
        """An object."""
        found: Json = json.loads(self("get", what, name, "-o", "json"))
        return found

    def create(self, *objects: Json) -> None:
        """Make objects."""
        items = {"apiVersion": "v1", "kind": "List", "items": list(objects)}
        self("create", "-f", "-", text=json.dumps(items))

    @contextlib.contextmanager
    def started(self, *arguments: str) -> Iterator[IO[str]]:
        """What it prints while it goes on; it is ended after that."""
        process = subprocess.Popen(
            [*self._command, *arguments], stdout=subprocess.PIPE, text=True,
            env=self._environment,
        )  # fmt: skip
        assert process.stdout is not None
        try:
            yield process.stdout
        finally:
            process.terminate()
            process.wait(PATIENCE)
            process.stdout.close()


def vmi(name: str, **labels: str) -> Json:
    """A VMI that starts in about a second."""
    return {
        "apiVersion": "kubevirt.io/v1",
        "kind": "VirtualMachineInstance",
        "metadata": {"name": name, "labels": labels},
        "spec": {
            "terminationGracePeriodSeconds": 0,
            "domain": {
                "devices": {},
                "resources": {"requests": {"cpu": "10m", "memory": "10Mi"}},
            },
        },
    }


def replica_set(name: str, replicas: int) -> Json:
    """A replica set of such VMIs."""
    template = vmi(name, set=name)
    return {
        "apiVersion": "kubevirt.io/v1",
        "kind": "VirtualMachineInstanceReplicaSet",
        "metadata": {"name": name},
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": {"set": name}},
            "template": {
                "metadata": {"labels": {"set": name}},
                "spec": template["spec"],
            },
        },
    }


def config_map(name: str, labels: Json | None = None, **data: str) -> Json:
    """A ConfigMap."""
    metadata = {"name": name, "labels": labels or {}}
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": data}
