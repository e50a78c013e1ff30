"""What a request asks for, in the words that authorization knows: read from method and path alone.

As in Kubernetes this happens before it is known whether the path exists, so that who may not read
a kind is told so, and not whether there is one.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

VERBS = {
    "GET": "get", "HEAD": "get", "POST": "create", "PUT": "update", "PATCH": "patch",
    "DELETE": "delete",
}  # fmt: skip
OF_A_NAMESPACE = ("status", "finalize")
"""Subresources of namespaces: `/namespaces/x/status` is no list of a kind named `status`."""


@dataclasses.dataclass(frozen=True)
class RequestInfo:
    """A verb, and the object or path it is for; an empty `resource` means a path."""

    verb: str
    path: str = ""
    group: str = ""
    version: str = ""
    resource: str = ""
    subresource: str = ""
    namespace: str = ""
    name: str = ""

    @property
    def full_resource(self) -> str:
        """The resource, with its subresource if there is one."""
        return f"{self.resource}/{self.subresource}" if self.subresource else self.resource

    def refused(self, user: str) -> str:
        """The sentence that says that a user may not do this."""
        who = f'User "{user}" cannot {self.verb}'
        if not self.resource:
            return f'{who} path "{self.path}"'
        where = f'in the namespace "{self.namespace}"' if self.namespace else "at the cluster scope"
        return f'{who} resource "{self.full_resource}" in API group "{self.group}" {where}'


def request_info(method: str, path: str, query: Mapping[str, str]) -> RequestInfo:
    """What a request asks for."""
    match [step for step in path.split("/") if step]:
        case ["api", version, *rest] if rest:
            group = ""
        case ["apis", group, version, *rest] if rest:
            pass
        case _:
            return RequestInfo(method.lower(), path)
    namespace = ""
    if rest[0] == "namespaces" and len(rest) > 1:
        namespace = rest[1]
        if len(rest) > 2 and rest[2] not in OF_A_NAMESPACE:
            rest = rest[2:]
    resource, name, subresource = (*rest, "", "")[:3]
    verb = VERBS.get(method, method.lower())
    if not name and verb == "get":
        verb = "watch" if query.get("watch") in ("true", "1") else "list"
        name = _only_name(query.get("fieldSelector", ""))
    elif not name and verb == "delete":
        verb = "deletecollection"
    return RequestInfo(verb, path, group, version, resource, subresource, namespace, name)


def _only_name(field_selector: str) -> str:
    """The one object a field selector names, if it does: then a role for that name suffices."""
    for part in field_selector.split(","):
        field, equals, value = part.partition("=")
        if equals and field.strip() == "metadata.name" and value and "/" not in value:
            return value.removeprefix("=").strip()
    return ""
