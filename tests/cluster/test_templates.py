"""Templates make the objects a run creates."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from pytest_kvscale.cluster.templates import DEFAULT, Place, Template, Templates
from pytest_kvscale.errors import ConfigurationError

PLACE = Place("r1", "ns", "node-1", {"kubernetes.io/hostname": "node-1"})
PINNED = "spec: {nodeSelector: {{ node_selector | tojson }}, domain: {}}\n"
HEAD = "apiVersion: kubevirt.io/v1\nkind: VirtualMachineInstance\n"


VM = HEAD.replace("Instance", "")
VMIRS = HEAD.replace("Instance", "InstanceReplicaSet")


def vm(more: str, head: str = VM) -> str:
    """An object that makes VMIs."""
    name = "metadata: {name: '{{ name }}'}\n"
    return f"{head}{name}spec:\n  {more}\n  template:\n    {PINNED}"


def write(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "template.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def render(template: Template) -> dict[str, Any]:
    return template.render("density-400-0007", 400, 7, PLACE)


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
    text = (
        HEAD + "metadata: {name: '{{ name }}', annotations: {all: '{{ namespace }} {{ level }} "
        "{{ index }} {{ run }} {{ node }} {{ mine }}'}, labels: {app: x}}\n" + PINNED
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
        (
            "apiVersion: v1\nkind: Secret\nmetadata: {name: '{{ name }}'}",
            "makes a Secret (v1): expe",
        ),
        ("apiVersion: v1\nkind: Pod\nmetadata: {name: '{{ name }}'}", "lacks spec"),
        (HEAD + "metadata: {name: '{{ name }}'}\nspec: {}", "does not keep to the node under test"),
        (HEAD + "metadata: {name: '{{ name }}', labels: [a]}\n" + PINNED, "labels that are no"),
        (VM + "metadata: {name: '{{ name }}'}\nspec: {runStrategy: Always}", "lacks spec.template"),
        (vm("runStrategy: Halted"), "would not start (runStrategy Halted): expected runStrategy"),
        (vm("running: false"), "would not start (running False)"),
        (VMIRS + vm("replicas: 0")[len(VM) :], "spec.replicas 0"),
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


def test_the_label_is_on_what_an_owner_makes_too(tmp_path: Path) -> None:
    made = render(Template(write(tmp_path, vm("runStrategy: Always")), {}))
    assert made["metadata"]["labels"] == {"kvscale.io/run": "r1"}
    assert made["spec"]["template"]["metadata"]["labels"] == {"kvscale.io/run": "r1"}


def test_objects_are_made_of_each_template_in_turn(tmp_path: Path) -> None:
    second = tmp_path / "vm.yaml"
    second.write_text(vm("runStrategy: Always"), encoding="utf-8")
    templates = Templates([DEFAULT, second], {})
    shares = [template.path for template, _ in templates.share_out(5, PLACE)]
    assert shares == [DEFAULT, second, DEFAULT, second, DEFAULT]
    assert [each.name for each in templates.kinds] == ["VirtualMachineInstance", "VirtualMachine"]


def test_replicas_add_up_to_the_level(tmp_path: Path) -> None:
    path = write(tmp_path, vm("replicas: 4", VMIRS))
    templates = Templates([path], {})
    assert [vmis for _, vmis in templates.share_out(12, PLACE)] == [4, 4, 4]
    with pytest.raises(ConfigurationError, match="level 10 cannot be made of objects of 4 VMIs"):
        list(templates.share_out(10, PLACE))
    path = write(tmp_path, vm("replicas: {{ level }}", VMIRS))
    assert [vmis for _, vmis in Templates([path], {}).share_out(12, PLACE)] == [12]


def test_a_variable_no_template_knows_is_a_mistake(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"'memroy'.*did you mean 'memory'"):
        Templates([], {"memroy": "4Gi"})
