"""Asking a Prometheus: one that is named by its URL, or one found behind the API server.

prometheus-api-client is synchronous: it works in a thread of the loop's, while which virtual time
goes at the wall's pace. What stands behind the API server is asked through our own client, which
knows how to show who we are; the library's requests are handed over to it.
"""

from __future__ import annotations

import asyncio
import dataclasses
import datetime
import io
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pytest_kvscale.cluster.client import (
    ApiError,
    Client,
    LostConnectionError,
    Object,
    Resource,
)
from pytest_kvscale.errors import ConfigurationError

TIMEOUT = 30
"""Seconds for one answer; the library itself would wait for ever."""
ATTEMPTS = 2
"""How often a request is sent again that failed in passing."""
SERVICES = Resource("v1", "services")
_OPERATED = "operated-prometheus=true"
_PLACES = (
    ("openshift-monitoring", "thanos-querier"), ("monitoring", "prometheus-k8s"),
    ("monitoring", "prometheus-operated"),
)  # fmt: skip
"""Where OpenShift and kube-prometheus have it, in this order."""
_PORTS = ("web", "http-web", "http")


Answered = tuple[Mapping[str, str], list[tuple[float, float]]]
"""A series: its labels, and its samples as date (POSIX) and value."""


class PrometheusError(Exception):
    """Prometheus did not answer as it should; one sentence."""


@dataclasses.dataclass(frozen=True)
class Access:
    """How a Prometheus named by its URL is reached."""

    token_file: Path | None = None
    """Holds the bearer token."""
    ca_file: Path | None = None
    """Certificates of the authorities to trust; None: the system's."""


class Prometheus:
    """One Prometheus; `name` says which in sentences."""

    def __init__(self, connect: Any, name: str) -> None:
        self._connect = connect
        self.name = name

    async def query(self, expression: str, at: float) -> list[Answered]:
        """The series an instant query answers with, as they are at a date (POSIX seconds).

        A range selector (`metric[5m]`) answers with all samples. Raises `PrometheusError`.
        """
        return await asyncio.to_thread(self.ask, expression, at)

    def ask(self, expression: str, at: float) -> list[Answered]:
        """As `query`, in the calling thread."""
        found: list[Answered] = self._call(self._read, expression, f"{at:.3f}")
        return found

    def _read(self, expression: str, time: str) -> list[Answered]:
        answer = self._connect.custom_query(expression, params={"time": time})
        return [_series(each) for each in answer]

    async def knows(self, metric: str, start: float, end: float) -> bool:
        """Whether it has any series of a metric between two dates."""
        dates = [datetime.datetime.fromtimestamp(each, datetime.UTC) for each in (start, end)]
        found = await asyncio.to_thread(
            self._call, self._connect.get_series, *dates, params={"match[]": metric}
        )
        return bool(found)

    async def check(self, now: float) -> None:
        """Find out whether it answers. Raises `PrometheusError`."""
        await self.query("vector(1)", now)

    def _call(self, function: Any, *arguments: Any, **named: Any) -> Any:
        from prometheus_api_client.exceptions import PrometheusApiClientException
        from requests.exceptions import RequestException

        try:
            return function(*arguments, **named)
        except PrometheusApiClientException as problem:
            raise PrometheusError(f"Prometheus at {self.name} answered with an error: "
                                  f"{_said(str(problem))}") from None  # fmt: skip
        except (RequestException, OSError) as problem:
            raise PrometheusError(
                f"Prometheus at {self.name} cannot be reached: {_reason(problem)}"
            ) from None
        except (AttributeError, LookupError, TypeError, ValueError):
            raise PrometheusError(f"what answers at {self.name} is no Prometheus") from None


def by_url(url: str, access: Access) -> Prometheus:
    """A Prometheus at a URL, with the password that may stand in it.

    Raises `ConfigurationError` for what is no URL, or a file that cannot be read.
    """
    import urllib.parse

    import requests
    from prometheus_api_client import PrometheusConnect
    from urllib3.util.retry import Retry

    parts = urllib.parse.urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ConfigurationError(
            f"--kvscale-prometheus: {_hidden(url)!r} is no URL: expected http://HOST:PORT, "
            "https://HOST, auto or none"
        )
    headers = {}
    if access.token_file is not None:
        try:
            token = access.token_file.read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError) as problem:
            reason = getattr(problem, "strerror", None) or "it is not text"
            raise ConfigurationError(
                f"--kvscale-prometheus-token-file: {access.token_file} cannot be read: {reason}"
            ) from None
        headers["Authorization"] = f"Bearer {token}"
    if access.ca_file is not None and not access.ca_file.is_file():
        raise ConfigurationError(f"--kvscale-prometheus-ca: there is no file {access.ca_file}")
    session = requests.Session()
    # A .netrc must not put another password in the place of our token.
    session.trust_env = access.token_file is None
    session.verify = str(access.ca_file) if access.ca_file is not None else True
    host = parts.netloc.rpartition("@")[2]
    auth = None
    if parts.username is not None:
        name, word = (urllib.parse.unquote(each or "") for each in (parts.username, parts.password))
        auth = (name, word)
    plain = urllib.parse.urlunsplit((parts.scheme, host, parts.path.rstrip("/"), "", ""))
    retry = Retry(
        total=ATTEMPTS, backoff_factor=0.5, status_forcelist=[429, 502, 503, 504],
        raise_on_status=False,
    )  # fmt: skip
    connect = PrometheusConnect(
        plain, headers=headers, retry=retry, auth=auth, session=session, timeout=TIMEOUT
    )
    return Prometheus(connect, plain)


