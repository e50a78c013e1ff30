"""What an object must have before the API takes it: its type and its name."""

from __future__ import annotations

import re

from pytest_kvscale.sim import errors
from pytest_kvscale.sim.errors import Object
from pytest_kvscale.sim.resources import EVENTS, NAMESPACES, Resource

RBAC = "rbac.authorization.k8s.io"
"""Objects of this group have names that need only fit into a path: `system:masters`."""
_NAME = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*")
_LABEL = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?")


def check_type(resource: Resource, obj: Object) -> None:
    """400 for an object of another kind or version than the path says."""
    kind, version = obj.get("kind"), obj.get("apiVersion")
    if kind not in (None, "", resource.kind):
        raise errors.bad_request(
            f"{kind} in version {version!r} cannot be handled as a {resource.kind}: "
            "no kind is registered for the type"
        )
    if version not in (None, "", resource.api_version):
        raise errors.bad_request(
            f"the API version in the data ({version}) does not match the expected API "
            f"version ({resource.api_version})"
        )
    if not isinstance(obj.get("metadata") or {}, dict):
        raise errors.bad_request("metadata must be an object")


def check_name(resource: Resource, name: str) -> None:
    """422 for an object without a name, or with one that is none."""
    if not name:
        missing = "Required value: name or generateName is required"
        raise errors.invalid(
            resource, "", [errors.cause("FieldValueRequired", "metadata.name", missing)]
        )
    if resource.group == RBAC:
        if name in (".", "..") or "/" in name or "%" in name:
            text = f"Invalid value: \"{name}\": may not be '.' or '..' nor contain '/' or '%'"
            raise errors.invalid(
                resource, name, [errors.cause("FieldValueInvalid", "metadata.name", text)]
            )
        return
    pattern, word = (_LABEL, "label") if resource is NAMESPACES else (_NAME, "subdomain")
    longest = 63 if pattern is _LABEL else 253
    if resource is EVENTS or (len(name) <= longest and pattern.fullmatch(name)):
        return
    text = (
        f'Invalid value: "{name}": a lowercase RFC 1123 {word} must consist of lower case '
        "alphanumeric characters, '-' or '.', and must start and end with an alphanumeric "
        f"character (regex used for validation is '{pattern.pattern}')"
    )
    raise errors.invalid(resource, name, [errors.cause("FieldValueInvalid", "metadata.name", text)])
