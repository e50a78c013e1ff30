"""Profiles are data, and checked."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from pytest_kvscale.errors import ConfigurationError
from pytest_kvscale.sim import profile
from pytest_kvscale.sim.__main__ import main


@pytest.mark.parametrize("name", profile.names())
def test_the_shipped_profiles_are_valid(name: str) -> None:
    assert profile.load(name).description


def test_the_default_is_the_published_experiment() -> None:
    node = profile.load("blog-2021").node
    assert (node.cpu, node.memory, node.max_pods, node.pod_network_prefix) == (
        "48", "128Gi", 1022, 22,
    )  # fmt: skip
    kubevirt = profile.load("blog-2021").kubevirt
    assert (kubevirt.max_devices, kubevirt.qemu_timeout) == (110, 240)


def test_a_profile_may_extend_another_and_name_only_what_differs(
    profile_file: Callable[[str], Path],
) -> None:
    path = profile_file("node: {cpu: 96}\ntimes: {launcher: {parallel: 2}}\n")
    made, base = profile.load(str(path)), profile.load("blog-2021")
    assert made.node.cpu == "96"
    assert made.node.memory == base.node.memory
    assert made.times.launcher.parallel == 2
    assert made.times.launcher.work == base.times.launcher.work


@pytest.mark.parametrize(
    ("yaml", "sentence"),
    [
        ("node: {cpus: 3}", "unknown key 'node.cpus' (did you mean 'cpu'?)"),
        ("node: {memory: much}", "node.memory: 'much' is no quantity"),
        ("node: {max_pods: many}", "node.max_pods: input should be a valid integer"),
        ("faults: {stuck: 2}", "faults.stuck: input should be less than or equal to 1, got 2"),
        ("times: {rollout: -1}", "times.rollout: input should be greater than or equal to 0"),
        ("times: {rollout: .inf}", "times.rollout: input should be a finite number"),
        ("versions: {kubernetes: '1.21'}", "versions.kubernetes: string should match pattern"),
        ("- a", "must be a mapping"),
        ("a: [", "is not YAML"),
    ],
)
def test_what_is_wrong_is_told_in_a_sentence(tmp_path: Path, yaml: str, sentence: str) -> None:
    path = tmp_path / "p.yaml"
    path.write_text(yaml if yaml[0] in "-a" else f"extends: blog-2021\n{yaml}\n", encoding="utf-8")
    with pytest.raises(ConfigurationError) as caught:
        profile.load(str(path))
    assert sentence in str(caught.value)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_missing_key_is_named(tmp_path: Path) -> None:
    path = tmp_path / "p.yaml"
    path.write_text("description: nothing else\n", encoding="utf-8")
    with pytest.raises(ConfigurationError, match="the key 'epoch' is missing"):
        profile.load(str(path))


def test_an_unknown_name_is_answered_with_the_nearest() -> None:
    with pytest.raises(ConfigurationError, match="did you mean 'blog-2021'"):
        profile.load("blog2021")


def test_profiles_that_extend_each_other_are_refused(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("extends: b.yaml\n", encoding="utf-8")
    (tmp_path / "b.yaml").write_text("extends: a.yaml\n", encoding="utf-8")
    with pytest.raises(ConfigurationError, match="extends itself"):
        profile.load(str(tmp_path / "a.yaml"))


# Versions ---------------------------------------------------------------------------------------


def test_versions_differ_in_what_they_limit_and_how_they_call_their_metrics() -> None:
    old, new = profile.load("blog-2021"), profile.load("modern")
    assert (old.rate_limits.handler.qps, new.rate_limits.handler.qps) == (5, 50)
    assert (old.rate_limits.controller.qps, new.rate_limits.controller.qps) == (20, 200)
    assert (old.kubevirt.max_devices, new.kubevirt.max_devices) == (110, 1000)
    assert old.kubevirt.metrics.phase_buckets[-1] == 600
    assert new.kubevirt.metrics.phase_buckets[-1] == 3600
    assert (old.kubevirt.metrics.rest_client_prefix, new.kubevirt.metrics.rest_client_prefix) == (
        "", "kubevirt_",
    )  # fmt: skip


def test_an_upgrade_is_the_same_slower_or_breaks_at_110() -> None:
    before = profile.load("upgrade-from")
    after = {name: profile.load(f"upgrade-{name}") for name in ("same", "slower", "breaks")}
    versions = {each.versions.kubevirt for each in (before, *after.values())}
    assert len(versions) == 4
    unchanged = {"description", "versions"}
    assert after["same"].model_dump(exclude=unchanged) == before.model_dump(exclude=unchanged)
    assert after["slower"].times.launcher.work > 1.25 * before.times.launcher.work
    assert (before.kubevirt.max_devices, after["breaks"].kubevirt.max_devices) == (1000, 110)
    assert before.node.max_pods > 400


# One's own node ---------------------------------------------------------------------------------

NODE = """
apiVersion: v1
kind: Node
metadata:
  name: worker-1.example.com
  labels:
    kubernetes.io/hostname: worker-1.example.com
    topology.kubernetes.io/zone: a
    cpu-feature.node.kubevirt.io/avx: "true"
