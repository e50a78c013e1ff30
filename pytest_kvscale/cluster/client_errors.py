"""How a request can fail, and connection problems in words that hold no secrets."""

from __future__ import annotations

import os
import ssl

import aiohttp


class ApiError(Exception):
    """The API answered with an error; carries its Status."""

    def __init__(self, code: int, body: object, retry_after: float | None = None) -> None:
        status = body if isinstance(body, dict) else {}
        self.code = code
        self.reason = str(status.get("reason") or "")
        self.status_message = str(status.get("message") or body or "")[:2000]
        self.retry_after = retry_after
        super().__init__(f"HTTP {code} {self.reason}: {self.status_message}")

    @property
    def passing(self) -> bool:
        """Whether the same request may succeed later: too many requests, or a server error."""
        return self.code == 429 or self.code >= 500


class LostConnectionError(Exception):
    """No answer came: whether the request was carried out is not known."""


class UntrustedServerError(LostConnectionError):
    """The server's certificate does not prove that it is the one that was meant."""


class NoCredentialsError(LostConnectionError):
    """Nothing was sent: what says who we are could not be had. Its text is one sentence."""


def lost(problem: aiohttp.ClientError | ConnectionError) -> LostConnectionError:
    """What went wrong, without URLs or headers that may hold secrets."""
    if isinstance(problem, aiohttp.ClientConnectorCertificateError):
        return UntrustedServerError(
            f"its TLS certificate is not trusted: {_reason(problem.certificate_error)}"
        )
    if isinstance(problem, aiohttp.ClientConnectorError):
        return LostConnectionError(_unconnected(problem))
    name = type(problem).__name__
    match problem:
        case aiohttp.ClientHttpProxyError():
            text = f"the proxy answers HTTP {problem.status}"
        case aiohttp.ClientResponseError():
            text = f"{name}: the answer is not HTTP"
        case aiohttp.InvalidURL():
            text = f"{name}: a URL cannot be used"
        case _:
            text = f"{name}: {str(problem)[:200]}"
    return LostConnectionError(text)


def _unconnected(problem: aiohttp.ClientConnectorError) -> str:
    where, why = f"{problem.host}:{problem.port}", problem.os_error.strerror
    if problem.os_error.errno and not isinstance(problem, aiohttp.ClientConnectorDNSError):
        why = os.strerror(problem.os_error.errno)  # asyncio's own text repeats the address.
    match problem:
        case aiohttp.ClientConnectorDNSError():
            return f"the name {problem.host} does not resolve: {why}"
        case aiohttp.ClientConnectorSSLError():
            return f"no TLS connection to {where}: {_reason(problem.os_error)}"
        case aiohttp.ClientProxyConnectionError():
            return f"cannot connect to the proxy {where}: {why}"
    return f"cannot connect to {where}: {why}"


def _reason(problem: BaseException) -> str:
    if isinstance(problem, ssl.SSLCertVerificationError):
        return problem.verify_message.rstrip(".")
    if isinstance(problem, ssl.SSLError) and problem.reason:
        return problem.reason.lower().replace("_", " ")
    return type(problem).__name__
