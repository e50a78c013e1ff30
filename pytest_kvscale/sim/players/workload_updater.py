"""virt-controller's workload updater: counts VMIs whose launchers are of an older version.

With `spec.workloadUpdateStrategy.workloadUpdateMethods: [Evict]` it ends them, so many at a time.
LiveMigrate finds no VMI here that can be migrated.
"""

from __future__ import annotations

import asyncio
import contextlib

from pytest_kvscale.sim.client import Client
from pytest_kvscale.sim.errors import Object, StatusError
from pytest_kvscale.sim.players.recorder import Recorder
from pytest_kvscale.sim.players.team import RETRY_SECONDS, Team
from pytest_kvscale.sim.players.virt_controller import FINAL, OUTDATED
from pytest_kvscale.sim.resources import KUBEVIRTS, PODS, VMIS
from pytest_kvscale.sim.store import Event

_THROTTLE = 5.0
"""Seconds between two looks, at least."""
_COUNT = "outdatedVirtualMachineInstanceWorkloads"
_BATCH, _INTERVAL = 10, 60.0
"""How many are evicted at a time, and seconds between two times, where the CR does not say."""
_UNITS = {"h": 3600.0, "m": 60.0, "s": 1.0}


class WorkloadUpdater:
    """The workload updater; it does nothing as long as no VMI is outdated."""

    def __init__(self, team: Team, client: Client) -> None:
        self._client = client
        self._recorder = Recorder(team, client, "workload-update-controller")
        self._kubevirt: Object | None = None
        self._outdated: dict[str, Object] = {}
        self._wake = asyncio.Event()
        self._evicted: float | None = None
        """When VMIs were evicted last."""
        client.listen(VMIS, self._on_vmi)
        client.listen(KUBEVIRTS, self._on_kubevirt)
        team.spawn(self._work(), "virt-controller workload updater")

    def _on_kubevirt(self, event: Event) -> None:
        self._kubevirt = None if event.type == "DELETED" else event.stored.obj
        self._wake.set()

    def _on_vmi(self, event: Event) -> None:
        vmi = event.stored.obj
        uid = vmi["metadata"]["uid"]
        over = event.type == "DELETED" or (vmi.get("status") or {}).get("phase") in FINAL
        if not over and OUTDATED in (vmi["metadata"].get("labels") or {}):
            self._outdated[uid] = vmi
            self._wake.set()
        elif self._outdated.pop(uid, None) is not None:
            self._recorder.forget(vmi)
            self._wake.set()

    async def _work(self) -> None:
        due: float | None = None
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(due):
                    await self._wake.wait()
            self._wake.clear()
            kubevirt, due = self._kubevirt, None
            status = {} if kubevirt is None else kubevirt.get("status") or {}
            # While a version is being rolled out, which is the old one cannot be told.
            if kubevirt is None or status.get("observedDeploymentID") != status.get(
                "targetDeploymentID"
            ):
                continue
            if status.get(_COUNT, 0) != len(self._outdated):
                told = {"status": {_COUNT: len(self._outdated)}}
                await self._client.patch(KUBEVIRTS, kubevirt, told, status=True)
                await asyncio.sleep(_THROTTLE)
            if self._outdated:
                due = await self._update(kubevirt["spec"].get("workloadUpdateStrategy") or {})

    async def _update(self, strategy: Object) -> float | None:
        """Evict a batch, if it is time to; returns the seconds until it will be."""
        if "Evict" not in (strategy.get("workloadUpdateMethods") or []):
            return None
        interval, moment = (
            _seconds(strategy.get("batchEvictionInterval")),
            asyncio.get_running_loop().time(),
        )
        if self._evicted is not None and moment < self._evicted + interval:
            return self._evicted + interval - moment
        self._evicted = moment
        size = int(strategy.get("batchEvictionSize") or _BATCH)
        for vmi in list(self._outdated.values())[:size]:
            for uid in (vmi.get("status") or {}).get("activePods") or {}:
                await self._evict(vmi, uid)
        return interval

    async def _evict(self, vmi: Object, uid: str) -> None:
        namespace = vmi["metadata"]["namespace"]
        for stored in self._client.api.store.all(PODS, namespace):
            if stored.obj["metadata"]["uid"] != uid:
                continue
            try:
                await self._client.delete(PODS, stored.obj)
            except StatusError as refusal:
                if refusal.code not in (404, 409):
                    raise
                await asyncio.sleep(RETRY_SECONDS)
                continue
            self._recorder.tell(
                vmi, "SuccessfulEvict", f"Evicted VMI pod {stored.obj['metadata']['name']}"
            )


def _seconds(interval: object) -> float:
    """Seconds of an interval as Go writes it (`1m0s`)."""
    number, total = "", 0.0
    for letter in str(interval or ""):
        if letter in _UNITS and number:
            total, number = total + float(number) * _UNITS[letter], ""
        elif letter.isdecimal() or letter == ".":
            number += letter
        else:
            return _INTERVAL
    return total or _INTERVAL
