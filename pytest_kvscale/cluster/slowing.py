"""What will slow a level down, and what else about the node is worth knowing. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from pytest_kvscale import durations
from pytest_kvscale.cluster.capacity import throttled
from pytest_kvscale.cluster.kubevirt import qemu_timeout, version
from pytest_kvscale.cluster.pod_needs import version_of

Object = dict[str, Any]
_COMPONENTS = ("api", "controller", "handler", "webhook")
_DEFAULTS = {"api": (200, 400), "controller": (200, 400), "handler": (50, 100),
             "webhook": (200, 400)}  # fmt: skip
_DEFAULTS_FROM = (1, 0)
"""The first version whose defaults these are, as far as it is known."""
_CONTROLLER_REQUESTS = 5.5
"""That virt-controller sends for a VMI until it is scheduled, as measured on a real one."""
_WORTH_TELLING = 5.0
_SPREAD = 119
"""A launcher waits up to so many seconds longer than the qemu timeout, at random."""
_IMAGES_TOLD = 50
"""A kubelet tells no more images than these."""
_OWN = ("virt-api", "virt-controller", "virt-operator")
_PROMETHEUS = "prometheus"


def notes(
    level: int,
    kubevirt: Object,
    spec: Object,
    node: Object,
    pods: Sequence[Object] | None,
    configz: Object | None,
    images: Sequence[str],
) -> Iterator[str]:
    """Sentences; `spec` is the KubeVirt CR's as it will be, `configz` the kubelet's answer."""
    yield from _limits(level, spec.get("configuration") or {}, version(kubevirt))
    timeout = qemu_timeout(spec)
    yield (
        f"a launcher gives up when its domain is not there after {durations.write(timeout)} "
        f"(and up to {_SPREAD} s more): the qemu timeout"
    )
    yield from _kubelet(configz)
    runtime = (node["status"].get("nodeInfo") or {}).get("containerRuntimeVersion")
    yield f"container runtime: {runtime or 'unknown'}"
    yield from _swap(node, configz)
    yield from _present(node, images)
    yield from _neighbours(pods)


def _limits(level: int, configuration: Object, release: str) -> Iterator[str]:
    told = []
    for name in _COMPONENTS:
        limit = _limit(configuration.get(f"{name}Configuration"))
        said = ""
        if limit is None and version_of(release) >= _DEFAULTS_FROM:
            limit, said = _DEFAULTS[name], " by default"
        told.append(f"{name} {'unknown' if limit is None else f'{limit[0]:g}/{limit[1]:g}'}{said}")
        if name == "controller" and limit is not None:
            seconds = throttled(level, _CONTROLLER_REQUESTS, *limit)
            if seconds >= _WORTH_TELLING:
                yield (
                    f"virt-controller's rate limit ({limit[0]:g} a second, burst {limit[1]:g}) "
                    f"alone takes about {durations.write(round(seconds))} for {level} VMIs"
                )
    yield f"rate limits of KubeVirt's components (QPS/burst): {', '.join(told)}"


def _limit(configuration: Any) -> tuple[float, float] | None:
    found = configuration
    for step in ("restClient", "rateLimiter", "tokenBucketRateLimiter"):
        found = found.get(step) if isinstance(found, dict) else None
    if not isinstance(found, dict) or not found.get("qps") or not found.get("burst"):
        return None
    return float(found["qps"]), float(found["burst"])


def _kubelet(configz: Object | None) -> Iterator[str]:
    settings = (configz or {}).get("kubeletconfig") or {}
    limit = settings.get("kubeAPIQPS"), settings.get("kubeAPIBurst")
    if None not in limit:
        yield f"the kubelet's rate limit (QPS/burst): {limit[0]}/{limit[1]}"


def _swap(node: Object, configz: Object | None) -> Iterator[str]:
    capacity = ((node["status"].get("nodeInfo") or {}).get("swap") or {}).get("capacity")
    fails = ((configz or {}).get("kubeletconfig") or {}).get("failSwapOn")
    if capacity:
        yield f"swap is on ({capacity} bytes): memory limits are not what they seem"
    elif capacity == 0 or fails is True:
        yield "swap: off"
    else:
        yield "swap: unknown"


def _present(node: Object, images: Sequence[str]) -> Iterator[str]:
    told = node["status"].get("images")
    if told is None:
        yield "images on the node: unknown"
        return
    there = {name for each in told for name in each.get("names") or []}
    for image in dict.fromkeys(images):
        _, colon, tag = image.rpartition(":")
        full = image if (colon and "/" not in tag) or "@" in image else f"{image}:latest"
        if not {full, f"docker.io/{full}", f"docker.io/library/{full}"} & there:
            sure = "is not" if len(told) < _IMAGES_TOLD else "may not be"
            yield f"the image {image} {sure} on the node: the canary pulls it"


def _neighbours(pods: Sequence[Object] | None) -> Iterator[str]:
    found = []
    for pod in pods or []:
        labels = pod["metadata"].get("labels") or {}
        name = str(labels.get("app.kubernetes.io/name") or "")
        if labels.get("kubevirt.io") in _OWN or name == _PROMETHEUS:
            found.append(f"{pod['metadata']['namespace']}/{pod['metadata']['name']}")
    if found:
        yield (
            f"on the node under test run {', '.join(sorted(found))}: what they do is measured "
            "with it, and what is measured slows them"
        )
