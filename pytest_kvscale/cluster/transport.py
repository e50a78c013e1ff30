"""A client for one API server: TLS, proxies and credentials as the kubeconfig says.

TLS is set up by `kubernetes.aio`; what its loaders would fill in is filled in here, and what cannot
be used is refused with one sentence.
"""

from __future__ import annotations

import base64
import binascii
import ipaddress
import logging
import ssl
import tempfile
import urllib.request
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import aiohttp

from pytest_kvscale.cluster.client import CONNECTIONS, Client
from pytest_kvscale.cluster.client_errors import NoCredentialsError
from pytest_kvscale.cluster.credentials import (
    Credentials,
    Fixed,
    Pass,
    Renewing,
    TokenFile,
    bearer,
)
from pytest_kvscale.cluster.exec_plugin import ExecPlugin
from pytest_kvscale.cluster.kubeconfig import Access
from pytest_kvscale.cluster.oidc import Oidc
from pytest_kvscale.cluster.resolver import Resolver
from pytest_kvscale.cluster.secrecy import sealed
from pytest_kvscale.errors import ConfigurationError

HEADERS = {"User-Agent": "pytest-kvscale"}
CONNECT_TIMEOUT = 15.0
_LOCAL = ("127.0.0.1", "::1", "localhost")
_log = logging.getLogger(__name__)

Headers = tuple[tuple[str, str], ...]


def open_plain(server: str) -> Client:
    """A client of a server that asks nobody who they are."""
    return Client(_session(), server, HEADERS)


@sealed
def open_access(access: Access, environment: Mapping[str, str]) -> Client:
    """A client by a kubeconfig or a service account.

    Raises `ConfigurationError`. Nothing is sent and no program run before the first request.
    """
    tls = Tls(access) if access.server.startswith("https:") else None
    routes = Routes(access, environment)
    extra = routes.to(access.server)
    more = _impersonation(access)
    if tls is None:
        # Such a request is not tunnelled: the proxy's own header goes with it.
        more += tuple((extra.pop("proxy_headers", None) or {}).items())
    if access.cluster.tls_server_name:
        extra["server_hostname"] = access.cluster.tls_server_name
    credentials = _credentials(access, more, tls, routes)
    if tls is None and access.user.logs_in and not _is_local(access.server):
        _log.warning("%s has no TLS: the credentials go there in plain text", access.server)
    return Client(
        _session(Resolver()), access.server, HEADERS, credentials=credentials, extra=extra,
        context=access.context, user=access.user_name,
    )  # fmt: skip


def _session(resolver: Resolver | None = None) -> aiohttp.ClientSession:
    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=CONNECTIONS, resolver=resolver),
        # The API sets none that count, and looking for them costs as much as writing the request.
        cookie_jar=aiohttp.DummyCookieJar(),
        # Proxies are ours to find (`Routes`), and ~/.netrc is nothing kubectl would read.
        trust_env=False,
        # An event of a watch is one line, however long it is.
        read_bufsize=2**21,
        # Deadlines are the callers', by the loop's clock.
        timeout=aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_TIMEOUT),
    )


# Who we are ---------------------------------------------------------------------------------


def _credentials(access: Access, more: Headers, tls: Tls | None, routes: Routes) -> Credentials:
    user, who = access.user, f"the user {access.user_name!r}"
    ways = {
        "exec": user.exec_, "auth-provider": user.auth_provider,
        "token": user.token or user.token_file, "username": user.username,
    }  # fmt: skip
    given = [name for name, value in ways.items() if value]
    if len(given) > 1:
        raise ConfigurationError(
            f"{who} has more than one way to log in ({', '.join(given)}): keep one of them"
        )
    base = tls.of_user() if tls is not None else None
    if user.exec_:
        return Renewing(ExecPlugin(access, user.exec_, more, base, _maker(tls)))
    if user.auth_provider:
        provider = user.auth_provider
        if provider.name != "oidc":
            raise ConfigurationError(
                f"{who} has the auth-provider {provider.name!r}, which Kubernetes no longer has: "
                "expected oidc, or an exec plugin"
            )
        return Renewing(Oidc(access, provider, more, base, routes.to))
    if user.token_file:
        return Renewing(TokenFile(access.user_folder / user.token_file, more, base))
    headers: Headers = ()
    if user.token:
        try:
            headers = bearer(user.token.get_secret_value(), f"the token of {who}")
        except NoCredentialsError as problem:
            raise ConfigurationError(str(problem)) from None
    elif user.username:
        password = user.password.get_secret_value() if user.password else ""
        headers = (("Authorization", _basic(user.username.get_secret_value(), password)),)
    return Fixed(Pass((*headers, *more), base))


