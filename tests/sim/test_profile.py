"""Profiles are data, and checked."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from pytest_kvscale.errors import ConfigurationError
from pytest_kvscale.sim import profile


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
