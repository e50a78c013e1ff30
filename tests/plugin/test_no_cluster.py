"""A cluster that cannot be used is told in one sentence, in time, alone and under xdist."""

from __future__ import annotations

import socket
import xml.etree.ElementTree as ET

import pytest
from _pytest.pytester import RunResult

from pytest_kvscale.cluster import choose
from tests.plugin.api import READY, Answers, api, failure, kubeconfig_for, kubevirts
from tests.plugin.conftest import Json, Suite

KUBEVIRTS, NODES = "/apis/kubevirt.io/v1/kubevirts", "/api/v1/nodes"
FORBIDDEN = '{} is forbidden: User "dev" cannot list resource at the cluster scope'


def check(suite: Suite, result: RunResult, *parts: str) -> None:
    """One sentence, exit code 4, and a JUnit file that has it."""
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    (line,) = (each for each in result.errlines if each.startswith("ERROR: "))
    sentence = line.removeprefix("ERROR: kvscale: ")
    for part in parts:
        assert part in sentence
    (case,) = ET.parse(suite.latest / "junit.xml").getroot().iter("testcase")  # noqa: S314
    assert [each.text for each in case.findall("error")] == [sentence]
    assert "Traceback" not in result.stdout.str() + result.stderr.str()


@pytest.mark.parametrize("workers", [0, 2])
def test_a_closed_port(suite: Suite, workers: int) -> None:
    path = kubeconfig_for(suite.path, "https://127.0.0.1:1")
    result = suite.run(f"--kvscale-kubeconfig={path}", workers=workers)
    check(
        suite, result,
        "the cluster https://127.0.0.1:1 (context here) does not answer: cannot connect to "
        "127.0.0.1:1: Connection refused: check",
    )  # fmt: skip


@pytest.mark.parametrize("workers", [0, 2])
def test_a_port_that_never_answers(
    suite: Suite, workers: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(choose, "SILENCE", 0.5)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        path = kubeconfig_for(suite.path, f"https://127.0.0.1:{silent.getsockname()[1]}")
        result = suite.run(f"--kvscale-kubeconfig={path}", workers=workers)
    check(suite, result, "(context here) did not answer within 0.5 s: check the server's URL")


def test_silence_leaves_pytest_and_its_workers_time_to_start_within_fifteen_seconds() -> None:
    assert choose.SILENCE <= 8 < choose.PATIENCE <= 15


@pytest.mark.parametrize("name", ["SILENCE", "PATIENCE"])
def test_a_cluster_that_falls_silent_after_its_version(
    suite: Suite, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """There is a time for each silence, and one for all that comes before the run."""
    monkeypatch.setattr(choose, name, 3.0)
    with api({NODES: None}) as url:
        path = kubeconfig_for(suite.path, url)
        result = suite.run(f"--kvscale-kubeconfig={path}")
    if name == "SILENCE":
        check(suite, result, "(context here) did not answer within 3 s: check the server's URL")
    else:
        check(suite, result, "(context here) did not answer within ", " s: check the server's URL")


UNUSABLE: list[tuple[Answers, tuple[str, ...]]] = [
    (
        {KUBEVIRTS: failure(404, "NotFound", "could not find the requested resource")},
        ("(context here) has no KubeVirt: install it",),
    ),
    (
        {KUBEVIRTS: kubevirts(None)},
        ("(context here) has KubeVirt's resources, but no KubeVirt is deployed",),
    ),
    (
        {KUBEVIRTS: kubevirts({"phase": "Deploying"})},
        ("(context here) is not ready: its phase is Deploying; look into it with kubectl",),
    ),
    ({KUBEVIRTS: kubevirts({})}, ("is not ready: its phase is unknown",)),
    (
        {
            KUBEVIRTS: kubevirts(
                {**READY, "conditions": [
                    {"type": "Created", "status": "True"},
                    {"type": "Available", "status": "False", "message": "no\nhandler"},
                ]}
            )
        },
        ("is not ready: it is not available (no handler); look into it",),
    ),
    (
        {KUBEVIRTS: failure(403, "Forbidden", FORBIDDEN.format("kubevirts"))},
        ("(context here) forbids what a run needs (kubevirts is forbidden: User \"dev\" cannot",),
    ),
    (
        {NODES: failure(403, "Forbidden", FORBIDDEN.format("nodes"))},
        ("forbids what a run needs (nodes is forbidden", "give the user the rules of docs/"),
    ),
    (
        {"/version": failure(503, "ServiceUnavailable", "starting")},
        ("is not able to answer (HTTP 503, starting): try again",),
    ),
    ({"/version": failure(404, "", "page not found")}, ("is the server's URL right?",)),
    ({NODES: {"items": []}}, ("no node to test",)),
]  # fmt: skip


@pytest.mark.parametrize(("answers", "parts"), UNUSABLE)
def test_a_cluster_that_cannot_be_used(
    suite: Suite, answers: Answers, parts: tuple[str, ...]
) -> None:
    with api(answers) as url:
        path = kubeconfig_for(suite.path, url)
        check(suite, suite.run(f"--kvscale-kubeconfig={path}"), *parts)


def test_a_cluster_that_cannot_be_used_under_xdist(suite: Suite) -> None:
    answers, parts = UNUSABLE[0]
    with api(answers) as url:
        path = kubeconfig_for(suite.path, url)
        check(suite, suite.run(f"--kvscale-kubeconfig={path}", workers=2), *parts)


@pytest.mark.parametrize("workers", [0, 2])
def test_credentials_that_are_not_accepted(suite: Suite, workers: int) -> None:
    with api({}, token="right") as url:
        path = kubeconfig_for(suite.path, url, {"token": "wrong"})
        result = suite.run(f"--kvscale-kubeconfig={path}", workers=workers)
    check(suite, result, "does not accept the credentials of user 'here' (HTTP 401): log in again")


@pytest.mark.parametrize(
    "conditions",
    [None, [], [{"type": "Available", "status": "True"}], [{"type": "Degraded", "status": "True"}]],
)
def test_a_kubevirt_that_is_deployed_is_ready(suite: Suite, conditions: list[Json] | None) -> None:
    """Not every KubeVirt has conditions at any time."""
    status = {**READY, **({} if conditions is None else {"conditions": conditions})}
    suite.pytester.makepyfile(
        test_density="def test_it(kv_node, density_level): assert kv_node['name'] == 'node-1'"
    )
    with api({KUBEVIRTS: kubevirts(status)}) as url:
        path = kubeconfig_for(suite.path, url)
        result = suite.run(f"--kvscale-kubeconfig={path}", "--kvscale-levels=1")
    result.assert_outcomes(passed=1)
