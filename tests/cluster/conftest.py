"""A cluster that asks who is there, in this process at the wall's pace, and ways to reach it."""

from __future__ import annotations

import base64
import dataclasses
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from aiohttp import web

from pytest_kvscale.cluster import choose
from pytest_kvscale.cluster.choose import Connection
from pytest_kvscale.cluster.clock import RealClock
from pytest_kvscale.options import Settings
from pytest_kvscale.sim import profile
from pytest_kvscale.sim.authentication import Gate, User
from pytest_kvscale.sim.cluster import EmbeddedCluster
from pytest_kvscale.sim.tls import Authority
from tests.cluster import trouble
from tests.cluster.trouble import Outcome

Json = dict[str, Any]


@dataclasses.dataclass(frozen=True, repr=False)
class Register(Gate):
    """A gate that keeps a list of who came in, and of all headers that were sent."""

    seen: list[User] = dataclasses.field(default_factory=list)
    headers: list[Any] = dataclasses.field(default_factory=list)

    def admit(self, request: web.BaseRequest) -> User:
        """Write down who it is."""
        self.headers.append(request.headers)
        user = super().admit(request)
        self.seen.append(user)
        return user


class Secured:
    """A cluster with TLS and tokens; `tokens` may be changed at any time."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.tokens = {"first-token": User("alice", "1", ("devs",))}
        self.authority = Authority()
        self.gate = Register(self.tokens, self.authority)
        self.clock = RealClock()
        self.cluster = self.clock.run(self._make(profile.load("fast")))
        self.url = self.clock.run(self.cluster.start())

    async def _make(self, chosen: profile.Profile) -> EmbeddedCluster:
        return EmbeddedCluster(chosen, "fast", 0, gate=self.gate)

    def close(self) -> None:
        """Stop serving."""
        self.clock.run(self.cluster.stop())
        self.clock.close()

    def kubeconfig(self, user: Json | None = None, cluster: Json | None = None) -> Path:
        """Write a kubeconfig for a user, with more for the cluster's entry."""
        entry = {"server": self.url, **self.gate.cluster_entry(), **(cluster or {})}
        return write_kubeconfig(self.folder / "config", user or {}, entry)

    def connect(self, kubeconfig: Path, **environment: str) -> Connection:
        """Connect by a kubeconfig."""
        settings = Settings(kubeconfig=kubeconfig, allow_simulated=True)
        return choose.connect(settings, environment)

    def who(self, user: Json | None = None, cluster: Json | None = None) -> User:
        """Who the cluster takes this user of a kubeconfig for."""
        self.connect(self.kubeconfig(user, cluster)).close()
        return self.gate.seen[-1]


def write_kubeconfig(path: Path, user: Json, cluster: Json, name: str = "here") -> Path:
    """Write a kubeconfig of one context."""
    content = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": name, "cluster": cluster}],
        "users": [{"name": name, "user": user}],
        "contexts": [{"name": name, "context": {"cluster": name, "user": name}}],
        "current-context": name,
    }
    path.write_text(yaml.safe_dump(content), encoding="utf-8")
    return path


def exec_entry(script: Path, version: str = "v1", **more: Any) -> Json:
    """A user that asks a program."""
    entry = {
        "apiVersion": f"client.authentication.k8s.io/{version}",
        "command": sys.executable,
        "args": ["-S", str(script)],
        "interactiveMode": "Never",
    }
    return {"exec": {**entry, **more}}


def credential(version: str = "v1", **status: str) -> str:
    """What an exec plugin prints."""
    api_version = f"client.authentication.k8s.io/{version}"
    return json.dumps({"apiVersion": api_version, "kind": "ExecCredential", "status": status})


def encoded(content: bytes) -> str:
    """Base64, as kubeconfigs have it."""
    return base64.b64encode(content).decode()


@pytest.fixture
def secured(tmp_path: Path) -> Iterator[Secured]:
    """A cluster with TLS and tokens."""
    made = Secured(tmp_path)
    yield made
    made.close()


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A profile whose VMIs all come to run."""
    return trouble.profile(tmp_path_factory.mktemp("sound"))


@pytest.fixture(scope="module")
def with_walls(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A profile some of whose VMIs fail, each in its own way."""
    return trouble.profile(tmp_path_factory.mktemp("walls"), trouble.WALLS)


@pytest.fixture(scope="module")
def faultless(sound: Path) -> Outcome:
    """A level without faults on it."""
    return trouble.play(sound)


@pytest.fixture(scope="module")
def faultless_with_walls(with_walls: Path) -> Outcome:
    """A level without faults on it."""
    return trouble.play(with_walls)
