"""Who asks: bearer tokens and client certificates of the embedded API, as kube-apiserver has them.

Tokens come from a file as for kube-apiserver's `--token-auth-file`: lines of
`token,user,uid,"group1,group2"`. Certificates name the user (CN) and the groups (O). Who shows
credentials that nobody knows is not let in, also where those without any are. What a user may do
is not decided here (`guard`, `authorization`).
"""

from __future__ import annotations

import base64
import contextvars
import csv
import dataclasses
import hmac
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from aiohttp import web

from pytest_kvscale.errors import ConfigurationError
from pytest_kvscale.sim import errors
from pytest_kvscale.sim.errors import Object
from pytest_kvscale.sim.tls import Authority

ADMIN, ADMINS = "kubernetes-admin", "system:masters"
AUTHENTICATED, UNAUTHENTICATED = "system:authenticated", "system:unauthenticated"


@dataclasses.dataclass(frozen=True)
class User:
    """Who sent a request."""

    name: str
    uid: str = ""
    groups: tuple[str, ...] = ()
    extra: tuple[tuple[str, tuple[str, ...]], ...] = ()
    """What else is known of the user: keys with their values."""

    def with_group(self, group: str) -> User:
        """The same user, in this group too."""
        if group in self.groups:
            return self
        return dataclasses.replace(self, groups=(*self.groups, group))


CALLER: contextvars.ContextVar[User | None] = contextvars.ContextVar("caller", default=None)
"""Whose request is being carried out; None: the cluster's own components, who may do all."""
OPEN_TO_ALL = User(ADMIN, groups=(ADMINS, AUTHENTICATED))
"""Who everybody is where nobody has to say who they are."""
ANONYMOUS = User("system:anonymous", groups=(UNAUTHENTICATED,))
"""Who everybody without credentials is where they are let in as such."""


@dataclasses.dataclass(frozen=True, repr=False)
class Gate:
    """What a request must show to be let in; without tokens and authority everybody is."""

    tokens: Mapping[str, User] = dataclasses.field(default_factory=dict)
    authority: Authority | None = None
    anonymous: bool = False
    """Whether those without credentials are let in as `system:anonymous`."""

    def admit(self, request: web.BaseRequest) -> User:
        """Who sent the request; 401 if that is not known."""
        user, token = _by_certificate(request), bearer_token(request)
        if user is None and token:
            user = self.by_token(token)
        elif user is None and self.anonymous:
            user = ANONYMOUS
        elif user is None and not self.tokens and self.authority is None:
            user = OPEN_TO_ALL
        if user is None:
            raise errors.unauthorized()
        return user

    def by_token(self, token: str) -> User | None:
        """Who has this token."""
        sent = token.encode(errors="surrogateescape")
        return next(
            (
                user
                for known, user in self.tokens.items()
                if hmac.compare_digest(known.encode(), sent)
            ),
            None,
        )

    def cluster_entry(self) -> Object:
        """What a kubeconfig's cluster needs beside the server's URL."""
        if self.authority is None:
            return {}
        return {"certificate-authority-data": _base64(self.authority.certificate)}

    def user_entry(self) -> Object:
        """A kubeconfig's user: the first token, or an administrator's certificate."""
        if self.tokens:
            return {"token": next(iter(self.tokens))}
        if self.authority is None:
            return {}
        certificate, key = self.authority.issue_client(ADMIN, ADMINS)
        return {
            "client-certificate-data": _base64(certificate),
            "client-key-data": _base64(key),
        }


def read_tokens(path: Path) -> dict[str, User]:
    """The tokens of a file. Raises `ConfigurationError`, which never shows a token."""
    try:
        with path.open(encoding="utf-8", newline="") as file:
            return _tokens(csv.reader(file, strict=True), path)
    except OSError as problem:
        raise ConfigurationError(f"the tokens {path} cannot be read: {problem.strerror}") from None
    except (csv.Error, UnicodeDecodeError):
        raise ConfigurationError(f"the tokens {path} are no CSV (UTF-8)") from None


def _tokens(rows: Iterable[list[str]], path: Path) -> dict[str, User]:
    found: dict[str, User] = {}
    for number, row in enumerate(rows, 1):
        if not row or row[0].startswith("#"):
            continue
        token, name, uid, *rest = (*(each.strip() for each in row), "", "", "")
        if len(row) < 3 or not token or not name:
            raise ConfigurationError(
                f'the tokens {path}, line {number}: expected token,user,uid,"group1,group2"'
            )
        groups = tuple(filter(None, (group.strip() for group in rest[0].split(","))))
        found[token] = User(name, uid, (*groups, AUTHENTICATED))
    if not found:
        raise ConfigurationError(f"the tokens {path} hold no token")
    return found


def bearer_token(request: web.BaseRequest) -> str:
    """The bearer token of a request; empty if it has none."""
    scheme, _, token = request.headers.get("Authorization", "").partition(" ")
    return token.strip() if scheme.lower() == "bearer" else ""


def _by_certificate(request: web.BaseRequest) -> User | None:
    """The user of the client certificate, which the handshake has verified."""
    certificate: Mapping[str, Any] | None = request.get_extra_info("peercert")
    if not certificate:
        return None
    subject = [pair for step in certificate.get("subject", ()) for pair in step]
    name = next((value for key, value in subject if key == "commonName"), "")
    groups = tuple(value for key, value in subject if key == "organizationName")
    return User(name, groups=(*groups, AUTHENTICATED)) if name else None


def _base64(content: bytes) -> str:
    return base64.b64encode(content).decode("ascii")
