"""A real Prometheus, asked as a level asks it: figures, sentences, ways to reach it."""

from __future__ import annotations

import asyncio
import socket
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from pytest_kvscale.cluster.clock import VirtualClock
from pytest_kvscale.cluster.prometheus import Access, Prometheus, PrometheusError, by_url, find
from pytest_kvscale.errors import ConfigurationError
from pytest_kvscale.measure.clocks import compare
from pytest_kvscale.measure.control_plane import MEMORY
from pytest_kvscale.measure.counted import Counted
from pytest_kvscale.measure.observe import Observer
from pytest_kvscale.measure.phase_metrics import METRIC
from pytest_kvscale.measure.timeline import Creation
from pytest_kvscale.metered import Found, Meter, prometheus_of
from tests import prometheus
from tests.cluster.scripted import answering, status

START = 1_635_753_600.0
"""The date the level begins at; our clock shows 0 then."""
END = START + 900
EDGES_2021 = (0.5, 1, 2, 5, 10, 20, 30, 40, 50, 60, 90, 120, 180, 300, 600)
EDGES = (*EDGES_2021, 1200, 1800, 3600)
TOOK = [float(each * 4) for each in range(1, 201)]
"""Seconds to Running of 200 VMIs: p95 is 760."""


def exposition(edges: tuple[float, ...], prefix: str = "kubevirt_") -> str:
    """Samples of a level, every 15 s, as two virt-controllers told: the first dies at half time.

    Before the level the first one had counted 50 VMIs of 1 s already.
    """
    lines: dict[str, list[str]] = {}

    def tell(family: str, series: str, at: float, value: float, /, **labels: str) -> None:
        inside = ",".join(f'{key}="{each}"' for key, each in labels.items())
        lines.setdefault(family, []).append(f"{series}{{{inside}}} {value} {at}")

    died = 465.0
    for step in range(-4, 68):
        at = 15.0 * step
        for pod, own in (("virt-controller-a", at <= died), ("virt-controller-b", at > died)):
            if not own:
                continue
            base = {"pod": pod, "instance": pod, "job": "kubevirt-prometheus-metrics"}
            first = pod.endswith("a")
            values = [1.0] * 50 if first else []
            values += [each for each in TOOK if each <= at and (each <= died) is first]
            for edge in (*edges, float("inf")):
                le = "+Inf" if edge == float("inf") else f"{edge:g}"
                count = sum(each <= edge for each in values)
                tell(METRIC, f"{METRIC}_bucket", START + at, count, phase="Running", le=le, **base)
            tell("up", "up", START + at, 1, **base)
            began = "process_start_time_seconds"
            tell(began, began, START + at, START + (-9000 if first else died + 5), **base)
            name = f"{prefix}rest_client_requests_total".removesuffix("_total")
            sent = {"verb": "PATCH", "resource": "virtualmachineinstances", "code": "200"}
            tell(name, f"{name}_total", START + at, 3 * len(values), **sent, **base)
            depth = {"name": "virt-controller-vmi", **base}
            tell("kubevirt_workqueue_depth", "kubevirt_workqueue_depth", START + at,
                 float(step % 7), **depth)  # fmt: skip
        for job in ("kubelet", "etcd") if step > 2 else ("kubelet",):
            # Components without a container's name; Prometheus has etcd only since the level began.
            base = {"instance": "node" if job == "kubelet" else "etcd-0", "job": job}
            tell("up", "up", START + at, 1, **base)
            used = "process_cpu_seconds"
            tell(used, f"{used}_total", START + at, 1000 + 0.5 * step, **base)
            tell(MEMORY, MEMORY, START + at, 1e8, **base)
    gauges = (METRIC, "up", "kubevirt_workqueue_depth", "process_start_time_seconds", MEMORY)
    text = []
    for family, told in lines.items():
        text += [f"# TYPE {family} {'gauge' if family in gauges else 'counter'}", *told]
    return "\n".join([*text, "# EOF"]) + "\n"


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., Any]]:
    """A Prometheus that has such samples; one for each kind, for the whole module."""
    import contextlib

    made: dict[tuple[Any, ...], Any] = {}
    with contextlib.ExitStack() as stack:

        def start(edges: tuple[float, ...] = EDGES, prefix: str = "kubevirt_") -> Any:
            key = (edges, prefix)
            if key not in made:
                folder = tmp_path_factory.mktemp("prometheus")
                tsdb = prometheus.backfill(exposition(edges, prefix), folder)
                running = prometheus.running(folder, prometheus.NOTHING_TO_SCRAPE, tsdb)
                made[key] = stack.enter_context(running)
            return made[key]

        yield start