async def find(client: Client) -> Prometheus | None:
    """The Prometheus of a cluster, behind the API server's proxy; None if it has none we know."""
    for namespace, name, port in await _candidates(client):
        scheme = "https:" if namespace.startswith("openshift-") else ""
        path = f"/api/v1/namespaces/{namespace}/services/{scheme}{name}:{port}/proxy"
        return behind(client, path, f"{namespace}/{name}")
    return None


def behind(client: Client, path: str, name: str) -> Prometheus:
    """A Prometheus at a path of the API server; to be made in the client's loop."""
    from prometheus_api_client import PrometheusConnect

    url = f"http://kubernetes.invalid{path}"
    connect = PrometheusConnect(url, timeout=TIMEOUT)
    # The library has put an adapter of its own in this place.
    connect._session.mount(url, _adapter(client, asyncio.get_running_loop()))
    return Prometheus(connect, name)


async def _candidates(client: Client) -> list[tuple[str, str, str]]:
    """Services that may be a Prometheus: namespace, name, port."""
    found: list[Object] = []
    for namespace, name in _PLACES:
        try:
            found.append(await client.get(SERVICES, namespace, name))
        except (ApiError, LostConnectionError, TimeoutError):
            continue
    try:
        listed = await client.list(SERVICES, "", labels=_OPERATED)
        found += listed.get("items") or []
    except (ApiError, LostConnectionError, TimeoutError):
        pass  # Nobody may list all services.
    return [
        (each["metadata"]["namespace"], each["metadata"]["name"], _port(each)) for each in found
    ]


def _port(service: Object) -> str:
    ports = (service.get("spec") or {}).get("ports") or []
    for wanted in _PORTS:
        if any(each.get("name") == wanted for each in ports):
            return wanted
    return str(ports[0]["port"]) if ports else "9090"


def _adapter(client: Client, loop: asyncio.AbstractEventLoop) -> Any:
    """What carries the library's requests through our client, in whose loop they are sent."""
    import urllib.parse

    import requests
    from requests.adapters import BaseAdapter

    class ThroughTheApi(BaseAdapter):
        def send(  # type: ignore[override]  # TLS and proxies are the client's business
            self, request: Any, timeout: Any = None, **_: Any
        ) -> requests.Response:
            parts = urllib.parse.urlsplit(request.url)
            query = dict(urllib.parse.parse_qsl(parts.query))
            work = asyncio.run_coroutine_threadsafe(client.text(parts.path, query), loop)
            response = requests.Response()
            response.request, response.url = request, request.url
            try:
                text, response.status_code = work.result(timeout), 200
            except ApiError as problem:
                text, response.status_code = str(problem), problem.code
            except (LostConnectionError, TimeoutError) as problem:
                work.cancel()
                said = str(problem) or f"no answer within {timeout} s"
                raise requests.exceptions.ConnectionError(said) from None
            response.raw = io.BytesIO(text.encode())
            response.encoding = "utf-8"
            return response

        def close(self) -> None:
            """The client is closed by its owner."""

    return ThroughTheApi()


def _series(answer: Mapping[str, Any]) -> Answered:
    samples: Sequence[Any] = answer["values"] if "values" in answer else [answer["value"]]
    return answer["metric"], [(float(at), float(value)) for at, value in samples]


def _said(text: str) -> str:
    """What an error's text says, without the library's wrapping of a JSON body."""
    match = re.fullmatch(r"HTTP Status Code (\d+) \(b(['\"])(.*)\2\)", text, re.DOTALL)
    if match is None:
        return text
    try:
        body = json.loads(match[3].encode().decode("unicode_escape"))
        said = body.get("error") or body.get("message") if isinstance(body, dict) else None
    except ValueError:
        said = None
    return f"{match[1]} {said or match[3]}".strip()[:300]


def _reason(problem: Exception) -> str:
    """The innermost cause, in a few words."""
    text = str(problem)
    for pattern in (
        r"\[Errno -?\d+\] ([^'\")]+)",
        r"(timed out[^'\")]*)",
        r"(certificate [^'\")]+)",
    ):
        match = re.search(pattern, text)
        if match is not None:
            return match[1].strip()
    return text[:200] or type(problem).__name__


def _hidden(url: str) -> str:
    return re.sub(r"//[^/@]*@", "//***@", url)
