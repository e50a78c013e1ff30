"""Templates make the objects a run creates."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from pytest_kvscale.cluster.templates import DEFAULT, Template
from pytest_kvscale.errors import ConfigurationError

HEAD = "apiVersion: kubevirt.io/v1\nkind: VirtualMachineInstance\n"


def write(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "template.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def render(template: Template, **more: Any) -> dict[str, Any]:
    values: dict[str, Any] = {
        "name": "density-400-0007", "namespace": "ns", "level": 400, "index": 7, "run": "r1",
        "node": "node-1", "node_selector": {"kubernetes.io/hostname": "node-1"}, **more,
    }  # fmt: skip
    return template.render(**values)


def test_the_shipped_vmi_is_the_published_one() -> None:
    made = render(Template(DEFAULT, {}))
    assert made["metadata"] == {
        "name": "density-400-0007", "namespace": "ns", "labels": {"kvscale.io/run": "r1"},
    }  # fmt: skip
    spec = made["spec"]
    assert spec["domain"]["resources"]["requests"] == {"cpu": "10m", "memory": "10Mi"}
    assert spec["nodeSelector"] == {"kubernetes.io/hostname": "node-1"}
    assert spec["terminationGracePeriodSeconds"] == 180
    disk = spec["volumes"][0]["containerDisk"]
    assert disk["imagePullPolicy"] == "IfNotPresent"
    assert ":" in disk["image"].rpartition("/")[2]
    assert "imagePullSecret" not in disk


def test_its_variables_can_be_set() -> None:
    variables = {"image": "registry/x:1", "memory": "64Mi", "pull_secret": "s", "grace": "5"}
    spec = render(Template(DEFAULT, variables))["spec"]
    disk = spec["volumes"][0]["containerDisk"]
    assert (disk["image"], disk["imagePullSecret"]) == ("registry/x:1", "s")
    assert spec["domain"]["resources"]["requests"]["memory"] == "64Mi"
    assert spec["terminationGracePeriodSeconds"] == 5


def test_a_template_may_use_all_it_is_told(tmp_path: Path) -> None:
    text = HEAD + (
        "metadata: {name: '{{ name }}', annotations: {all: '{{ namespace }} {{ level }} "
        "{{ index }} {{ run }} {{ node }} {{ mine }}'}, labels: {app: x}}\nspec: {}\n"
    )
    made = render(Template(write(tmp_path, text), {"mine": "m"}))
    assert made["metadata"]["annotations"]["all"] == "ns 400 7 r1 node-1 m"
    assert made["metadata"]["labels"] == {"app": "x", "kvscale.io/run": "r1"}


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("a: [", "is not YAML in line"),
        ("kind: X\nmetadata: {name: '{{ name }}'}", "lacks apiVersion"),
        ("apiVersion: v1\nmetadata: {name: '{{ name }}'}", "lacks kind"),
        (HEAD + "metadata: {}", "lacks metadata.name"),
        (HEAD, "lacks metadata.name"),
        (HEAD + "metadata: {name: fixed}", "metadata.name must be {{ name }}"),
        ("- a\n- b", "must be one object"),
        ("", "must be one object"),
        (HEAD + "metadata: {name: '{{ nam }}'}", "'nam' is undefined: set it with --kvscale-set"),
        (HEAD + "metadata: {name: '{{ name '}", "line 3"),
        (HEAD + "metadata: {name: '{{ 1 / 0 }}'}", "cannot be rendered"),
        ("apiVersion: v1\nkind: Pod\nmetadata: {name: '{{ name }}'}", "makes a Pod (v1): expected"),
        (HEAD + "metadata: {name: '{{ name.__class__.__mro__ }}'}", "cannot be rendered"),
        (HEAD + "metadata: !!python/object/apply:os.getcwd []", "is not YAML"),
    ],
)
def test_what_is_wrong_is_told_in_a_sentence(tmp_path: Path, text: str, sentence: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        Template(write(tmp_path, text), {})
    assert sentence in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_missing_template_is_told(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="cannot be read: No such file"):
        Template(tmp_path / "none.yaml", {})
