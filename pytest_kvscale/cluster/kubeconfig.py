"""Where the API is and who we are there: kubeconfig files, or a pod's service account.

The files are read and merged as kubectl does. `kubernetes.aio` has loaders for them too, which are
not used: see docs/decisions.md.
"""

from __future__ import annotations

import dataclasses
import logging
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit

import yaml
from pydantic import BaseModel, ConfigDict, Field, SecretStr, ValidationError

from pytest_kvscale.cluster.secrecy import sealed
from pytest_kvscale.errors import ConfigurationError, nearest

SERVICE_HOST, SERVICE_PORT = "KUBERNETES_SERVICE_HOST", "KUBERNETES_SERVICE_PORT"
_SECTIONS = {"clusters": "cluster", "contexts": "context", "users": "user"}
_EXEC_EXTENSION = "client.authentication.k8s.io/exec"
_log = logging.getLogger(__name__)


class _Entry(BaseModel):
    """A part of a kubeconfig; `repr` and errors show no secrets."""

    model_config = ConfigDict(
        extra="allow",
        frozen=True,
        hide_input_in_errors=True,
        alias_generator=lambda name: name.rstrip("_").replace("_", "-"),
    )

    def __repr__(self) -> str:
        return f"<{type(self).__name__}>"

    __str__ = __repr__


class Cluster(_Entry):
    """How the API is reached."""

    server: str
    certificate_authority: str | None = None
    certificate_authority_data: str | None = None
    insecure_skip_tls_verify: bool = False
    tls_server_name: str | None = None
    proxy_url: SecretStr | None = None
    disable_compression: bool = False
    extensions: list[dict[str, Any]] = []

    def exec_config(self) -> object:
        """What the cluster's entry has for exec plugins."""
        found = (each for each in self.extensions if each.get("name") == _EXEC_EXTENSION)
        return next(found, {}).get("extension")


class Variable(_Entry):
    """A variable of an exec plugin's environment."""

    name: str
    value: SecretStr


class Exec(_Entry):
    """A program that says who we are."""

    api_version: str = Field(alias="apiVersion")
    command: str
    args: list[SecretStr] | None = None
    env: list[Variable] | None = None
    provide_cluster_info: bool = Field(False, alias="provideClusterInfo")
    interactive_mode: str | None = Field(None, alias="interactiveMode")
    install_hint: str | None = Field(None, alias="installHint")


class AuthProvider(_Entry):
    """An identity provider; only OIDC is known to Kubernetes any more."""

    name: str
    config: dict[str, SecretStr] | None = None


class User(_Entry):
    """Who we are."""

    token: SecretStr | None = None
    token_file: str | None = Field(None, alias="tokenFile")
    client_certificate: str | None = None
    client_certificate_data: str | None = None
    client_key: str | None = None
    client_key_data: SecretStr | None = None
    username: SecretStr | None = None
    password: SecretStr | None = None
    exec_: Exec | None = None
    auth_provider: AuthProvider | None = None
    as_: str | None = None
    as_uid: str | None = None
    as_groups: list[str] | None = None
    as_user_extra: dict[str, list[str]] | None = None
    extensions: list[dict[str, Any]] = []

    @property
    def logs_in(self) -> bool:
        """Whether the API is told anything secret."""
        ways = (self.token, self.token_file, self.username, self.exec_, self.auth_provider)
        return any(way is not None for way in ways)


class _Context(_Entry):
    cluster: str
    user: str = ""
    namespace: str = ""
    extensions: list[dict[str, Any]] = []


@dataclasses.dataclass(frozen=True)
class Access:
    """The way to one API server: cluster and user of one context."""

    server: str
    context: str | None
    user_name: str
    cluster: Cluster
    user: User
    cluster_folder: Path
    """Where relative paths of the cluster's entry begin."""
    user_file: Path
    """The file the user's entry stands in; relative paths begin in its folder."""

    @property
    def user_folder(self) -> Path:
        """Where relative paths of the user's entry begin."""
        return self.user_file.parent


class Loader(yaml.SafeLoader):
    """YAML as kubeconfigs have it: dates stay text, so that they can be written back."""


Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if not tag.endswith(":timestamp")]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}


@sealed
def from_files(paths: str, context: str | None) -> Access:
    """The way a kubeconfig shows, or several as in KUBECONFIG.

    Raises `ConfigurationError`.
    """
    files = [(path, read(path)) for path in _existing(paths)]
    merged = {section: dict(_entries(files, section)) for section in _SECTIONS}
    if context is None:
        current = (content.get("current-context") for _, content in files)
        context = next((str(each) for each in current if each), None)
    if context is None:
        raise ConfigurationError(
            f"{paths} cannot be used: it has no current-context; name one with --kvscale-context"
        )
    in_context = _parse(_Context, _pick(merged, "contexts", context, paths))
    cluster_file, _ = cluster_at = _pick(merged, "clusters", in_context.cluster, paths)
    user, user_file = User.model_validate({}), cluster_file
    if in_context.user:
        user_file, _ = user_at = _pick(merged, "users", in_context.user, paths)
        user = _parse(User, user_at)
    cluster = _parse(Cluster, cluster_at)
    _check_server(cluster.server, cluster_file)
    return Access(
        server=cluster.server.rstrip("/"),
        context=context,
        user_name=in_context.user,
        cluster=cluster,
        user=user,
        cluster_folder=cluster_file.parent,
        user_file=user_file,
    )


