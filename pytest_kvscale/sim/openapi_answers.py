"""The OpenAPI documents over HTTP: which one a path names, in the form that is asked for."""

from __future__ import annotations

from aiohttp import web

from pytest_kvscale.sim import answers, openapi, openapi_proto

_ONE = "/openapi/v3/"


def answer(request: web.BaseRequest, version: str) -> web.Response | None:
    """The answer of an OpenAPI path; None for any other. `version` is the cluster's."""
    path = request.path
    if not path.startswith("/openapi/") or request.method not in ("GET", "HEAD"):
        return None
    if path == "/openapi/v2":
        accepted = request.headers.get("Accept", "")
        if any(each in accepted for each in openapi_proto.ASKED_FOR):
            headers = {"Content-Type": openapi_proto.MEDIA_TYPE}
            return web.Response(body=openapi_proto.version_2(version), headers=headers)
        return answers.answer(openapi.version_2(version))
    if path in ("/openapi/v3", _ONE):
        return answers.answer(openapi.index(version))
    found = openapi.version_3(path.removeprefix(_ONE), version)
    return None if found is None else answers.answer(found)
