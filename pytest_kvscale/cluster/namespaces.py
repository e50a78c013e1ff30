"""The namespace VMIs are created in: one of the run's own, or one that is there and stays."""

from __future__ import annotations

import asyncio
import contextlib

from pytest_kvscale.cluster.client import (
    NAMESPACES,
    ApiError,
    Client,
    LostConnectionError,
    Object,
    Resource,
    repeat_until,
)
from pytest_kvscale.cluster.settle import Watched, until
from pytest_kvscale.cluster.templates import RUN_LABEL
from pytest_kvscale.errors import ConfigurationError

_POD_SECURITY = {"pod-security.kubernetes.io/enforce": "privileged"}
"""virt-launcher needs more than the stricter levels allow."""
SERVICE_ACCOUNTS = Resource("v1", "serviceaccounts")
_ACCOUNT = "default"
"""The service account that Kubernetes makes in a new namespace; pods are refused before."""
_ACCOUNT_PATIENCE, _ACCOUNT_PAUSE = 10.0, 0.1
_OPENSHIFT = {"security.openshift.io/scc.podSecurityLabelSync": "false"}
"""OpenShift would set the label above anew by what service accounts may do."""


async def check(client: Client, name: str) -> bool:
    """Whether a namespace is there; yes, if that may not be asked.

    Raises `ConfigurationError` if it is just being removed.
    """
    try:
        found = await client.get(NAMESPACES, "", name)
    except ApiError as problem:
        if problem.code in (403, 404):
            return problem.code == 403
        raise
    if found["metadata"].get("deletionTimestamp"):
        raise ConfigurationError(
            f"the namespace {name} is being deleted: wait until it is gone, or name another "
            "(--kvscale-namespace)"
        )
    return True


class Own:
    """The namespace of a run, if it has to be made: if it was not there before the run."""

    def __init__(
        self, client: Client, name: str, run: str, openshift: bool, there: bool = False
    ) -> None:
        self._there = there
        self._client = client
        self._name = name
        self._run = run
        labels = {RUN_LABEL: run, **_POD_SECURITY, **(_OPENSHIFT if openshift else {})}
        self._wanted: Object = {
            "apiVersion": "v1",
            "kind": "Namespace",
            "metadata": {"name": name, "labels": labels},
        }
        self._unsure = False
        """It may have been made, and no answer said so."""
        self._under_way: asyncio.Future[Object] | None = None
        """A create that was given up before it was answered."""
        self._made: Object | None = None

    async def make(self, deadline: float) -> Object | None:
        """Make the namespace; None if there is one already, which is then used and kept."""
        if self._there:
            return None
        try:
            made = await repeat_until(deadline, self._create)
        except ApiError as problem:
            self._unsure = problem.passing
            if problem.code != 409:
                raise
        except (LostConnectionError, TimeoutError):
            self._unsure = True
            raise
        else:
            await self._furnished()
            return made
        return await self._get(deadline)

    async def _furnished(self) -> None:
        """Wait until pods can be created in the namespace, as far as we may see that."""
        with contextlib.suppress(TimeoutError, LostConnectionError):
            async with asyncio.timeout(_ACCOUNT_PATIENCE):
                # Nothing could tell us: it may be that we may read but not watch.
                while not await self._has_account():  # noqa: ASYNC110
                    await asyncio.sleep(_ACCOUNT_PAUSE)

    async def _has_account(self) -> bool:
        """Whether the service account is there; True too where that cannot be told."""
        try:
            await self._client.get(SERVICE_ACCOUNTS, self._name, _ACCOUNT)
        except ApiError as problem:
            # Where the kind is not served, the answer names no object.
            missing = problem.code == 404 and f'"{_ACCOUNT}"' in problem.status_message
            return not (missing or problem.passing)
        return True

    async def _create(self) -> Object:
        # A task of its own: who gives it up still has an answer to wait for.
        create = self._client.create(NAMESPACES, "", self._wanted)
        self._under_way = asyncio.ensure_future(create)
        try:
            self._made = await asyncio.shield(self._under_way)
        finally:
            if self._under_way.done():
                self._under_way = None
        return self._made

    async def find(self, deadline: float) -> Object | None:
        """The namespace, if it was made and nobody waited to be told."""
        if self._made is not None:
            return self._made
        if self._under_way is not None:
            try:
                return await self._under_way
            except (ApiError, LostConnectionError, TimeoutError) as problem:
                self._unsure = not isinstance(problem, ApiError) or problem.passing
        if not self._unsure:
            return None
        try:
            return await self._get(deadline)
        except ApiError as problem:
            if problem.code == 404:
                return None
            raise

    async def _get(self, deadline: float) -> Object | None:
        client, name = self._client, self._name
        there = await repeat_until(deadline, lambda: client.get(NAMESPACES, "", name))
        # It is ours after all if the answer to an earlier create was lost.
        return there if is_ours(there, self._run) else None


def is_ours(namespace: Object, run: str) -> bool:
    """Whether a run has made a namespace."""
    return bool((namespace["metadata"].get("labels") or {}).get(RUN_LABEL) == run)


async def remove(client: Client, namespace: Object, deadline: float) -> bool:
    """Delete a namespace of ours and wait until it is gone; False if it is not at the deadline."""
    loop = asyncio.get_running_loop()
    name, uid = namespace["metadata"]["name"], namespace["metadata"]["uid"]
    try:
        await repeat_until(deadline, lambda: client.delete(NAMESPACES, "", name, uid))
    except ApiError as problem:
        if problem.code == 404:
            return True
        if problem.code != 409:
            raise
    wanted = [Watched(NAMESPACES, fields=f"metadata.name={name}")]
    left = max(0.0, deadline - loop.time())
    return await until(client, wanted, lambda mirrors: not mirrors[0].objects, left)
