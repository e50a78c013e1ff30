"""Every way a kubeconfig has to reach a cluster and to say who we are, against a real server."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import ssl
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import trustme

from pytest_kvscale.cluster import choose, exec_plugin
from pytest_kvscale.cluster.clock import RealClock
from pytest_kvscale.errors import ConfigurationError
from pytest_kvscale.options import Settings
from pytest_kvscale.sim.authentication import AUTHENTICATED, User
from tests.cluster.conftest import (
    Json,
    Secured,
    credential,
    encoded,
    exec_entry,
    write_kubeconfig,
)

ALICE = User("alice", "1", ("devs",))


def refused(secured: Secured, user: Json | None = None, cluster: Json | None = None) -> str:
    """The sentence a kubeconfig is refused with."""
    with pytest.raises(ConfigurationError) as caught:
        secured.who(user, cluster)
    sentence = str(caught.value)
    assert "\n" not in sentence
    assert "first-token" not in sentence
    return sentence


def test_a_token(secured: Secured) -> None:
    assert secured.who({"token": "first-token"}) == ALICE
    assert secured.who({"token": "first-token\n"}) == ALICE


def test_a_wrong_token_is_told(secured: Secured) -> None:
    assert refused(secured, {"token": "wrong"}) == (
        f"the cluster {secured.url} (context here) does not accept the credentials of user "
        "'here' (HTTP 401): log in again, or renew them in the kubeconfig"
    )


@pytest.mark.parametrize("token", ["two words", "zwölf", "a\nb", " "])
def test_what_cannot_be_a_token_is_told(secured: Secured, token: str) -> None:
    sentence = refused(secured, {"token": token})
    assert sentence.endswith("the token of the user 'here' holds no token")


def test_a_token_file_beside_the_kubeconfig(secured: Secured) -> None:
    (secured.folder / "its-token").write_text("first-token\n", encoding="ascii")
    assert secured.who({"tokenFile": "its-token"}) == ALICE


def test_a_token_file_that_is_not_there_is_told(secured: Secured) -> None:
    sentence = refused(secured, {"tokenFile": "none"})
    assert f"cannot be logged in to: the token file {secured.folder / 'none'} cannot be" in sentence


@pytest.mark.parametrize("as_files", [False, True])
def test_a_client_certificate(secured: Secured, as_files: bool) -> None:
    certificate, key = secured.authority.issue_client("bob", "ops")
    user = {"client-certificate-data": encoded(certificate), "client-key-data": encoded(key)}
    if as_files:
        (secured.folder / "bob.crt").write_bytes(certificate)
        (secured.folder / "bob.key").write_bytes(key)
        user = {"client-certificate": "bob.crt", "client-key": str(secured.folder / "bob.key")}
    assert secured.who(user) == User("bob", groups=("ops", AUTHENTICATED))
    assert not list(Path(os.environ.get("TMPDIR", "/tmp")).glob("kvscale-*/key"))  # noqa: S108


def test_certificates_that_cannot_be_used_are_told(secured: Secured) -> None:
    certificate, key = (encoded(each) for each in secured.authority.issue_client("bob", "ops"))
    other = encoded(secured.authority.issue_client("eve", "ops")[1])
    half = {"client-certificate-data": certificate}
    assert "only one of client-certificate and client-key" in refused(secured, half)
    unlike = {"client-certificate-data": certificate, "client-key-data": other}
    assert "cannot be used: key values mismatch" in refused(secured, unlike)
    broken = {"client-certificate-data": certificate, "client-key-data": "$$$"}
    assert "client-key-data for" in refused(secured, broken)
    locked = encoded(b"-----BEGIN ENCRYPTED PRIVATE KEY-----\n")
    asks = {"client-certificate-data": certificate, "client-key-data": locked}
    assert "is encrypted: a test run cannot ask for its passphrase" in refused(secured, asks)
    missing = {"client-certificate": "none.crt", "client-key-data": key}
    assert "none.crt cannot be read: No such file" in refused(secured, missing)


def test_name_and_password_are_sent_as_they_should(secured: Secured) -> None:
    with pytest.raises(ConfigurationError, match="HTTP 401"):
        secured.who({"username": "alice", "password": "pass:word"})
    assert secured.gate.headers[-1]["Authorization"] == "Basic YWxpY2U6cGFzczp3b3Jk"


def test_impersonation_is_asked_for(secured: Secured) -> None:
    secured.tokens["first-token"] = User("alice", "1", ("system:masters",))
    secured.who(
        {
            "token": "first-token", "as": "carol", "as-groups": ["a", "b"], "as-uid": "7",
            "as-user-extra": {"scopes": ["x"]},
        }
    )  # fmt: skip
    sent = secured.gate.headers[-1]
    assert sent["Impersonate-User"] == "carol"
    assert sent.getall("Impersonate-Group") == ["a", "b"]
    assert (sent["Impersonate-Uid"], sent["Impersonate-Extra-scopes"]) == ("7", "x")
    assert "without as" in refused(secured, {"token": "first-token", "as-groups": ["a"]})


@pytest.mark.parametrize(
    ("user", "sentence"),
    [
        ({"auth-provider": {"name": "gcp"}}, "'gcp', which Kubernetes no longer has"),
        ({"auth-provider": {"name": "oidc"}}, "lacks idp-issuer-url in the kubeconfig"),
        ({"token": "t", "username": "u"}, "more than one way to log in (token, username)"),
        ({"token": ["first-token"]}, "user.token: input should be a valid string"),
        ({"exec": {"command": "x"}}, "user.exec.apiVersion: field required"),
    ],
)
def test_ways_to_log_in_that_cannot_be_used_are_told(
    secured: Secured, user: Json, sentence: str
) -> None:
    assert sentence in refused(secured, user)


def test_a_key_that_is_not_known_is_told(
    secured: Secured, caplog: pytest.LogCaptureFixture
) -> None:
    secured.who({"token": "first-token", "tokn": "hush"})
    assert "the key 'tokn' of a user is not known and has no effect" in caplog.text
    assert "hush" not in caplog.text


# Programs -----------------------------------------------------------------------------------


@pytest.fixture
def script(tmp_path: Path) -> Path:
    return tmp_path / "plugin.py"


@pytest.mark.parametrize("version", ["v1", "v1beta1"])
def test_an_exec_plugin_that_gives_a_token(secured: Secured, script: Path, version: str) -> None:
    script.write_text(
        "import json, os\n"
        "info = json.loads(os.environ['KUBERNETES_EXEC_INFO'])\n"
        "assert info['spec']['cluster']['server'].startswith('https://')\n"
        "assert info['spec']['interactive'] is False\n"
        "assert os.environ['SAY'] == 'first-token'\n"
        f"print('''{credential(version, token='first-token')}''')\n",
        encoding="utf-8",
    )
    more = {"env": [{"name": "SAY", "value": "first-token"}], "provideClusterInfo": True}
    assert secured.who(exec_entry(script, version, **more)) == ALICE


def test_an_exec_plugin_that_gives_a_certificate(secured: Secured, script: Path) -> None:
    certificate, key = secured.authority.issue_client("bob", "ops")
    said = credential(clientCertificateData=certificate.decode(), clientKeyData=key.decode())
    script.write_text(f"print({said!r})\n", encoding="utf-8")
    assert secured.who(exec_entry(script)).name == "bob"


def test_an_exec_plugin_beside_the_kubeconfig(secured: Secured) -> None:
    script = secured.folder / "bin" / "login"
    script.parent.mkdir()
    script.write_text(f"#!/bin/sh\necho '{credential(token='first-token')}'\n", encoding="utf-8")
    script.chmod(0o700)
    assert secured.who(exec_entry(script, command="bin/login", args=None)) == ALICE


@pytest.mark.parametrize(
    ("code", "sentence"),
    [
        ("import sys; print('hush'); sys.exit('hush')", "failed with exit code 1: run it by hand"),
        ("print('hush')", "did not print JSON"),
        ("print('{\"hush\": 1}')", "did not print an ExecCredential"),
        (f"print('{credential('v1beta1', token='hush')}')", "does not answer in the version"),
        (f"print('{credential(clientKeyData='hush')}')", "only one of certificate and key"),
        (f"print('{credential(other='hush')}')", "neither a token nor a certificate"),
        (f"print('{credential(token='hush hush')}')", "holds no token"),
        (
            f"print('{credential(token='hush', expirationTimestamp='hush')}')",
            "an expirationTimestamp that is no RFC 3339 time",
        ),
        (
            f"print('{credential(clientKeyData='hush', clientCertificateData='hush')}')",
            "the certificate and key for",
        ),
    ],
)
def test_an_exec_plugin_that_fails_is_told(
    secured: Secured, script: Path, code: str, sentence: str, capfd: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    caplog.set_level("DEBUG")
    script.write_text(code, encoding="utf-8")
    told = refused(secured, exec_entry(script))
    assert sentence in told
    assert "exec plugin" in told
    output = capfd.readouterr()
    assert "hush" not in told + caplog.text + output.out + output.err


def test_an_exec_plugin_that_is_not_installed_is_told(secured: Secured, script: Path) -> None:
    entry = exec_entry(script, command="kvscale-no-such-program", installHint="get it\nhere")
    told = refused(secured, entry)
    assert "kvscale-no-such-program of user 'here' is not installed (get it here)" in told


def test_exec_plugins_that_cannot_be_used_are_told(secured: Secured, script: Path) -> None:
    assert "expected client.auth" in refused(secured, exec_entry(script, "v1alpha1"))
    asks = exec_entry(script, interactiveMode="Always")
    assert "wants to ask questions" in refused(secured, asks)


def test_an_exec_plugin_that_never_ends_is_ended(
    secured: Secured, script: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Together with what it has started."""
    monkeypatch.setattr(exec_plugin, "PATIENCE", 0.5)
    script.write_text("import os; os.system('sleep 1000')", encoding="utf-8")
    assert "did not end within 0.5 s" in refused(secured, exec_entry(script))


