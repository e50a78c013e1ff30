"""What the embedded API answers: objects, lists and tables, in the format a client takes."""

from __future__ import annotations

import gzip
import json
from typing import Any

import yaml
from aiohttp import web

from pytest_kvscale.sim import errors, negotiation, table
from pytest_kvscale.sim.clock import Calendar
from pytest_kvscale.sim.errors import Object, StatusError
from pytest_kvscale.sim.http import Target
from pytest_kvscale.sim.lists import Page
from pytest_kvscale.sim.negotiation import METADATA, METADATA_LIST, TABLE, Format
from pytest_kvscale.sim.resources import Resource
from pytest_kvscale.sim.store import Stored, encode

WORTH_PACKING = 128 * 1024
"""Bytes from which on an answer is compressed, if the client takes that."""


class Writer:
    """Writes the answers to one request."""

    def __init__(
        self, request: web.BaseRequest, calendar: Calendar, streamed: bool = False
    ) -> None:
        self._request = request
        self._calendar = calendar
        headers = request.headers
        self.format: Format = negotiation.negotiate(headers.get("Accept", ""), streamed)
        pretty = request.query.get("pretty")
        self._pretty = negotiation.is_pretty(pretty, headers.get("User-Agent", ""))
        self._warnings: list[str] = []

    def warn(self, text: str) -> None:
        """Add a warning to the answer's headers."""
        if text not in self._warnings:
            self._warnings.append(text)

    def value(self, value: Any, code: int = 200) -> web.Response:
        """An answer in the client's format that is no stored object."""
        if self.format.yaml:
            text = yaml.safe_dump(value, sort_keys=False, allow_unicode=True)
            return self._respond(text.encode(), code, "application/yaml")
        if self._pretty:
            return self._respond(json.dumps(value, indent=2).encode() + b"\n", code)
        return self._respond(encode(value) + b"\n", code)

    def raw(self, raw: bytes, code: int = 200) -> web.Response:
        """An answer that is JSON already."""
        if self.format.yaml or self._pretty:
            return self.value(json.loads(raw), code)
        return self._respond(raw, code)

    def stored(self, target: Target, stored: Stored, code: int = 200) -> web.Response:
        """A stored object, in the shape that is asked for."""
        if self.format.shape:
            negotiation.check_shape(self.format.shape, is_list=False)
            return self.value(self._shaped(target, Page([stored], stored.version), True), code)
        if target.version not in ("", target.resource.version):
            return self.value(in_version(target, stored.obj), code)
        return self.raw(stored.raw, code)

    def obj(self, target: Target, obj: Object, code: int = 200) -> web.Response:
        """An object that is not stored (any more, or like this)."""
        return self.stored(target, Stored(obj, 0), code)

    def page(self, target: Target, page: Page) -> web.Response:
        """A list, in the shape that is asked for."""
        if self.format.shape:
            negotiation.check_shape(self.format.shape, is_list=True)
            return self.value(self._shaped(target, page, False))
        return self.raw(encode_list(target, page))

    def event(self, target: Target, kind: str, stored: Stored, first: bool) -> bytes:
        """One event of a watch, as a line; `first`: a table's columns come with it."""
        if self.format.shape == TABLE:
            raw = encode(self._table(target, Page([stored], stored.version), with_columns=first))
        elif self.format.shape:
            raw = encode(partial(stored.obj, self.format.version))
        elif target.version not in ("", target.resource.version):
            raw = encode(in_version(target, stored.obj))
        else:
            raw = stored.raw
        return b'{"type":"' + kind.encode() + b'","object":' + raw + b"}\n"

    def _shaped(self, target: Target, page: Page, single: bool) -> Object:
        if self.format.shape == TABLE:
            return self._table(target, page)
        version = self.format.version
        if single and self.format.shape == METADATA:
            return partial(page.items[0].obj, version)
        return {
            "kind": METADATA_LIST,
            "apiVersion": f"meta.k8s.io/{version}",
            "metadata": list_metadata(page),
            "items": [partial(stored.obj, version) for stored in page.items],
        }

    def _table(self, target: Target, page: Page, with_columns: bool = True) -> Object:
        kind = target.resource
        include = negotiation.included(self._request.query.get("includeObject", ""))
        return {
            "kind": TABLE,
            "apiVersion": f"meta.k8s.io/{self.format.version}",
            "metadata": list_metadata(page),
            "columnDefinitions": table.columns(kind) if with_columns else None,
            "rows": [
                self._row(target, stored, include, self.format.version) for stored in page.items
            ],
        }

    def _row(self, target: Target, stored: Stored, include: str, version: str) -> Object:
        row: Object = {"cells": table.cells(target.resource, stored.obj, self._calendar)}
        if include == "Object":
            row["object"] = in_version(target, stored.obj)
        elif include == "Metadata":
            row["object"] = partial(stored.obj, version)
        else:
            row["object"] = None
        return row

    def _respond(self, raw: bytes, code: int, kind: str = "application/json") -> web.Response:
        response = web.Response(body=raw, status=code, content_type=kind)
        if len(raw) >= WORTH_PACKING and self._takes_gzip():
            response.body = gzip.compress(raw, compresslevel=1, mtime=0)
            response.headers["Content-Encoding"] = "gzip"
        for text in self._warnings:
            response.headers.add("Warning", f"299 - {json.dumps(text)}")
        return response

    def _takes_gzip(self) -> bool:
        accepted = negotiation.clauses(self._request.headers.get("Accept-Encoding", ""))
        return any(each.kind == "gzip" and each.weight > 0 for each in accepted)


