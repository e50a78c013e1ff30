"""Faults of the cluster's components, nodes and clock: how they are carried out.

A fault that is taken back lets go of what it holds at once; what it has done stays done.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterable, Iterator

from pytest_kvscale.errors import ConfigurationError, nearest
from pytest_kvscale.sim.clock import Calendar
from pytest_kvscale.sim.component import Component
from pytest_kvscale.sim.fault_kinds import (
    ComponentFault,
    Fault,
    Freeze,
    JumpClock,
    Kill,
    LoseNode,
    NodeFault,
)
from pytest_kvscale.sim.faults import Active, Faults

_ON_NODES = ("kubelet", "virt-handler")


class ComponentFaults:
    """Carries out faults of these components."""

    def __init__(self, faults: Faults, components: Iterable[Component], calendar: Calendar) -> None:
        self._faults = faults
        self._components = list(components)
        self._calendar = calendar
        faults.check = self._check
        faults.teach(Freeze, self._freeze)
        faults.teach(Kill, self._kill)
        faults.teach(LoseNode, self._lose_node)
        faults.teach(JumpClock, self._jump_clock)

    def _check(self, fault: Fault) -> None:
        if isinstance(fault, NodeFault) and fault.node is not None:
            nodes = sorted({each.node for each in self._components} - {""})
            if fault.node not in nodes:
                hint = nearest(fault.node, nodes)
                raise ConfigurationError(f"the fault: node: no such node {fault.node!r}{hint}")

    def _befallen(
        self, fault: NodeFault, active: Active, names: tuple[str, ...]
    ) -> list[Component]:
        chosen: dict[str, bool] = {"": True}
        found = []
        for each in self._components:
            if each.name not in names or fault.node not in (None, each.node):
                continue
            if each.node not in chosen:
                chosen[each.node] = self._faults.draw_share(active, fault.share, each.node)
            if chosen[each.node]:
                found.append(each)
        return found

    async def _freeze(self, fault: Freeze, active: Active) -> None:
        with _frozen(self._befallen(fault, active, (fault.component,))):
            await asyncio.sleep(fault.seconds)

    async def _lose_node(self, fault: LoseNode, active: Active) -> None:
        with _frozen(self._befallen(fault, active, _ON_NODES)):
            if fault.seconds is None:
                await asyncio.get_running_loop().create_future()
            else:
                await asyncio.sleep(fault.seconds)

    async def _kill(self, fault: ComponentFault, active: Active) -> None:
        dead = [
            each
            for each in self._befallen(fault, active, (fault.component,))
            if not each.process.dead
        ]
        for each in dead:
            each.kill()
        try:
            await asyncio.sleep(fault.seconds)
        finally:
            for each in dead:
                each.revive()

    async def _jump_clock(self, fault: JumpClock, _: Active) -> None:
        self._calendar.jump(fault.seconds)


@contextlib.contextmanager
def _frozen(components: list[Component]) -> Iterator[None]:
    """Let these stand still; a process that is ended meanwhile is not thawed in the next one."""
    processes = [each.process for each in components]
    for each in processes:
        each.freeze()
    try:
        yield
    finally:
        for each in processes:
            each.thaw()
