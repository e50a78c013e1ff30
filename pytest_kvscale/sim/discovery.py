"""What the API says of itself: its version, its groups and their resources."""

from __future__ import annotations

from pytest_kvscale.sim import resources
from pytest_kvscale.sim.errors import Object
from pytest_kvscale.sim.resources import Resource


def version(git_version: str, profile: str, seed: int) -> Object:
    """`/version`: as a real API server's, with one field more that says it is simulated."""
    major, minor = git_version.removeprefix("v").split(".")[:2]
    return {
        "major": major,
        "minor": minor,
        "gitVersion": git_version,
        "gitCommit": "0" * 40,
        "gitTreeState": "clean",
        "buildDate": "1970-01-01T00:00:00Z",
        "goVersion": "go1.16.8",
        "compiler": "gc",
        "platform": "linux/amd64",
        "simulated": {"by": "pytest-kvscale", "kind": "sim", "profile": profile, "seed": seed},
    }


def document(path: str) -> Object | None:
    """The discovery document at a path, or None if there is none."""
    steps = [step for step in path.split("/") if step]
    match steps:
        case ["api"]:
            return {"kind": "APIVersions", "versions": ["v1"], "serverAddressByClientCIDRs": []}
        case ["api", "v1"]:
            return _resource_list("", "v1")
        case ["apis"]:
            groups = [_group(name, versions) for name, versions in resources.groups().items()]
            return {"kind": "APIGroupList", "apiVersion": "v1", "groups": groups}
        case ["apis", name] if name in resources.groups():
            group = _group(name, resources.groups()[name])
            return {"kind": "APIGroup", "apiVersion": "v1", **group}
        case ["apis", name, api_version] if api_version in resources.groups().get(name, []):
            return _resource_list(name, api_version)
    return None


def _group(name: str, versions: list[str]) -> Object:
    entries = [{"groupVersion": f"{name}/{each}", "version": each} for each in versions]
    return {"name": name, "versions": entries, "preferredVersion": entries[0]}


def _resource_list(group: str, api_version: str) -> Object:
    entries: list[Object] = []
    for each in resources.of_group(group, api_version):
        entries.append(_entry(each))
        if each is resources.SERVICE_ACCOUNTS:
            entries.append(
                {
                    "name": "serviceaccounts/token",
                    "singularName": "",
                    "namespaced": True,
                    "group": "authentication.k8s.io",
                    "version": "v1",
                    "kind": "TokenRequest",
                    "verbs": ["create"],
                }
            )
        if each.status_subresource:
            entries.append(
                {
                    "name": f"{each.plural}/status",
                    "singularName": "",
                    "namespaced": each.namespaced,
                    "kind": each.kind,
                    "verbs": ["get", "patch", "update"],
                }
            )
    return {
        "kind": "APIResourceList",
        "apiVersion": "v1",
        "groupVersion": f"{group}/{api_version}" if group else api_version,
        "resources": entries,
    }


def _entry(resource: Resource) -> Object:
    return {
        "name": resource.plural,
        "singularName": resource.singular,
        "namespaced": resource.namespaced,
        "kind": resource.kind,
        "verbs": list(resource.verbs),
        **({"shortNames": list(resource.short_names)} if resource.short_names else {}),
        **({"categories": list(resource.categories)} if resource.categories else {}),
    }
