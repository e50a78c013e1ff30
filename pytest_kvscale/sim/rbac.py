"""RBAC objects in the store: read into a policy, checked when written, made at the start.

Nobody may grant what they do not have: who writes a role must hold its rules or have the verb
`escalate` on it, who writes a binding must hold its role's rules or have `bind` on the role.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from pytest_kvscale.sim import errors, rbac_objects, selectors
from pytest_kvscale.sim.api import Api
from pytest_kvscale.sim.authentication import ADMINS, CALLER, User
from pytest_kvscale.sim.authorization import (
    FULL_AUTHORITY,
    GROUP,
    Binding,
    Policy,
    PolicyRule,
    listed,
    missing,
)
from pytest_kvscale.sim.errors import Object
from pytest_kvscale.sim.request_info import RequestInfo
from pytest_kvscale.sim.resources import (
    CLUSTER_ROLE_BINDINGS,
    CLUSTER_ROLES,
    ROLE_BINDINGS,
    ROLES,
    Resource,
)
from pytest_kvscale.sim.store import Event

_AT_START = Path(__file__).parent / "roles.yaml"


def keep_policy(api: Api) -> Policy:
    """The policy that the store's roles and bindings make, now and after every change."""
    policy = Policy()

    def on_role(event: Event) -> None:
        obj = event.stored.obj
        key = (obj["metadata"].get("namespace", ""), obj["metadata"]["name"])
        if event.type == "DELETED":
            policy.roles.pop(key, None)
        else:
            policy.roles[key] = rules_of(obj)

    def on_binding(event: Event) -> None:
        binding = Binding.read(event.stored.obj)
        if event.type == "DELETED":
            policy.unbind(binding.namespace, binding.name)
        else:
            policy.bind(binding)

    for kind in (ROLES, CLUSTER_ROLES):
        api.store.listen(kind, on_role)
    for kind in (ROLE_BINDINGS, CLUSTER_ROLE_BINDINGS):
        api.store.listen(kind, on_binding)
    return policy


def rules_of(role: Object) -> tuple[PolicyRule, ...]:
    """The rules of a Role or ClusterRole."""
    return tuple(PolicyRule.read(each) for each in role.get("rules") or ())


def aggregated(role: Object, others: list[Object]) -> list[Object]:
    """The rules a ClusterRole with an aggregationRule collects from others, each once."""
    rules: list[Object] = []
    for selector in role["aggregationRule"].get("clusterRoleSelectors") or ():
        matches = selectors.labels(selectors.of_spec(selector))
        for other in sorted(others, key=lambda each: str(each["metadata"]["name"])):
            if other["metadata"]["name"] != role["metadata"]["name"] and matches(other):
                rules += (rule for rule in other.get("rules") or () if rule not in rules)
    return rules


def make_defaults(api: Api) -> None:
    """Make the roles and bindings that every cluster has from its start."""
    with _AT_START.open(encoding="utf-8") as file:
        content: dict[str, Any] = yaml.safe_load(file)
    roles = [_labelled(each) for each in content["clusterRoles"]]
    for _ in range(2):  # `admin` collects from `edit`, which collects from `view`.
        for role in roles:
            if "aggregationRule" in role:
                role["rules"] = aggregated(role, roles)
    for role in roles:
        api.create(CLUSTER_ROLES, "", role)
    for name, subjects in content["clusterRoleBindings"].items():
        binding = {
            "metadata": {"name": name},
            "roleRef": {"apiGroup": GROUP, "kind": "ClusterRole", "name": name},
            "subjects": [{"apiGroup": GROUP, "kind": "Group", "name": each} for each in subjects],
        }
        api.create(CLUSTER_ROLE_BINDINGS, "", _labelled(binding))


def _labelled(obj: Object) -> Object:
    metadata = obj["metadata"]
    labels = {"kubernetes.io/bootstrapping": "rbac-defaults", **metadata.get("labels", {})}
    if metadata["name"].startswith("kubevirt.io:"):
        labels = {"kubevirt.io": "", **metadata.get("labels", {})}
    return {**obj, "metadata": {**metadata, "labels": labels}}


class Grants:
    """The rules of writing roles and bindings."""

    def __init__(self, api: Api, policy: Policy) -> None:
        self._api = api
        self._policy = policy
        for kind in (ROLES, CLUSTER_ROLES):
            api.admission[kind] = rbac_objects.role_defaults
            api.rules[kind] = self._rule(kind, self._check_role)
        for kind in (ROLE_BINDINGS, CLUSTER_ROLE_BINDINGS):
            api.admission[kind] = rbac_objects.binding_defaults
            api.rules[kind] = self._rule(kind, self._check_binding)

    @staticmethod
    def _rule(kind: Resource, check: Any) -> Any:
        return lambda obj: check(kind, obj)

    def _check_role(self, kind: Resource, role: Object) -> None:
        rbac_objects.check_role(kind, role)
        namespace, name = role["metadata"].get("namespace", ""), role["metadata"]["name"]
        user = CALLER.get()
        held = self._api.store.get(kind, namespace, name)
        if held is not None and _same(held.obj, role, "rules", "aggregationRule"):
            return
        if user is None or self._may(user, "escalate", kind, namespace, name):
            return
        if role.get("aggregationRule") and missing(self._policy.rules(user, ""), FULL_AUTHORITY):
            why = "must have cluster-admin privileges to use the aggregationRule"
            raise errors.forbidden(kind, name, why)
        self._check_held(user, kind, namespace, name, rules_of(role))

    def _check_binding(self, kind: Resource, obj: Object) -> None:
        rbac_objects.check_binding(kind, obj)
        namespace, name = obj["metadata"].get("namespace", ""), obj["metadata"]["name"]
        held = self._api.store.get(kind, namespace, name)
        if held is not None:
            rbac_objects.check_same_role(kind, obj, held.obj)
            if _same(held.obj, obj, "subjects"):
                return
        user = CALLER.get()
        binding = Binding.read(obj)
        role_kind = CLUSTER_ROLES if binding.role_kind == "ClusterRole" else ROLES
        if user is None or self._may(user, "bind", role_kind, namespace, binding.role):
            return
        rules = self._policy.roles.get(binding.role_key)
        if rules is None:
            raise errors.not_found(role_kind, binding.role)
        self._check_held(user, kind, namespace, name, rules)

    def _may(self, user: User, verb: str, kind: Resource, namespace: str, name: str) -> bool:
        info = RequestInfo(
            verb, group=kind.group, version=kind.version, resource=kind.plural,
            namespace=namespace, name=name,
        )  # fmt: skip
        return ADMINS in user.groups or self._policy.decide(user, info).allowed

    def _check_held(
        self,
        user: User,
        kind: Resource,
        namespace: str,
        name: str,
        rules: tuple[PolicyRule, ...],
    ) -> None:
        lacking = missing(self._policy.rules(user, namespace), rules)
        if lacking:
            lines = "\n".join(sorted(map(str, lacking)))
            why = (
                f'user "{user.name}" (groups={listed(user.groups)}) is attempting to grant RBAC '
                f"permissions not currently held:\n{lines}"
            )
            raise errors.forbidden(kind, name, why)


def _same(old: Object, new: Object, *fields: str) -> bool:
    return all((old.get(field) or None) == (new.get(field) or None) for field in fields)
