"""Which cluster it is: nobody's current context is taken by accident."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from pathlib import Path
from typing import cast

import pytest
import yaml

from pytest_kvscale.cluster import choose
from pytest_kvscale.cluster.choose import Choice, Connection, Identity
from pytest_kvscale.cluster.client import Client
from pytest_kvscale.cluster.clock import VirtualClock
from pytest_kvscale.errors import ConfigurationError
from pytest_kvscale.options import Settings
from pytest_kvscale.sim.cluster import EmbeddedCluster
from pytest_kvscale.sim.players.team import PlayerError

KUBECONFIG = """
apiVersion: v1
kind: Config
current-context: prod
contexts: [{name: prod, context: {cluster: c, user: u}}]
clusters: [{name: c, cluster: {server: "https://prod.example.com:6443"}}]
users: [{name: u, user: {token: very-secret}}]
"""


@pytest.fixture
def home(tmp_path: Path) -> dict[str, str]:
    """An environment whose home has a kubeconfig."""
    folder = tmp_path / ".kube"
    folder.mkdir()
    (folder / "config").write_text(KUBECONFIG, encoding="utf-8")
    return {"HOME": str(tmp_path)}


@pytest.fixture
def empty(tmp_path: Path) -> dict[str, str]:
    """An environment with nothing in it."""
    return {"HOME": str(tmp_path)}


@pytest.fixture
def pod(tmp_path: Path) -> tuple[dict[str, str], Path]:
    """An environment as in a pod, and its service account's token."""
    token = tmp_path / "token"
    token.write_text("t", encoding="utf-8")
    return {"HOME": str(tmp_path), "KUBERNETES_SERVICE_HOST": "10.0.0.1"}, token


def test_with_nothing_at_all_it_is_the_embedded_cluster(empty: dict[str, str]) -> None:
    assert choose.choose(Settings(), empty) == Choice(embedded=True)


def test_a_kubeconfig_that_only_happens_to_be_there_is_not_used(home: dict[str, str]) -> None:
    with pytest.raises(ConfigurationError) as caught:
        choose.choose(Settings(), home)
    sentence = str(caught.value)
    assert "https://prod.example.com:6443 (context prod in " in sentence
    assert "--kvscale-cluster kube" in sentence
    assert "--kvscale-cluster sim" in sentence
    assert "very-secret" not in sentence


@pytest.mark.parametrize("text", ["", "[]", "contexts: 3", "{", "current-context: x"])
def test_a_broken_kubeconfig_is_not_used_either(home: dict[str, str], text: str) -> None:
    Path(home["HOME"], ".kube", "config").write_text(text, encoding="utf-8")
    with pytest.raises(ConfigurationError, match=r"the cluster in .*config would be used"):
        choose.choose(Settings(), home)


def test_a_service_account_is_not_used_by_accident(pod: tuple[dict[str, str], Path]) -> None:
    environment, token = pod
    with pytest.raises(ConfigurationError, match="service account"):
        choose.choose(Settings(), environment, token)
    chosen = choose.choose(Settings(cluster="kube"), environment, token)
    assert chosen == Choice(embedded=False)


@pytest.mark.parametrize(
    ("settings", "environment", "expected"),
    [
        (Settings(kubeconfig=Path("/k")), {}, Choice(False, "/k")),
        (Settings(context="prod"), {}, Choice(False, "HOME", "prod")),
        (Settings(), {"KUBECONFIG": "/a:/b"}, Choice(False, "/a:/b")),
        (Settings(kubeconfig=Path("/k")), {"KUBECONFIG": "/a"}, Choice(False, "/k")),
        (Settings(cluster="kube"), {}, Choice(False, "HOME")),
        (Settings(cluster="sim"), {"KUBECONFIG": "/a"}, Choice(True)),
    ],
)
def test_what_is_explicit_is_used(
    home: dict[str, str], settings: Settings, environment: dict[str, str], expected: Choice
) -> None:
    chosen = choose.choose(settings, {**home, **environment})
    path = str(Path(home["HOME"], ".kube", "config"))
    if expected.kubeconfig == "HOME":
        expected = Choice(expected.embedded, path, expected.context)
    assert chosen == expected


