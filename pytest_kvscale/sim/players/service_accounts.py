"""The service account controller: every namespace has an account named `default`."""

from __future__ import annotations

import asyncio

from pytest_kvscale.sim.client import Client
from pytest_kvscale.sim.errors import StatusError
from pytest_kvscale.sim.players.team import Team
from pytest_kvscale.sim.resources import NAMESPACES, SERVICE_ACCOUNTS
from pytest_kvscale.sim.store import Event

DEFAULT = "default"


class ServiceAccountController:
    """Makes the accounts, and makes them again when they are deleted."""

    def __init__(self, team: Team, client: Client) -> None:
        self._client = client
        self._namespaces: asyncio.Queue[str] = asyncio.Queue()
        client.listen(NAMESPACES, self._on_namespace)
        client.listen(SERVICE_ACCOUNTS, self._on_account)
        team.spawn(self._work(), "service account controller")

    def _on_namespace(self, event: Event) -> None:
        if event.type == "ADDED":
            self._namespaces.put_nowait(event.stored.obj["metadata"]["name"])

    def _on_account(self, event: Event) -> None:
        metadata = event.stored.obj["metadata"]
        if event.type == "DELETED" and metadata["name"] == DEFAULT:
            self._namespaces.put_nowait(metadata["namespace"])

    async def _work(self) -> None:
        while True:
            namespace = await self._namespaces.get()
            stored = self._client.api.store.get(NAMESPACES, "", namespace)
            if stored is None or "deletionTimestamp" in stored.obj["metadata"]:
                continue
            try:
                account = {"metadata": {"name": DEFAULT}}
                await self._client.create(SERVICE_ACCOUNTS, namespace, account)
            except StatusError as refusal:
                if refusal.code >= 500:
                    raise
                # It is there already, or the namespace has begun to end.
