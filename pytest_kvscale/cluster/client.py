"""Requests to the API: raw JSON over aiohttp.

Bodies stay plain dictionaries: a model layer as the `kubernetes` package's costs several times the
CPU per object. Every request is counted by its verb, shows what `credentials` has for it, and
waits no longer than its timeout by the loop's clock. No exception carries frames of aiohttp with
it, whose variables hold headers.
"""

from __future__ import annotations

import asyncio
import collections
import contextlib
import copy
from collections.abc import (
    AsyncGenerator,
    AsyncIterator,
    Awaitable,
    Callable,
    Mapping,
    Sequence,
)
from typing import Any, NoReturn, TypeVar

import aiohttp
import orjson
import tenacity

from pytest_kvscale.cluster.client_errors import (
    ApiError,
    LostConnectionError,
    NoCredentialsError,
    UntrustedServerError,
    lost,
)
from pytest_kvscale.cluster.credentials import Credentials, Fixed, Pass

__all__ = [
    "ApiError",
    "Client",
    "LostConnectionError",
    "NoCredentialsError",
    "Object",
    "Resource",
    "UntrustedServerError",
    "is_passing",
    "repeat_until",
]

Object = dict[str, Any]
T = TypeVar("T")

MERGE_PATCH = "application/merge-patch+json"
CONNECTIONS = 128
"""Requests that may be under way at once."""
PAGE = 500
"""Objects that are asked for at once, where there may be many."""
REQUEST_TIMEOUT = 60.0
_FIRST_PAUSE, _LONGEST_PAUSE = 0.1, 10.0
_LOST = (aiohttp.ClientError, ConnectionError)
"""What aiohttp raises when a connection breaks; the latter where it breaks while we send."""


class Resource:
    """Where a kind is served: `Resource("kubevirt.io/v1", "virtualmachineinstances")`."""

    def __init__(self, api_version: str, plural: str, namespaced: bool = True) -> None:
        prefix = "/apis/" if "/" in api_version else "/api/"
        self.base = prefix + api_version
        self.plural = plural
        self.namespaced = namespaced

    def path(self, namespace: str = "", name: str = "", subresource: str = "") -> str:
        """The URL path of a collection or an object."""
        steps = [self.base]
        if self.namespaced and namespace:
            steps += ["namespaces", namespace]
        return "/".join([*steps, self.plural, *filter(None, (name, subresource))])


VMIS = Resource("kubevirt.io/v1", "virtualmachineinstances")
KUBEVIRTS = Resource("kubevirt.io/v1", "kubevirts")
PODS = Resource("v1", "pods")
EVENTS = Resource("v1", "events")
NODES = Resource("v1", "nodes", namespaced=False)
NAMESPACES = Resource("v1", "namespaces", namespaced=False)
DEPLOYMENTS = Resource("apps/v1", "deployments")
DAEMON_SETS = Resource("apps/v1", "daemonsets")


