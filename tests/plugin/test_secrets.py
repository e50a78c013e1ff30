"""No secret of a kubeconfig gets into what is printed or written, at any verbosity.

Each secret field holds a word of its own, and everything that a run prints and leaves is searched
for them, in plain text and in base64.
"""

from __future__ import annotations

import base64
import datetime
from collections.abc import Iterator
from pathlib import Path

import pytest
from _pytest.pytester import RunResult

from pytest_kvscale.sim.authentication import ADMINS, User
from tests.cluster.conftest import Secured, credential, encoded, exec_entry
from tests.plugin.conftest import Json, Suite

LOUD = (
    "-vv", "--log-level=DEBUG", "--log-cli-level=DEBUG", "-o", "log_file=everything.log",
    "-o", "log_file_level=DEBUG", "-rA", "--tb=long", "--showlocals", "--full-trace",
    "--kvscale-record", "--kvscale-cooldown=0", "--kvscale-allow-simulated", "--kvscale-levels=2",
    "--junitxml=mine.xml", "--html=mine.html", "-o", "junit_logging=all",
)  # fmt: skip
MARKERS = (
    "Hush-token", "Hush-password", "Hush-user", "Hush-key", "Hush-env", "Hush-argument",
    "Hush-output", "Hush-stderr", "Hush-refresh", "Hush-client-secret", "Hush-id", "Hush-proxy",
    "Hush-file", "Hush-renewed",
)  # fmt: skip
FAILING = """
import pytest

@pytest.mark.density
def test_density(density_level, density_run, kv_cluster, slo):
    density_run(density_level)
    from pytest_kvscale.cluster.client import NODES
    client = kv_cluster.client
    session, credentials = client._session, client._credentials
    kv_cluster.run(client.get(NODES, "", "nowhere"))
"""


@pytest.fixture
def secured(tmp_path: Path) -> Iterator[Secured]:
    made = Secured(tmp_path)
    made.tokens.clear()
    made.tokens["Hush-token"] = User("alice", groups=(ADMINS,))
    yield made
    made.close()


@pytest.fixture
def loud(suite: Suite, secured: Secured, monkeypatch: pytest.MonkeyPatch) -> Suite:
    """A suite whose server's own files lie elsewhere, and whose kubeconfig is not searched."""
    monkeypatch.setenv("PYTHONASYNCIODEBUG", "1")
    assert suite.path not in secured.folder.parents
    return suite


def run(suite: Suite, kubeconfig: Path, *arguments: str, workers: int = 0) -> RunResult:
    """Run as loudly as can be, in a process of its own, and search everything."""
    spread = ["-n", str(workers)] if workers else ["-p", "no:xdist"]
    result = suite.pytester.runpytest_subprocess(
        *spread, "-p", "no:hypothesispytest", *LOUD, f"--kvscale-kubeconfig={kubeconfig}",
        *arguments,
    )  # fmt: skip
    shown = {"stdout": result.stdout.str().encode(), "stderr": result.stderr.str().encode()}
    for path in suite.path.rglob("*"):
        if path.is_file() and path.suffix not in (".py", ".pyc"):
            shown[str(path)] = path.read_bytes()
    for where, content in shown.items():
        for marker in MARKERS:
            for secret in variants(marker):
                assert secret not in content, f"{marker} stands in {where}"
    return result


def variants(marker: str) -> list[bytes]:
    """A word, and what of it is the same in base64 wherever it begins."""
    found = [marker.encode()]
    for shift in range(3):
        coded = base64.b64encode(b"x" * shift + marker.encode())
        found.append(coded[4 if shift else 0 : -4])
    return found


def plugin(folder: Path, code: str) -> Json:
    """An exec plugin with secrets all around it."""
    script = folder / "plugin.py"
    script.write_text(
        "import os, sys\n"
        "assert os.environ['SECRET'] == 'Hush-env'\n"
        "print('Hush-stderr', file=sys.stderr)\n" + code,
        encoding="utf-8",
    )
    entry = exec_entry(script, env=[{"name": "SECRET", "value": "Hush-env"}])
    entry["exec"]["args"].append("Hush-argument")
    return entry


@pytest.mark.parametrize("workers", [0, 2])
def test_on_success_and_in_a_test_that_fails(loud: Suite, secured: Secured, workers: int) -> None:
    good = f"print('''{credential(token='Hush-token')}''')"
    path = secured.kubeconfig(plugin(secured.folder, good))
    loud.pytester.makepyfile(test_that_fails=FAILING)
    result = run(loud, path, workers=workers)
    result.assert_outcomes(passed=1, failed=1)
    assert "nowhere" in result.stdout.str()
    assert "credentials = <" in result.stdout.str()  # Local variables are really shown.


@pytest.mark.parametrize("workers", [0, 2])
def test_in_a_run_whose_credentials_end_inside_a_level(
    loud: Suite, secured: Secured, workers: int
) -> None:
    """The plugin works until a level has begun, then fails."""
    soon = (datetime.datetime.now(datetime.UTC) - datetime.timedelta(hours=1)).isoformat()
    good = credential(token="Hush-token", expirationTimestamp=soon)
    flag = secured.folder / "flag"
    code = (
        f"import pathlib\nif pathlib.Path({str(flag)!r}).exists():\n    print('Hush-output')\n"
        f"    sys.exit(3)\nprint('''{good}''')"
    )
    loud.pytester.makepyfile(
        test_density=f"""
        import pathlib

        def test_density(density_level, density_run, kv_node, kv_cluster):
            pathlib.Path({str(flag)!r}).touch()
            kv_cluster.run(kv_cluster.client.about("/version"))
        """
    )
    result = run(loud, secured.kubeconfig(plugin(secured.folder, code)), workers=workers)
    result.assert_outcomes(failed=1)
    assert "failed with exit code 3" in result.stdout.str()


