"""Recordings of a real control plane and embedded runs, reduced to one form.

What a recording has by chance is left out: names, uids, dates, and which of two concurrent writers
came first. `STAND_IN` says what else is left out, and why: in the recordings a stand-in played
kubelet and virt-handler.
"""

from __future__ import annotations

import gzip
import json
import re
from collections.abc import Iterator

from pytest_kvscale.sim.resources import PODS, VMIS
from tests.conftest import DATA
from tests.sim.staging import Change, Json, collapsed, of_kind

STAND_IN = {
    "unpaused": "it replaced all conditions of a pod by its own, so that virt-controller set "
    "kubevirt.io/virtual-machine-unpaused again; kubelets leave conditions of others alone, and "
    "theirs stand in another order",
    "no interim": "a launcher that was to panic went from Pending to Failed; a real one runs until "
    "its qemu timeout is over, its pod is Running and its VMI Scheduled",
    "one event each": "it wrote each refusal of a sandbox as an event of its own, without "
    "reporting component; kubelets count one event up",
    "no handler events": "it wrote no events of virt-handler (Started, Stopped)",
    "no init container": "a launcher that panicked had no status of its init containers",
}
UNPAUSED = "kubevirt.io/virtual-machine-unpaused"
_KINDS = {"pods": "Pod", "events": "Event", "vmis": "VirtualMachineInstance"}
_UID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_LAUNCHER = re.compile(r"virt-launcher-(.+)-[a-z0-9]{5}")


def recorded(name: str) -> list[Change]:
    """The changes a recording saw, in order."""
    changes = []
    with gzip.open(DATA / f"{name}.jsonl.gz", "rt", encoding="utf-8") as lines:
        for line in lines:
            entry = json.loads(line)
            event = entry.get("event")
            if event is not None and event["type"] != "BOOKMARK":
                obj = {"kind": _KINDS.get(entry["stream"], ""), **event["object"]}
                changes.append(Change(entry["t"], event["type"], obj))
    return changes


def by_vmi(seen: list[Change]) -> dict[str, list[Change]]:
    """The changes of each VMI, its pod and their events, by the VMI's name."""
    found: dict[str, list[Change]] = {}
    for each in seen:
        name = (each.obj.get("involvedObject") or each.obj["metadata"])["name"]
        launcher = _LAUNCHER.fullmatch(name)
        found.setdefault(launcher[1] if launcher else name, []).append(each)
    return found


def words(text: str) -> str:
    """A message without names."""
    text = _UID.sub("<uid>", text)
    text = re.sub(r"\S*virt-launcher-\S+", "<pod>", text)
    return re.sub(r" to \S+$", " to <node>", text)


def conditions(obj: Json, without: frozenset[str] = frozenset()) -> list[tuple[object, ...]]:
    """Each condition as it stands: its fields but the dates, and whether it was ever probed.

    A date that is null and one that is absent are the same to a client.
    """
    return [
        (each["type"], each["status"], each.get("reason"), each.get("message"),
         sorted(each.keys() - {"observedGeneration", "lastProbeTime"}),
         each.get("lastProbeTime") is None)
        for each in (obj.get("status") or {}).get("conditions") or []
        if each["type"] not in without
    ]  # fmt: skip


def vmi_state(obj: Json) -> Json:
    """All that a client can tell of a VMI, but names, uids and dates."""
    metadata, status, spec = obj["metadata"], obj["status"], obj["spec"]
    volatile = {"phaseTransitionTimestamps", "conditions", "activePods", "nodeName"}
    return {
        "phase": status["phase"],
        "stamps": [each["phase"] for each in status["phaseTransitionTimestamps"]],
        "conditions": conditions(obj),
        "pod's node known": [bool(node) for node in (status.get("activePods") or {}).values()],
        "node known": "nodeName" in status,
        "status": {key: value for key, value in status.items() if key not in volatile},
        "labels": sorted(metadata["labels"]),
        "annotations": metadata.get("annotations") or {},
        "finalizers": metadata.get("finalizers"),
        "deleting": metadata.get("deletionGracePeriodSeconds"),
        "spec": {**spec, "nodeSelector": sorted(spec["nodeSelector"]), "domain": {
            **spec["domain"], "firmware": sorted(spec["domain"]["firmware"]),
        }},
    }  # fmt: skip


def vmi_story(seen: list[Change]) -> list[Json]:
    """The states of one VMI, each run of equal ones once, and its end."""
    return collapsed([vmi_state(each.obj) for each in of_kind(seen, VMIS)])


def pod_made(seen: list[Change]) -> Json:
    """A launcher pod as it was made."""
    pod = next(each.obj for each in of_kind(seen, PODS) if each.type == "ADDED")
    metadata, spec = pod["metadata"], pod["spec"]
    name = metadata["labels"]["vm.kubevirt.io/name"]

    def plain(value: str) -> str:
        return value.replace(metadata["namespace"], "<namespace>").replace(name, "<vmi>")

    (owner,) = metadata["ownerReferences"]
    return {
        "labels": sorted(metadata["labels"]),
        "annotations": {key: plain(value) for key, value in metadata["annotations"].items()},
        "owner": {**owner, "name": plain(owner["name"]), "uid": ""},
        "containers": [
            (each["name"], each["image"], each["command"], each["resources"],
             each["imagePullPolicy"], each.get("restartPolicy"))
            for each in (*spec["initContainers"], *spec["containers"])
        ],
        "grace": [spec["terminationGracePeriodSeconds"], *_grace_argument(spec)],
        "selector": {k: v for k, v in spec["nodeSelector"].items() if "hostname" not in k},
        "gates": spec["readinessGates"],
        "tolerations": spec["tolerations"],
        "policy": (spec["restartPolicy"], spec["schedulerName"], plain(spec["hostname"])),
        "status": pod["status"],
    }  # fmt: skip


def _grace_argument(spec: Json) -> list[str]:
    arguments = spec["containers"][0]["args"]
    return [arguments[arguments.index("--grace-period-seconds") + 1]]


def pod_states(seen: list[Change]) -> Iterator[Json]:
    """The states of a launcher pod; see `STAND_IN` for what is left out."""
    for each in of_kind(seen, PODS):
        status = each.obj["status"]
        yield {
            "phase": status["phase"],
            "scheduled": "nodeName" in each.obj["spec"],
            "conditions": sorted(conditions(each.obj, frozenset({UNPAUSED})), key=str),
            "containers": [_container(state) for state in status.get("containerStatuses") or []],
            "init containers": [
                _container(state) for state in status.get("initContainerStatuses") or []
            ],
            "known": sorted(status.keys() - {"conditions", "observedGeneration"}),
            "deleting": each.obj["metadata"].get("deletionGracePeriodSeconds"),
        }


def _container(status: Json) -> tuple[object, ...]:
    (state,) = status["state"].items()
    what = {key: value for key, value in state[1].items() if not key.endswith("At")}
    return (
        status["name"], status["image"], status["ready"], status["restartCount"],
        status.get("started"), state[0], what,
    )  # fmt: skip


def told(seen: list[Change]) -> list[tuple[object, ...]]:
    """The events of the control plane about one VMI and its pod, sorted, each once."""
    return sorted(
        {
            (obj["involvedObject"]["kind"], obj["type"], obj["reason"], words(obj["message"]),
             obj["source"].get("component"), obj.get("action"), obj["eventTime"] is None,
             obj["firstTimestamp"] is None, obj.get("count") is None)
            for obj in (each.obj for each in seen if each.kind == "Event")
            if obj["source"].get("component") != "virt-handler"
        }, key=str,
    )  # fmt: skip
