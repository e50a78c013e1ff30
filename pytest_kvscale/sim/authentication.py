"""Who asks: bearer tokens and client certificates of the embedded API, as kube-apiserver has them.

Tokens come from a file as for kube-apiserver's `--token-auth-file`: lines of
`token,user,uid,"group1,group2"`. Certificates name the user (CN) and the groups (O). What a user
may do is not decided here.
"""

from __future__ import annotations

import base64
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
AUTHENTICATED = "system:authenticated"


@dataclasses.dataclass(frozen=True)
class User:
    """Who sent a request."""

    name: str
    uid: str = ""
    groups: tuple[str, ...] = ()


# Older versions of aiohttp have text as keys, newer ones warn of it.
USER: Any = getattr(web, "RequestKey", lambda name, _: name)("user", User)
"""Where a request keeps its `User`."""
OPEN_TO_ALL = User(ADMIN, groups=(ADMINS, AUTHENTICATED))
"""Who everybody is where nobody has to say who they are."""


@dataclasses.dataclass(frozen=True, repr=False)
class Gate:
    """What a request must show to be let in; without tokens and authority everybody is."""

    tokens: Mapping[str, User] = dataclasses.field(default_factory=dict)
    authority: Authority | None = None

    def admit(self, request: web.BaseRequest) -> User:
        """Who sent the request; 401 if that is not known."""
        if not self.tokens and self.authority is None:
            return OPEN_TO_ALL
        user = _by_certificate(request) or self._by_token(request)
        if user is None:
            raise errors.unauthorized()
        return user

    def _by_token(self, request: web.BaseRequest) -> User | None:
        scheme, _, given = request.headers.get("Authorization", "").partition(" ")
        if scheme.lower() != "bearer":
            return None
        sent = given.strip().encode()
        return next(
            (
                user
                for token, user in self.tokens.items()
                if hmac.compare_digest(token.encode(), sent)
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
