"""What a run may do: each way needs exactly its roles, and says at once what is missing."""

from __future__ import annotations

import copy
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import yaml

from pytest_kvscale.cluster import permissions
from pytest_kvscale.cluster.client import NAMESPACES, ApiError, Client, Resource
from pytest_kvscale.cluster.clock import VirtualClock
from pytest_kvscale.cluster.kinds import KINDS
from pytest_kvscale.cluster.permissions import Intent, Need
from pytest_kvscale.errors import ConfigurationError
from pytest_kvscale.sim import profile
from pytest_kvscale.sim.authentication import ADMINS, Gate, User
from pytest_kvscale.sim.cluster import EmbeddedCluster
from tests.cluster.scripted import answering, status

Json = dict[str, Any]
FILE = Path(__file__).parents[2] / "deploy" / "rbac.yaml"
RBAC = "rbac.authorization.k8s.io/v1"
USERS = {"root": User("root", groups=(ADMINS,)), "ann": User("ann")}
VMI = KINDS["kubevirt.io/v1", "VirtualMachineInstance"]
OWN = Intent((VMI,), "density", makes_namespace=False, tunes=False, beside_others=False)
PER_RUN = Intent((VMI,), "kvscale-r", makes_namespace=True, tunes=False, beside_others=False)
TUNING = Intent((VMI,), "kvscale-r", makes_namespace=True, tunes=True, beside_others=False)
UPGRADE = Intent(
    (VMI,), "density", makes_namespace=False, tunes=False, beside_others=False, upgrades=True
)
WAYS: dict[str, tuple[Intent, tuple[str, ...]]] = {
    "own": (OWN, ("kvscale-own-namespace", "kvscale-own-namespace-reads")),
    "per-run": (PER_RUN, ("kvscale-per-run-namespace",)),
    "tuning": (TUNING, ("kvscale-per-run-namespace", "kvscale-tuning")),
    "upgrade": (
        UPGRADE,
        ("kvscale-own-namespace", "kvscale-own-namespace-reads", "kvscale-upgrade"),
    ),
}
BESIDE = ("kvscale-system", "kvscale-optional")


def roles(*names: str) -> list[Json]:
    """Roles of the file, as objects."""
    text = FILE.read_text(encoding="utf-8")
    found = {each["metadata"]["name"]: each for each in yaml.safe_load_all(text)
             if each["kind"] != "Namespace"}  # fmt: skip
    return [copy.deepcopy(found[name]) for name in names]


@asynccontextmanager
async def guarded() -> AsyncIterator[tuple[Client, Client]]:
    """A cluster that asks who may do what: the clients of an administrator and of ann."""
    cluster = EmbeddedCluster(profile.load("fast"), "fast", 0, gate=Gate(USERS))
    await cluster.start()
    sessions = [aiohttp.ClientSession(headers={"Authorization": f"Bearer {token}"})
                for token in USERS]  # fmt: skip
    try:
        root, ann = (Client(session, cluster.url, {}) for session in sessions)
        for name in ("density", "kvscale-system"):
            await root.create(NAMESPACES, "", {"metadata": {"name": name}})
        yield root, ann
    finally:
        for session in sessions:
            await session.close()
        await cluster.stop()


async def give(root: Client, given: Sequence[Json]) -> None:
    """Make roles, or replace them, and bind ann to them."""
    for role in given:
        metadata = role["metadata"]
        namespace = metadata.get("namespace", "")
        prefix = "" if namespace else "cluster"
        resource = Resource(RBAC, f"{prefix}roles", namespaced=bool(namespace))
        try:
            await root.create(resource, namespace, role)
        except ApiError:
            path = resource.path(namespace, metadata["name"])
            await root.request("update", "PUT", path, body=role)
            continue
        kind = role["kind"]
        binding = {
            "apiVersion": RBAC, "kind": f"{kind}Binding", "metadata": dict(metadata),
            "roleRef": {"apiGroup": RBAC.partition("/")[0], "kind": kind,
                        "name": metadata["name"]},
            "subjects": [{"kind": "User", "name": "ann",
                          "apiGroup": RBAC.partition("/")[0]}],
        }  # fmt: skip
        bindings = Resource(RBAC, f"{prefix}rolebindings", namespaced=bool(namespace))
        await root.create(bindings, namespace, binding)