def observed(took: list[float] = TOOK) -> Observer:
    observer = Observer()
    for index, each in enumerate(took):
        name = f"v{index}"
        observer.expect(Creation(name, 0.0, 0.0, 0.05))
        vmi = {"metadata": {"name": name, "uid": name}, "status": {"phase": "Running"}}
        observer.take("vmis", "ADDED", vmi, each + 0.4)
    observer.end_level(END - START)
    return observer


def meter(server: Prometheus, observer: Observer, start: float = START) -> Counted:
    """What a level is told; its own clock has gone on to an hour later."""
    clock = VirtualClock()

    async def work() -> Counted:
        async with answering(lambda _: _never()) as (client, _):
            await asyncio.sleep(3600)
            asked = Meter(client, "kubevirt", "node", Found(server, ""))
            await asked.begin()
            clocks = compare([])
            clocks["distance"], clocks["uncertainty"] = -start, 0.1
            return await asked.end(observer, clocks, 200)

    try:
        return clock.run(work())
    finally:
        clock.close()


async def _never() -> web.StreamResponse:
    raise AssertionError("nobody is to ask this")


def test_a_levels_percentiles_are_those_of_its_window_over_all_instances(servers: Any) -> None:
    found = meter(by_url(servers().url, Access()), observed())
    running = found.phases["Running"]
    assert (running["n"], running["p95_low"], running["p95_high"]) == (200, 600, 1200)
    assert (running["p50_low"], running["p50_high"]) == (300, 600)
    assert not running["saturated"]
    assert (found.note, list(found.warnings)) == ("", [])


def test_in_2021s_buckets_the_same_level_is_saturated_at_600(servers: Any) -> None:
    running = meter(by_url(servers(EDGES_2021).url, Access()), observed()).phases["Running"]
    assert (running["p95"], running["p95_low"], running["p95_high"]) == (600, 600, None)
    assert running["saturated"]


def test_a_p95_of_ours_that_does_not_agree_is_told(servers: Any) -> None:
    slower = observed([each / 2 for each in TOOK])
    (warning,) = meter(by_url(servers().url, Access()), slower).warnings
    assert "we saw 380.4 s: they do not agree" in warning


@pytest.mark.parametrize("prefix", ["kubevirt_", ""])
def test_what_it_cost_is_counted_by_old_and_new_names(servers: Any, prefix: str) -> None:
    cost = meter(by_url(servers(EDGES, prefix).url, Access()), observed()).cost
    controller = cost["components"]["virt-controller"]
    assert cost["source"] == "prometheus"
    assert controller["requests"] == {"PATCH virtualmachineinstances": 600.0}
    assert controller["queues"]["virt-controller-vmi"]["depth"] == 6
    kubelet = cost["components"]["kubelet"]
    # From 15 s before the level to 15 s after it, every 15 s.
    assert (kubelet["cpu"], kubelet["memory"]) == (31.0, 1e8)


def test_what_a_component_stood_at_before_the_level_is_not_counted(servers: Any) -> None:
    cost = meter(by_url(servers().url, Access()), observed()).cost
    assert "etcd" not in cost["components"]
    assert cost["note"] == (
        "etcd-0: scraped only since the level began, what it had counted before is not known"
    )


# Sentences ------------------------------------------------------------------------------------


def test_no_samples_no_metric_and_no_server_are_three_sentences(
    servers: Any, tmp_path: Path
) -> None:
    server = by_url(servers().url, Access())
    empty = meter(server, observed(), START + 40000)
    assert empty.note == (f"Prometheus at {server.name} has no samples of {METRIC} in this level")
    with prometheus.running(tmp_path, prometheus.NOTHING_TO_SCRAPE) as bare:
        absent = meter(by_url(bare.url, Access()), observed())
    assert f"has no metric {METRIC}: does it scrape KubeVirt" in absent.note
    gone = meter(by_url(f"http://127.0.0.1:{_free()}", Access()), observed())
    assert "cannot be reached: Connection refused" in gone.note
    for each in (empty, absent, gone):
        assert not each.phases
        assert not each.cost["components"]


def _free() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


def test_a_wrong_query_and_a_stranger_are_told_apart(servers: Any) -> None:
    server = by_url(servers().url, Access())
    with pytest.raises(PrometheusError, match=r"answered with an error: 400 .*parse error"):
        server.ask("sum(", START)

    async def stranger(said: Any) -> None:
        async def answer(_: web.BaseRequest) -> web.StreamResponse:
            return web.json_response(said)

        async with answering(answer) as (client, _):
            await by_url(client.server, Access()).query("up", START)

    strange: list[Any] = [{"hello": "world"}, ["hello"]]
    strange += [{"data": {"result": each}} for each in ([1.0, "1"], [{"x": 1}], [{"values": 3}])]
    for said in strange:
        clock = VirtualClock()
        with pytest.raises(PrometheusError, match=r"what answers at .* is no Prometheus"):
            clock.run(stranger(said))
        clock.close()


# Ways to reach it -----------------------------------------------------------------------------


