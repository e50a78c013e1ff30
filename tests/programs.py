"""Programs that tests need."""

from __future__ import annotations

import os
import shutil

import pytest

IN_CI = os.environ.get("CI") == "true"


def program(*names: str) -> str:
    """The path of a program a test needs; it may be missing, but not in CI."""
    for name in names:
        found = shutil.which(name)
        if found:
            return found
    if IN_CI:
        pytest.fail(f"{' or '.join(names)} is missing, and CI must have it", pytrace=False)
    pytest.skip(f"{' or '.join(names)} is not installed")