spec: {podCIDR: 10.42.3.0/24}
status:
  capacity: {cpu: "96", memory: 527943788Ki, ephemeral-storage: 921300812Ki, pods: "250"}
  allocatable:
    cpu: 95500m
    memory: 526792812Ki
    ephemeral-storage: "847996622947"
    pods: "250"
    devices.kubevirt.io/kvm: 1k
  nodeInfo:
    architecture: amd64
    kubeletVersion: v1.33.4+rke2r1
    containerRuntimeVersion: containerd://2.0.5-k3s2
"""


def own(tmp_path: Path, text: str, capsys: pytest.CaptureFixture[str]) -> tuple[int, str, str]:
    path = tmp_path / "node.yaml"
    path.write_text(text, encoding="utf-8")
    code = main(["profile", "--from-node", str(path)])
    out, err = capsys.readouterr()
    return code, out, err


def test_ones_own_node_becomes_a_profile(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, _ = own(tmp_path, NODE, capsys)
    assert code == 0
    path = tmp_path / "mine.yaml"
    path.write_text(out, encoding="utf-8")
    made, base = profile.load(str(path)), profile.load("modern")
    node = made.node
    assert (node.name, node.count, node.cpu, node.max_pods) == (
        "worker-1-example-com",
        1,
        "96",
        250,
    )
    assert (node.reserved_cpu, node.reserved_memory) == ("500m", "1124Mi")
    assert (node.pod_network_prefix, made.kubevirt.max_devices) == (24, 1000)
    assert node.labels == {"topology.kubernetes.io/zone": "a"}
    assert (made.versions.kubernetes, made.versions.minor) == ("v1.33.4+rke2r1", 33)
    assert made.versions.kubevirt == base.versions.kubevirt
    assert made.times == base.times


def test_what_a_node_does_not_tell_is_said_and_left_as_it_is(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = NODE.replace("{podCIDR: 10.42.3.0/24}", "{}").replace("devices.kubevirt.io/kvm", "other")
    code, out, _ = own(tmp_path, text, capsys)
    assert code == 0
    assert "no IPv4 network" in out
    assert "no devices.kubevirt.io/kvm" in out
    assert "pod_network_prefix" not in out
    assert "kubevirt:" not in out


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("kind: Pod", "is no node: expected what `kubectl get node NAME -o yaml` prints"),
        ("kind: List\nitems: []", "has 0 objects (none): expected one node"),
        (
            "kind: List\nitems: [{metadata: {name: a}}, {metadata: {name: b}}]",
            "has 2 objects (a, b): expected one node",
        ),
        ("a: [", "is not YAML"),
        ("kind: Node\nmetadata: {name: a}", "the node lacks 'status'"),
        (NODE.replace("amd64", "arm64"), "its architecture is arm64"),
        (NODE.replace("95500m", "lots"), "'lots' is no quantity"),
        (NODE.replace("v1.33.4+rke2r1", "devel"), "versions.kubernetes: string should match"),
    ],
)
def test_a_file_that_is_no_node_is_told_in_a_sentence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str, sentence: str
) -> None:
    code, out, err = own(tmp_path, text, capsys)
    assert (code, out) == (4, "")
    assert sentence in err
    assert err.count("\n") == 1
