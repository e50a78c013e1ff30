"""OpenID Connect: ID tokens are renewed by the refresh token, and written back as by kubectl."""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from aiohttp import web

from pytest_kvscale.cluster.clock import RealClock
from pytest_kvscale.errors import ConfigurationError
from pytest_kvscale.sim.authentication import User
from pytest_kvscale.sim.tls import Authority
from tests.cluster.conftest import Json, Secured, encoded


def token(life: float, name: str = "carol") -> str:
    """An ID token that lives for so many seconds."""
    claims = {"sub": name, "exp": time.time() + life}
    parts = ({"alg": "none"}, claims, "signature")
    return ".".join(
        base64.urlsafe_b64encode(json.dumps(part).encode()).decode().rstrip("=") for part in parts
    )


class Issuer:
    """An identity provider that takes each refresh token once."""

    def __init__(self) -> None:
        self.authority = Authority()
        self.refresh_token = "refresh-1"
        self.takes_basic = True
        self.gives: Json = {}
        self.status = 200
        self.asked: list[dict[str, Any]] = []
        self.clock = RealClock()
        self.url = self.clock.run(self._start())

    async def _start(self) -> str:
        self._runner = web.ServerRunner(web.Server(self._answer))
        await self._runner.setup()
        context = self.authority.server_context()
        await web.TCPSite(self._runner, "127.0.0.1", 0, ssl_context=context).start()
        return f"https://127.0.0.1:{self._runner.addresses[0][1]}"

    async def _answer(self, request: web.BaseRequest) -> web.Response:
        if request.path == "/realm/.well-known/openid-configuration":
            return web.json_response({"token_endpoint": f"{self.url}/realm/token"})
        form = {str(key): value for key, value in (await request.post()).items()}
        form["basic"] = request.headers.get("Authorization", "")
        self.asked.append(form)
        if not self.takes_basic and form["basic"]:
            return web.json_response({"error": "invalid_client"}, status=401)
        if form["refresh_token"] != self.refresh_token or self.status != 200:
            return web.json_response({"error": "hush"}, status=max(400, self.status))
        self.refresh_token = f"refresh-{len(self.asked) + 1}"
        return web.json_response({"refresh_token": self.refresh_token, **self.gives})

    def user(self, **more: Any) -> Json:
        """A kubeconfig's user."""
        config = {
            "idp-issuer-url": f"{self.url}/realm",
            "client-id": "kubernetes",
            "client-secret": "s:ecret",
            "refresh-token": "refresh-1",
            "idp-certificate-authority-data": encoded(self.authority.certificate),
            **more,
        }
        given = {key: value for key, value in config.items() if value is not None}
        return {"auth-provider": {"name": "oidc", "config": given}}

    def close(self) -> None:
        self.clock.run(self._runner.cleanup())
        self.clock.close()


@pytest.fixture
def issuer() -> Iterator[Issuer]:
    made = Issuer()
    yield made
    made.close()


def written(path: Path) -> Json:
    """The OIDC configuration in a kubeconfig."""
    found: Json = yaml.safe_load(path.read_text(encoding="utf-8"))
    config: Json = found["users"][0]["user"]["auth-provider"]["config"]
    return config


def test_a_token_that_lives_is_used(secured: Secured, issuer: Issuer) -> None:
    alive = token(3600)
    secured.tokens[alive] = User("carol")
    assert secured.who(issuer.user(**{"id-token": alive})) == User("carol")
    assert not issuer.asked


