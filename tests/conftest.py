"""Fixtures of the project's own tests."""

from __future__ import annotations

import gc
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from pytest_kvscale.cluster import choose
from pytest_kvscale.cluster.choose import Connection
from pytest_kvscale.cluster.clock import VirtualClock
from pytest_kvscale.options import Settings

DATA = Path(__file__).parent / "data"

# Clusters are made of many objects that live long: looking for garbage less often costs less.
gc.set_threshold(200_000, 20, 100)


@pytest.fixture(scope="session", autouse=True)
def interrupts() -> Iterator[None]:
    """An interrupt interrupts, also in a job that a shell started in the background."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture
def clock() -> Iterator[VirtualClock]:
    """A clock with virtual time."""
    made = VirtualClock()
    yield made
    made.close()


@pytest.fixture
def connect() -> Iterator[Callable[..., Connection]]:
    """Start an embedded cluster with these settings, in virtual time, and connect to it."""
    made: list[Connection] = []

    def start(**settings: object) -> Connection:
        made.append(choose.connect(Settings(cluster="sim", **settings), {}))  # type: ignore[arg-type]
        return made[-1]

    yield start
    for connection in made:
        connection.close()


@pytest.fixture
def profile_file(tmp_path: Path) -> Callable[[str], Path]:
    """Write a profile that extends the default one by some YAML."""

    def write(yaml: str) -> Path:
        path = tmp_path / "profile.yaml"
        path.write_text("extends: blog-2021\n" + yaml, encoding="utf-8")
        return path

    return write


@pytest.fixture(scope="session", autouse=True)
def state(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Journals of our own runs lie in no user's home."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_STATE_HOME", str(tmp_path_factory.mktemp("state")))
        yield
