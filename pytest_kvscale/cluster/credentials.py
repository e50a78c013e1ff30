"""What each request shows to the API: a token, a certificate, or nothing; renewed in time.

A run takes hours and its tokens minutes. `Credentials.current` is asked at each request and has
the answer ready; a token that is about to expire is renewed beside the requests, one that has
expired before the next one, and never twice at once.
"""

from __future__ import annotations

import asyncio
import dataclasses
import logging
import ssl
from pathlib import Path
from typing import Protocol

from aiohttp import ClientHandlerType, ClientRequest, ClientResponse, hdrs

from pytest_kvscale.cluster.client_errors import NoCredentialsError
from pytest_kvscale.cluster.secrecy import sealed

REREAD = 60.0
"""Seconds after which a token's file is read again; kubelets renew it long before it expires."""
SKEW = 60.0
"""A token is renewed so many seconds before it expires, or after four fifths of its life."""
PAUSE = 10.0
"""Seconds between attempts to renew, if one failed or what it brought was refused."""
_log = logging.getLogger(__name__)


class Pass:
    """What one request shows.

    It puts its headers into the request itself, as a middleware of aiohttp: no variable that may
    be printed holds them.
    """

    def __init__(
        self,
        headers: tuple[tuple[str, str], ...] = (),
        tls: ssl.SSLContext | None = None,
        certificate: bytes = b"",
    ) -> None:
        self._headers = headers
        self.tls = tls
        """What the connection needs; None: what all connections have."""
        self._certificate = certificate

    def __repr__(self) -> str:
        return "<Pass>"

    @property
    def middlewares(self) -> tuple[Pass, ...]:
        """What a request needs to show it."""
        return (self,) if self._headers else ()

    async def __call__(self, request: ClientRequest, handler: ClientHandlerType) -> ClientResponse:
        """Send the request with the headers."""
        request.headers.extend(self._headers)
        return await handler(request)

    def shows_same_as(self, other: Pass) -> bool:
        """Whether the API would see no difference."""
        return (self._headers, self._certificate) == (other._headers, other._certificate)

    def hide(self, text: str) -> str:
        """The text without anything secret of the pass, should a server repeat it."""
        for _, value in self._headers:
            secret = value.rpartition(" ")[2]
            text = text.replace(secret, "***") if secret else text
        return text


class Credentials(Protocol):
    """Who has a pass for each request."""

    @property
    def awaited(self) -> str:
        """Whom requests are waiting for, since there is no pass yet; "" if they are not."""
        ...

    async def current(self) -> Pass:
        """The pass to show now. Raises `NoCredentialsError` if there is none to be had."""
        ...

    async def renewed(self, refused: Pass) -> Pass | None:
        """Another pass, after the API did not accept this one (401); None if there is none."""
        ...


class Fixed:
    """One pass for the whole run."""

    awaited = ""

    def __init__(self, shown: Pass | None = None) -> None:
        self._pass = shown or Pass()

    async def current(self) -> Pass:
        """See `Credentials.current`."""
        return self._pass

    async def renewed(self, refused: Pass) -> Pass | None:
        """See `Credentials.renewed`."""
        return None


@dataclasses.dataclass(frozen=True)
class Issued:
    """A pass as it was issued. Times are seconds from then."""

    shown: Pass
    renew: float | None = None
    """When to ask for the next one; None: only when it is refused."""
    expires: float | None = None
    """When it is worth nothing any more; None: that is not known."""


def issued(shown: Pass, life: float | None) -> Issued:
    """A pass that lives for so many seconds, or nobody knows how long."""
    return Issued(shown, None if life is None else life - min(SKEW, life / 5), life)


class Source(Protocol):
    """Where passes come from."""

    @property
    def name(self) -> str:
        """What it is, for people."""
        ...

    async def issue(self) -> Issued:
        """A new pass. Raises `NoCredentialsError`."""
        ...


