"""Who runs this, on which machine: for those who find its lease or its journal."""

from __future__ import annotations

import getpass
import os
import socket


def who() -> str:
    """`user@machine`."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # No entry for it in the password file, as in many containers.
        user = f"uid {os.getuid()}"
    return f"{user}@{socket.gethostname()}"
