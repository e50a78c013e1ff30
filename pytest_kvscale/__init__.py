"""pytest-kvscale: how many KubeVirt VMs a node takes, how fast, and what breaks first."""

from __future__ import annotations

__all__ = ["__version__"]

__version__ = "0.1.0"
