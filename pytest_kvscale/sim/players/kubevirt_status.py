"""What virt-operator says of itself in the KubeVirt CR's status.

The phase stays Deployed while versions change, and Available stays true; Progressing and Degraded
say that a change of version is under way, also when it hangs.
"""

from __future__ import annotations

import hashlib
import json

from pytest_kvscale.sim.errors import Object

VERSION = "kubevirt.io/install-strategy-version"
REGISTRY = "kubevirt.io/install-strategy-registry"
IDENTIFIER = "kubevirt.io/install-strategy-identifier"
"""Annotations of what virt-operator makes."""
_DIGITS = 40


def deployment_id(version: str, registry: str, spec: Object) -> str:
    """What tells one deployment of KubeVirt from others."""
    text = json.dumps([version, registry, spec], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:_DIGITS]


def marks(version: str, registry: str, identifier: str) -> dict[str, str]:
    """What is written on the components of a version, and on their pods."""
    return {VERSION: version, REGISTRY: registry, IDENTIFIER: identifier}


def targeted(version: str, registry: str, identifier: str) -> Object:
    """The version that is to be."""
    return {
        "targetKubeVirtVersion": version,
        "targetKubeVirtRegistry": registry,
        "targetDeploymentID": identifier,
    }


def observed(version: str, registry: str, identifier: str) -> Object:
    """The version that is."""
    return {
        **targeted(version, registry, identifier),
        "observedKubeVirtVersion": version,
        "observedKubeVirtRegistry": registry,
        "observedDeploymentID": identifier,
    }


def updating(status: Object, version: str, registry: str, stamp: str) -> list[Object]:
    """The conditions while another version is rolled out."""
    message = (
        f"Transitioning from previous version {status['observedKubeVirtVersion']} with registry "
        f"{status['observedKubeVirtRegistry']} to target version {version} using registry "
        f"{registry}"
    )
    return [
        _condition(kind, "True", "UpdateInProgress", message, stamp)
        for kind in ("Available", "Progressing", "Degraded")
    ]


def available(stamp: str) -> list[Object]:
    """The conditions once all components are ready."""
    ready, message = "AllComponentsReady", "All components are ready."
    return [
        _condition("Available", "True", ready, message, stamp),
        _condition("Progressing", "False", ready, message, stamp),
        _condition("Degraded", "False", ready, message, stamp),
        _condition("Created", "True", "AllResourcesCreated", "All resources were created.", stamp),
    ]


def _condition(kind: str, status: str, reason: str, message: str, stamp: str) -> Object:
    return {
        "type": kind, "status": status, "reason": reason, "message": message,
        "lastProbeTime": stamp, "lastTransitionTime": stamp,
    }  # fmt: skip