def without_one(role: Json) -> Iterator[tuple[Json, str]]:
    """The role with one verb of one resource taken away, and what that was."""
    for index, rule in enumerate(role["rules"]):
        for resource in rule["resources"]:
            for verb in rule["verbs"]:
                less = copy.deepcopy(role)
                others = [each for each in rule["resources"] if each != resource]
                verbs = [each for each in rule["verbs"] if each != verb]
                less["rules"][index : index + 1] = [
                    {**rule, "resources": others}, {**rule, "resources": [resource],
                                                    "verbs": verbs},
                ]  # fmt: skip
                less["rules"] = [e for e in less["rules"] if e["resources"] and e["verbs"]]
                group = f".{rule['apiGroups'][0]}" if rule["apiGroups"][0] else ""
                kind, slash, sub = resource.partition("/")
                yield less, f"{verb} {kind}{group}{slash}{sub}"


@pytest.mark.parametrize("way", WAYS)
def test_each_way_passes_with_exactly_its_roles(clock: VirtualClock, way: str) -> None:
    intent, names = WAYS[way]

    async def work() -> list[str]:
        async with guarded() as (root, ann):
            await give(root, roles(*names, *BESIDE))
            return await permissions.check(ann, intent)

    assert clock.run(work()) == []


@pytest.mark.parametrize("way", ["own", "tuning", "upgrade"])
def test_with_any_one_verb_less_the_message_names_it(clock: VirtualClock, way: str) -> None:
    intent, names = WAYS[way]

    async def work() -> int:
        tried = 0
        async with guarded() as (root, ann):
            whole = roles(*names, *BESIDE)
            await give(root, whole)
            for role in whole if way == "tuning" else whole[: len(names)]:
                for less, missing in without_one(role):
                    await give(root, [less])
                    tried += 1
                    refused = [each.text() for each in await permissions.refused(
                        ann, permissions.needs(intent))]  # fmt: skip
                    elsewhere = not refused
                    assert elsewhere or any(each.startswith(missing) for each in refused)
                    assert elsewhere <= _is_given_twice(missing, whole, role)
                await give(root, [role])
        return tried

    assert clock.run(work()) > 15


def _is_given_twice(missing: str, whole: Sequence[Json], role: Json) -> bool:
    """Whether another role, or another rule, allows the same all the same."""
    verb, _, what = missing.partition(" ")
    holders = [
        each["metadata"]["name"]
        for each in whole
        for rule in each["rules"]
        for resource in rule["resources"]
        if verb in rule["verbs"]
        and what == resource + (f".{rule['apiGroups'][0]}" if rule["apiGroups"][0] else "")
    ]
    return len(holders) > 1 and role["metadata"]["name"] in holders


def test_all_that_is_needed_and_missing_is_told_in_one_sentence(clock: VirtualClock) -> None:
    async def work() -> None:
        async with guarded() as (_, ann):
            with pytest.raises(ConfigurationError) as caught:
                await permissions.check(ann, TUNING)
            text = str(caught.value)
            for each in ("list nodes", "create namespaces", "patch kubevirts.kubevirt.io",
                         "create virtualmachineinstances.kubevirt.io in the namespace kvscale-r",
                         "watch daemonsets.apps"):  # fmt: skip
                assert each in text
            assert "leases" not in text
            assert text.endswith("give the user the roles of deploy/rbac.yaml")

    clock.run(work())


def test_what_one_can_do_without_is_told_with_what_becomes_of_it(clock: VirtualClock) -> None:
    async def work() -> list[str]:
        async with guarded() as (root, ann):
            await give(root, roles("kvscale-per-run-namespace"))
            return await permissions.check(ann, PER_RUN)

    notes = clock.run(work())
    assert [each.partition(" (not allowed: ")[0] for each in notes] == [
        "runs cannot take turns",
        "what a run changes is noted on this machine only, and the last level is forgotten",
        "the kubelet's settings are unknown",
        "a launcher's last words are unknown",
        "metrics are not read",
        "no Prometheus is looked for",
        "how busy KubeVirt is, and without a Prometheus what it spent, are unknown",
        "the first pods may come before their namespace is furnished",
    ]


@pytest.mark.parametrize("code", [403, 404])
def test_where_nobody_may_ask_nothing_is_said(clock: VirtualClock, code: int) -> None:
    async def answer(_: Any) -> Any:
        return status(code)

    async def work() -> list[str]:
        async with answering(answer) as (client, _):
            return await permissions.check(client, TUNING)

    assert clock.run(work()) == []


def test_a_need_reads_like_kubectls_words() -> None:
    assert Need("get", "", "pods/log", "n").text() == "get pods/log in the namespace n"
    assert Need("list", "apps", "daemonsets").text() == "list daemonsets.apps"
    assert Need("get", "", "nodes/proxy").attributes() == {
        "verb": "get", "resource": "nodes", "subresource": "proxy",
    }  # fmt: skip