@sealed
def from_service_account(environment: Mapping[str, str], token: Path) -> Access:
    """The way a pod's service account shows. Raises `ConfigurationError`."""
    host, port = environment.get(SERVICE_HOST, ""), environment.get(SERVICE_PORT, "443")
    authority = token.parent / "ca.crt"
    if not host or not authority.is_file():
        what = f"{SERVICE_HOST} is not set" if not host else f"there is no {authority}"
        raise ConfigurationError(f"the pod's service account cannot be used: {what}")
    server = f"https://{f'[{host}]' if ':' in host else host}:{port}"
    return Access(
        server=server,
        context=None,
        user_name="the pod's service account",
        cluster=Cluster.model_validate({"server": server, "certificate-authority": str(authority)}),
        user=User.model_validate({"tokenFile": str(token)}),
        cluster_folder=token.parent,
        user_file=token,
    )


def read(path: Path) -> dict[str, Any]:
    """The content of one file. Raises `ConfigurationError`, which shows none of it."""
    try:
        content = yaml.load(path.read_text(encoding="utf-8"), Loader)  # noqa: S506 - a SafeLoader
    except OSError as problem:
        raise ConfigurationError(f"{path} cannot be used: {problem.strerror}") from None
    except UnicodeDecodeError:
        raise ConfigurationError(f"{path} cannot be used: it is not a text file (UTF-8)") from None
    except (yaml.YAMLError, ValueError, RecursionError) as problem:
        # What the parser says quotes the file.
        mark = getattr(problem, "problem_mark", None)
        where = f" in line {mark.line + 1}" if mark is not None else ""
        raise ConfigurationError(f"{path} cannot be used: it is not YAML{where}") from None
    if content is None:
        content = {}  # An empty file, as `kubectl config` may leave it.
    if not isinstance(content, dict):
        raise ConfigurationError(f"{path} cannot be used: it is not a mapping of keys to values")
    return content


def _existing(paths: str) -> list[Path]:
    """The files that are there: kubectl skips those of KUBECONFIG that are not."""
    one = Path(paths).expanduser()
    several = [Path(each).expanduser() for each in paths.split(os.pathsep) if each]
    found = [one] if one.exists() else [each for each in several if each.exists()]
    if not found:
        raise ConfigurationError(f"{paths} cannot be used: there is no such file")
    return found


def _entries(
    files: list[tuple[Path, dict[str, Any]]], section: str
) -> Iterator[tuple[str, tuple[Path, Any]]]:
    """All entries of a section by name; the first of a name comes last, so that it is kept."""
    for path, content in reversed(files):
        found = content.get(section) or []
        if not isinstance(found, list):
            raise ConfigurationError(f"{path} cannot be used: {section} is not a list")
        for entry in reversed(found):
            if not isinstance(entry, dict) or not isinstance(entry.get("name"), str):
                raise ConfigurationError(
                    f"{path} cannot be used: an entry of {section} has no name"
                )
            yield entry["name"], (path, entry.get(_SECTIONS[section]) or {})


def _pick(
    merged: dict[str, dict[str, tuple[Path, Any]]], section: str, name: str, paths: str
) -> tuple[Path, Any]:
    entries = merged[section]
    if name not in entries:
        what = _SECTIONS[section]
        hint = nearest(name, entries)
        raise ConfigurationError(f"{paths} cannot be used: it has no {what} {name!r}{hint}")
    return entries[name]


_Model = TypeVar("_Model", bound=_Entry)


def _parse(model: type[_Model], found: tuple[Path, Any]) -> _Model:
    path, content = found
    what = model.__name__.strip("_").lower()
    try:
        entry = model.model_validate(content)
    except ValidationError as problem:
        first = problem.errors(include_input=False, include_context=False)[0]
        place = ".".join([what, *(str(step) for step in first["loc"])])
        raise ConfigurationError(
            f"{path} cannot be used: {place}: {first['msg'][0].lower()}{first['msg'][1:]}"
        ) from None
    for key in entry.model_extra or {}:
        _log.warning("%s: the key %r of a %s is not known and has no effect", path, key, what)
    return entry


def _check_server(server: str, path: Path) -> None:
    try:
        parts = urlsplit(server)
        usable = parts.scheme in ("http", "https") and bool(parts.hostname)
        parts.port  # noqa: B018 - raises if it is no number
    except ValueError:
        usable = False
    if not usable or "@" in parts.netloc:
        raise ConfigurationError(
            f"{path} cannot be used: the cluster's server must be a URL as https://HOST:PORT"
        )