class Client:
    """One connection pool to one API server.

    `headers` are sent with every request and hold nothing secret; `credentials` say who we are.
    `extra` is passed to aiohttp with each request (proxy, the server's name for TLS). `context`
    and `user` are what the kubeconfig calls the way here.
    """

    def __init__(
        self,
        session: aiohttp.ClientSession,
        server: str,
        headers: Mapping[str, str],
        credentials: Credentials | None = None,
        extra: Mapping[str, Any] | None = None,
        context: str | None = None,
        user: str = "",
    ) -> None:
        self.server = server.rstrip("/")
        self.context = context
        self.user = user
        self.requests: collections.Counter[str] = collections.Counter()
        """Requests sent so far, by verb; retries count."""
        self._session = session
        self._headers = {**headers, "Accept": "application/json"}
        self._credentials = credentials or Fixed()
        self._extra = dict(extra or {})
        self._places = asyncio.Semaphore(CONNECTIONS)

    @property
    def awaited(self) -> str:
        """Whom its requests wait for before they are sent; see `Credentials.awaited`."""
        return self._credentials.awaited

    def __repr__(self) -> str:
        return f"<Client of {self.name}>"

    @property
    def name(self) -> str:
        """The server, and the context that leads there."""
        return self.server + (f" (context {self.context})" if self.context else "")

    def apart(self, what: str) -> Client:
        """The same connections, with a count of requests and a name of its own for the server."""
        other = copy.copy(self)
        other.requests = collections.Counter()
        agent = self._headers.get("User-Agent", "")
        other._headers = {**self._headers, "User-Agent": f"{agent}/{what}"}
        return other

    async def close(self) -> None:
        """Close all connections."""
        await self._session.close()

    def place(self) -> asyncio.Semaphore:
        """A place in the pool: who holds one can send at once."""
        return self._places

    # Requests -------------------------------------------------------------------------------

    async def get(self, resource: Resource, namespace: str, name: str) -> Object:
        """The object of that name."""
        return await self.request("get", "GET", resource.path(namespace, name))

    async def list(
        self, resource: Resource, namespace: str = "", labels: str = "", fields: str = ""
    ) -> Object:
        """All objects of a collection, with the version they stand at."""
        query = _query(labelSelector=labels, fieldSelector=fields)
        return await self.request("list", "GET", resource.path(namespace), query)

    async def pages(
        self, resource: Resource, namespace: str = "", labels: str = ""
    ) -> AsyncGenerator[Sequence[Object], None]:
        """All objects of a collection that may be large, page by page."""
        proceed = ""
        while True:
            query = {"limit": str(PAGE), **_query(labelSelector=labels)}
            query |= {"continue": proceed} if proceed else {}
            answer = await self.request("list", "GET", resource.path(namespace), query)
            yield answer.get("items") or []
            proceed = answer["metadata"].get("continue") or ""
            if not proceed:
                return

    async def create(self, resource: Resource, namespace: str, obj: Object) -> Object:
        """Make an object; not repeated, whatever happens."""
        return await self.request("create", "POST", resource.path(namespace), body=obj)

    async def patch(self, resource: Resource, namespace: str, name: str, change: Object) -> Object:
        """Merge a change into an object."""
        path = resource.path(namespace, name)
        return await self.request("patch", "PATCH", path, body=change, content_type=MERGE_PATCH)

    async def delete(self, resource: Resource, namespace: str, name: str, uid: str = "") -> Object:
        """Delete an object; with a uid, only if it still is that one."""
        options: Object = {"apiVersion": "v1", "kind": "DeleteOptions"}
        if uid:
            options["preconditions"] = {"uid": uid}
        return await self.request("delete", "DELETE", resource.path(namespace, name), body=options)

    async def delete_collection(self, resource: Resource, namespace: str, labels: str) -> Object:
        """Delete all objects of a namespace with these labels."""
        query = _query(labelSelector=labels)
        return await self.request("deletecollection", "DELETE", resource.path(namespace), query)

    async def about(self, path: str) -> Object:
        """What the server says of itself at a path (`/version`)."""
        return await self.request("get", "GET", path)

    async def text(self, path: str, query: Mapping[str, str] | None = None) -> str:
        """What is answered at a path that does not speak JSON (logs, metrics); as `request`."""
        headers = {**self._headers, "Accept": "*/*"}
        try:
            async with asyncio.timeout(REQUEST_TIMEOUT):
                response = await self._send("get", "GET", path, query, headers)
                async with response:
                    return (await response.read()).decode("utf-8", "replace")
        except _LOST as problem:
            raise lost(problem) from None
        except TimeoutError:
            raise TimeoutError(f"no answer within {REQUEST_TIMEOUT:g} s") from None

    async def request(
        self,
        verb: str,
        method: str,
        path: str,
        query: Mapping[str, str] | None = None,
        body: Object | None = None,
        content_type: str = "application/json",
    ) -> Object:
        """Send one request and return the JSON answered.

        Raises `ApiError` for an error the API answered, `LostConnectionError` if no whole answer
        came, TimeoutError if none came in time.
        """
        headers = self._headers
        data = None
        if body is not None:
            data = orjson.dumps(body, option=orjson.OPT_NON_STR_KEYS)
            headers = {**headers, "Content-Type": content_type}
        try:
            async with asyncio.timeout(REQUEST_TIMEOUT):
                response = await self._send(verb, method, path, query, headers, data)
                async with response:
                    text = await response.read()
        except _LOST as problem:
            raise lost(problem) from None
        except TimeoutError:
            raise TimeoutError(f"no answer within {REQUEST_TIMEOUT:g} s") from None
        answer = _parse(text)
        if not isinstance(answer, dict):
            raise ApiError(502, f"{path} did not answer with a JSON object")
        return answer

    async def watch(
        self,
        resource: Resource,
        namespace: str,
        query: Mapping[str, str],
        idle: float,
        opened: Callable[[], None] = lambda: None,
    ) -> AsyncGenerator[Object, None]:
        """The events of a watch, as received, until the server ends it.

        `opened` is called when the server has taken it up. Raises TimeoutError if that took longer
        than a request may, or no byte came for `idle` seconds; otherwise as `request`.
        """
        asked = {"watch": "true", **query}
        try:
            async with contextlib.AsyncExitStack() as stack:
                # A server that accepts and then says nothing must not be waited for for ever.
                async with asyncio.timeout(REQUEST_TIMEOUT):
                    response = await stack.enter_async_context(
                        await self._send(
                            "watch", "GET", resource.path(namespace), asked, self._headers
                        )
                    )
                opened()
                async with heard_within(idle) as heard:
                    lines = _Lines()
                    while piece := await response.content.readany():
                        heard()
                        for line in lines.of(piece):
                            event = _parse(line)
                            if isinstance(event, dict):
                                yield event
        except _LOST as problem:
            raise lost(problem) from None
        except TimeoutError:
            raise TimeoutError(f"nothing came for {idle:g} s") from None

    async def _send(
        self,
        verb: str,
        method: str,
        path: str,
        query: Mapping[str, str] | None,
        headers: Mapping[str, str],
        data: bytes | None = None,
    ) -> aiohttp.ClientResponse:
        """The answer to a request, if it is no error; who asks has to leave it.

        Who is not known to the API (401) is asked once more with renewed credentials.
        """

        def send(shown: Pass) -> Awaitable[aiohttp.ClientResponse]:
            self.requests[verb] += 1
            extra = self._extra if shown.tls is None else {**self._extra, "ssl": shown.tls}
            return self._session.request(
                method, self.server + path, params=query, data=data, headers=headers,
                # The pass would be shown to whomever the answer leads to.
                allow_redirects=False, middlewares=shown.middlewares, **extra,
            )  # fmt: skip

        shown = await self._credentials.current()
        response = await send(shown)
        again: Pass | None = None
        if response.status >= 300:
            async with response:
                if response.status == 401:
                    again = await self._credentials.renewed(shown)
                if again is None:
                    await _raise_for(response, shown)
        if again is not None:
            response = await send(again)
            if response.status >= 300:
                async with response:
                    await _raise_for(response, again)
        return response