def answer(value: Any, code: int = 200, headers: dict[str, str] | None = None) -> web.Response:
    """A JSON answer, whatever the client takes."""
    body = encode(value) + b"\n"
    return web.Response(body=body, status=code, headers=headers, content_type="application/json")


def text(body: str, code: int = 200) -> web.Response:
    """An answer that is plain text."""
    headers = {"X-Content-Type-Options": "nosniff"}
    return web.Response(text=body, status=code, headers=headers)


def not_served() -> web.Response:
    """Nothing is there."""
    return text("404 page not found\n", 404)


# Parts of answers -------------------------------------------------------------------------------


def in_version(target: Target, obj: Object) -> Object:
    """The object in the version the client asks for; the versions of a kind differ in name only."""
    if target.version in ("", target.resource.version):
        return obj
    return {**obj, "apiVersion": target.api_version}


def partial(obj: Object, version: str) -> Object:
    """The metadata of an object alone."""
    return {
        "kind": METADATA, "apiVersion": f"meta.k8s.io/{version}", "metadata": obj["metadata"],
    }  # fmt: skip


def list_metadata(page: Page) -> Object:
    """The metadata of a list."""
    metadata: Object = {"resourceVersion": str(page.version)}
    if page.proceed:
        metadata["continue"] = page.proceed
        if page.remaining is not None:
            metadata["remainingItemCount"] = page.remaining
    return metadata


def encode_list(target: Target, page: Page) -> bytes:
    """A list as JSON. Objects of built-in kinds say in a list neither kind nor version."""
    kind, metadata = target.resource, list_metadata(page)
    if kind.custom and target.version not in ("", kind.version):
        items = b",".join(encode(in_version(target, stored.obj)) for stored in page.items)
    elif kind.custom:
        items = b",".join([stored.raw for stored in page.items])
    else:
        head = b'{"kind":"%s","apiVersion":"%s",' % (
            kind.kind.encode(), kind.api_version.encode(),
        )  # fmt: skip
        items = b",".join([_item(stored, head) for stored in page.items])
    name, version = encode(f"{kind.kind}List"), encode(target.api_version)
    if kind.custom:
        metadata = {"continue": "", **metadata}
        ending = b'],"kind":' + name + b',"metadata":' + encode(metadata) + b"}\n"
        return b'{"apiVersion":' + version + b',"items":[' + items + ending
    beginning = b'{"kind":' + name + b',"apiVersion":' + version
    return beginning + b',"metadata":' + encode(metadata) + b',"items":[' + items + b"]}\n"


def _item(stored: Stored, head: bytes) -> bytes:
    raw = stored.raw
    if raw.startswith(head):
        return b"{" + raw[len(head) :]
    bare = {key: value for key, value in stored.obj.items() if key not in ("kind", "apiVersion")}
    return encode(bare)


def bookmark(target: Target, version: int, end_of_initial: bool = False) -> Stored:
    """The object of a BOOKMARK event."""
    metadata: Object = {"resourceVersion": str(version)}
    if not target.resource.custom:
        metadata["creationTimestamp"] = None
    if end_of_initial:
        metadata["annotations"] = {"k8s.io/initial-events-end": "true"}
    kind = {"kind": target.resource.kind, "apiVersion": target.resource.api_version}
    return Stored({**kind, "metadata": metadata}, version)


def error_event(refusal: StatusError) -> bytes:
    """The ERROR event with which a watch ends that cannot go on."""
    return encode({"type": "ERROR", "object": refusal.body}) + b"\n"


def history_gone() -> StatusError:
    """What a watch ends with whose place in the history is no longer kept."""
    return errors.expired("The resourceVersion for the provided watch is too old.")


def deleted(kind: Resource, obj: Object) -> Object:
    """The Status that answers a deletion which is done."""
    group = {"group": kind.group} if kind.group else {}
    metadata = obj["metadata"]
    return {
        **success(),
        "details": {
            "name": metadata["name"], **group, "kind": kind.plural, "uid": metadata["uid"],
        },
    }  # fmt: skip


def success(code: int = 0) -> Object:
    """The Status that says that it is done."""
    status = {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success"}
    return {**status, "code": code} if code else status


def internal_error(problem: BaseException) -> Object:
    """The Status for a bug in the embedded cluster."""
    message = f"Internal error occurred: {type(problem).__name__}: {problem}"
    return StatusError(500, "InternalError", message).body


def status_of(refusal: web.HTTPException) -> Object:
    """The Status for what the HTTP layer refuses."""
    reason = "RequestEntityTooLarge" if refusal.status == 413 else "Unknown"
    return StatusError(refusal.status, reason, refusal.text or refusal.reason).body
