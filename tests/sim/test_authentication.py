"""The standalone cluster asks who is there, as kube-apiserver does."""

from __future__ import annotations

import json
import re
import signal
import ssl
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import yaml

from pytest_kvscale.cluster import choose
from pytest_kvscale.errors import ConfigurationError
from pytest_kvscale.options import Settings
from pytest_kvscale.sim.authentication import AUTHENTICATED, OPEN_TO_ALL, Gate, User, read_tokens
from pytest_kvscale.sim.tls import Authority
from tests.cluster.conftest import Json
from tests.programs import program

PATIENCE = 60
TOKENS = (
    '# who may come\ntoken-a,alice,u1,"devs, system:masters"\n\ntoken-b,bob,u2\n"token,c",carol,,\n'
)
UNAUTHORIZED = {
    "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
    "message": "Unauthorized", "reason": "Unauthorized", "code": 401,
}  # fmt: skip


@pytest.fixture
def tokens(tmp_path: Path) -> Path:
    path = tmp_path / "tokens.csv"
    path.write_text(TOKENS, encoding="utf-8")
    return path


Start = Callable[..., tuple[str, Path]]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Start a standalone cluster with these options; returns its URL and kubeconfig."""
    running = []

    def run(*options: str) -> tuple[str, Path]:
        kubeconfig = tmp_path / "kubeconfig.yaml"
        process = subprocess.Popen(
            [sys.executable, "-m", "pytest_kvscale.sim", "--profile", "fast",
             "--kubeconfig", str(kubeconfig), *options],
            stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        running.append(process)
        assert process.stdout is not None
        line = process.stdout.readline()
        found = re.search(r" on (\S+)$", line)
        assert found, line
        return found[1], kubeconfig

    yield run
    for process in running:
        process.send_signal(signal.SIGTERM)
        assert process.wait(PATIENCE) == 0
        assert process.stdout is not None
        process.stdout.close()


def ask(url: str, token: str = "", trust: ssl.SSLContext | None = None) -> tuple[int, Json]:
    """The answer to a GET."""
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    request = urllib.request.Request(url, headers=headers)  # noqa: S310 - our own server
    try:
        with urllib.request.urlopen(request, timeout=PATIENCE, context=trust) as answer:  # noqa: S310
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as refusal:
        with refusal:
            return refusal.code, json.load(refusal)


def test_only_who_has_a_token_is_let_in(start: Start, tokens: Path) -> None:
    url, kubeconfig = start("--tokens", str(tokens))
    for path in ("/version", "/api/v1/nodes", "/healthz", "/nowhere"):
        assert ask(url + path) == (401, UNAUTHORIZED)
        assert ask(url + path, "token-x") == (401, UNAUTHORIZED)
    for token in ("token-a", "token-b", "token,c"):
        assert ask(f"{url}/version", token)[0] == 200
    assert [ask(f"{url}/api/v1/nodes", each)[0] for each in ("token-a", "token-b")] == [200, 403]
    assert kubeconfig.stat().st_mode & 0o777 == 0o600
    user = yaml.safe_load(kubeconfig.read_text(encoding="utf-8"))["users"][0]["user"]
    assert user == {"token": "token-a"}
    choose.connect(Settings(kubeconfig=kubeconfig, allow_simulated=True), {}).close()


@pytest.mark.parametrize("with_tokens", [False, True])
def test_kubectl_takes_its_kubeconfig_with_tls(
    start: Start, tokens: Path, with_tokens: bool
) -> None:
    url, kubeconfig = start("--tls", *(["--tokens", str(tokens)] if with_tokens else []))
    assert url.startswith("https://127.0.0.1:")
    command = [program("kubectl"), "--kubeconfig", str(kubeconfig), "get", "nodes", "-o", "name"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, check=False)
    assert done.stdout == "node/node\n", done.stderr
    config = yaml.safe_load(kubeconfig.read_text(encoding="utf-8"))
    user = config["users"][0]["user"]
    expected = ["token"] if with_tokens else ["client-certificate-data", "client-key-data"]
    assert sorted(user) == expected
    anybody = ssl.create_default_context()
    anybody.check_hostname, anybody.verify_mode = False, ssl.CERT_NONE
    assert ask(f"{url}/version", trust=anybody) == (401, UNAUTHORIZED)
    with pytest.raises(urllib.error.URLError, match="certificate verify failed"):
        ask(f"{url}/version")
    choose.connect(Settings(kubeconfig=kubeconfig, allow_simulated=True), {}).close()


def test_tokens_name_user_and_groups(tokens: Path) -> None:
    assert read_tokens(tokens) == {
        "token-a": User("alice", "u1", ("devs", "system:masters", AUTHENTICATED)),
        "token-b": User("bob", "u2", (AUTHENTICATED,)),
        "token,c": User("carol", "", (AUTHENTICATED,)),
    }


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", "hold no token"),
        ("hush,alice", "line 1: expected token,user,uid"),
        ("t,u,1\n,alice,1", "line 2: expected token,user,uid"),
        ("hush,,1", "line 1: expected token,user,uid"),
        ('"hush,a,1', "are no CSV"),
        ("\udcff", "are no CSV"),
    ],
)
def test_tokens_that_cannot_be_used_are_told(tokens: Path, text: str, sentence: str) -> None:
    tokens.write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(ConfigurationError) as caught:
        read_tokens(tokens)
    assert str(caught.value).startswith(f"the tokens {tokens}")
    assert sentence in str(caught.value)
    assert "hush" not in str(caught.value)


def test_tokens_that_are_not_there_are_told(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "pytest_kvscale.sim", "--tokens", str(tmp_path / "none")],
        capture_output=True, text=True, timeout=PATIENCE, check=False,
    )  # fmt: skip
    assert done.returncode == 4
    assert done.stderr.startswith("error: the tokens ")
    assert done.stderr.count("\n") == 1


def test_without_tokens_and_tls_everybody_is_let_in() -> None:
    assert OPEN_TO_ALL.groups == ("system:masters", AUTHENTICATED)
    assert (Gate().user_entry(), Gate().cluster_entry()) == ({}, {})


def test_a_gate_does_not_show_its_tokens() -> None:
    assert "hush" not in repr(Gate({"hush": User("u")}, Authority()))