@contextlib.asynccontextmanager
async def heard_within(seconds: float) -> AsyncIterator[Callable[[], None]]:
    """Raise TimeoutError if what is yielded is not called for so many seconds.

    It may be called a thousand times a second: that sets no timer.
    """
    loop = asyncio.get_running_loop()
    last = loop.time()
    timer: asyncio.TimerHandle | None = None

    def heard() -> None:
        nonlocal last
        last = loop.time()

    def check() -> None:
        nonlocal timer
        if loop.time() >= last + seconds:
            scope.reschedule(loop.time())
        else:
            timer = loop.call_at(last + seconds, check)

    async with asyncio.timeout(None) as scope:
        check()
        try:
            yield heard
        finally:
            if timer is not None:
                timer.cancel()


class _Lines:
    """Whole lines of a stream that comes in pieces; half a line at its end is none."""

    def __init__(self) -> None:
        self._begun: list[bytes] = []

    def of(self, piece: bytes) -> list[bytes]:
        """The lines that end in this piece."""
        first, *others = piece.split(b"\n")
        self._begun.append(first)
        if not others:
            return []
        whole = [b"".join(self._begun), *others]
        self._begun = [whole.pop()]
        return whole


async def repeat_until(deadline: float, request: Callable[[], Awaitable[T]]) -> T:
    """Call `request()` until it succeeds, fails for good, or the deadline (loop time) has come.

    429 and 5xx, lost connections and timeouts are repeated, after the pause the API asks for or
    a growing one; other errors are raised at once, and the last one at the deadline.
    """
    try:
        return await request()
    except (ApiError, LostConnectionError, TimeoutError) as problem:
        if not is_passing(problem):
            raise
        failure: Exception | None = problem
    loop = asyncio.get_running_loop()
    grow = tenacity.wait_exponential(multiplier=_FIRST_PAUSE, max=_LONGEST_PAUSE)

    def pause(state: tenacity.RetryCallState) -> float:
        problem = state.outcome.exception() if state.outcome else None
        asked = getattr(problem, "retry_after", None)
        return float(grow(state) if asked is None else asked)

    def is_over(state: tenacity.RetryCallState) -> bool:
        # tenacity's own stop_after_delay reads the machine's clock.
        return loop.time() + state.upcoming_sleep > deadline

    attempts = tenacity.AsyncRetrying(
        retry=tenacity.retry_if_exception(is_passing),
        wait=pause,
        stop=is_over,
        sleep=asyncio.sleep,
        reraise=True,
    )

    async def attempt() -> T:
        nonlocal failure
        if failure is not None:
            # What came of the request above, which needed none of this.
            first, failure = failure, None
            raise first
        return await request()

    return await attempts(attempt)


def is_passing(problem: BaseException) -> bool:
    """Whether a request that failed so may succeed later."""
    if isinstance(problem, ApiError):
        return problem.passing
    return isinstance(problem, LostConnectionError | TimeoutError)


def _query(**given: str) -> dict[str, str]:
    return {key: value for key, value in given.items() if value}


async def _raise_for(response: aiohttp.ClientResponse, shown: Pass) -> NoReturn:
    """Raise `ApiError` for an answer that is no success; a redirect is none."""
    text = shown.hide((await response.read()).decode("utf-8", "replace"))
    raise ApiError(response.status, _parse(text), _retry_after(response))


def _parse(text: str | bytes) -> Any:
    try:
        return orjson.loads(text)
    except ValueError:
        return text if isinstance(text, str) else text.decode("utf-8", "replace")


def _retry_after(response: aiohttp.ClientResponse) -> float | None:
    try:
        return max(0.0, float(response.headers.get("Retry-After", "")))
    except ValueError:
        return None
