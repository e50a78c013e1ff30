"""The namespace controller: empties a namespace that is being deleted, then lets it go."""

from __future__ import annotations

import asyncio

from pytest_kvscale.sim import resources
from pytest_kvscale.sim.api import Query
from pytest_kvscale.sim.client import Client
from pytest_kvscale.sim.players.team import Team
from pytest_kvscale.sim.store import Event

_PAUSE = 0.5


class NamespaceController:
    """Ends namespaces."""

    def __init__(self, team: Team, client: Client) -> None:
        self._team = team
        self._client = client
        self._ending: set[str] = set()
        client.listen(resources.NAMESPACES, self._on_namespace)

    def _on_namespace(self, event: Event) -> None:
        metadata = event.stored.obj["metadata"]
        name = metadata["name"]
        if event.type == "DELETED":
            self._ending.discard(name)
        elif "deletionTimestamp" in metadata and name not in self._ending:
            self._ending.add(name)
            self._team.spawn(self._empty(name), f"namespace controller ends {name}")

    async def _empty(self, name: str) -> None:
        api = self._client.api
        kinds = [each for each in resources.SERVED if each.namespaced]
        while True:
            await asyncio.sleep(_PAUSE)
            if not self._client.reachable:
                continue
            left = False
            for kind in kinds:
                if api.store.all(kind, name):
                    api.delete_collection(kind, Query(name))
                    left = left or bool(api.store.all(kind, name))
            if not left:
                api.store.remove(resources.NAMESPACES, api.get(resources.NAMESPACES, "", name).obj)
                return