@pytest.mark.parametrize("before", [None, token(-10)], ids=["none", "expired"])
def test_a_token_that_has_expired_is_renewed_and_written_back(
    secured: Secured, issuer: Issuer, before: str | None
) -> None:
    new = token(3600)
    issuer.gives = {"id_token": new}
    secured.tokens[new] = User("carol")
    assert secured.who(issuer.user(**{"id-token": before})) == User("carol")
    (asked,) = issuer.asked
    assert asked["grant_type"] == "refresh_token"
    assert base64.b64decode(asked["basic"].partition(" ")[2]) == b"kubernetes:s%3Aecret"
    path = secured.folder / "config"
    assert written(path)["id-token"] == new
    assert written(path)["refresh-token"] == "refresh-2"
    assert path.stat().st_mode & 0o777 == 0o600
    assert [each.name for each in path.parent.iterdir()] == ["config"]


def test_a_token_that_is_refused_is_renewed(secured: Secured, issuer: Issuer) -> None:
    new = token(3600, "new")
    issuer.gives = {"id_token": new}
    secured.tokens[new] = User("carol")
    assert secured.who(issuer.user(**{"id-token": token(3600, "old")})) == User("carol")


def test_what_somebody_else_has_renewed_is_taken(secured: Secured, issuer: Issuer) -> None:
    first, second = token(3600, "first"), token(3600, "second")
    secured.tokens[first] = User("carol")
    path = secured.kubeconfig(issuer.user(**{"id-token": first}))
    connection = secured.connect(path)
    secured.kubeconfig(issuer.user(**{"id-token": second, "refresh-token": "used"}))
    secured.tokens[second] = User("carol-again")
    del secured.tokens[first]
    connection.run(connection.client.about("/version"))
    connection.close()
    assert secured.gate.seen[-1] == User("carol-again")
    assert not issuer.asked


def test_issuers_that_want_the_secret_in_the_form(secured: Secured, issuer: Issuer) -> None:
    new = token(3600)
    issuer.gives, issuer.takes_basic = {"id_token": new}, False
    secured.tokens[new] = User("carol")
    assert secured.who(issuer.user()) == User("carol")
    assert issuer.asked[-1]["client_secret"] == "s:ecret"


def test_a_client_without_a_secret(secured: Secured, issuer: Issuer) -> None:
    new = token(3600)
    issuer.gives = {"id_token": new}
    secured.tokens[new] = User("carol")
    assert secured.who(issuer.user(**{"client-secret": None})) == User("carol")
    assert (issuer.asked[0]["client_id"], issuer.asked[0]["basic"]) == ("kubernetes", "")


@pytest.mark.parametrize(
    ("more", "sentence"),
    [
        ({"refresh-token": None}, "there is no refresh-token: log in again"),
        ({"refresh-token": "refresh-0"}, "the issuer answers HTTP 400: log in again"),
        ({"id-token": "hush"}, "the id-token is no JSON Web Token with an expiry"),
        ({}, "the issuer gave no id_token"),
        ({"idp-certificate-authority-data": None}, "its TLS certificate is not trusted"),
        ({"idp-certificate-authority-data": "hush"}, "certificate authority in the kubeconfig"),
        ({"idp-issuer-url": "http://127.0.0.1:1"}, "cannot connect to 127.0.0.1:1"),
        ({"client-id": None}, "lacks client-id"),
    ],
)
def test_what_goes_wrong_is_told(
    secured: Secured, issuer: Issuer, more: Json, sentence: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("DEBUG")
    with pytest.raises(ConfigurationError) as caught:
        secured.who(issuer.user(**more))
    told = str(caught.value)
    assert "OIDC of user 'here'" in told
    assert sentence in told
    for secret in ("hush", "refresh-0", "refresh-1", "s:ecret"):
        assert secret not in told + caplog.text


def test_a_kubeconfig_that_cannot_be_written_is_told(
    secured: Secured, issuer: Issuer, monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    def refuse(self: Path, target: Path) -> Path:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "replace", refuse)
    new = token(3600)
    issuer.gives = {"id_token": new}
    secured.tokens[new] = User("carol")
    assert secured.who(issuer.user()) == User("carol")
    assert "the renewed token could not be written" in caplog.text
    assert [each.name for each in secured.folder.iterdir()] == ["config"]
