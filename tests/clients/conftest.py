"""One standalone cluster for all clients, in a process of its own at the wall's pace."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.clients.kubectl import Kubectl
from tests.standalone import Standalone, running


@pytest.fixture(scope="session")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Standalone]:
    with running(tmp_path_factory.mktemp("clients")) as cluster:
        yield cluster


@pytest.fixture(scope="session", params=["1.32", "1.20"])
def kubectl(
    request: pytest.FixtureRequest, served: Standalone, tmp_path_factory: pytest.TempPathFactory
) -> Kubectl:
    """kubectl in each version that is tested, with its namespace made."""
    made = Kubectl(request.param, served, tmp_path_factory.mktemp("home"))
    made("create", "namespace", made.namespace)
    return made