def test_a_token_and_a_password_are_shown_and_appear_in_no_name(tmp_path: Path) -> None:
    seen: list[str | None] = []
    token = tmp_path / "token"
    token.write_text("s3cret\n", encoding="utf-8")

    async def work() -> None:
        async def answer(request: web.BaseRequest) -> web.StreamResponse:
            seen.append(request.headers.get("Authorization"))
            return web.json_response({"status": "success", "data": {"result": []}})

        async with answering(answer) as (client, _):
            first = by_url(client.server, Access(token))
            second = by_url(client.server.replace("//", "//name:word@"), Access())
            for each in (first, second):
                await each.query("up", START)
                assert "word" not in each.name

    clock = VirtualClock()
    clock.run(work())
    clock.close()
    assert seen == ["Bearer s3cret", "Basic bmFtZTp3b3Jk"]


@pytest.mark.parametrize(
    ("url", "access", "sentence"),
    [
        ("promethus", Access(), "'promethus' is no URL: expected http://HOST:PORT"),
        ("ftp://user:word@host", Access(), r"'ftp://\*\*\*@host' is no URL"),
        ("http://h", Access(Path("/none")), "/none cannot be read: No such file"),
        ("http://h", Access(None, Path("/none")), "there is no file /none"),
    ],
)
def test_what_is_no_url_or_file_is_refused(url: str, access: Access, sentence: str) -> None:
    with pytest.raises(ConfigurationError, match=sentence):
        by_url(url, access)


def service(namespace: str, name: str, port: str = "web") -> dict[str, Any]:
    return {
        "metadata": {"namespace": namespace, "name": name},
        "spec": {"ports": [{"name": port, "port": 9090}]},
    }


@pytest.mark.parametrize(
    ("namespace", "name", "path"),
    [
        ("monitoring", "prometheus-k8s", "monitoring/services/prometheus-k8s:web"),
        ("openshift-monitoring", "thanos-querier",
         "openshift-monitoring/services/https:thanos-querier:web"),
        ("elsewhere", "prometheus-operated", "elsewhere/services/prometheus-operated:web"),
    ],
)  # fmt: skip
def test_a_clusters_own_is_found_and_asked_through_the_api_server(
    servers: Any, namespace: str, name: str, path: str
) -> None:
    """The API server's proxy is played; what is behind it is a real Prometheus."""
    behind = servers().url
    proxy = f"/api/v1/namespaces/{path}/proxy"

    async def answer(request: web.BaseRequest) -> web.StreamResponse:
        if request.path.startswith(proxy):
            assert request.headers["Authorization"] == "Bearer secret-token"
            url = behind + request.path_qs.removeprefix(proxy)
            code, text = await asyncio.to_thread(_fetch, url)
            return web.Response(body=text, status=code, content_type="application/json")
        if request.path == f"/api/v1/namespaces/{namespace}/services/{name}":
            return web.json_response(service(namespace, name))
        if request.path == "/api/v1/services":
            operated = [service(namespace, name)] if namespace == "elsewhere" else []
            return web.json_response({"metadata": {}, "items": operated})
        return status(404, "NotFound")

    async def work() -> tuple[Any, Any, str]:
        async with answering(answer) as (client, _):
            found = await find(client)
            assert found is not None
            asked = await found.query("vector(7)", START)
            with pytest.raises(PrometheusError, match="answered with an error: 400"):
                await found.query("sum(", START)
            return asked, await found.knows(f"{METRIC}_bucket", START, END), found.name

    clock = VirtualClock()
    asked, knows, called = clock.run(work())
    clock.close()
    assert asked[0][1][0][1] == 7
    assert knows is True
    assert called == f"{namespace}/{name}"


def _fetch(url: str) -> tuple[int, bytes]:
    try:
        with urllib.request.urlopen(url, timeout=30) as answer:  # noqa: S310 - our own server
            return 200, answer.read()
    except urllib.error.HTTPError as problem:
        return problem.code, problem.read()


@pytest.mark.parametrize(
    ("setting", "sentence"),
    [
        ("none", "Prometheus was not asked (--kvscale-prometheus none)"),
        ("auto", "no Prometheus was found in the cluster (--kvscale-prometheus auto)"),
        ("http://127.0.0.1:1", "Prometheus at http://127.0.0.1:1 cannot be reached: Connection"),
    ],
)
def test_where_none_is_asked_it_is_said_why(setting: str, sentence: str) -> None:
    async def work() -> Found:
        async def answer(_: web.BaseRequest) -> web.StreamResponse:
            return status(403, "Forbidden", "services is forbidden")

        async with answering(answer) as (client, _):
            return await prometheus_of(client, setting, Access())

    clock = VirtualClock()
    found = clock.run(work())
    clock.close()
    assert found.prometheus is None
    assert found.why.startswith(sentence)
