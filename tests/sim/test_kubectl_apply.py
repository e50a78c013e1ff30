"""The real kubectl, of today and of old, against the embedded cluster: apply and its kin."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import yaml

from tests.programs import program
from tests.standalone import PATIENCE, Standalone, running

OBJECTS = """
apiVersion: v1
kind: ConfigMap
metadata: {name: NAME, namespace: default}
data: {a: "1", b: "2"}
---
apiVersion: kubevirt.io/v1
kind: VirtualMachineInstance
metadata: {name: NAME, namespace: default, labels: {x: "1"}}
spec:
  domain: {devices: {}, resources: {requests: {memory: 10Mi, cpu: 10m}}}
---
apiVersion: v1
kind: Pod
metadata: {name: NAME, namespace: default}
spec:
  containers: [{name: c, image: "registry.k8s.io/pause:3.9", ports: [{containerPort: 80}]}]
"""
COUNT = 3
Kubectl = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="module")
def standalone(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Standalone]:
    with running(tmp_path_factory.mktemp("apply")) as cluster:
        yield cluster


@pytest.fixture(params=["1.32", "1.20"])
def kubectl(request: pytest.FixtureRequest, standalone: Standalone, tmp_path: Path) -> Kubectl:
    command = program(f"kubectl-{request.param}", "kubectl")

    def run(*arguments: str, text: str = "") -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [command, "--kubeconfig", str(standalone.kubeconfig), *arguments],
            input=text, capture_output=True, text=True, timeout=PATIENCE, check=False,
            env={**os.environ, "HOME": str(tmp_path)},
        )  # fmt: skip

    return run


def said(done: subprocess.CompletedProcess[str], *words: str) -> None:
    """A command succeeded and told so much of each object."""
    assert done.returncode == 0, done.stderr
    for word in words:
        assert done.stdout.count(word) == COUNT, (done.stdout, done.stderr)


def test_objects_are_applied_compared_replaced_and_deleted(
    kubectl: Kubectl, request: pytest.FixtureRequest
) -> None:
    name = f"whole-{request.node.callspec.id.replace('.', '-')}"
    text = OBJECTS.replace("NAME", name)
    changed = text.replace('b: "2"', 'c: "3"').replace('x: "1"', 'x: "2"').replace("3.9", "3.10")
    said(kubectl("create", "--dry-run=server", "-f", "-", text=text), "created (server dry run)")
    said(kubectl("apply", "-f", "-", text=text), " created")
    said(kubectl("apply", "-f", "-", text=text), " unchanged")
    assert kubectl("diff", "-f", "-", text=text).returncode == 0
    different = kubectl("diff", "-f", "-", text=changed)
    assert different.returncode == 1, different.stderr
    assert '+  c: "3"' in different.stdout
    said(kubectl("apply", "-f", "-", text=changed), " configured")
    data = kubectl("get", "cm", name, "-o", "jsonpath={.data}")
    assert yaml.safe_load(data.stdout) == {"a": "1", "c": "3"}
    without_pod = changed.rpartition("---")[0]
    replaced = kubectl("replace", "-f", "-", text=without_pod)
    assert replaced.stdout.count(" replaced") == COUNT - 1, replaced.stderr
    said(kubectl("delete", "--wait=false", "-f", "-", text=text), " deleted")


def test_objects_move_from_applying_here_to_applying_there(
    kubectl: Kubectl, request: pytest.FixtureRequest
) -> None:
    name = f"moved-{request.node.callspec.id.replace('.', '-')}"
    text = OBJECTS.replace("NAME", name)
    changed = text.replace('a: "1"', 'a: "9"')
    said(kubectl("apply", "-f", "-", text=text), " created")
    said(kubectl("apply", "--server-side", "-f", "-", text=text), " serverside-applied")
    said(kubectl("apply", "--server-side", "-f", "-", text=changed), " serverside-applied")
    others = ("apply", "--server-side", "--field-manager=other", "-f", "-")
    refused = kubectl(*others, text=text)
    assert refused.returncode == 1
    assert 'conflict with "kubectl": .data.a' in refused.stderr
    said(kubectl(*others, "--force-conflicts", text=text), " serverside-applied")
    said(kubectl("delete", "--wait=false", "-f", "-", text=text), " deleted")


def test_every_kind_of_patch_is_taken(kubectl: Kubectl, request: pytest.FixtureRequest) -> None:
    name = f"patched-{request.node.callspec.id.replace('.', '-')}"
    made = kubectl("create", "-f", "-", text=OBJECTS.replace("NAME", name).split("---")[0])
    assert made.returncode == 0, made.stderr
    for kind, patch in (
        ("strategic", '{"data":{"b":"4"}}'),
        ("merge", '{"data":{"a":null}}'),
        ("json", '[{"op":"add","path":"/data/c","value":"3"}]'),
    ):
        done = kubectl("patch", "configmap", name, f"--type={kind}", "-p", patch)
        assert done.returncode == 0, done.stderr
    data = kubectl("get", "configmap", name, "-o", "jsonpath={.data}").stdout
    assert yaml.safe_load(data) == {"b": "4", "c": "3"}


def test_fields_are_explained_and_unknown_ones_refused(kubectl: Kubectl) -> None:
    explained = kubectl("explain", "vmi.spec.domain")
    assert explained.returncode == 0, explained.stderr
    assert "devices" in explained.stdout
    assert "ports" in kubectl("explain", "pods.spec.containers").stdout
    wrong = OBJECTS.replace("NAME", "wrong").replace("domain:", "domin:")
    refused = kubectl("apply", "-f", "-", text=wrong.split("---")[1])
    assert refused.returncode == 1
    assert "domin" in refused.stderr
