"""What people do with kubectl, done with the real programs."""

from __future__ import annotations

import json
import re
import time

import pytest

from tests.clients.kubectl import Kubectl, config_map, replica_set, vmi
from tests.standalone import PATIENCE, Standalone

IN_TIME = f"--timeout={PATIENCE}s"


def until_running(kubectl: Kubectl, *names: str) -> None:
    for name in names:
        if kubectl.minor >= 23:
            kubectl("wait", f"vmi/{name}", "--for=jsonpath={.status.phase}=Running", IN_TIME)
        else:
            kubectl("wait", f"vmi/{name}", "--for=condition=Ready", IN_TIME)


def test_get_shows_objects_in_every_way(kubectl: Kubectl) -> None:
    kubectl.create(vmi("one", tier="a"), vmi("two", tier="b"))
    until_running(kubectl, "one", "two")
    table, wide, pods, names, as_yaml, as_json, columns, path, label, field, everywhere = (
        kubectl.together(
            "get vmi", "get vmi -o wide", "get pods --show-labels",
            "get vmi,pods -o name --sort-by=.metadata.name", "get vmi one -o yaml",
            "get vmi -o json", "get vmi -o custom-columns=N:.metadata.name,P:.status.phase",
            "get vmi one -o jsonpath={.status.nodeName}", "get vmi -l tier=a,tier!=b -o name",
            "get pods --field-selector=status.phase=Running,spec.nodeName=node -o name",
            "get vmi -A",
        )
    )  # fmt: skip
    head, first, _ = table.splitlines()
    assert head.split() == ["NAME", "AGE", "PHASE", "IP", "NODENAME", "READY"]
    assert re.fullmatch(r"one +\d+s +Running +[\d.]+ +node +True *", first)
    assert "LIVE-MIGRATABLE" in wide.splitlines()[0]
    assert re.search(r"virt-launcher-one-\w{5} +\d/\d +Running +0 +\d+s +.*kubevirt.io=", pods)
    assert names.split()[:2] == [f"virtualmachineinstance.kubevirt.io/{n}" for n in ("one", "two")]
    assert "phase: Running" in as_yaml
    listed = json.loads(as_json)
    assert (listed["kind"], len(listed["items"])) == ("List", 2)
    assert columns.split() == ["N", "P", "one", "Running", "two", "Running"]
    assert path == "node"
    assert label == "virtualmachineinstance.kubevirt.io/one\n"
    assert len(field.split()) == 2
    assert re.search(rf"{kubectl.namespace} +one ", everywhere)
    assert "NotFound" in kubectl.fails("get", "vmi", "none")
    assert 'the server doesn\'t have a resource type "things"' in kubectl.fails("get", "things")
    kubectl("delete", "vmi", "--all", IN_TIME)
    assert kubectl("get", "vmi,pods") == ""


def test_get_watches(kubectl: Kubectl) -> None:
    kubectl.create(config_map("old"))
    with (
        kubectl.started("get", "configmaps", "-w") as all_there_is,
        kubectl.started("get", "vmi", "--watch-only", "-o", "name") as news,
    ):
        lines = iter(all_there_is)
        assert next(lines).split() == ["NAME", "DATA", "AGE"]
        assert next(lines).startswith("old ")
        kubectl.create(vmi("seen"), config_map("new", a="1"))
        assert next(lines).startswith("new ")
        until_running(kubectl, "seen")
        kubectl("delete", "vmi/seen", "configmap/new", IN_TIME)
        assert next(lines).startswith("new ")
        assert next(iter(news)) == "virtualmachineinstance.kubevirt.io/seen\n"
    kubectl("delete", "configmap", "old")


def test_describe_tells_of_objects_and_their_events(kubectl: Kubectl) -> None:
    kubectl.create(vmi("told"))
    until_running(kubectl, "told")
    pod = kubectl("get", "pods", "-l", "vm.kubevirt.io/name=told", "-o", "name").strip()
    pod = pod or kubectl("get", "pods", "-o", "name").strip()
    about_vmi, about_pod, about_node, about_namespace = kubectl.together(
        "describe vmi told", f"describe {pod}", "describe node node",
        f"describe namespace {kubectl.namespace}",
    )  # fmt: skip
    assert re.search(r"Kind: +VirtualMachineInstance\n", about_vmi)
    assert re.search(r"Normal +SuccessfulCreate +\d+s +\S+ +Created virtual machine pod", about_vmi)
    assert re.search(r"Controlled By: +VirtualMachineInstance/told\n", about_pod)
    assert re.search(r"Normal +Scheduled +", about_pod)
    assert re.search(r"devices.kubevirt.io/kvm: +1k\n", about_node)
    assert pod.removeprefix("pod/") in about_node
    assert re.search(r"Status: +Active\n", about_namespace)
    kubectl("delete", "vmi", "told", IN_TIME)


