"""virt-controller's node controller: fails the VMIs of a node whose virt-handler is silent.

virt-handler stamps its node every minute. A stamp older than five minutes makes the node one that
KubeVirt does not schedule to, and its VMIs Failed: nobody is there to speak for them.
"""

from __future__ import annotations

import asyncio

from pytest_kvscale.sim.client import Client
from pytest_kvscale.sim.errors import Object, StatusError
from pytest_kvscale.sim.patch import merge
from pytest_kvscale.sim.players.recorder import Recorder
from pytest_kvscale.sim.players.team import RETRY_SECONDS, Team
from pytest_kvscale.sim.resources import NODES, VMIS
from pytest_kvscale.sim.store import Event

HEARTBEAT = "kubevirt.io/heartbeat"
"""virt-handler's stamp on its node."""
EVERY = 60.0
"""Seconds between two stamps, and between two looks at them."""
SCHEDULABLE = "kubevirt.io/schedulable"
_PATIENCE = 300.0
_REASON = "NodeUnresponsive"
_FINAL = ("Succeeded", "Failed")


class VirtNodes:
    """The node controller."""

    def __init__(self, team: Team, client: Client) -> None:
        self._client = client
        self._recorder = Recorder(team, client, "node-controller")
        self._nodes: dict[str, Object] = {}
        self._heard: dict[str, tuple[str, float]] = {}
        """Each node's stamp, and when we saw it by our own clock."""
        self._vmis: dict[str, dict[str, Object]] = {}
        """By node, by uid."""
        client.listen(NODES, self._on_node)
        client.listen(VMIS, self._on_vmi)
        team.spawn(self._watch(), "virt-controller nodes")

    def _on_node(self, event: Event) -> None:
        node = event.stored.obj
        name = node["metadata"]["name"]
        if event.type == "DELETED":
            self._nodes.pop(name, None)
            self._heard.pop(name, None)
            return
        self._nodes[name] = node
        stamp = (node["metadata"].get("annotations") or {}).get(HEARTBEAT, "")
        if name not in self._heard or self._heard[name][0] != stamp:
            self._heard[name] = (stamp, asyncio.get_running_loop().time())

    def _on_vmi(self, event: Event) -> None:
        vmi = event.stored.obj
        node, uid = (vmi.get("status") or {}).get("nodeName"), vmi["metadata"]["uid"]
        if not node:
            return
        held = self._vmis.setdefault(node, {})
        if event.type == "DELETED" or vmi["status"].get("phase") in _FINAL:
            held.pop(uid, None)
            self._recorder.forget(vmi)
        else:
            held[uid] = vmi

    async def _watch(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(EVERY)
            for name, node in list(self._nodes.items()):
                if loop.time() - self._heard[name][1] > _PATIENCE:
                    await self._lose(name, node)

    async def _lose(self, name: str, node: Object) -> None:
        if node["metadata"]["labels"].get(SCHEDULABLE) != "false":
            off = {"metadata": {"labels": {SCHEDULABLE: "false"}}}
            await self._client.patch(NODES, node, off)
            words = "virt-handler is not responsive, marking node as unresponsive"
            self._recorder.tell(node, _REASON, words)
        for uid in list(self._vmis.get(name, {})):
            await self._fail(name, uid)

    async def _fail(self, name: str, uid: str) -> None:
        """Fail a VMI; unlike other moves this one leaves no time of the phase."""
        words = f"virt-handler on node {name} is not responsive, marking VMI as failed"
        while (vmi := self._vmis.get(name, {}).get(uid)) is not None:
            over = merge(vmi, {"status": {"phase": "Failed", "reason": _REASON}})
            try:
                await self._client.update(VMIS, over)
            except StatusError as refusal:
                if refusal.code not in (404, 409):
                    raise
                await asyncio.sleep(RETRY_SECONDS)
            else:
                self._recorder.tell(vmi, _REASON, words)
                return
