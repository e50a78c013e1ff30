"""The API's refusals: a `Status` body with code, reason, details and causes, as clients expect."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

from pytest_kvscale.sim.resources import Resource

Object = dict[str, Any]
"""An API object as JSON has it."""


class StatusError(Exception):
    """A request the API refuses; `body` is what the client gets."""

    def __init__(
        self,
        code: int,
        reason: str,
        message: str,
        details: Object | None = None,
        headers: dict[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.code = code
        self.reason = reason
        self.headers = headers or {}
        self.body: Object = {
            "kind": "Status",
            "apiVersion": "v1",
            "metadata": {},
            "status": "Failure",
            "message": message,
            "reason": reason,
            **({} if details is None else {"details": details}),
            "code": code,
        }


def cause(reason: str, field: str, message: str) -> Object:
    """One entry of `details.causes`."""
    return {"reason": reason, "message": message, "field": field}


def invalid_value(field: str, value: Any, why: str) -> Object:
    """A cause: the field may not have this value."""
    return cause("FieldValueInvalid", field, f"Invalid value: {_quoted(value)}: {why}")


def required(field: str, why: str = "") -> Object:
    """A cause: the field must be there."""
    return cause("FieldValueRequired", field, f"Required value: {why}" if why else "Required value")


def unsupported(field: str, value: Any, known: Iterable[str]) -> Object:
    """A cause: the field must have one of some values."""
    listed = ", ".join(f'"{each}"' for each in known)
    text = f"Unsupported value: {_quoted(value)}: supported values: {listed}"
    return cause("FieldValueNotSupported", field, text)


def duplicate(field: str, value: Any) -> Object:
    """A cause: the value is there twice."""
    return cause("FieldValueDuplicate", field, f"Duplicate value: {_quoted(value)}")


def not_there(field: str, value: Any) -> Object:
    """A cause: the value names what does not exist."""
    return cause("FieldValueNotFound", field, f"Not found: {_quoted(value)}")


def not_allowed(field: str, why: str) -> Object:
    """A cause: the field may not be set (like this)."""
    return cause("FieldValueForbidden", field, f"Forbidden: {why}")


def too_long(field: str, longest: int) -> Object:
    """A cause: the value is too long."""
    text = f"Too long: may not be more than {longest} bytes"
    return cause("FieldValueTooLong", field, text)


def _quoted(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, default=str)


def _details(resource: Resource, name: str, **more: Any) -> Object:
    group = {"group": resource.group} if resource.group else {}
    return {**({"name": name} if name else {}), **group, "kind": resource.plural, **more}


def not_found(resource: Resource, name: str) -> StatusError:
    """404: no such object."""
    message = f'{resource.full_name} "{name}" not found'
    return StatusError(404, "NotFound", message, _details(resource, name))


def already_exists(resource: Resource, name: str) -> StatusError:
    """409: an object of this name is there."""
    message = f'{resource.full_name} "{name}" already exists'
    return StatusError(409, "AlreadyExists", message, _details(resource, name))


def conflict(resource: Resource, name: str, why: str = "") -> StatusError:
    """409: the object has another version (or uid) than the request expects."""
    why = why or (
        "the object has been modified; please apply your changes to the latest version and "
        "try again"
    )
    message = f'Operation cannot be fulfilled on {resource.full_name} "{name}": {why}'
    return StatusError(409, "Conflict", message, _details(resource, name))


def invalid(resource: Resource, name: str, causes: list[Object]) -> StatusError:
    """422: the object breaks rules; one cause for each broken field."""
    return invalid_kind(resource.group, resource.kind, name, causes)


def invalid_options(kind: str, causes: list[Object]) -> StatusError:
    """422: the options of a request (`ListOptions`, `DeleteOptions`...) break rules."""
    return invalid_kind("meta.k8s.io", kind, "", causes)


def invalid_kind(group: str, kind: str, name: str, causes: list[Object]) -> StatusError:
    """422 for what is no stored kind."""
    reasons = [f"{each['field']}: {each['message']}" for each in causes]
    text = reasons[0] if len(reasons) == 1 else f"[{', '.join(reasons)}]"
    details = {
        **({"name": name} if name else {}),
        **({"group": group} if group else {}),
        **({"kind": kind} if kind else {}),
        "causes": causes,
    }
    full = f"{kind}.{group}" if group else kind
    return StatusError(422, "Invalid", f'{full} "{name}" is invalid: {text}', details)


def invalid_patch(why: str) -> StatusError:
    """422: what a patch makes of an object cannot be read."""
    return invalid_kind("", "", "", [cause("FieldValueInvalid", "patch", f"Invalid value: {why}")])


def forbidden(
    resource: Resource, name: str, why: str, causes: list[Object] | None = None
) -> StatusError:
    """403: understood and refused."""
    message = f'{resource.full_name} "{name}" is forbidden: {why}'
    more = {"causes": causes} if causes else {}
    return StatusError(403, "Forbidden", message, _details(resource, name, **more))


def bad_request(message: str) -> StatusError:
    """400: the request makes no sense."""
    return StatusError(400, "BadRequest", message)


def expired(message: str, proceed: str = "") -> StatusError:
    """410: that version of the past is no longer kept; `proceed` takes a list up all the same."""
    refusal = StatusError(410, "Expired", message)
    if proceed:
        refusal.body["metadata"] = {"continue": proceed}
    return refusal


def too_large_version(wanted: int, current: int) -> StatusError:
    """504: a version that does not exist yet was asked for."""
    text = f"Too large resource version: {wanted}, current: {current}"
    details = {
        "causes": [{"reason": "ResourceVersionTooLarge", "message": "Too large resource version"}],
        "retryAfterSeconds": 1,
    }
    return StatusError(504, "Timeout", f"Timeout: {text}", details, {"Retry-After": "1"})


def method_not_allowed(resource: Resource | None = None, verb: str = "") -> StatusError:
    """405: this path has no such verb; custom kinds say which."""
    if resource is not None and resource.custom:
        message = f'{verb} is not supported on resources of kind "{resource.full_name}"'
        return StatusError(405, "MethodNotAllowed", message, _details(resource, ""))
    message = "the server does not allow this method on the requested resource"
    return StatusError(405, "MethodNotAllowed", message, {})


def no_such_path() -> StatusError:
    """404: this group and version has no such resource."""
    message = "the server could not find the requested resource"
    return StatusError(404, "NotFound", message, {})


def not_acceptable(message: str) -> StatusError:
    """406: the answer cannot be given in a format the client takes."""
    return StatusError(406, "NotAcceptable", message)


def too_large_body(limit: int) -> StatusError:
    """413: the body is too large."""
    message = f"Request entity too large: limit is {limit}"
    return StatusError(413, "RequestEntityTooLarge", message)


def too_slow() -> StatusError:
    """504: the request did not come in whole in time."""
    message = "Timeout: request did not complete within the allotted timeout"
    return StatusError(504, "Timeout", message, {})


def unauthorized() -> StatusError:
    """401: nobody knows who asks."""
    return StatusError(401, "Unauthorized", "Unauthorized")


def unsupported_media_type(accepted: list[str]) -> StatusError:
    """415: a body in a format this request does not take."""
    message = (
        "the body of the request was in an unknown format - accepted media types include: "
        + ", ".join(accepted)
    )
    return StatusError(415, "UnsupportedMediaType", message)


def too_many_requests(seconds: int, message: str) -> StatusError:
    """429: come back after so many seconds."""
    details = {"retryAfterSeconds": seconds}
    headers = {"Retry-After": str(seconds)}
    return StatusError(429, "TooManyRequests", message, details, headers)


_REASONS = {
    400: "BadRequest", 401: "Unauthorized", 403: "Forbidden", 404: "NotFound", 409: "Conflict",
    410: "Expired", 422: "Invalid", 429: "TooManyRequests", 500: "InternalError",
    503: "ServiceUnavailable", 504: "Timeout",
}  # fmt: skip


def webhook_failed(plural: str, verb: str, refused: bool) -> StatusError:
    """A webhook of virt-api's did not answer (in time)."""
    step = "create" if verb == "create" else "update"
    address = f"https://virt-api.kubevirt.svc:443/{plural}-validate-{step}?timeout=10s"
    why = "dial tcp 10.96.11.7:443: connect: connection refused"
    message = (
        f'Internal error occurred: failed calling webhook "{plural}-{step}-validator.kubevirt.io": '
        f'failed to call webhook: Post "{address}": '
        + (why if refused else "context deadline exceeded")
    )
    return StatusError(500, "InternalError", message)


def as_asked_for(code: int, retry_after: int | None = None) -> StatusError:
    """A refusal that a fault makes."""
    message = "the embedded cluster was asked for this fault"
    if retry_after is None:
        return StatusError(code, _REASONS.get(code, "Unknown"), message)
    details = {"retryAfterSeconds": retry_after}
    headers = {"Retry-After": str(retry_after)}
    return StatusError(code, _REASONS.get(code, "Unknown"), message, details, headers)
