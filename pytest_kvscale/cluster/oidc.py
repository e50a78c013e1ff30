"""OpenID Connect (`auth-provider: oidc` in a kubeconfig): ID tokens, renewed by a refresh token.

As kubectl does, a renewed token is written back to the kubeconfig: many issuers accept a refresh
token only once, and who comes next (a worker of xdist, the user's kubectl) needs the new one.
`kubernetes.aio` knows OIDC too, but does not verify the issuer's certificate unless the kubeconfig
has one, and does not renew a token during a run.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import logging
import os
import ssl
import tempfile
import urllib.parse
from collections.abc import Callable
from pathlib import Path
from typing import Any

import aiohttp
import yaml

from pytest_kvscale.cluster.client_errors import NoCredentialsError, lost
from pytest_kvscale.cluster.clock import utc_now
from pytest_kvscale.cluster.credentials import Issued, Pass, bearer, issued
from pytest_kvscale.cluster.kubeconfig import Access, AuthProvider, read
from pytest_kvscale.cluster.secrecy import sealed_async
from pytest_kvscale.errors import ConfigurationError

PATIENCE = 30.0
"""Seconds the issuer may take."""
Route = Callable[[str], dict[str, Any]]
"""What a request to a URL needs to get there: the proxy."""
_log = logging.getLogger(__name__)


class Oidc:
    """A source of passes: ID tokens."""

    def __init__(
        self,
        access: Access,
        provider: AuthProvider,
        more: tuple[tuple[str, str], ...],
        tls: ssl.SSLContext | None,
        route: Route,
    ) -> None:
        self._access = access
        self._more = more
        self._tls = tls
        self._route = route
        self._config = {
            key: value.get_secret_value() for key, value in (provider.config or {}).items()
        }
        self.name = f"OIDC of user {access.user_name!r}"
        for key in ("idp-issuer-url", "client-id"):
            if not self._config.get(key):
                raise ConfigurationError(f"{self.name} lacks {key} in the kubeconfig")
        self._trust = _trust(self._config, access.user_folder, self.name)

    @sealed_async
    async def issue(self) -> Issued:
        """See `Source.issue`."""
        before = self._config.get("id-token")
        self._reread()
        token = self._config.get("id-token", "")
        life = self._life(token) if token else 0.0
        # A token that is asked for again although it lives was refused, or is near its end.
        if life <= 0 or (token == before and self._shown):
            token = await self._refresh()
            life = self._life(token)
        self._shown = True
        headers = bearer(token, f"{self.name}: what the issuer gave")
        return issued(Pass((*headers, *self._more), self._tls), life)

    _shown = False

    def _life(self, token: str) -> float:
        """Seconds the token still lives."""
        try:
            _, claims, _ = token.split(".")
            padded = claims + "=" * (-len(claims) % 4)
            expires = float(json.loads(base64.urlsafe_b64decode(padded))["exp"])
        except (ValueError, KeyError, TypeError):
            raise NoCredentialsError(
                f"{self.name}: the id-token is no JSON Web Token with an expiry"
            ) from None
        return expires - utc_now().timestamp()

    # The issuer -----------------------------------------------------------------------------

    async def _refresh(self) -> str:
        if not self._config.get("refresh-token"):
            raise NoCredentialsError(
                f"{self.name}: the id-token has expired or is not accepted, and there is no "
                "refresh-token: log in again"
            )
        issuer = self._config["idp-issuer-url"].rstrip("/")
        try:
            async with asyncio.timeout(PATIENCE), aiohttp.ClientSession() as session:
                where = f"{issuer}/.well-known/openid-configuration"
                known = await self._ask(session, "GET", where)
                answer = await self._exchange(session, str(known.get("token_endpoint") or ""))
        except TimeoutError:
            raise NoCredentialsError(
                f"{self.name}: the issuer did not answer within {PATIENCE:g} s"
            ) from None
        except aiohttp.ClientError as problem:
            raise NoCredentialsError(f"{self.name}: the issuer: {lost(problem)}") from None
        token = answer.get("id_token")
        if not isinstance(token, str):
            raise NoCredentialsError(f"{self.name}: the issuer gave no id_token: log in again")
        self._config["id-token"] = token
        if isinstance(answer.get("refresh_token"), str):
            self._config["refresh-token"] = answer["refresh_token"]
        self._write_back()
        return token

    async def _exchange(self, session: aiohttp.ClientSession, endpoint: str) -> dict[str, Any]:
        """Give the refresh token, and get an ID token."""
        config = self._config
        form = {"grant_type": "refresh_token", "refresh_token": config["refresh-token"]}
        client, secret = config["client-id"], config.get("client-secret", "")
        if not secret:
            return await self._ask(session, "POST", endpoint, {**form, "client_id": client})
        pair = ":".join(urllib.parse.quote_plus(each) for each in (client, secret))
        basic = {"Authorization": f"Basic {base64.b64encode(pair.encode()).decode()}"}
        with contextlib.suppress(_RefusedError):
            return await self._ask(session, "POST", endpoint, form, basic)
        # Some issuers want the client's secret in the form instead.
        both = {**form, "client_id": client, "client_secret": secret}
        return await self._ask(session, "POST", endpoint, both)

    async def _ask(
        self,
        session: aiohttp.ClientSession,
        method: str,
        url: str,
        form: dict[str, str] | None = None,
        headers: dict[str, str] | None = None,
    ) -> dict[str, Any]:
        async with session.request(
            method, url, data=form, headers=headers, ssl=self._trust,
            allow_redirects=method == "GET", **self._route(url),
        ) as response:  # fmt: skip
            content = await response.read()
            if response.status != 200:
                raise _RefusedError(
                    f"{self.name}: the issuer answers HTTP {response.status}: log in again"
                )
        try:
            answer = json.loads(content)
        except ValueError:
            answer = None
        if not isinstance(answer, dict):
            raise NoCredentialsError(f"{self.name}: the issuer did not answer with a JSON object")
        return answer

    # The kubeconfig -------------------------------------------------------------------------

    def _reread(self) -> None:
        """Take tokens that somebody else has renewed since."""
        with contextlib.suppress(ConfigurationError):
            found = _config_in(read(self._access.user_file), self._access.user_name)
            for key in ("id-token", "refresh-token"):
                if isinstance(found.get(key), str):
                    self._config[key] = found[key]

    def _write_back(self) -> None:
        path = Path(os.path.realpath(self._access.user_file))
        try:
            content = read(path)
            target = _config_in(content, self._access.user_name)
            for key in ("id-token", "refresh-token"):
                if key in self._config:
                    target[key] = self._config[key]
            descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
            try:
                with open(descriptor, "w", encoding="utf-8") as file:  # noqa: PTH123
                    yaml.safe_dump(content, file, sort_keys=False)
                Path(name).replace(path)
            except BaseException:
                Path(name).unlink(missing_ok=True)
                raise
        except (OSError, ConfigurationError):
            _log.warning(
                "%s: the renewed token could not be written to %s: if the issuer takes a refresh "
                "token only once, the next login has to be a new one",
                self.name, path,
            )  # fmt: skip


class _RefusedError(NoCredentialsError):
    """The issuer refused."""


def _config_in(content: dict[str, Any], user: str) -> dict[str, Any]:
    """The OIDC configuration of a user in a kubeconfig, to read or to change."""
    for entry in content.get("users") or []:
        if isinstance(entry, dict) and entry.get("name") == user:
            try:
                found = entry["user"]["auth-provider"]["config"]
            except (KeyError, TypeError):
                break
            if isinstance(found, dict):
                return found
    raise ConfigurationError(f"the user {user!r} is no longer in the kubeconfig")


def _trust(config: dict[str, str], folder: Path, name: str) -> ssl.SSLContext:
    """TLS to the issuer; its certificate is always verified."""
    data, path = (
        config.get("idp-certificate-authority-data"),
        config.get("idp-certificate-authority"),
    )
    try:
        if data:
            pem = base64.b64decode(data, validate=True).decode("ascii")
            return ssl.create_default_context(cadata=pem)
        return ssl.create_default_context(cafile=str(folder / path) if path else None)
    except (ValueError, OSError):
        raise ConfigurationError(
            f"{name}: the issuer's certificate authority in the kubeconfig cannot be used"
        ) from None
