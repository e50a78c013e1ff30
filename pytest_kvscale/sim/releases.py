"""The versions of KubeVirt that a cluster can run: its own, and those it can be upgraded to.

A version is known by a profile that has it. Of that profile only what is KubeVirt's counts: the
node, Kubernetes and the container runtime stay what they are.
"""

from __future__ import annotations

from typing import Any

from pytest_kvscale.sim import profile as profiles
from pytest_kvscale.sim.profile import Profile

_LIMITS = ("api", "controller", "handler", "webhook")
_TIMES = (
    "launcher",
    "guest_demand",
    "guest_ignores_shutdown",
    "guest_stop",
    "sync",
    "rollout",
    "device_plugin",
)
_OWN = ("namespace", "name", "configuration", "objects", "metrics")
"""What of a profile's `kubevirt` is the cluster's: what objects and metrics look like stays too."""


def wanted(profile: Profile, spec: dict[str, Any]) -> tuple[str, str]:
    """Version and registry that a KubeVirt CR's spec amounts to on a cluster of this profile."""
    version = spec.get("imageTag") or profile.versions.kubevirt
    return str(version), str(spec.get("imageRegistry") or profile.kubevirt.registry)


def find(profile: Profile, version: str, registry: str) -> Profile | None:
    """The cluster as it is with another version of KubeVirt; None: there are no such images.

    Raises `ConfigurationError` if a profile that is named in `upgrades` cannot be used.
    """
    found = profile if version == profile.versions.kubevirt else _named(profile, version)
    if found is None:
        return None
    own = {key: getattr(profile.kubevirt, key) for key in _OWN}
    limits = {key: getattr(found.rate_limits, key) for key in _LIMITS}
    times = {key: getattr(found.times, key) for key in _TIMES}
    return profile.model_copy(
        update={
            "versions": profile.versions.model_copy(update={"kubevirt": version}),
            "kubevirt": found.kubevirt.model_copy(update={**own, "registry": registry}),
            "rate_limits": profile.rate_limits.model_copy(update=limits),
            "times": profile.times.model_copy(update=times),
            "faults": found.faults,
        }
    )


def _named(profile: Profile, version: str) -> Profile | None:
    for name in profile.upgrades:
        each = profiles.load(name)
        if each.versions.kubevirt == version:
            return each
    return None
