"""What the KubeVirt CR's schema asks of the settings that the players read."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

COMPONENTS = ("api", "controller", "handler", "webhook")
_LIMITER = ("restClient", "rateLimiter", "tokenBucketRateLimiter")
_QEMU_TIMEOUT = ("customizeComponents", "flags", "controller", "launcher-qemu-timeout")


def problems(spec: Any) -> Iterator[tuple[str, str]]:
    """Where a spec is not what the players can read, and why."""
    devices = _at(spec, ("configuration", "virtualMachineInstancesPerNode"))
    if devices is not None and not (_is_whole(devices) and devices >= 0):
        path = "configuration.virtualMachineInstancesPerNode"
        yield path, f"Invalid value: {devices!r}: expected a whole number, at least 0"
    for name in COMPONENTS:
        for key in ("qps", "burst"):
            steps = ("configuration", f"{name}Configuration", *_LIMITER, key)
            value = _at(spec, steps)
            number = _is_whole(value) or isinstance(value, float)
            if value is not None and not (number and value > 0):
                yield ".".join(steps), f"Invalid value: {value!r}: expected a number above 0"
    timeout = _at(spec, _QEMU_TIMEOUT)
    if timeout is not None and not (isinstance(timeout, str) and timeout.isdecimal()):
        path = ".".join(_QEMU_TIMEOUT)
        yield path, f"Invalid value: {timeout!r}: expected seconds, as a string of digits"


def _at(spec: Any, steps: tuple[str, ...]) -> Any:
    for step in steps:
        spec = spec.get(step) if isinstance(spec, dict) else None
    return spec


def _is_whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)
