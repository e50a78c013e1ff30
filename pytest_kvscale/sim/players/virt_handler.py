"""virt-handler: on its node, starts the guests of scheduled VMIs and ends those of deleted ones."""

from __future__ import annotations

import asyncio

from pytest_kvscale.sim.client import Client, with_condition
from pytest_kvscale.sim.draws import Draws
from pytest_kvscale.sim.errors import Object, StatusError
from pytest_kvscale.sim.machine import Machine
from pytest_kvscale.sim.players.launcher_pod import grace_period
from pytest_kvscale.sim.players.recorder import Recorder
from pytest_kvscale.sim.players.settings import Effective
from pytest_kvscale.sim.players.team import RETRY_SECONDS, Team
from pytest_kvscale.sim.players.virt_controller import FINAL, in_phase
from pytest_kvscale.sim.players.virt_nodes import EVERY, HEARTBEAT, SCHEDULABLE
from pytest_kvscale.sim.profile import Profile
from pytest_kvscale.sim.resources import NODES, VMIS
from pytest_kvscale.sim.store import Event


class VirtHandler:
    """The handler of one node."""

    def __init__(
        self,
        team: Team,
        client: Client,
        profile: Profile,
        draws: Draws,
        machine: Machine,
        node: str,
    ) -> None:
        self._team = team
        self._client = client
        self._profile = profile
        self._draws = draws
        self._machine = machine
        self._node = node
        self._recorder = Recorder(team, client, "virt-handler", node)
        self._vmis: dict[str, Object] = {}
        self._starting: set[str] = set()
        self._ending: set[str] = set()
        client.listen(VMIS, self._on_vmi)
        team.spawn(self._beat(), f"virt-handler of {node}: heartbeat")

    def restart(self, settings: Effective, release: Profile) -> None:
        """Take over what only a restart brings: the number of devices, and another version.

        What runs on the node goes on, but for guests that a version loses on request.
        """
        before, self._profile = self._profile, release
        self._machine.set_devices(settings.max_devices)
        if release.versions.kubevirt == before.versions.kubevirt:
            return
        for vmi in list(self._vmis.values()):
            name = vmi["metadata"]["name"]
            share = release.faults.share("lost_by_upgrade", name)
            if self._draws.chance(share, "lost_by_upgrade", name):
                self._machine.end_launcher(next(iter(vmi["status"].get("activePods") or {}), ""), 2)

    async def _beat(self) -> None:
        """Stamp the node, and say that VMIs may be scheduled to it."""
        while True:
            node = self._client.api.get(NODES, "", self._node).obj
            change = {
                "annotations": {HEARTBEAT: self._client.stamp()},
                "labels": {SCHEDULABLE: "true"},
            }
            await self._client.patch(NODES, node, {"metadata": change})
            await asyncio.sleep(EVERY)

    def _on_vmi(self, event: Event) -> None:
        vmi = event.stored.obj
        if vmi["status"].get("nodeName") != self._node:
            return
        uid, name = vmi["metadata"]["uid"], vmi["metadata"]["name"]
        if event.type == "DELETED":
            self._vmis.pop(uid, None)
            self._recorder.forget(vmi)
            self._starting.discard(uid)
            self._ending.discard(uid)
            return
        self._vmis[uid] = vmi
        phase = vmi["status"].get("phase")
        if "deletionTimestamp" in vmi["metadata"]:
            if phase not in FINAL and uid not in self._ending:
                self._ending.add(uid)
                self._team.spawn(self._end(uid), f"virt-handler ends {name}")
        elif phase == "Scheduled" and uid not in self._starting:
            self._starting.add(uid)
            self._team.spawn(self._start(uid), f"virt-handler starts {name}")

    async def _start(self, uid: str) -> None:
        vmi = self._vmis[uid]
        name, faults = vmi["metadata"]["name"], self._profile.faults
        if self._draws.chance(faults.share("qemu_timeout", name), "qemu_timeout", name):
            return
        await self._client.process.work(self._profile.times.sync)
        pod_uid = next(iter(vmi["status"]["activePods"]))
        if not await self._machine.define_domain(pod_uid, name):
            return
        ready = self._ready("True")
        if await self._move(uid, {"Scheduled": "Running"}, ready):
            about = self._vmis.get(uid, vmi)
            self._recorder.tell(about, "Started", "VirtualMachineInstance started.")
            self._team.spawn(self._watch_guest(uid, pod_uid), f"virt-handler watches {name}")

    async def _watch_guest(self, uid: str, pod_uid: str) -> None:
        launcher = self._machine.launcher(pod_uid)
        if launcher is None:
            return
        await launcher.exited
        vmi = self._vmis.get(uid)
        if vmi is not None and "deletionTimestamp" not in vmi["metadata"]:
            message = "The VirtualMachineInstance crashed."
            not_ready = self._ready("False")
            if await self._move(uid, {"Running": "Failed"}, not_ready):
                self._recorder.tell(vmi, "Stopped", message, warning=True)

    async def _end(self, uid: str) -> None:
        vmi = self._vmis[uid]
        name = vmi["metadata"]["name"]
        if self._draws.chance(
            self._profile.faults.share("stuck_terminating", name), "stuck_terminating", name
        ):
            return
        pod_uid = next(iter(vmi["status"].get("activePods") or {}), "")
        launcher = self._machine.launcher(pod_uid)
        if launcher is not None and launcher.defined and self._profile.times.guest_ignores_shutdown:
            await asyncio.sleep(grace_period(vmi))
        if launcher is not None and launcher.defined:
            await asyncio.sleep(self._profile.times.guest_stop)
        await self._client.process.work(self._profile.times.sync)
        self._machine.end_launcher(pod_uid, 0)
        not_ready = self._ready("False")
        await self._move(uid, {"Scheduled": "Failed", "Running": "Succeeded"}, not_ready)

    def _ready(self, status: str) -> Object:
        return {"lastTransitionTime": self._client.stamp(), "status": status, "type": "Ready"}

    async def _move(self, uid: str, moves: dict[str, str], ready: Object) -> bool:
        """Move the VMI from the phase it is in to the next one, if `moves` names one."""
        while True:
            vmi = self._vmis.get(uid)
            new = moves.get(vmi["status"]["phase"]) if vmi is not None else None
            if vmi is None or new is None:
                return False
            status = {"conditions": with_condition(vmi, ready)}
            try:
                await self._client.update(VMIS, in_phase(vmi, new, self._client, status))
            except StatusError as refusal:
                if refusal.code not in (404, 409):
                    raise
                await asyncio.sleep(RETRY_SECONDS)
            else:
                return True