def users(secured: Secured) -> dict[str, Json]:
    """Users that do not get in, each for another reason."""
    folder = secured.folder
    (folder / "file").write_text("Hush-file", encoding="ascii")
    oidc = {
        "idp-issuer-url": "https://127.0.0.1:1", "client-id": "c",
        "client-secret": "Hush-client-secret", "refresh-token": "Hush-refresh",
        "id-token": "a.Hush-id.b",
    }  # fmt: skip
    key = encoded(b"-----BEGIN PRIVATE KEY-----\nHush-key\n-----END PRIVATE KEY-----\n")
    certificate = encoded(secured.authority.issue_client("bob", "ops")[0])
    return {
        "wrong token": {"token": "Hush-renewed"},
        "wrong password": {"username": "Hush-user", "password": "Hush-password"},
        "wrong token file": {"tokenFile": str(folder / "file")},
        "broken key": {"client-certificate-data": certificate, "client-key-data": key},
        "failing plugin": plugin(folder, "print('Hush-output'); sys.exit('Hush-stderr')"),
        "babbling plugin": plugin(folder, 'print(\'{"kind": "Hush-output"\')'),
        "no token": {"token": "Hush-token two"},
        "two ways": {"token": "Hush-token", "username": "Hush-user"},
        "oidc": {"auth-provider": {"name": "oidc", "config": oidc}},
        "malformed": {"token": ["Hush-token"], "exec": {"env": [{"value": "Hush-env"}]}},
    }


@pytest.mark.parametrize(
    "user",
    ["wrong token", "wrong password", "wrong token file", "broken key", "failing plugin",
     "babbling plugin", "no token", "two ways", "oidc", "malformed"],
)  # fmt: skip
def test_where_nobody_gets_in(loud: Suite, secured: Secured, user: str) -> None:
    result = run(loud, secured.kubeconfig(users(secured)[user]))
    assert result.ret == pytest.ExitCode.USAGE_ERROR


@pytest.mark.parametrize("user", ["wrong token", "failing plugin"])
def test_where_nobody_gets_in_under_xdist(loud: Suite, secured: Secured, user: str) -> None:
    result = run(loud, secured.kubeconfig(users(secured)[user]), workers=2)
    assert result.ret == pytest.ExitCode.USAGE_ERROR


@pytest.mark.parametrize(
    "cluster",
    [
        {"server": "https://127.0.0.1:1"},
        {"server": "https://api.nowhere.invalid", "proxy-url": "http://me:Hush-proxy@127.0.0.1:1"},
        {"proxy-url": "socks5://me:Hush-proxy@127.0.0.1:1"},
        {"server": "https://me:Hush-proxy@127.0.0.1:1"},
    ],
)
def test_where_the_cluster_is_not_reached(loud: Suite, secured: Secured, cluster: Json) -> None:
    result = run(loud, secured.kubeconfig({"token": "Hush-token"}, cluster))
    assert result.ret == pytest.ExitCode.USAGE_ERROR


def test_in_a_proxy_of_the_environment(
    loud: Suite, secured: Secured, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTPS_PROXY", "http://me:Hush-proxy@127.0.0.1:1")
    monkeypatch.delenv("NO_PROXY", raising=False)
    cluster = {"server": "https://api.nowhere.invalid"}
    result = run(loud, secured.kubeconfig({"token": "Hush-token"}, cluster))
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    assert "cannot connect to the proxy 127.0.0.1:1" in result.stderr.str()


def test_in_what_prometheus_is_asked_with(loud: Suite, secured: Secured) -> None:
    """Whether it answers or not, and where a test fails that holds the settings."""
    (secured.folder / "file").write_text("Hush-file", encoding="ascii")
    loud.pytester.makepyfile(
        test_density="""
        def test_density(density_level, density_run, kv_settings, kv_prometheus):
            density_run(density_level)
            assert not kv_settings

        def test_asking(kv_settings, kv_prometheus):
            kv_prometheus.query("up")
        """
    )
    path = secured.kubeconfig({"token": "Hush-token"})
    for url, more in (
        ("http://me:Hush-password@127.0.0.1:1/some/path", ()),
        ("http://127.0.0.1:1", (f"--kvscale-prometheus-token-file={secured.folder / 'file'}",)),
    ):
        result = run(loud, path, f"--kvscale-prometheus={url}", *more)
        result.assert_outcomes(failed=2)
        assert "kv_settings = " in result.stdout.str()


@pytest.mark.parametrize("text", ["users: *Hush-token", "token: !Hush-key 1", "users: [Hush-key]"])
def test_in_a_malformed_kubeconfig(loud: Suite, secured: Secured, text: str) -> None:
    path = secured.folder / "config"
    path.write_text(text, encoding="utf-8")
    assert run(loud, path).ret == pytest.ExitCode.USAGE_ERROR


def test_where_a_worker_alone_does_not_get_in(loud: Suite, secured: Secured) -> None:
    """There it is no usage error any more, but a traceback."""
    count = secured.folder / "count"
    code = (
        f"import pathlib\ncount = pathlib.Path({str(count)!r})\n"
        "if count.exists():\n    sys.exit('Hush-output')\ncount.touch()\n"
        f"print('''{credential(token='Hush-token')}''')"
    )
    result = run(loud, secured.kubeconfig(plugin(secured.folder, code)), workers=1)
    result.assert_outcomes(errors=1)
    assert "failed with exit code 1: run it by hand" in result.stdout.str()


def test_the_search_finds_what_it_shall_find() -> None:
    for text in ("a Hush-key", base64.b64encode(b"abc:Hush-key").decode()):
        assert any(each in text.encode() for each in variants("Hush-key"))