def _maker(tls: Tls | None) -> Callable[[bytes, bytes], ssl.SSLContext]:
    def make(certificate: bytes, key: bytes) -> ssl.SSLContext:
        if tls is None:
            raise ConfigurationError("a certificate can only be shown to an https server")
        return tls.context(certificate, key)

    return make


def _impersonation(access: Access) -> Headers:
    user = access.user
    if not user.as_:
        if user.as_groups or user.as_uid or user.as_user_extra:
            raise ConfigurationError(
                f"the user {access.user_name!r} has as-groups, as-uid or as-user-extra without as"
            )
        return ()
    headers = [("Impersonate-User", user.as_)]
    if user.as_uid:
        headers.append(("Impersonate-Uid", user.as_uid))
    headers += [("Impersonate-Group", group) for group in user.as_groups or []]
    for key, values in (user.as_user_extra or {}).items():
        headers += [(f"Impersonate-Extra-{key}", value) for value in values]
    return tuple(headers)


def _basic(user: str, password: str) -> str:
    return "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode("ascii")


# TLS ----------------------------------------------------------------------------------------


class Tls:
    """TLS to the API: whom to trust, and what to show. Verified unless the kubeconfig says no."""

    def __init__(self, access: Access) -> None:
        self._access = access
        cluster = access.cluster
        content = _content(
            cluster.certificate_authority_data, cluster.certificate_authority,
            access.cluster_folder, "certificate-authority", access,
        )  # fmt: skip
        self._authority = _text(content, access) if content is not None else None

    def of_user(self) -> ssl.SSLContext:
        """With the certificate of the kubeconfig's user, if there is one."""
        user, folder = self._access.user, self._access.user_folder
        key_data = user.client_key_data.get_secret_value() if user.client_key_data else None
        given = (
            (user.client_certificate_data, user.client_certificate, "client-certificate"),
            (key_data, user.client_key, "client-key"),
        )
        certificate, key = (
            _content(data, path, folder, what, self._access) for data, path, what in given
        )
        if (certificate is None) is not (key is None):
            raise ConfigurationError(
                f"the user {self._access.user_name!r} has only one of client-certificate and "
                "client-key"
            )
        return self.context(certificate, key)

    def context(self, certificate: bytes | None = None, key: bytes | None = None) -> ssl.SSLContext:
        """With this certificate and its key (PEM). Raises `ConfigurationError`."""
        from kubernetes.aio.client import Configuration
        from kubernetes.aio.client.rest import RESTClientObject

        configuration = Configuration(host=self._access.server)
        configuration.verify_ssl = not self._access.cluster.insecure_skip_tls_verify
        configuration.ca_cert_data = self._authority
        # Clusters' own authorities often lack extensions that the strict mode of newer Pythons
        # wants; kubectl verifies without them too.
        configuration.disable_strict_ssl_verification = True
        if key is not None and b"ENCRYPTED" in key:
            # OpenSSL would ask for its passphrase on the terminal.
            raise ConfigurationError(
                f"the client key of user {self._access.user_name!r} is encrypted: a test run "
                "cannot ask for its passphrase"
            )
        # OpenSSL reads certificates from files only; these are gone before the first request.
        with tempfile.TemporaryDirectory(prefix="kvscale-") as folder:
            if certificate is not None and key is not None:
                for name, content in (("certificate", certificate), ("key", key)):
                    Path(folder, name).write_bytes(content)
                configuration.cert_file = str(Path(folder, "certificate"))
                configuration.key_file = str(Path(folder, "key"))
            try:
                context: ssl.SSLContext = RESTClientObject(configuration).ssl_context
            except (ssl.SSLError, ValueError) as problem:
                what = "certificate and key" if certificate else "certificate-authority"
                reason = getattr(problem, "reason", None) or "not PEM"
                raise ConfigurationError(
                    f"the {what} for {self._access.server} cannot be used: "
                    f"{reason.lower().replace('_', ' ')}"
                ) from None
        return context


