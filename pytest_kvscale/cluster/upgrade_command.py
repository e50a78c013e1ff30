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
    r"(?i)((?:token|password|passwd|secret|apikey|api-key|client-key-data|authorization)"
    r"[\"']?\s*[:=]\s*)(?:bearer\s+)?[\"']?[^\s\"',}]+|\b(bearer\s+)\S+"
)
_CONTROL = re.compile(r"[^\x20-\x7e\u00a0-\uffff]")


class CommandFailedError(Exception):
    """The command could not be run, failed, or took too long; says what it printed at its end."""


def words(command: str) -> list[str]:
    """The program and its arguments. Raises `ConfigurationError` if there are none."""
    try:
        found = shlex.split(command)
    except ValueError as problem:
        raise ConfigurationError(f"the command {command!r} cannot be read: {problem}") from None
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
            f"the command {program} cannot be run: {problem.strerror or problem}"
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
    lines = [" ".join(_CONTROL.sub(" ", line).split()) for line in text.splitlines()]
    joined = " | ".join([line for line in lines if line][-_LINES:])
    return _SECRET.sub(r"\1\2***", joined)[-_LETTERS:]