class Renewing:
    """Passes of a source, each used until it ends."""

    def __init__(self, source: Source) -> None:
        self._source = source
        self._pass: Pass | None = None
        self._renew_at = self._expires_at = float("inf")
        self._running: asyncio.Task[None] | None = None
        self._failure: tuple[float, str] = (float("-inf"), "")
        """When a renewal failed last, and with what."""
        self._refused_at = float("-inf")

    @property
    def awaited(self) -> str:
        """See `Credentials.awaited`."""
        return self._source.name if self._pass is None and self._running is not None else ""

    async def current(self) -> Pass:
        """See `Credentials.current`."""
        now = asyncio.get_running_loop().time()
        shown = self._pass
        if shown is None or now >= self._expires_at:
            return await self._renew()
        if now >= self._renew_at and self._running is None:
            self._renew_at = now + PAUSE  # Should this attempt fail.
            self._start()
        return shown

    async def renewed(self, refused: Pass) -> Pass | None:
        """See `Credentials.renewed`."""
        loop = asyncio.get_running_loop()
        if self._pass is not refused:
            return self._pass  # Somebody was faster.
        if self._running is None:
            if loop.time() < self._refused_at + PAUSE:
                return None
            self._refused_at = loop.time()
        try:
            shown = await self._renew()
        except NoCredentialsError:
            return None  # It is logged; the API's refusal is what the caller has to know.
        return None if shown.shows_same_as(refused) else shown

    async def _renew(self) -> Pass:
        failed_at, why = self._failure
        if self._running is None:
            if asyncio.get_running_loop().time() < failed_at + PAUSE:
                raise NoCredentialsError(why)
            self._start()
        running = self._running
        assert running is not None  # noqa: S101 - just started
        # Who waits may be cancelled; the others still want to know.
        await asyncio.shield(running)
        assert self._pass is not None  # noqa: S101 - the task has set it, or has failed
        return self._pass

    def _start(self) -> None:
        self._running = asyncio.create_task(self._work(), name="renewing credentials")
        self._running.add_done_callback(self._done)

    async def _work(self) -> None:
        new = await self._source.issue()
        now = asyncio.get_running_loop().time()
        if self._pass is None or not self._pass.shows_same_as(new.shown):
            self._pass = new.shown
        self._renew_at = float("inf") if new.renew is None else now + new.renew
        self._expires_at = float("inf") if new.expires is None else now + new.expires

    def _done(self, task: asyncio.Task[None]) -> None:
        self._running = None
        if not task.cancelled() and (problem := task.exception()) is not None:
            self._failure = (task.get_loop().time(), str(problem))
            _log.warning("the credentials could not be renewed: %s", problem)


class TokenFile:
    """A token that others write into a file, as kubelets do for service accounts."""

    def __init__(
        self, path: Path, more: tuple[tuple[str, str], ...] = (), tls: ssl.SSLContext | None = None
    ) -> None:
        self.name = f"the token file {path}"
        self._path = path
        self._more = more
        self._tls = tls

    async def issue(self) -> Issued:
        """See `Source.issue`."""
        return Issued(Pass((*_bearer(self._path), *self._more), self._tls), renew=REREAD)


@sealed
def _bearer(path: Path) -> tuple[tuple[str, str], ...]:
    try:
        return bearer(path.read_text(encoding="ascii"), f"the token file {path}")
    except OSError as problem:
        raise NoCredentialsError(
            f"the token file {path} cannot be read: {problem.strerror}"
        ) from None
    except UnicodeDecodeError:
        raise NoCredentialsError(f"the token file {path} holds no token") from None


@sealed
def bearer(token: str, where: str) -> tuple[tuple[str, str], ...]:
    """The header that shows a token. Raises `NoCredentialsError` for text that is no token."""
    token = token.strip()
    if not token or not token.isascii() or not token.isprintable() or " " in token:
        raise NoCredentialsError(f"{where} holds no token")
    return ((hdrs.AUTHORIZATION, f"Bearer {token}"),)
