"""The embedded cluster alone, at the wall's pace: for kubectl, and for us as a real cluster."""

from __future__ import annotations

import asyncio
import json
import os
import re
import subprocess
from collections.abc import Iterator
from typing import Any

import pytest

from pytest_kvscale.cluster import choose
from pytest_kvscale.cluster.client import VMIS, LostConnectionError, repeat_until
from pytest_kvscale.errors import ConfigurationError
from pytest_kvscale.options import Settings
from tests.standalone import COMMAND, PATIENCE, Standalone, running


@pytest.fixture(scope="module")
def standalone(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Standalone]:
    with running(tmp_path_factory.mktemp("standalone")) as cluster:
        yield cluster


def vmi(name: str) -> dict[str, Any]:
    requests = {"cpu": "10m", "memory": "10Mi"}
    return {
        "apiVersion": "kubevirt.io/v1",
        "kind": "VirtualMachineInstance",
        "metadata": {"name": name},
        "spec": {"domain": {"resources": {"requests": requests}}},
    }


def test_kubectl_shows_vmis_and_pods(standalone: Standalone) -> None:
    standalone.post(VMIS.path("default"), vmi("shown"))
    wait = ("wait", "vmi/shown", "--for=jsonpath={.status.phase}=Running", f"--timeout={PATIENCE}s")
    standalone.kubectl(*wait)
    shown = standalone.kubectl("get", "vmi,pods", "-A")
    assert re.search(r"default +virtualmachineinstance.kubevirt.io/shown +\d+s +Running", shown)
    assert re.search(r"default +pod/virt-launcher-shown-\w{5} +1/1 +Running", shown)
    wide = standalone.kubectl("get", "nodes,kv,ns", "-A", "-o", "wide")
    assert "node/node" in wide
    assert "Deployed" in wide
    found = json.loads(standalone.kubectl("get", "vmi", "shown", "-o", "json"))
    assert found["status"]["nodeName"] == "node"
    assert "Running" in standalone.kubectl("describe", "vmi", "shown")
    standalone.kubectl("delete", "vmi", "shown", f"--timeout={PATIENCE}s")
    assert "shown" not in standalone.kubectl("get", "vmi,pods", "-A")


def test_kubectl_patches_the_kubevirt_cr(standalone: Standalone) -> None:
    patch = '{"spec":{"configuration":{"virtualMachineInstancesPerNode":77}}}'
    arguments = ("-n", "kubevirt", "patch", "kubevirt", "kubevirt", "--type", "merge", "-p", patch)
    assert "patched" in standalone.kubectl(*arguments)
    path = "{.status.allocatable.devices\\.kubevirt\\.io/kvm}"
    standalone.kubectl("wait", "node/node", f"--for=jsonpath={path}=77", f"--timeout={PATIENCE}s")