def test_objects_are_created_changed_and_replaced(kubectl: Kubectl) -> None:
    kubectl.create(config_map("c", a="1"), vmi("v"))
    assert "AlreadyExists" in kubectl.fails("create", "-f", "-", text=json.dumps(config_map("c")))
    kubectl("patch", "cm", "c", "-p", '{"data":{"b":"2"}}')
    kubectl("patch", "cm", "c", "--type=merge", "-p", '{"data":{"a":null,"note":"before"}}')
    kubectl(
        "patch", "vmi", "v", "--type=json", "-p",
        '[{"op":"add","path":"/metadata/annotations/x","value":"y"}]',
    )  # fmt: skip
    refused = kubectl.fails("patch", "vmi", "v", "-p", '{"metadata":{}}')
    assert "application/merge-patch+json" in refused
    kubectl("label", "cm/c", "vmi/v", "tier=a", "gone=soon")
    kubectl("label", "cm", "c", "gone-")
    assert "already has a value" in kubectl.fails("label", "cm", "c", "tier=b")
    kubectl("annotate", "--overwrite", "cm", "c", "said=this")
    kubectl("edit", "cm", "c")
    held = kubectl.get("cm", "c")
    assert held["data"] == {"b": "2", "note": "after"}
    assert held["metadata"]["labels"] == {"tier": "a"}
    assert held["metadata"]["annotations"] == {"said": "this"}
    assert kubectl.get("vmi", "v")["metadata"]["annotations"]["x"] == "y"
    uid = held["metadata"]["uid"]
    kubectl("replace", "-f", "-", text=json.dumps({**held, "data": {"z": "26"}}))
    assert "Conflict" in kubectl.fails("replace", "-f", "-", text=json.dumps(held))
    replaced = kubectl.get("cm", "c")
    assert (replaced["data"], replaced["metadata"]["uid"]) == ({"z": "26"}, uid)
    kubectl("replace", "--force", "-f", "-", text=json.dumps(config_map("c", new="1")))
    forced = kubectl.get("cm", "c")
    assert forced["data"] == {"new": "1"}
    assert forced["metadata"]["uid"] != uid
    assert "dry run" in kubectl("create", "cm", "dry", "--dry-run=server")
    assert "NotFound" in kubectl.fails("get", "cm", "dry")
    kubectl("delete", "cm/c", "vmi/v", IN_TIME)


def test_apply_changes_what_it_made(kubectl: Kubectl) -> None:
    first, second = config_map("applied", a="1", b="2"), config_map("applied", a="3")
    machine = vmi("applied")
    both = json.dumps({"apiVersion": "v1", "kind": "List", "items": [first, machine]})
    assert kubectl("apply", "-f", "-", text=both).splitlines() == [
        "configmap/applied created", "virtualmachineinstance.kubevirt.io/applied created",
    ]  # fmt: skip
    kubectl("patch", "cm", "applied", "-p", '{"data":{"others":"9"}}')
    assert "configmap/applied unchanged" in kubectl("apply", "-f", "-", text=both)
    assert kubectl("apply", "-f", "-", text=json.dumps(second)) == "configmap/applied configured\n"
    assert kubectl.get("cm", "applied")["data"] == {"a": "3", "others": "9"}
    difference = kubectl.run("diff", "-f", "-", text=json.dumps(first))
    assert difference.returncode == 1, difference.stderr
    assert "+  b: " in difference.stdout
    labelled = vmi("applied", tier="a")
    kubectl("apply", "-f", "-", text=json.dumps(labelled))
    assert kubectl.get("vmi", "applied")["metadata"]["labels"]["tier"] == "a"
    kubectl("delete", "cm/applied", "vmi/applied", IN_TIME)


