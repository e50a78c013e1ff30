"""Programs that tests need."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

IN_CI = os.environ.get("CI") == "true"


TOOLS = Path(__file__).parent.parent / ".ci" / "tools"
"""Where .ci/kubectl.py puts what it fetches."""


def program(*names: str) -> str:
    """The path of a program a test needs; it may be missing, but not in CI."""
    for name in names:
        found = shutil.which(name) or shutil.which(name, path=TOOLS)
        if found:
            return found
    if IN_CI:
        pytest.fail(f"{' or '.join(names)} is missing, and CI must have it", pytrace=False)
    pytest.skip(f"{' or '.join(names)} is not installed")
