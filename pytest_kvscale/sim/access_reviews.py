"""Reviews: objects that are answered when they are created, and not stored.

What may a user do (`kubectl auth can-i`), what may I do here (`--list`), who am I
(`kubectl auth whoami`), whose token is this. Pure but for the policy and the tokens asked.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from pytest_kvscale.sim import errors
from pytest_kvscale.sim.authentication import User
from pytest_kvscale.sim.authorization import Policy
from pytest_kvscale.sim.errors import Object
from pytest_kvscale.sim.request_info import RequestInfo
from pytest_kvscale.sim.resources import (
    ACCESS_REVIEWS,
    LOCAL_ACCESS_REVIEWS,
    SELF_ACCESS_REVIEWS,
    SELF_REVIEWS,
    SELF_RULES_REVIEWS,
    TOKEN_REVIEWS,
    Resource,
)
from pytest_kvscale.sim.validation import check_type

KINDS = (
    SELF_ACCESS_REVIEWS, ACCESS_REVIEWS, LOCAL_ACCESS_REVIEWS, SELF_RULES_REVIEWS, SELF_REVIEWS,
    TOKEN_REVIEWS,
)  # fmt: skip
WhoHas = Callable[[str, tuple[str, ...]], User | None]
"""Who has a token that is for one of these audiences (none: for the API)."""


def review(
    kind: Resource, namespace: str, body: Object, user: User, policy: Policy, who_has: WhoHas
) -> Object:
    """The review that was asked for, with its answer as status."""
    check_type(kind, body)
    spec = body.get("spec") or {}
    if not isinstance(spec, dict):
        raise errors.bad_request("spec must be an object")
    if kind is SELF_REVIEWS:
        status: Object = {"userInfo": _described(user)}
    elif kind is TOKEN_REVIEWS:
        status = _token_status(spec, who_has)
    elif kind is SELF_RULES_REVIEWS:
        status = _rules_status(spec, user, policy)
    else:
        about = user if kind is SELF_ACCESS_REVIEWS else _subject(kind, spec)
        named = {key for key, value in (body.get("metadata") or {}).items() if value}
        if named - ({"namespace"} if kind is LOCAL_ACCESS_REVIEWS else set()):
            raise _invalid(kind, "metadata", "Invalid value: must be empty")
        status = _access_status(kind, spec, about, namespace, policy)
    metadata = body.get("metadata") or {}
    head = {"kind": kind.kind, "apiVersion": kind.api_version, "metadata": metadata}
    return {**head, **({"spec": spec} if kind is not SELF_REVIEWS else {}), "status": status}


def _access_status(
    kind: Resource, spec: Object, user: User, namespace: str, policy: Policy
) -> Object:
    what, path = _mapping(spec, "resourceAttributes"), _mapping(spec, "nonResourceAttributes")
    if what is not None and path is not None:
        text = "Invalid value: cannot be specified in combination with resourceAttributes"
        raise _invalid(kind, "spec.nonResourceAttributes", text)
    if what is None and path is None:
        text = (
            "Invalid value: exactly one of nonResourceAttributes or resourceAttributes must be "
            "specified"
        )
        raise _invalid(kind, "spec.resourceAttributes", text)
    if kind is LOCAL_ACCESS_REVIEWS:
        if what is None:
            text = "Invalid value: disallowed on this kind of request"
            raise _invalid(kind, "spec.nonResourceAttributes", text)
        if _text(what, "namespace") != namespace:
            text = f'Invalid value: "{_text(what, "namespace")}": must match metadata.namespace'
            raise _invalid(kind, "spec.resourceAttributes.namespace", text)
    if what is None:
        info = RequestInfo(_text(path, "verb"), _text(path, "path"))
    else:
        # A resource is named even where none is given: "" is no path.
        info = RequestInfo(
            _text(what, "verb"), "", _text(what, "group"), _text(what, "version"),
            _text(what, "resource") or " ", _text(what, "subresource"),
            _text(what, "namespace"), _text(what, "name"),
        )  # fmt: skip
    decision = policy.decide(user, info)
    reason = {"reason": decision.reason} if decision.reason else {}
    return {"allowed": decision.allowed, **reason}


def _subject(kind: Resource, spec: Object) -> User:
    groups = _texts(spec, "groups")
    if not _text(spec, "user") and not groups:
        text = "Invalid value: at least one of user or group must be specified"
        raise _invalid(kind, "spec.user", text)
    return User(_text(spec, "user"), _text(spec, "uid"), groups)


def _rules_status(spec: Object, user: User, policy: Policy) -> Object:
    namespace = _text(spec, "namespace")
    if not namespace:
        raise errors.bad_request("no namespace on request")
    rules = policy.rules(user, namespace)
    return {
        "resourceRules": [rule.as_object() for rule in rules if not rule.paths],
        "nonResourceRules": [rule.as_object() for rule in rules if rule.paths],
        "incomplete": False,
    }


def _token_status(spec: Object, who_has: WhoHas) -> Object:
    token, audiences = _text(spec, "token"), _texts(spec, "audiences")
    if not token:
        raise errors.bad_request("token is required for TokenReview in authentication")
    user = who_has(token, audiences)
    if user is None:
        return {"user": {}, "error": "invalid bearer token"}
    said = {"audiences": list(audiences)} if audiences else {}
    return {"authenticated": True, "user": _described(user), **said}


def _described(user: User) -> Object:
    """A user as reviews show one."""
    described: dict[str, Any] = {"username": user.name}
    if user.uid:
        described["uid"] = user.uid
    if user.groups:
        described["groups"] = list(user.groups)
    if user.extra:
        described["extra"] = {key: list(values) for key, values in user.extra}
    return described


def _mapping(spec: Object, key: str) -> Object | None:
    value = spec.get(key)
    if value is not None and not isinstance(value, dict):
        raise errors.bad_request(f"spec.{key} must be an object")
    return value


def _text(spec: Object | None, key: str) -> str:
    value = (spec or {}).get(key)
    if value is not None and not isinstance(value, str):
        raise errors.bad_request(f"{key} must be a text")
    return value or ""


def _texts(spec: Object, key: str) -> tuple[str, ...]:
    values = spec.get(key) or []
    if not isinstance(values, list) or not all(isinstance(each, str) for each in values):
        raise errors.bad_request(f"spec.{key} must be a list of texts")
    return tuple(values)


def _invalid(kind: Resource, field: str, text: str) -> errors.StatusError:
    return errors.invalid(kind, "", [errors.cause("FieldValueInvalid", field, text)])
