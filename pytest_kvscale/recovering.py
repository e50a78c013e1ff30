"""The commands that undo what runs left, and remove what stays: beside pytest, for people."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Callable

from pytest_kvscale.cluster import namespaces, system
from pytest_kvscale.cluster.client import (
    NAMESPACES,
    ApiError,
    Client,
    LostConnectionError,
)
from pytest_kvscale.errors import ConfigurationError
from pytest_kvscale.options import Settings
from pytest_kvscale.session import Run, new_run_id

Tell = Callable[[str], None]


def recover(settings: Settings, tell: Tell) -> int:
    """Undo what runs left, also on purpose; returns the exit code.

    Raises `ConfigurationError` if the cluster cannot be used, or something cannot be undone.
    """
    run = _connect(settings, tell)
    try:
        _undo(run, tell)
    except KeyboardInterrupt:
        tell("interrupted: what is left is still in the journal")
        return 2
    finally:
        run.close()
    return 0


def uninstall(settings: Settings, tell: Tell) -> int:
    """Undo what runs left and remove `kvscale-system`; returns the exit code."""
    run = _connect(settings, tell)
    try:
        _undo(run, tell)
        # The lease goes with its namespace; nobody has to give it back.
        gone = run.connection.run(_remove_system(run.connection.client, settings.delete_timeout))
    except KeyboardInterrupt:
        tell("interrupted: what is left is still in the journal, if that is not gone yet")
        return 2
    except (ApiError, LostConnectionError, TimeoutError) as problem:
        raise ConfigurationError(
            f"the namespace {system.NAMESPACE} could not be removed: {problem or 'no answer'}"
        ) from None
    finally:
        run.close()
    if not gone:
        raise ConfigurationError(
            f"the namespace {system.NAMESPACE} is still there: "
            f"kubectl get namespace {system.NAMESPACE} -o yaml"
        )
    tell(f"nothing of pytest-kvscale is left on {run.identity.server}")
    return 0


def _connect(settings: Settings, tell: Tell) -> Run:
    cluster = "kube" if settings.cluster == "auto" else settings.cluster
    if cluster == "sim":
        raise ConfigurationError(
            "an embedded cluster ends with its run, and nothing is left of it: name the cluster "
            "(--kvscale-kubeconfig, --kvscale-context)"
        )
    run = Run(dataclasses.replace(settings, cluster=cluster), new_run_id())
    run.tell = tell
    return run


def _undo(run: Run, tell: Tell) -> None:
    alone = not run.take_turn(run.settings.wait).off
    if not run.undoing.undo_others(alone, kept=True):
        tell("there is nothing to undo")


async def _remove_system(client: Client, timeout: float) -> bool:
    deadline = asyncio.get_running_loop().time() + timeout
    try:
        found = await client.get(NAMESPACES, "", system.NAMESPACE)
    except ApiError as problem:
        if problem.code == 404:
            return True
        raise
    return await namespaces.remove(client, found, deadline)