def _content(
    data: str | None, path: str | None, folder: Path, what: str, access: Access
) -> bytes | None:
    """What a kubeconfig gives as data or as a file's name; data wins, as in kubectl."""
    where = f"{what} for {access.server} (user {access.user_name!r})"
    if data:
        try:
            return base64.b64decode("".join(data.split()), validate=True)
        except (binascii.Error, ValueError):
            raise ConfigurationError(f"{what}-data for {access.server} is not base64") from None
    if not path:
        return None
    try:
        return (folder / path).read_bytes()
    except OSError as problem:
        raise ConfigurationError(
            f"{where}: {folder / path} cannot be read: {problem.strerror}"
        ) from None


def _text(content: bytes, access: Access) -> str:
    if b"BEGIN CERTIFICATE" not in content or not content.isascii():
        raise ConfigurationError(f"the certificate-authority for {access.server} is not PEM")
    return content.decode("ascii")


# Proxies ------------------------------------------------------------------------------------


class Routes:
    """Through which proxy a URL is reached: the kubeconfig's, else the environment's."""

    def __init__(self, access: Access, environment: Mapping[str, str]) -> None:
        self._given = access.cluster.proxy_url
        self._server = access.server
        self._environment = {
            name.lower(): value
            for name, value in environment.items()
            if name.lower() in ("http_proxy", "https_proxy", "no_proxy")
        }

    def to(self, url: str) -> dict[str, Any]:
        """What aiohttp has to know to reach the URL."""
        if self._given is not None and url.startswith(self._server):
            return _proxy(self._given.get_secret_value(), "proxy-url in the kubeconfig")
        parts = urlsplit(url)
        name = f"{parts.scheme}_proxy"
        value = self._environment.get(name, "")
        if not value or _is_local(url) or self._is_excepted(parts.hostname or ""):
            return {}
        return _proxy(value if "://" in value else f"http://{value}", name.upper())

    def _is_excepted(self, host: str) -> bool:
        excepted = self._environment.get("no_proxy", "")
        bypass: Callable[..., Any] = vars(urllib.request)["proxy_bypass_environment"]  # Not typed.
        if bypass(host, {"no": excepted}):
            return True
        for each in excepted.split(","):
            # Networks are kubectl's addition: 10.96.0.0/12.
            try:
                if ipaddress.ip_address(host) in ipaddress.ip_network(each.strip()):
                    return True
            except ValueError:
                continue
        return False


def _proxy(url: str, where: str) -> dict[str, Any]:
    """What aiohttp has to know of a proxy; its password goes into a header only."""
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError:
        host, port = None, None
    if not host:
        raise ConfigurationError(f"{where} is not a URL as http://HOST:PORT")
    if parts.scheme != "http":
        raise ConfigurationError(
            f"{where} names a proxy with {parts.scheme!r}: only http proxies can be used"
        )
    shown = f"[{host}]" if ":" in host else host
    given: dict[str, Any] = {"proxy": f"http://{shown}:{port or 80}"}
    if parts.username is not None:
        value = _basic(unquote(parts.username), unquote(parts.password or ""))
        given["proxy_headers"] = SecretHeaders({"Proxy-Authorization": value})
    return given


class SecretHeaders(dict[str, str]):
    """Headers that are not shown."""

    def __repr__(self) -> str:
        return "<headers>"


def _is_local(url: str) -> bool:
    return (urlsplit(url).hostname or "") in _LOCAL
