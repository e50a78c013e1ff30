"""What a run must be allowed to do, asked of the API before anything else: all at once.

The same lists stand in `deploy/rbac.yaml`, as roles.
"""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Iterator, Sequence

from pytest_kvscale.cluster.client import ApiError, Client, Object, Resource
from pytest_kvscale.cluster.kinds import Kind
from pytest_kvscale.cluster.system import NAMESPACE as SYSTEM
from pytest_kvscale.errors import ConfigurationError

REVIEWS = Resource("authorization.k8s.io/v1", "selfsubjectaccessreviews", namespaced=False)
ROLES = "deploy/rbac.yaml"
_KUBEVIRT = "kubevirt.io"


@dataclasses.dataclass(frozen=True)
class Need:
    """One verb on one resource."""

    verb: str
    group: str
    resource: str
    """With its subresource, if it is one: `pods/log`."""
    namespace: str = ""
    """"": in all namespaces, or of the cluster."""
    name: str = ""
    unknown: str = ""
    """What cannot be known or done without it; "": a run needs it."""

    def attributes(self) -> Object:
        """As an access review has them."""
        resource, _, subresource = self.resource.partition("/")
        given = {
            "verb": self.verb, "group": self.group, "resource": resource,
            "subresource": subresource, "namespace": self.namespace, "name": self.name,
        }  # fmt: skip
        return {key: value for key, value in given.items() if value}

    def text(self) -> str:
        """`create virtualmachineinstances.kubevirt.io in the namespace n`."""
        kind, slash, subresource = self.resource.partition("/")
        group = f".{self.group}" if self.group else ""
        where = f" in the namespace {self.namespace}" if self.namespace else ""
        name = f" {self.name}" if self.name else ""
        return f"{self.verb} {kind}{group}{slash}{subresource}{name}{where}"


@dataclasses.dataclass(frozen=True)
class Intent:
    """What a run is going to do."""

    kinds: Sequence[Kind]
    namespace: str
    makes_namespace: bool
    tunes: bool
    beside_others: bool
    upgrades: bool = False
    """By the KubeVirt CR, or by a command: then it is watched."""


def needs(intent: Intent) -> list[Need]:
    """All a run needs or can use."""
    found = [*_reads(intent), *_in_namespace(intent), *_system(), *_extras(intent)]
    if intent.makes_namespace:
        found += _each(("create", "delete", "list", "watch"), "", "namespaces")
    if intent.tunes:
        found += [
            *_each(("get", "patch", "watch"), _KUBEVIRT, "kubevirts"),
            *_each(("list", "watch"), "apps", "deployments"),
            *_each(("list", "watch"), "apps", "daemonsets"),
            *_each(("watch",), "", "nodes"),
        ]
    if intent.upgrades:
        found += _of_upgrades(intent)
    return list(dict.fromkeys(found))


def _of_upgrades(intent: Intent) -> Iterator[Need]:
    yield from _each(("get", "patch", "watch"), _KUBEVIRT, "kubevirts")
    yield from _each(("list", "watch"), "apps", "deployments")
    yield from _each(("list", "watch"), "apps", "daemonsets")
    # Of KubeVirt's own namespace, whose name is not known yet.
    yield from _each(("list", "watch"), "", "pods")
    unknown = "whether VMIs are migrated during the upgrade is unknown"
    yield from _each(
        ("list", "watch"), _KUBEVIRT, "virtualmachineinstancemigrations", intent.namespace, unknown
    )  # fmt: skip


def _each(
    verbs: Sequence[str], group: str, resource: str, namespace: str = "", unknown: str = ""
) -> list[Need]:  # fmt: skip
    return [Need(verb, group, resource, namespace, unknown=unknown) for verb in verbs]


def _reads(intent: Intent) -> Iterator[Need]:
    yield from _each(("get", "list"), "", "nodes")
    yield from _each(("get",), "", "namespaces")
    yield from _each(("list",), _KUBEVIRT, "kubevirts")
    if not intent.beside_others:
        yield from _each(("list",), _KUBEVIRT, "virtualmachineinstances")


def _in_namespace(intent: Intent) -> Iterator[Need]:
    place = intent.namespace
    for kind in intent.kinds:
        group = kind.api_version.rpartition("/")[0]
        verbs = ("create", "get", "list", "watch", "delete", "deletecollection")
        yield from _each(verbs, group, kind.resource.plural, place)
    yield from _each(("list", "watch"), _KUBEVIRT, "virtualmachineinstances", place)
    yield from _each(("list", "watch"), "", "pods", place)
    yield from _each(("list", "watch"), "", "events", place)


def _system() -> Iterator[Need]:
    turns = "runs cannot take turns"
    yield from _each(("get", "create", "update"), "coordination.k8s.io", "leases", SYSTEM, turns)
    memory = "what a run changes is noted on this machine only, and the last level is forgotten"
    yield from _each(("list", "create", "patch", "delete"), "", "configmaps", SYSTEM, memory)


def _extras(intent: Intent) -> Iterator[Need]:
    yield from _each(
        ("list",), "", "pods", "",
        "what else runs on the node, and whether the cluster has settled, are unknown",
    )  # fmt: skip
    yield from _each(("get",), "", "nodes/proxy", "", "the kubelet's settings are unknown")
    logs = "a launcher's last words are unknown"
    yield from _each(("get",), "", "pods/log", intent.namespace, logs)
    yield from _each(("get",), "", "services/proxy", "", "metrics are not read")
    yield from _each(("get", "list"), "", "services", "", "no Prometheus is looked for")
    inside = "how busy KubeVirt is, and without a Prometheus what it spent, are unknown"
    yield from _each(("get",), "", "pods/proxy", "", inside)
    if intent.makes_namespace:
        early = "the first pods may come before their namespace is furnished"
        yield from _each(("get",), "", "serviceaccounts", intent.namespace, early)
    else:
        for resource in ("resourcequotas", "limitranges"):
            yield from _each(("list",), "", resource, intent.namespace, f"{resource} are unknown")


async def refused(client: Client, wanted: Sequence[Need]) -> list[Need]:
    """Those that are not allowed. Where the API does not tell, none is."""
    client = client.apart("permissions")

    async def is_refused(need: Need) -> bool:
        body = {
            "apiVersion": "authorization.k8s.io/v1",
            "kind": "SelfSubjectAccessReview",
            "spec": {"resourceAttributes": need.attributes()},
        }
        try:
            answer = await client.create(REVIEWS, "", body)
        except ApiError as problem:
            if problem.code in (403, 404, 405):
                return False
            raise
        return not (answer.get("status") or {}).get("allowed")

    answers = await asyncio.gather(*(is_refused(each) for each in wanted))
    return [need for need, no in zip(wanted, answers, strict=True) if no]


async def check(client: Client, intent: Intent) -> list[str]:
    """Raise `ConfigurationError`, naming all a run needs and may not.

    Returns sentences on what it can do without.
    """
    missing = await refused(client, needs(intent))
    needed = [each.text() for each in missing if not each.unknown]
    if needed:
        raise ConfigurationError(
            f"the cluster {client.name} does not allow what this run needs: {'; '.join(needed)}: "
            f"give the user the roles of {ROLES}"
        )
    without: dict[str, list[str]] = {}
    for each in missing:
        without.setdefault(each.unknown, []).append(each.text())
    return [f"{unknown} (not allowed: {', '.join(what)})" for unknown, what in without.items()]
