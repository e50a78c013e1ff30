"""A profile for one's own node: `python -m pytest_kvscale.sim profile --from-node FILE`.

What a Node object tells (CPUs, memory, what is reserved, pods, addresses, devices, versions) goes
into the profile; how fast it starts VMIs it does not tell, so times are those of the profile that
is extended.
"""

from __future__ import annotations

import argparse
import ipaddress
import sys
from pathlib import Path
from typing import Any

import yaml

from pytest_kvscale.errors import ConfigurationError
from pytest_kvscale.sim import profile, quantity
from pytest_kvscale.sim.errors import Object

BASE = "modern"
_KVM = "devices.kubevirt.io/kvm"
_ON_EVERY_NODE = ("kubernetes.io/hostname", "kubernetes.io/arch", "kubernetes.io/os")
_HEAD = """\
# Made from the node {name}. Times are those of the profile {base}: a Node object does not tell how
# fast VMIs start on it.
"""


def main(arguments: list[str]) -> int:
    """Print the profile of a node as YAML; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m pytest_kvscale.sim profile")
    parser.add_argument(
        "--from-node", required=True, metavar="FILE",
        help="a Node as `kubectl get node NAME -o yaml` prints it; - reads it from the pipe",
    )  # fmt: skip
    parser.add_argument("--extends", default=BASE, metavar="NAME", help=f"default: {BASE}")
    options = parser.parse_args(arguments)
    try:
        print(written(read(options.from_node), options.extends), end="")
    except ConfigurationError as problem:
        print(f"error: {problem}", file=sys.stderr)
        return 4
    return 0


def read(where: str) -> Object:
    """The Node in a file, or ('-') on standard input.

    Raises `ConfigurationError` if there is none, or more than one.
    """
    name = "standard input" if where == "-" else where
    try:
        text = sys.stdin.read() if where == "-" else Path(where).read_text(encoding="utf-8")
        found = yaml.safe_load(text)
    except OSError as problem:
        raise ConfigurationError(f"cannot read {name}: {problem.strerror}") from None
    except (yaml.YAMLError, UnicodeDecodeError):
        raise ConfigurationError(f"{name} is not YAML") from None
    if isinstance(found, dict) and found.get("kind") == "List":
        items = found.get("items") or []
        if len(items) != 1:
            names = ", ".join(str((each.get("metadata") or {}).get("name")) for each in items)
            raise ConfigurationError(
                f"{name} has {len(items)} objects ({names or 'none'}): expected one node, as "
                "`kubectl get node NAME -o yaml` prints it"
            )
        found = items[0]
    if not isinstance(found, dict) or found.get("kind") != "Node":
        raise ConfigurationError(
            f"{name} is no node: expected what `kubectl get node NAME -o yaml` prints"
        )
    return found


def written(node: Object, base: str = BASE) -> str:
    """The profile as YAML, checked; raises `ConfigurationError` for a node it cannot describe."""
    try:
        content, missing = _content(node, base)
    except (KeyError, TypeError, AttributeError) as problem:
        raise ConfigurationError(f"the node lacks {problem}: is its status there?") from None
    except ValueError as problem:
        raise ConfigurationError(f"the node cannot be read: {problem}") from None
    profile.derived(base, content, f"the profile of {node['metadata']['name']}")
    head = _HEAD.format(name=node["metadata"]["name"], base=base) + "".join(
        f"# {each}\n" for each in missing
    )
    return head + yaml.safe_dump({"extends": base, **content}, sort_keys=False)


def _content(node: Object, base: str) -> tuple[dict[str, Any], list[str]]:
    metadata, status = node["metadata"], node["status"]
    capacity, free, about = status["capacity"], status["allocatable"], status["nodeInfo"]
    if about["architecture"] != "amd64":
        raise ValueError(f"its architecture is {about['architecture']}, only amd64 is played")
    kept_cpu = quantity.milli(capacity["cpu"]) - quantity.milli(free["cpu"])
    kept_memory = quantity.whole(capacity["memory"]) - quantity.whole(free["memory"])
    hardware: dict[str, Any] = {
        "count": 1,
        "name": metadata["name"].replace(".", "-"),
        "cpu": str(capacity["cpu"]),
        "memory": str(capacity["memory"]),
        "disk": str(free["ephemeral-storage"]),
        "reserved_cpu": f"{kept_cpu}m",
        "reserved_memory": quantity.binary(kept_memory),
        "max_pods": int(free["pods"]),
    }
    missing = []
    network = node["spec"].get("podCIDR") or ""
    if network and ipaddress.ip_network(network).version == 4:
        hardware["pod_network_prefix"] = ipaddress.ip_network(network).prefixlen
    else:
        missing.append(
            f"It has no IPv4 network of its own (spec.podCIDR): addresses are as in {base}."
        )
    labels = {
        key: value
        for key, value in (metadata.get("labels") or {}).items()
        if key not in _ON_EVERY_NODE and not key.partition("/")[0].endswith("kubevirt.io")
    }
    if labels:
        hardware["labels"] = labels
    content: dict[str, Any] = {
        "description": f"the node {metadata['name']}",
        "versions": {
            "kubernetes": about["kubeletVersion"],
            "runtime": about["containerRuntimeVersion"],
        },
        "node": hardware,
    }
    if quantity.whole(free.get(_KVM, 0)):
        content["kubevirt"] = {"max_devices": quantity.whole(free[_KVM])}
    else:
        missing.append(f"It offers no {_KVM}: devices are as in {base}.")
    return content, missing