def test_an_empty_kubeconfig_variable_is_none(empty: dict[str, str]) -> None:
    assert choose.choose(Settings(), {**empty, "KUBECONFIG": ""}).embedded


def test_kube_without_any_kubeconfig_is_told(empty: dict[str, str]) -> None:
    with pytest.raises(ConfigurationError, match="no cluster to connect to"):
        choose.choose(Settings(cluster="kube"), empty)


def test_the_embedded_cluster_says_what_it_is(connect: Callable[..., Connection]) -> None:
    identity = connect(sim_seed=7).identity
    assert (identity.simulated, identity.profile, identity.seed) == ("sim", "blog-2021", 7)
    assert identity.text() == "SIMULATED cluster: profile blog-2021, seed 7"


def test_a_missing_kubeconfig_is_told(tmp_path: Path) -> None:
    settings = Settings(kubeconfig=tmp_path / "none")
    with pytest.raises(ConfigurationError, match="cannot be used"):
        choose.connect(settings, {})


@pytest.mark.parametrize("text", ["", "[]", "a: {", "contexts: 3", "apiVersion: v1\nkind: Config"])
def test_a_kubeconfig_that_is_none_is_told(tmp_path: Path, text: str) -> None:
    path = tmp_path / "config"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ConfigurationError) as caught:
        choose.connect(Settings(kubeconfig=path), {})
    assert "cannot be used" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_context_that_is_not_there_is_told(home: dict[str, str]) -> None:
    path = Path(home["HOME"], ".kube", "config")
    with pytest.raises(ConfigurationError, match="nowhere"):
        choose.connect(Settings(kubeconfig=path, context="nowhere"), {})


def test_a_cluster_that_does_not_answer_is_told(tmp_path: Path) -> None:
    path = tmp_path / "config"
    server = "http://127.0.0.1:1"
    path.write_text(KUBECONFIG.replace("https://prod.example.com:6443", server), encoding="utf-8")
    with pytest.raises(ConfigurationError) as caught:
        choose.connect(Settings(kubeconfig=path), {})
    assert str(caught.value).startswith(
        f"the cluster {server} (context prod) does not answer: cannot connect to 127.0.0.1:1: "
    )
    assert "very-secret" not in str(caught.value)


def test_a_cluster_in_this_process_that_breaks_down_ends_the_waiting(
    connect: Callable[..., Connection],
) -> None:
    connection = connect()
    embedded = connection._embedded
    assert isinstance(embedded, EmbeddedCluster)

    async def break_down() -> None:
        await asyncio.sleep(5)
        raise ZeroDivisionError("a bug")

    async def work() -> None:
        embedded.team.spawn(break_down(), "the broken player")
        await asyncio.sleep(1e6)

    with pytest.raises(PlayerError, match="the broken player: ZeroDivisionError: a bug"):
        connection.run(work())
    assert connection.clock.loop.time() < 100


def test_programs_are_led_to_the_context_of_the_run() -> None:
    """Whatever the current context of a kubeconfig is: a program asks for none by itself."""

    class Silent:
        async def close(self) -> None:
            pass

    choice = Choice(embedded=False, kubeconfig=f"/a/config{os.pathsep}b", context="lab")
    identity = Identity("https://s", "lab", "v1", "false")
    programs = choose._for_programs(choice)
    connection = Connection(VirtualClock(), cast(Client, Silent()), identity, None, programs)
    said = connection.environment()
    first, *others = said["KUBECONFIG"].split(os.pathsep)
    assert yaml.safe_load(Path(first).read_text())["current-context"] == "lab"
    assert (others, said["KVSCALE_CONTEXT"]) == (["/a/config", str(Path("b").absolute())], "lab")
    assert connection.environment() == said
    connection.close()
    assert not Path(first).exists()
    assert choose._for_programs(Choice(embedded=False, kubeconfig="/a")) == {"KUBECONFIG": "/a"}
