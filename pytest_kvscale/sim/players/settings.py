"""What the KubeVirt CR sets, with this version's defaults for what it leaves out."""

from __future__ import annotations

import dataclasses
import json
import re
from typing import Any

from pytest_kvscale.sim.errors import Object
from pytest_kvscale.sim.profile import Profile, RateLimit

_QEMU_TIMEOUT = "launcher-qemu-timeout"


@dataclasses.dataclass(frozen=True)
class Effective:
    """Settings as the components use them."""

    max_devices: int
    qemu_timeout: int
    """Seconds."""
    rate_limits: dict[str, RateLimit]
    """By component: api, controller, handler, webhook."""


def effective(profile: Profile, spec: Object) -> Effective:
    """The settings a KubeVirt CR's spec amounts to."""
    configuration = spec.get("configuration") or {}
    defaults = profile.rate_limits
    limits = {
        name: _rate_limit(configuration.get(f"{name}Configuration"), getattr(defaults, name))
        for name in ("api", "controller", "handler", "webhook")
    }
    devices = configuration.get("virtualMachineInstancesPerNode")
    return Effective(
        max_devices=profile.kubevirt.max_devices if devices is None else int(devices),
        qemu_timeout=_qemu_timeout(spec, profile.kubevirt.qemu_timeout),
        rate_limits=limits,
    )


def _rate_limit(configuration: Any, default: RateLimit) -> RateLimit:
    found: Any = configuration
    for step in ("restClient", "rateLimiter", "tokenBucketRateLimiter"):
        found = found.get(step) if isinstance(found, dict) else None
    if not isinstance(found, dict):
        return default
    return RateLimit(
        qps=float(found.get("qps") or default.qps), burst=int(found.get("burst") or default.burst)
    )


def _qemu_timeout(spec: Object, default: int) -> int:
    """From `flags`, or from a JSON patch that appends the flag to the command (the 2021 way)."""
    customize = spec.get("customizeComponents") or {}
    flags = (customize.get("flags") or {}).get("controller") or {}
    if _QEMU_TIMEOUT in flags:
        return int(flags[_QEMU_TIMEOUT])
    for each in customize.get("patches") or []:
        if each.get("resourceName") != "virt-controller":
            continue
        text = json.dumps(each.get("patch", ""))
        match = re.search(rf"--{_QEMU_TIMEOUT}(?:=|[^0-9]+)(\d+)", text)
        if match:
            return int(match[1])
    return default
