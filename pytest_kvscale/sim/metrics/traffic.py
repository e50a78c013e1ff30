"""What one component asks of the API, as client-go's metrics count it."""

from __future__ import annotations

import collections
from collections.abc import Iterator

from prometheus_client.metrics_core import Metric

from pytest_kvscale.sim.metrics import families, naming
from pytest_kvscale.sim.metrics.histogram import Histogram
from pytest_kvscale.sim.metrics.naming import Naming
from pytest_kvscale.sim.resources import Resource

HOST = "10.96.0.1:443"
"""Where components find the API: the `kubernetes` service."""
LOST = "<error>"
"""The status code of a request to which no answer came."""
METHODS = {
    "get": "GET", "list": "GET", "watch": "GET", "create": "POST", "update": "PUT",
    "patch": "PATCH", "delete": "DELETE", "deletecollection": "DELETE",
}  # fmt: skip
_LISTING = "?limit=%7Bvalue%7D&resourceVersion=%7Bvalue%7D"

Kind = tuple[str, Resource, str]
"""Verb, resource, subresource."""


class Traffic:
    """The account of one client."""

    def __init__(self, bounds: tuple[float, ...] = naming.RATE_LIMITER) -> None:
        self._bounds = bounds
        self.requests: collections.Counter[tuple[str, str, str]] = collections.Counter()
        """By status code (`<error>` where none came), verb and resource."""
        self.waited: dict[Kind, Histogram] = {}
        """Seconds requests waited for the client's own rate limiter."""
        self.took: dict[Kind, Histogram] = {}
        """Seconds until requests were answered."""

    def reset(self) -> None:
        """Begin at zero."""
        self.requests.clear()
        self.waited.clear()
        self.took.clear()

    def limited(self, kind: Kind, seconds: float) -> None:
        """A request waited so long for the rate limiter."""
        held = self.waited.get(kind)
        if held is None:
            held = self.waited[kind] = Histogram(naming.RATE_LIMITER)
        held.observe(seconds)

    def answered(self, kind: Kind, code: str, seconds: float) -> None:
        """A request was answered, or lost."""
        verb, resource, _ = kind
        self.requests[code, verb, resource.plural] += 1
        held = self.took.get(kind)
        if held is None:
            held = self.took[kind] = Histogram(self._bounds)
        held.observe(seconds)

    def informed(self, resource: Resource) -> None:
        """An informer lists all objects of a kind, and watches them from there."""
        self.limited(("list", resource, ""), 0.0)
        self.requests["200", "list", resource.plural] += 1
        self.requests["200", "watch", resource.plural] += 1

    def families(self, names: Naming) -> Iterator[Metric]:
        """Counts and times of requests, as KubeVirt's components tell them."""
        prefix = names.prefix
        yield families.counter(
            f"{prefix}rest_client_requests_total",
            "Number of HTTP requests, partitioned by status code, method, and host.",
            ("code", "host", "method", "resource", "verb"),
            {
                (code, HOST, METHODS[verb], plural, verb.upper()): count
                for (code, verb, plural), count in self.requests.items()
            },
        )
        yield families.histogram(
            f"{prefix}rest_client_rate_limiter_duration_seconds",
            "Client side rate limiter latency in seconds. Broken down by verb and URL.",
            ("url", "verb"),
            self._by_url(self.waited, names),
        )
        yield families.histogram(
            f"{prefix}rest_client_request_latency_seconds",
            "Request latency in seconds. Broken down by verb and URL.",
            ("url", "verb"),
            self._by_url(self.took, names),
        )

    def plain_families(self) -> Iterator[Metric]:
        """Counts of requests, as Kubernetes' own components tell them."""
        counts: collections.Counter[tuple[str, ...]] = collections.Counter()
        for (code, verb, _), count in self.requests.items():
            counts[code, HOST, METHODS[verb]] += count
        yield families.counter(
            "rest_client_requests_total",
            "Number of HTTP requests, partitioned by status code, method, and host.",
            ("code", "host", "method"),
            counts,
        )

    @staticmethod
    def _by_url(held: dict[Kind, Histogram], names: Naming) -> dict[tuple[str, ...], Histogram]:
        return {
            (url(kind), METHODS[kind[0]] if names.by_method else kind[0].upper()): each
            for kind, each in held.items()
        }


def url(kind: Kind) -> str:
    """The URL of a request with its variable parts left out, as client-go's metrics have it."""
    verb, resource, sub = kind
    root = f"apis/{resource.group}" if resource.group else "api"
    path = f"https://{HOST}/{root}/{resource.version}"
    if verb == "list":
        return f"{path}/{resource.plural}{_LISTING}"
    if resource.namespaced:
        path += "/namespaces/%7Bnamespace%7D"
    path += f"/{resource.plural}"
    if verb != "create" or sub:
        path += "/%7Bname%7D"
    return f"{path}/{sub}" if sub else path