def test_an_exec_plugin_that_takes_too_long_is_told_and_not_the_server(
    secured: Secured, script: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(choose, "SILENCE", 0.5)
    script.write_text("import time; time.sleep(1000)", encoding="utf-8")
    told = refused(secured, exec_entry(script))
    assert "(context here) cannot be logged in to: the exec plugin " in told
    assert told.endswith(" did not end within 0.5 s")


def test_who_sends_secrets_without_tls_is_warned(
    secured: Secured, caplog: pytest.LogCaptureFixture
) -> None:
    entry = {"server": "http://api.nowhere.invalid"}
    refused(secured, None, entry)
    assert "plain text" not in caplog.text
    refused(secured, {"token": "first-token"}, entry)
    assert "has no TLS: the credentials go there in plain text" in caplog.text


def test_what_a_plugin_leaves_running_is_left_alone(secured: Secured, script: Path) -> None:
    """Some start an agent that remembers a password."""
    alive = secured.folder / "alive"
    child = f"import time, pathlib; time.sleep(0.5); pathlib.Path({str(alive)!r}).touch()"
    script.write_text(
        "import subprocess, sys\n"
        f"subprocess.Popen([sys.executable, '-S', '-c', {child!r}],"
        " stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)\n"
        f"print({credential(token='first-token')!r})\n",
        encoding="utf-8",
    )
    assert secured.who(exec_entry(script)) == ALICE
    deadline = time.monotonic() + 60
    while not alive.exists():
        assert time.monotonic() < deadline
        time.sleep(0.05)


# TLS ----------------------------------------------------------------------------------------


def test_an_authority_that_is_not_known_is_told(secured: Secured) -> None:
    user = {"token": "first-token"}
    other = encoded(trustme.CA().cert_pem.bytes())
    for authority in ({}, {"certificate-authority-data": other}):
        config = secured.kubeconfig(user)
        cluster = {"server": secured.url, **authority}
        write_kubeconfig(config, user, cluster)
        with pytest.raises(ConfigurationError, match="TLS certificate is not trusted: "):
            secured.connect(config)
    assert not secured.gate.headers


def test_an_authority_in_a_file_and_none_at_all(secured: Secured) -> None:
    user = {"token": "first-token"}
    (secured.folder / "ca.crt").write_bytes(secured.authority.certificate)
    config = secured.folder / "config"
    for trust in ({"certificate-authority": "ca.crt"}, {"insecure-skip-tls-verify": True}):
        write_kubeconfig(config, user, {"server": secured.url, **trust})
        secured.connect(config).close()
    assert secured.gate.seen == [ALICE, ALICE]


def test_an_authority_that_cannot_be_used_is_told(secured: Secured) -> None:
    for data, sentence in (
        ("$", "not base64"),
        (encoded(b"x"), "not PEM"),
        (encoded(b"-----BEGIN CERTIFICATE-----\nx"), "cannot be used"),
    ):
        told = refused(secured, None, {"certificate-authority-data": data})
        assert "certificate-authority" in told
        assert sentence in told
    entry = {"server": secured.url, "certificate-authority": "none"}
    write_kubeconfig(secured.folder / "config", {}, entry)
    with pytest.raises(ConfigurationError, match="none cannot be read: No such file"):
        secured.connect(secured.folder / "config")


def test_a_wrong_host_name_is_told_and_tls_server_name_helps(secured: Secured) -> None:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    ca = trustme.CA()
    ca.issue_cert("api.example.com").configure_cert(context)
    trust = {"certificate-authority-data": encoded(ca.cert_pem.bytes())}
    with serving(context) as url:
        told = refused(secured, None, {"server": url, **trust})
        assert "not trusted: IP address mismatch" in told
        assert told.endswith("or set tls-server-name in the kubeconfig")
        # Now it is trusted; what answers is no API.
        named = {"tls-server-name": "api.example.com", **trust}
        assert "does not answer as a Kubernetes API" in refused(
            secured, None, {"server": url, **named}
        )


@contextlib.contextmanager
def serving(context: ssl.SSLContext | None, answer: bytes = b"") -> Iterator[str]:
    """A server that gives everybody the same answer."""
    said = (
        answer
        or b"HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:1/\r\nContent-Length: 0\r\n\r\n"
    )

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(65536)
        writer.write(said)
        await writer.drain()
        writer.close()

    async def start() -> asyncio.Server:
        return await asyncio.start_server(handle, "127.0.0.1", 0, ssl=context)

    clock = RealClock()
    server = clock.run(start())
    yield f"http{'s' if context else ''}://127.0.0.1:{server.sockets[0].getsockname()[1]}"

    async def stop() -> None:
        server.close()

    clock.run(stop())
    clock.close()


# Proxies ------------------------------------------------------------------------------------


class Proxy:
    """An HTTP proxy that counts what goes through it, and leads everything to one address."""

    def __init__(self, target: str) -> None:
        self.requests: list[str] = []
        self._target = target.rpartition("/")[2].split(":")
        self.clock = RealClock()
        self._server = self.clock.run(self._start())
        self.port = self._server.sockets[0].getsockname()[1]

    async def _start(self) -> asyncio.Server:
        return await asyncio.start_server(self._handle, "127.0.0.1", 0)

    async def _handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        self.requests.append(head.decode())
        up, down = await asyncio.open_connection(*self._target)
        if head.startswith(b"CONNECT"):
            writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
        else:
            down.write(head)

        async def copy(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
            with contextlib.suppress(ConnectionError):
                while data := await source.read(65536):
                    sink.write(data)
                sink.close()

        await asyncio.gather(copy(reader, down), copy(up, writer))

    def close(self) -> None:
        self.clock.run(self._stop())
        self.clock.close()

    async def _stop(self) -> None:
        self._server.close()


@pytest.fixture
def proxy(secured: Secured) -> Iterator[Proxy]:
    made = Proxy(secured.url)
    yield made
    made.close()


def test_a_proxy_of_the_kubeconfig_is_used(secured: Secured, proxy: Proxy) -> None:
    """Also with a password, for a name that only the proxy knows."""
    url = f"http://me:pass%40word@127.0.0.1:{proxy.port}"
    entry = {"server": "https://api.nowhere.invalid", "tls-server-name": "localhost"}
    assert secured.who({"token": "first-token"}, {"proxy-url": url, **entry}) == ALICE
    (head,) = proxy.requests
    assert head.startswith("CONNECT api.nowhere.invalid:443 ")
    assert "Proxy-Authorization: Basic bWU6cGFzc0B3b3Jk" in head
    assert "first-token" not in head
    assert "Proxy-Authorization" not in secured.gate.headers[-1]


def test_a_proxy_in_front_of_a_server_without_tls(tmp_path: Path) -> None:
    body = b'{"gitVersion": "v1.30.0"}'
    answer = (
        b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nConnection: close\r\n"
        b"Content-Length: %d\r\n\r\n%s" % (len(body), body)
    )
    with serving(None, answer) as url:
        proxy = Proxy(url)
        entry = {
            "server": "http://api.nowhere.invalid:8080",
            "proxy-url": f"http://me:pw@127.0.0.1:{proxy.port}",
        }
        config = write_kubeconfig(tmp_path / "config", {"token": "t"}, entry)
        connection = choose.connect(Settings(kubeconfig=config), {})
        assert connection.identity.kubernetes == "v1.30.0"
        connection.close()
        (head,) = proxy.requests
        assert head.startswith("GET http://api.nowhere.invalid:8080/version ")
        assert "Proxy-Authorization: Basic bWU6cHc=" in head
        assert "Authorization: Bearer t" in head
        proxy.close()


def test_a_proxy_of_the_environment_is_used_where_it_shall_be(
    secured: Secured, proxy: Proxy
) -> None:
    entry = {"server": "https://api.nowhere.invalid", "tls-server-name": "localhost"}
    config = secured.kubeconfig({"token": "first-token"}, entry)
    environment = {"HTTPS_PROXY": f"127.0.0.1:{proxy.port}"}
    secured.connect(config, **environment).close()
    assert len(proxy.requests) == 1
    for excepted in ("nowhere.invalid", "*"):
        with pytest.raises(ConfigurationError, match=r"the name api\.nowhere\.invalid does not"):
            secured.connect(config, **environment, NO_PROXY=excepted)
    local = secured.kubeconfig({"token": "first-token"})
    secured.connect(local, **environment).close()
    assert len(proxy.requests) == 1


def test_a_network_can_be_excepted_from_the_proxy(secured: Secured) -> None:
    from pytest_kvscale.cluster.kubeconfig import from_files
    from pytest_kvscale.cluster.transport import Routes

    access = from_files(str(secured.kubeconfig({})), None)
    environment = {"https_proxy": "http://p:3128", "NO_PROXY": "10.96.0.0/12, other"}
    routes = Routes(access, environment)
    assert routes.to("https://10.96.0.1:443") == {}
    assert routes.to("https://10.1.0.1:443") == {"proxy": "http://p:3128"}
    assert routes.to("http://10.1.0.1") == {}


@pytest.mark.parametrize("url", ["socks5://u:hush@p:1", "https://p:1", "p", "http://p:x", "//"])
def test_a_proxy_that_cannot_be_used_is_told(secured: Secured, url: str) -> None:
    told = refused(secured, None, {"proxy-url": url})
    assert told.startswith("proxy-url in the kubeconfig")
    assert "hush" not in told


def test_a_proxy_that_does_not_answer_or_refuses_is_told(secured: Secured) -> None:
    entry = {"server": "https://api.nowhere.invalid"}
    told = refused(secured, None, {"proxy-url": "http://u:hush@127.0.0.1:1", **entry})
    assert "cannot connect to the proxy 127.0.0.1:1: Connection refused" in told
    with serving(None, b"HTTP/1.1 407 Who\r\nContent-Length: 0\r\n\r\n") as url:
        given = url.replace("http://", "http://u:hush@")
        assert "the proxy answers HTTP 407" in refused(secured, None, {"proxy-url": given, **entry})


# Servers that are none ----------------------------------------------------------------------


def test_a_name_that_does_not_resolve_is_told(secured: Secured) -> None:
    told = refused(secured, None, {"server": "https://api.nowhere.invalid"})
    assert told.startswith(
        "the cluster https://api.nowhere.invalid (context here) does not answer: the name "
        "api.nowhere.invalid does not resolve: "
    )


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_a_server_that_never_answers_is_told_in_time(
    secured: Secured, monkeypatch: pytest.MonkeyPatch, scheme: str
) -> None:
    monkeypatch.setattr(choose, "SILENCE", 0.3)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        told = refused(secured, None, {"server": f"{scheme}://127.0.0.1:{silent.getsockname()[1]}"})
    assert "(context here) did not answer within 0.3 s: check the server's URL" in told


def test_a_server_that_is_something_else_is_told(secured: Secured) -> None:
    with serving(None, b"SSH-2.0-OpenSSH_9.6\r\n") as url:
        assert "does not answer: ClientResponseError: the answer is not HTTP" in refused(
            secured, None, {"server": url}
        )
        tls = url.replace("http:", "https:")
        assert "no TLS connection to 127.0.0.1" in refused(secured, None, {"server": tls})
    with serving(None) as url:
        told = refused(secured, {"token": "first-token"}, {"server": url})
        assert "does not answer as a Kubernetes API (HTTP 302)" in told


# Service accounts ---------------------------------------------------------------------------


@pytest.fixture
def pod(secured: Secured) -> tuple[dict[str, str], Path]:
    """What a pod finds, with a token that is not accepted."""
    host, _, port = secured.url.rpartition("/")[2].rpartition(":")
    token = secured.folder / "token"
    token.write_text("old-token", encoding="ascii")
    (secured.folder / "ca.crt").write_bytes(secured.authority.certificate)
    environment = {"KUBERNETES_SERVICE_HOST": host, "KUBERNETES_SERVICE_PORT": port}
    return {**environment, "HOME": str(secured.folder)}, token


def test_a_service_account(secured: Secured, pod: tuple[dict[str, str], Path]) -> None:
    environment, token = pod
    token.write_text("first-token", encoding="ascii")
    settings = Settings(cluster="kube", allow_simulated=True)
    connection = choose.connect(settings, environment, token)
    assert connection.identity.context is None
    connection.close()
    assert secured.gate.seen == [ALICE]
    (secured.folder / "ca.crt").unlink()
    with pytest.raises(ConfigurationError, match=r"cannot be used: there is no .*ca\.crt"):
        choose.connect(settings, environment, token)


def test_a_context_needs_a_kubeconfig(pod: tuple[dict[str, str], Path]) -> None:
    environment, token = pod
    with pytest.raises(ConfigurationError, match="no kubeconfig that could have the context 'x'"):
        choose.connect(Settings(context="x"), environment, token)