def test_wait_waits(kubectl: Kubectl, served: Standalone) -> None:
    kubectl.create(vmi("awaited"))
    kubectl("wait", "vmi/awaited", "--for=condition=Ready", IN_TIME)
    if kubectl.minor >= 23:
        kubectl("wait", "vmi/awaited", "--for=jsonpath={.status.phase}=Running", IN_TIME)
    kubectl("wait", "pods", "--all", "--for=condition=Ready", IN_TIME)
    assert "timed out" in kubectl.fails("wait", "vmi/awaited", "--for=delete", "--timeout=1s")
    kubectl("delete", "vmi", "awaited", IN_TIME)
    held = config_map("held")
    held["metadata"]["finalizers"] = ["example.com/hold"]
    kubectl.create(held)
    kubectl("delete", "cm", "held", "--wait=false")
    before = served.watches(f"kubectl-{kubectl.version}/", "configmaps")
    with kubectl.started("wait", "cm/held", "--for=delete", IN_TIME) as said:
        while served.watches(f"kubectl-{kubectl.version}/", "configmaps") == before:
            time.sleep(0.05)
        kubectl("patch", "cm", "held", "--type=merge", "-p", '{"metadata":{"finalizers":null}}')
        assert said.read() == "configmap/held condition met\n"
    assert "NotFound" in kubectl.fails("get", "cm", "held")


def test_delete_cascades_as_it_is_told(kubectl: Kubectl) -> None:
    names = ("background", "foreground", "orphan")
    kubectl.create(*(replica_set(name, 1) for name in names))
    for name in names:
        until = ("wait", "vmi", "-l", f"set={name}", "--for=condition=Ready", IN_TIME)
        while not kubectl("get", "vmi", "-l", f"set={name}", "-o", "name"):
            pass
        kubectl(*until)
        kubectl("delete", "vmirs", name, f"--cascade={name}", IN_TIME)
        if name == "foreground":
            assert kubectl("get", "vmi", "-l", f"set={name}") == ""
        elif name == "background":
            kubectl("wait", "vmi", "-l", f"set={name}", "--for=delete", IN_TIME)
    left = json.loads(kubectl("get", "vmi", "-l", "set=orphan", "-o", "json"))["items"]
    assert len(left) == 1
    assert "ownerReferences" not in left[0]["metadata"]
    kubectl("delete", "vmi", "-l", "set=orphan", IN_TIME)
    assert kubectl("get", "vmi", "-l", "set") == kubectl("get", "vmirs") == ""


def test_delete_takes_grace_or_none(kubectl: Kubectl) -> None:
    pods = ("now", "graceful", "forced", "labelled")
    for name in pods:
        kubectl(
            "run", name, "--image=registry.k8s.io/pause:3.9", "--restart=Never",
            f"--labels=pod={name}",
        )  # fmt: skip
    kubectl("wait", "pods", "-l", "pod", "--for=condition=Ready", IN_TIME)
    kubectl("delete", "pod", "now", "--now", IN_TIME)
    kubectl("delete", "pod", "graceful", "--grace-period=1", IN_TIME)
    kubectl("delete", "pod", "forced", "--grace-period=0", "--force")
    kubectl("delete", "pods", "-l", "pod=labelled", "--grace-period=1", IN_TIME)
    assert kubectl("get", "pods", "-l", "pod") == ""
    kubectl("delete", "pod", "none", "--ignore-not-found")
    kubectl.create(config_map("a"), config_map("b"))
    kubectl("delete", "cm", "--field-selector=metadata.name=a")
    assert 'configmap "b" deleted\n' in kubectl("delete", "cm", "--all")


def test_events_are_shown(kubectl: Kubectl) -> None:
    kubectl.create(vmi("busy"))
    until_running(kubectl, "busy")
    about = "--field-selector=involvedObject.name=busy"
    table = kubectl("get", "events", about, "--sort-by=.lastTimestamp")
    assert table.split()[:5] == ["LAST", "SEEN", "TYPE", "REASON", "OBJECT"]
    assert re.search(r"Normal +SuccessfulCreate +virtualmachineinstance/busy +Created", table)
    if kubectl.minor >= 23:
        told = kubectl("events", "--for=vmi/busy", "--types=Normal")
        assert "SuccessfulCreate" in told
    kubectl("delete", "vmi", "busy", IN_TIME)