def test_the_same_suite_runs_on_it_as_on_a_real_cluster(
    standalone: Standalone, pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By its kubeconfig, in real time: nothing but the choice of the cluster differs."""
    monkeypatch.setenv("KUBECONFIG", str(standalone.kubeconfig))
    pytester.makepyfile(
        test_density="""
        def test_density(density_level, density_run, slo):
            slo.check(density_run(density_level))
        """
    )
    arguments = ["-p", "no:hypothesispytest", "--kvscale-levels=5,3", "--kvscale-cooldown=0"]
    refused = pytester.runpytest_subprocess(*arguments)
    assert refused.ret == pytest.ExitCode.USAGE_ERROR
    refused.stderr.fnmatch_lines(["ERROR: kvscale: http://* says it is simulated (sim): *"])
    result = pytester.runpytest_subprocess(*arguments, "--kvscale-allow-simulated")
    result.assert_outcomes(passed=2)
    result.stdout.fnmatch_lines(
        [
            "kvscale: SIMULATED cluster http://127.0.0.1:* (context *): profile fast, seed 0",
            "    5      5/5 * none      pass",
            "    3      3/3 * none      pass",
        ]
    )
    path = pytester.path / "reports" / "latest" / "results.json"
    results = json.loads(path.read_text(encoding="utf-8"))
    assert results["run"]["simulated"] == "sim"
    assert results["cluster"]["tuning"] == {"applied": "none", "changes": []}
    left = json.loads(standalone.kubectl("get", "ns", "-o", "json"))["items"]
    ours = [each["metadata"]["name"] for each in left if "kvscale" in each["metadata"]["name"]]
    assert ours == ["kvscale-system"]


def test_an_interrupt_deletes_on_a_cluster_in_real_time(
    standalone: Standalone, pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KUBECONFIG", str(standalone.kubeconfig))
    pytester.makepyfile(
        test_density="""
        import os, signal

        def test_stopped(kv_cluster, density_run):
            density_run(1)
            kv_cluster.clock.loop.call_soon_threadsafe(
                kv_cluster.clock.loop.call_later, 0.5, os.kill, os.getpid(), signal.SIGINT)
            density_run(30)
        """
    )
    result = pytester.runpytest_subprocess(
        "--kvscale-allow-simulated", "--kvscale-qps=5", "--kvscale-cooldown=0"
    )
    assert result.ret == pytest.ExitCode.INTERRUPTED
    path = pytester.path / "reports" / "latest" / "results.json"
    _, level = json.loads(path.read_text(encoding="utf-8"))["levels"]
    assert level["reasons"][0] == "the level was interrupted"
    assert 0 < level["created"] < 30
    assert (level["deleted"], level["left_behind"]) == (level["created"], 0)


def test_faults_are_made_in_real_time_too(standalone: Standalone) -> None:
    """A watch is reset by a restart of the API, which comes back with its store."""
    standalone.post(VMIS.path("default"), vmi("kept"))
    settings = Settings(kubeconfig=standalone.kubeconfig, allow_simulated=True)
    connection = choose.connect(settings, dict(os.environ))
    client = connection.client

    async def work() -> tuple[Any, Any]:
        loop, watched = asyncio.get_running_loop(), asyncio.Event()

        async def watch() -> None:
            async for _ in client.watch(VMIS, "default", {}, PATIENCE, watched.set):
                pass

        watching = asyncio.create_task(watch())
        await watched.wait()
        fault = {"kind": "restart", "seconds": 0.5}
        made = await client.request("create", "POST", "/_sim/faults", body=fault)
        with pytest.raises(LostConnectionError):
            await watching
        kept = await repeat_until(
            loop.time() + PATIENCE, lambda: client.get(VMIS, "default", "kept")
        )
        await client.request("delete", "DELETE", f"/_sim/faults/{made['id']}")
        return kept, await client.request("get", "GET", "/_sim/faults")

    try:
        kept, faults = connection.run(work())
    finally:
        connection.close()
    assert kept["metadata"]["name"] == "kept"
    assert faults == {"faults": []}


def test_its_kubeconfig_is_its_owners_only(standalone: Standalone) -> None:
    assert standalone.kubeconfig.stat().st_mode & 0o777 == 0o600


def test_a_context_can_be_named(standalone: Standalone) -> None:
    settings = Settings(kubeconfig=standalone.kubeconfig, allow_simulated=True)
    connection = choose.connect(settings, dict(os.environ))
    assert connection.identity.profile == "fast"
    connection.close()
    with pytest.raises(ConfigurationError, match="says it is simulated"):
        choose.connect(Settings(kubeconfig=standalone.kubeconfig), {})


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--profile", "fats"], "unknown profile 'fats' (did you mean 'fast'?)"),
        (["--port", "1", "--host", "203.0.113.1"], "cannot serve on 203.0.113.1:1"),
    ],
)
def test_a_mistake_is_told(arguments: list[str], sentence: str) -> None:
    done = subprocess.run(
        [*COMMAND, *arguments], capture_output=True, text=True, timeout=PATIENCE, check=False
    )
    assert done.returncode == 4
    assert sentence in done.stderr
    assert done.stderr.count("\n") == 1


def test_a_port_that_is_taken_is_told(standalone: Standalone) -> None:
    port = standalone.url.rpartition(":")[2]
    done = subprocess.run(
        [*COMMAND, "--port", port], capture_output=True, text=True, timeout=PATIENCE, check=False
    )
    assert done.returncode == 4
    assert f"cannot serve on 127.0.0.1:{port}: " in done.stderr
