"""Who may do what: role-based access control (RBAC), as kube-apiserver evaluates it.

Pure: a `Policy` holds roles and bindings and says what they allow. Where they come from, and who
may change them, is the business of `rbac`.
"""

from __future__ import annotations

import dataclasses
import html
import itertools
import json
from collections.abc import Iterable, Iterator

from pytest_kvscale.sim.authentication import ADMINS, User
from pytest_kvscale.sim.errors import Object, StatusError
from pytest_kvscale.sim.request_info import RequestInfo

ALL = "*"
GROUP = "rbac.authorization.k8s.io"
SERVICE_ACCOUNT = "system:serviceaccount:"


@dataclasses.dataclass(frozen=True)
class PolicyRule:
    """One rule of a role: every one of its verbs on every one of its resources or paths."""

    verbs: tuple[str, ...]
    groups: tuple[str, ...] = ()
    resources: tuple[str, ...] = ()
    names: tuple[str, ...] = ()
    """Only objects of these names; none: all."""
    paths: tuple[str, ...] = ()
    """Paths that name no objects (`nonResourceURLs`); a `*` at the end stands for any rest."""

    @classmethod
    def read(cls, obj: Object) -> PolicyRule:
        """The rule that an object's JSON holds."""
        keys = ("verbs", "apiGroups", "resources", "resourceNames", "nonResourceURLs")
        return cls(*(tuple(obj.get(key) or ()) for key in keys))

    def as_object(self) -> Object:
        """The rule as JSON has it."""
        fields = (self.verbs, self.groups, self.resources, self.names, self.paths)
        keys = ("verbs", "apiGroups", "resources", "resourceNames", "nonResourceURLs")
        return {key: list(field) for key, field in zip(keys, fields, strict=True) if field}

    def allows(self, info: RequestInfo) -> bool:
        """Whether it allows what a request asks for."""
        if not _has(self.verbs, info.verb):
            return False
        if not info.resource:
            return any(_covers_path(path, info.path) for path in self.paths)
        return (
            _has(self.groups, info.group)
            and any(_covers_resource(each, info.full_resource) for each in self.resources)
            and (not self.names or info.name in self.names)
        )

    def covers(self, single: PolicyRule) -> bool:
        """Whether it allows all that a rule with at most one value of each kind allows."""
        if not all(_has(self.verbs, verb) for verb in single.verbs):
            return False
        if single.paths:
            return all(any(_covers_path(own, path) for own in self.paths) for path in single.paths)
        return (
            all(_has(self.groups, group) for group in single.groups)
            and all(
                any(_covers_resource(own, each) for own in self.resources)
                for each in single.resources
            )
            and (not self.names or (bool(single.names) and set(single.names) <= set(self.names)))
        )

    def singles(self) -> Iterator[PolicyRule]:
        """The same as rules with one value of each kind."""
        for group, resource, verb in itertools.product(self.groups, self.resources, self.verbs):
            for name in self.names or (None,):
                yield PolicyRule((verb,), (group,), (resource,), () if name is None else (name,))
        for path, verb in itertools.product(self.paths, self.verbs):
            yield PolicyRule((verb,), paths=(path,))

    def __str__(self) -> str:
        fields = {
            "APIGroups": self.groups, "Resources": self.resources, "NonResourceURLs": self.paths,
            "ResourceNames": self.names, "Verbs": self.verbs,
        }  # fmt: skip
        parts = (f"{key}:{listed(value)}" for key, value in fields.items() if value)
        return f"{{{', '.join(parts)}}}"


FULL_AUTHORITY = (PolicyRule((ALL,), (ALL,), (ALL,)), PolicyRule((ALL,), paths=(ALL,)))


def missing(held: Iterable[PolicyRule], wanted: Iterable[PolicyRule]) -> list[PolicyRule]:
    """What the wanted rules allow and the held ones do not, those of one resource joined."""
    own = tuple(held)
    verbs: dict[PolicyRule, dict[str, None]] = {}
    for rule in wanted:
        for single in rule.singles():
            if not any(each.covers(single) for each in own):
                verbs.setdefault(dataclasses.replace(single, verbs=()), {})[single.verbs[0]] = None
    return [dataclasses.replace(rule, verbs=tuple(found)) for rule, found in verbs.items()]


@dataclasses.dataclass(frozen=True)
class Subject:
    """Whom a binding names."""

    kind: str
    name: str
    namespace: str = ""

    def is_user(self, user: User) -> bool:
        """Whether this user is meant."""
        if self.kind == "Group":
            return self.name in user.groups
        if self.kind == "ServiceAccount":
            return user.name == f"{SERVICE_ACCOUNT}{self.namespace}:{self.name}"
        return self.kind == "User" and self.name == user.name

    def __str__(self) -> str:
        name = f"{self.name}/{self.namespace}" if self.kind == "ServiceAccount" else self.name
        return f'{self.kind} "{name}"'