def test_the_api_describes_itself(kubectl: Kubectl) -> None:
    kinds, short, versions, version, info, explained = kubectl.together(
        "api-resources", "api-resources --api-group=kubevirt.io --namespaced=true -o name",
        "api-versions", "version -o json", "cluster-info", "explain vmi.spec",
    )  # fmt: skip
    assert re.search(r"virtualmachineinstances +vmi,vmis +kubevirt.io/v1 +true +Virtual", kinds)
    assert "virtualmachines.kubevirt.io" in short.split()
    assert {"v1", "apps/v1", "kubevirt.io/v1", "rbac.authorization.k8s.io/v1"} <= set(
        versions.split()
    )
    assert json.loads(version)["serverVersion"]["gitVersion"] == "v1.21.5"
    assert "is running at" in info
    assert "domain" in explained


def test_auth_says_who_may_do_what(kubectl: Kubectl) -> None:
    kubectl("create", "serviceaccount", "robot")
    kubectl("create", "role", "reader", "--verb=get,list", "--resource=pods,configmaps")
    kubectl(
        "create", "rolebinding", "robot-reads", "--role=reader",
        f"--serviceaccount={kubectl.namespace}:robot",
    )  # fmt: skip
    robot = f"--as=system:serviceaccount:{kubectl.namespace}:robot"
    assert kubectl("auth", "can-i", "*", "*") == "yes\n"
    assert kubectl("auth", "can-i", "list", "pods", robot) == "yes\n"
    no = kubectl.run("auth", "can-i", "create", "pods", robot)
    assert (no.returncode, no.stdout) == (1, "no\n")
    listed = kubectl("auth", "can-i", "--list", robot)
    assert re.search(r"pods +\[\] +\[\] +\[get list\]", listed)
    assert re.search(r"\[/version\] +\[\] +\[get\]", listed)
    refused = kubectl.fails("get", "secrets", robot)
    assert refused == (
        'Error from server (Forbidden): secrets is forbidden: User "system:serviceaccount:'
        f'{kubectl.namespace}:robot" cannot list resource "secrets" in API group "" in the '
        f'namespace "{kubectl.namespace}"\n'
    )
    kubectl("get", "pods,cm", robot)
    shown = kubectl("describe", "rolebinding/robot-reads", "role/reader", "clusterrole/view")
    assert re.search(r"ServiceAccount +robot +", shown)
    if kubectl.minor >= 27:
        who = json.loads(kubectl("auth", "whoami", "-o", "json", robot))
        assert who["status"]["userInfo"]["username"].endswith(":robot")
    if kubectl.minor >= 24:
        assert kubectl("create", "token", "robot").count(".") == 2
    kubectl("delete", "rolebinding/robot-reads", "role/reader", "serviceaccount/robot")


def test_nodes_are_cordoned_and_drained(kubectl: Kubectl) -> None:
    kubectl("cordon", "node")
    assert re.search(r"node +Ready,SchedulingDisabled ", kubectl("get", "nodes"))
    kubectl("uncordon", "node")
    kubectl("taint", "nodes", "node", "busy=yes:NoSchedule")
    kubectl("taint", "nodes", "node", "busy-")
    assert kubectl.get("node", "node")["spec"].get("taints") in (None, [])


def test_rollouts_and_replica_sets_are_followed(kubectl: Kubectl) -> None:
    done = kubectl("rollout", "status", "deployment/virt-controller", "-n", "kubevirt", IN_TIME)
    assert done == 'deployment "virt-controller" successfully rolled out\n'


def test_a_cluster_is_seen_through_its_kubeconfig(kubectl: Kubectl, served: Standalone) -> None:
    shown = json.loads(kubectl("config", "view", "--minify", "-o", "json"))
    assert shown["clusters"][0]["cluster"]["server"] == served.url
    raw = json.loads(kubectl("get", "--raw", f"/api/v1/namespaces/{kubectl.namespace}"))
    assert raw["metadata"]["name"] == kubectl.namespace


@pytest.mark.parametrize("many", [3])
def test_a_namespace_goes_with_all_that_is_in_it(kubectl: Kubectl, many: int) -> None:
    name = f"{kubectl.namespace}-ending"
    kubectl("create", "namespace", name)
    items = [config_map(f"c{number}") for number in range(many)]
    text = json.dumps({"apiVersion": "v1", "kind": "List", "items": items})
    kubectl("create", "-n", name, "-f", "-", text=text)
    kubectl("delete", "namespace", name, IN_TIME)
    assert "NotFound" in kubectl.fails("get", "namespace", name)
