"""The user's own command that brings KubeVirt to another version: run, and what it said at its end.

It is run as a program, without a shell: its words are split as a shell does it. Whoever needs a
pipe writes `sh -c '…'`. What it prints is not shown unless it fails, and then its end only, without
what looks like a secret.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import shlex
import signal
from collections.abc import Mapping

from pytest_kvscale.errors import ConfigurationError

_LINES, _LETTERS = 12, 1500
"""How much of its output is kept: of its end."""
_KEPT = 16_384
_GRACE = 5.0
"""Seconds it is given to end when it is asked to."""
_SECRET = re.compile(
    # A name and its value, as in YAML, JSON, headers and assignments.
    r"((?:token|passw(?:or)?d|secret|api[-_]?key|access[-_]?key|private[-_]?key|tls\.key"
    r"|client-key-data|dockerconfigjson|authorization)[\w-]*[\"']?\s*[:=]\s*"
    r"(?:(?:bearer|basic)\s+)?)(?:\"[^\"]*\"|'[^']*'|[^\s\"',}]+)"
    # An option and its value.
    r"|(--?[\w-]*(?:token|passw(?:or)?d|secret|key)\s+)[^\s-][^\s\"',}]*"
    r"|(\b(?:bearer|basic)\s+)[^\s\"',}]+"
    # The name and password of an address.
    r"|(\w://)[^\s/@]+(?=@)"
    # A JSON Web Token, wherever it stands.
    r"|()\beyJ[\w-]+\.[\w-]+\.[\w-]*",
    re.IGNORECASE | re.ASCII,
)
_KEY = re.compile(r"-----BEGIN [^|]*?KEY-----.*?(?:-----END [^|]*?KEY-----|$)", re.DOTALL)
_CONTROL = re.compile(r"[^\x20-\x7e\u00a0-\uffff]")


class CommandFailedError(Exception):
    """The command could not be run, failed, or took too long; says what it printed at its end."""

    def __init__(self, text: str, is_begun: bool = True) -> None:
        super().__init__(text)
        self.is_begun = is_begun
        """Whether it may have changed anything."""


def words(command: str) -> list[str]:
    """The program and its arguments. Raises `ConfigurationError` if there are none."""
    try:
        found = shlex.split(command)
    except ValueError as problem:
        # It is not shown: it may hold what is secret.
        raise ConfigurationError(f"the command cannot be read: {problem}") from None
    if not found:
        raise ConfigurationError("the command is empty")
    return found


async def run(command: str, environment: Mapping[str, str], timeout: float) -> None:
    """Run the command; `environment` is added to ours.

    Raises `CommandFailedError`. Whatever ends the waiting for it ends the command and what it has
    started.
    """
    program, *arguments = words(command)
    try:
        process = await asyncio.create_subprocess_exec(
            program, *arguments, env={**os.environ, **environment}, start_new_session=True,
            stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )  # fmt: skip
    except OSError as problem:
        raise CommandFailedError(
            f"the command {program} cannot be run: {problem.strerror or problem}", is_begun=False
        ) from None
    said = bytearray()
    try:
        async with asyncio.timeout(timeout):
            assert process.stdout is not None  # noqa: S101 - asked for above
            while piece := await process.stdout.read(4096):
                said += piece
                del said[:-_KEPT]
            code = await process.wait()
    except TimeoutError:
        raise CommandFailedError(
            f"the command {program} had not ended after {timeout:g} s{_ending(said)}"
        ) from None
    finally:
        await _end(process)
    if code:
        how = f"ended with exit code {code}" if code > 0 else f"was ended by signal {-code}"
        raise CommandFailedError(f"the command {program} {how}{_ending(said)}")


async def _end(process: asyncio.subprocess.Process) -> None:
    """End it and its children, if it has not ended."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        if process.returncode is not None:
            return
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, number)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_GRACE):
                await process.wait()


def _ending(said: bytes | bytearray) -> str:
    text = tail(bytes(said).decode("utf-8", "replace"))
    return f"; it said: {text}" if text else ", and said nothing"


def tail(text: str) -> str:
    """The last lines of an output, in one, without control characters and secrets."""
    # Before lines are dropped: what begins a secret may be among them.
    lines = _KEY.sub("***", text).splitlines()
    shown = [" ".join(_CONTROL.sub(" ", line).split()) for line in lines]
    joined = " | ".join([line for line in shown if line][-_LINES:])
    return _SECRET.sub(_covered, joined)[-_LETTERS:]


def _covered(found: re.Match[str]) -> str:
    return next((each for each in found.groups() if each is not None), "") + "***"