@dataclasses.dataclass(frozen=True)
class Binding:
    """A RoleBinding, or (without a namespace) a ClusterRoleBinding."""

    name: str
    namespace: str
    role_kind: str
    role: str
    subjects: tuple[Subject, ...]

    @classmethod
    def read(cls, obj: Object) -> Binding:
        """The binding that an object is."""
        metadata, reference = obj["metadata"], obj["roleRef"]
        namespace = metadata.get("namespace", "")
        subjects = tuple(
            Subject(each["kind"], each["name"], each.get("namespace") or namespace)
            for each in obj.get("subjects") or ()
        )
        return cls(metadata["name"], namespace, reference["kind"], reference["name"], subjects)

    @property
    def role_key(self) -> tuple[str, str]:
        """Namespace ('' for a ClusterRole) and name of the role it refers to."""
        return (self.namespace if self.role_kind == "Role" else "", self.role)

    def __str__(self) -> str:
        kind = "RoleBinding" if self.namespace else "ClusterRoleBinding"
        name = f"{self.name}/{self.namespace}" if self.namespace else self.name
        return f'{kind} "{name}" of {self.role_kind} "{self.role}"'


@dataclasses.dataclass(frozen=True)
class Decision:
    """Whether something is allowed, and by what or, if that is known, why not."""

    allowed: bool
    reason: str = ""


class Policy:
    """All roles and bindings."""

    def __init__(self) -> None:
        self.roles: dict[tuple[str, str], tuple[PolicyRule, ...]] = {}
        """By namespace ('' for a ClusterRole) and name."""
        self.bindings: dict[str, dict[str, Binding]] = {}
        """By namespace ('' for a ClusterRoleBinding) and name."""

    def bind(self, binding: Binding) -> None:
        """Add a binding, or put it in the place of the one of its name."""
        self.bindings.setdefault(binding.namespace, {})[binding.name] = binding

    def unbind(self, namespace: str, name: str) -> None:
        """Take a binding away."""
        held = self.bindings.get(namespace, {})
        held.pop(name, None)
        if not held:
            self.bindings.pop(namespace, None)

    def grants(self, user: User, namespace: str) -> Iterator[tuple[Binding, Subject]]:
        """The bindings that name the user, those of the whole cluster first."""
        for where in dict.fromkeys(("", namespace)):
            for binding in self.bindings.get(where, {}).values():
                for subject in binding.subjects:
                    if subject.is_user(user):
                        yield binding, subject
                        break

    def rules(self, user: User, namespace: str) -> list[PolicyRule]:
        """All rules that hold for the user in a namespace ('': in the whole cluster)."""
        found = (self.roles.get(each.role_key, ()) for each, _ in self.grants(user, namespace))
        return list(dict.fromkeys(itertools.chain.from_iterable(found)))

    def decide(self, user: User, info: RequestInfo) -> Decision:
        """Whether the user may do this; `system:masters` may do all."""
        if ADMINS in user.groups:
            return Decision(True)
        lost: list[str] = []
        for binding, subject in self.grants(user, info.namespace):
            rules = self.roles.get(binding.role_key)
            if rules is None:
                lost.append(f'{binding.role_kind.lower()}.{GROUP} "{binding.role}" not found')
            elif any(rule.allows(info) for rule in rules):
                return Decision(True, f"RBAC: allowed by {binding} to {subject}")
        text = ", ".join(lost)
        return Decision(False, f"RBAC: {f'[{text}]' if len(lost) > 1 else text}" if lost else "")


def refusal(user: User, info: RequestInfo, reason: str = "") -> StatusError:
    """403: the user may not do this."""
    # kube-apiserver escapes what came from the request, as a browser might show it.
    why = html.escape(info.refused(user.name), quote=False) + (f": {reason}" if reason else "")
    details = {"name": info.name, "group": info.group, "kind": info.resource}
    about = f"{info.resource}.{info.group}" if info.group else info.resource
    if info.resource and info.name:
        about += f' "{info.name}"'
    message = f"{about} is forbidden: {why}" if info.resource else f"forbidden: {why}"
    given = {key: value for key, value in details.items() if value and info.resource}
    refused = StatusError(403, "Forbidden", message, given)
    refused.body.setdefault("details", {})
    return refused


def listed(values: Iterable[str]) -> str:
    """Texts in a list, as messages of Kubernetes have them: `["a" "b"]`."""
    return f"[{' '.join(json.dumps(value, ensure_ascii=False) for value in values)}]"


def _has(values: tuple[str, ...], value: str) -> bool:
    return ALL in values or value in values


def _covers_resource(own: str, resource: str) -> bool:
    """`*` is everything, `*/scale` the scale of everything, `pods` not its subresources."""
    if own in (ALL, resource):
        return True
    _, slash, subresource = resource.partition("/")
    return bool(slash) and own == f"*/{subresource}"


def _covers_path(own: str, path: str) -> bool:
    return own in (ALL, path) or (own.endswith(ALL) and path.startswith(own.rstrip(ALL)))
