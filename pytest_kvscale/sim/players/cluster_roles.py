"""The controller that fills ClusterRoles with an aggregationRule from those it selects."""

from __future__ import annotations

import asyncio

from pytest_kvscale.sim.client import Client
from pytest_kvscale.sim.errors import StatusError
from pytest_kvscale.sim.players.team import Team
from pytest_kvscale.sim.rbac import aggregated
from pytest_kvscale.sim.resources import CLUSTER_ROLES
from pytest_kvscale.sim.store import Event


class ClusterRoleAggregation:
    """Looks at all aggregated roles whenever a ClusterRole has changed."""

    def __init__(self, team: Team, client: Client) -> None:
        self._client = client
        self._changed = asyncio.Event()
        client.listen(CLUSTER_ROLES, self._on_role)
        team.spawn(self._work(), "cluster role aggregation")

    def _on_role(self, _: Event) -> None:
        self._changed.set()

    async def _work(self) -> None:
        while True:
            await self._changed.wait()
            self._changed.clear()
            roles = [stored.obj for stored in self._client.api.store.all(CLUSTER_ROLES)]
            for role in roles:
                if not role.get("aggregationRule"):
                    continue
                rules = aggregated(role, roles)
                held = role.get("rules") or []
                # Their order is no reason to write: two roles may collect from each other.
                if all(rule in held for rule in rules) and all(rule in rules for rule in held):
                    continue
                try:
                    await self._client.update(CLUSTER_ROLES, {**role, "rules": rules})
                except StatusError as refusal:
                    if refusal.code >= 500:
                        raise
                    self._changed.set()  # Somebody else has changed or removed it meanwhile.
