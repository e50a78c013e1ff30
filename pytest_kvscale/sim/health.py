"""`/healthz`, `/livez` and `/readyz`: the API says that it is well, check by check."""

from __future__ import annotations

from collections.abc import Sequence

from aiohttp import web

from pytest_kvscale.sim.answers import not_served, text

_CHECKS = (
    "ping", "log", "etcd", "poststarthook/start-apiserver-admission-initializer",
    "poststarthook/generic-apiserver-start-informers",
    "poststarthook/start-apiextensions-informers", "poststarthook/start-apiextensions-controllers",
    "poststarthook/crd-informer-synced", "poststarthook/rbac/bootstrap-roles",
    "poststarthook/scheduling/bootstrap-system-priority-classes",
    "poststarthook/apiservice-registration-controller",
    "poststarthook/apiservice-discovery-controller", "autoregister-completion",
)  # fmt: skip
_OF = {
    "healthz": _CHECKS,
    "livez": _CHECKS,
    "readyz": (*_CHECKS[:3], "etcd-readiness", "informer-sync", *_CHECKS[3:], "shutdown"),
}


def paths() -> list[str]:
    """All paths there are."""
    return [
        path
        for name, checks in sorted(_OF.items())
        for path in (f"/{name}", *(f"/{name}/{each}" for each in checks))
    ]


def answer(request: web.BaseRequest) -> web.Response | None:
    """The answer of a health path; None for any other."""
    name, _, check = request.path.strip("/").partition("/")
    checks = _OF.get(name)
    if checks is None:
        return None
    if check:
        return text("ok") if check in checks else not_served()
    if "verbose" not in request.query:
        return text("ok")
    return text(_verbose(name, checks, request.query.getall("exclude", [])))


def _verbose(name: str, checks: Sequence[str], excluded: Sequence[str]) -> str:
    lines = [f"[+]{each} excluded: ok" if each in excluded else f"[+]{each} ok" for each in checks]
    unknown = [f'"{each}"' for each in excluded if each not in checks]
    if unknown:
        lines.append(f"warn: some health checks cannot be excluded: no matches for {unknown[0]}")
    return "\n".join((*lines, f"{name} check passed", ""))
