"""Lists: which objects, as of which version, and in which pages.

Every page of a list shows the objects as they were when the first was asked for; the `continue`
token says where a page ended, and at which version. Once that version is no longer kept the
client gets 410, with a token that goes on in the present.
"""

from __future__ import annotations

import base64
import binascii
import dataclasses
import json
import posixpath
from collections.abc import Iterator

from pytest_kvscale.sim import errors, selectors
from pytest_kvscale.sim.errors import StatusError
from pytest_kvscale.sim.resources import Resource
from pytest_kvscale.sim.selectors import Matcher
from pytest_kvscale.sim.store import Store, Stored, path_of

EXACT, NOT_OLDER_THAN = "Exact", "NotOlderThan"
_TOKEN_VERSION = "meta.k8s.io/v1"  # noqa: S105 - no secret: how the token is to be read
_THE_PRESENT = -1
"""The version of a token that goes on in the present."""
_TOO_OLD = (
    "The provided continue parameter is too old to display a consistent list result. You can "
    "start a new list without the continue parameter, or use the continue token in this response "
    "to retrieve the remainder of the results. Continuing with the provided token results in an "
    "inconsistent list - objects that were created, modified, or deleted between the time the "
    "first chunk was returned and now may show up in the list."
)


@dataclasses.dataclass(frozen=True)
class Page:
    """A part of a list: encoded objects, the version they stand at, and where to go on."""

    items: list[Stored]
    version: int
    proceed: str = ""
    remaining: int | None = None


@dataclasses.dataclass(frozen=True)
class Query:
    """Which objects a list, watch or deletecollection is about."""

    namespace: str = ""
    labels: str = ""
    fields: str = ""

    def matcher(self, resource: Resource, with_namespace: bool = True) -> Matcher | None:
        """What its objects match; None if there is nothing to match."""
        namespace = self.namespace
        parts: list[Matcher] = []
        if namespace and with_namespace:
            parts.append(lambda obj: obj["metadata"].get("namespace") == namespace)
        if self.labels:
            parts.append(selectors.labels(self.labels))
        if self.fields:
            parts.append(selectors.fields(self.fields, resource))
        if len(parts) < 2:
            return parts[0] if parts else None
        return lambda obj: all(part(obj) for part in parts)


@dataclasses.dataclass(frozen=True)
class Paging:
    """Which page of a list, and as of when."""

    limit: int = 0
    proceed: str = ""
    version: str = ""
    match: str = ""


def is_version(text: str | None) -> bool:
    """Whether a text stands for a version; '0' and what is no number do not."""
    return bool(text and text.isascii() and text.isdecimal() and 0 < int(text) < 2**64)


def version_of(text: str) -> int:
    """A resource version that a client sent; 400 for one that is none, 0 for none at all."""
    if not text:
        return 0
    if not (text.isascii() and text.isdecimal()) or int(text) >= 2**64:
        raise errors.bad_request(
            f'invalid resource version: resourceVersion: Invalid value: "{text}": '
            f'strconv.ParseUint: parsing "{text}": invalid syntax'
        )
    return int(text)


def check_reached(store: Store, text: str) -> None:
    """400 for what is no version, 504 for one that is still to come."""
    version = version_of(text)
    if version > store.version:
        raise errors.too_large_version(version, store.version)


def list_page(store: Store, resource: Resource, query: Query, paging: Paging) -> Page:
    """One page of a list."""
    matches = query.matcher(resource, with_namespace=False)
    after, version, limit = "", store.version, paging.limit
    if paging.proceed:
        after, at = _decode(paging.proceed, query.namespace)
        if paging.version not in ("", "0"):
            raise errors.bad_request(
                "specifying resource version is not allowed when using continue"
            )
        version = store.version if at < 0 else at
    elif paging.version:
        asked = version_of(paging.version)
        if paging.match == EXACT or (not paging.match and limit and asked):
            version = asked
        if not asked:
            limit = 0  # Such a list is answered from the cache, which knows no pages.
        elif asked > store.version:
            version = asked
    if version > store.version:
        raise errors.too_large_version(version, store.version)
    now = version == store.version
    try:
        found = store.select(resource, query.namespace, after, None if now else version)
    except StatusError as refusal:
        if not paging.proceed:
            raise
        token = _encode(after, _THE_PRESENT, query.namespace)
        raise errors.expired(_TOO_OLD, token) from refusal
    if matches is not None:
        found = (stored for stored in found if matches(stored.obj))
    if not limit:
        return Page(list(found), version)
    return _cut(store, resource, query, found, version, limit)


def _cut(
    store: Store, resource: Resource, query: Query, found: Iterator[Stored], version: int,
    limit: int,
) -> Page:  # fmt: skip
    items: list[Stored] = []
    for stored in found:
        if len(items) == limit:
            break
        items.append(stored)
    else:
        return Page(items, version)
    last = path_of(items[-1].obj)
    remaining = None
    if not query.labels and not query.fields:
        if version == store.version:
            remaining = store.count(resource, query.namespace, last)
        else:
            remaining = 1 + sum(1 for _ in found)
    return Page(items, version, _encode(last, version, query.namespace), remaining)


# The token --------------------------------------------------------------------------------------


def _encode(path: str, version: int, namespace: str) -> str:
    start = path.removeprefix(f"{namespace}/" if namespace else "")
    token = {"v": _TOKEN_VERSION, "rv": version, "start": f"/{start.removeprefix('/')}\0"}
    raw = json.dumps(token, separators=(",", ":")).encode()
    return base64.urlsafe_b64encode(raw).decode().rstrip("=")


def _decode(text: str, namespace: str) -> tuple[str, int]:
    """The path after which a page begins, and the version of the list."""
    try:
        padded = text.encode("ascii").translate(_TO_STANDARD) + b"=" * (-len(text) % 4)
        token = json.loads(base64.b64decode(padded, validate=True))
    except (binascii.Error, ValueError) as problem:
        raise _bad_token(str(problem)) from None
    if not isinstance(token, dict) or token.get("v") != _TOKEN_VERSION:
        raise _bad_token("server does not recognize this encoded version")
    version, start = token.get("rv"), token.get("start")
    if isinstance(version, bool) or not isinstance(version, int) or not version:
        raise _bad_token("incorrect encoded start resourceVersion (version meta.k8s.io/v1)")
    if not isinstance(start, str) or not start:
        raise _bad_token("encoded start key empty (version meta.k8s.io/v1)")
    start = start if start.startswith("/") else f"/{start}"
    if posixpath.normpath(start) != start:
        raise _bad_token(start)
    path = start[1:].removesuffix("\0")
    if namespace:
        path = f"{namespace}/{path}"
    elif "/" not in path:
        path = f"/{path}"
    return path, version


_TO_STANDARD = bytes.maketrans(b"-_", b"+/")


def _bad_token(why: str) -> StatusError:
    return errors.bad_request(f"invalid continue token: continue key is not valid: {why}")
