"""A node's hardware: the work of starting VMIs that queues there, its processes and addresses.

Starting a VMI takes CPU-seconds at two stations, the runtime (sandbox, network, containers) and
virt-launcher with libvirt (until the domain runs). What slows it down the more VMIs there are is
that all share the node's CPUs (`processor`): a guest that has too little CPU to finish booting
tries for ever.

This is no API player: kubelet and virt-handler of the node act on it the way the real ones act
on the runtime and on libvirt.
"""

from __future__ import annotations

import asyncio
import dataclasses
import datetime
import ipaddress
from collections.abc import Callable
from typing import Literal

from pytest_kvscale.sim import quantity
from pytest_kvscale.sim.clock import Calendar
from pytest_kvscale.sim.draws import Draws
from pytest_kvscale.sim.processor import Processor
from pytest_kvscale.sim.profile import Profile, Station, Times

CONTAINER_RUNTIME, LAUNCHER = "container-runtime", "virt-launcher"
"""Who does a node's start-up work, by the names that faults know them by."""
_NODES = ipaddress.ip_address("192.0.2.10")
PANIC = (
    "panic: timed out waiting for domain to be defined\n\n"
    "goroutine 1 [running]:\nmain.waitForDomainUUID(...)"
)


class StartUp:
    """A station: so many start-ups at a time, first come, first served."""

    def __init__(self, station: Station, processor: Processor, draws: Draws, purpose: str) -> None:
        self.station = station
        self._processor = processor
        self._draws = draws
        self._purpose = purpose
        self._places = asyncio.Semaphore(station.parallel)
        self.pace: Callable[[], float] = lambda: 1.0
        """By what factor it is slowed down now."""

    async def work(self, key: str, present: int, deadline: float | None = None) -> bool:
        """Queue, then work; False if it was given up after so many seconds of work.

        `present` tells how many VMIs are there already.
        """
        station = self.station
        async with self._places:
            nth = self._draws.nth(self._purpose, key)
            spread = self._draws.spread(station.spread, self._purpose, key, nth)
            work = (station.work + station.growth * present) * spread * self.pace()
            try:
                async with asyncio.timeout(deadline):
                    await self._processor.run(work)
            except TimeoutError:
                return False
        return True


@dataclasses.dataclass(frozen=True)
class Said:
    """An event of a launcher's life that its log tells of."""

    at: datetime.datetime
    what: Literal["started", "defined", "ended"]
    code: int = 0
    words: str = ""


@dataclasses.dataclass
class Launcher:
    """A virt-launcher process and its guest."""

    exited: asyncio.Future[tuple[int, str]]
    """Exit code and last words."""
    defined: bool = False
    """Its domain is defined and runs."""
    demand: float = 0.0
    """CPUs its guest wants."""
    log: list[Said] = dataclasses.field(default_factory=list)


class Machine:
    """One node's hardware."""

    def __init__(self, profile: Profile, draws: Draws, index: int) -> None:
        self._times = times = profile.times
        self.sandboxes = 0
        """Pod sandboxes on the node."""
        self.domains = 0
        """Guests that run."""
        self.devices = 0
        """What virt-handler's device plugin offers of kvm, tun and vhost-net each."""
        self.devices_changed: Callable[[], None] = lambda: None
        self._launchers: dict[str, Launcher] = {}
        self.processor = Processor(float(quantity.parse(profile.node.cpu)))
        self._sandbox = StartUp(times.sandbox, self.processor, draws, "sandbox")
        self._define = StartUp(times.launcher, self.processor, draws, "launcher")
        self.address = str(_NODES + index)
        """The node's own."""
        base = int(ipaddress.ip_address("10.244.0.0"))
        size = 1 << (32 - profile.node.pod_network_prefix)
        self.network = ipaddress.ip_network((base + index * size, profile.node.pod_network_prefix))
        self._addresses = [str(address) for address in reversed(list(self.network.hosts()))]

    def run_in(self, calendar: Calendar, pace: Callable[[str], float]) -> None:
        """Belong to a cluster of this date, whose faults slow things down."""
        self._calendar = calendar
        self._sandbox.pace = lambda: pace(CONTAINER_RUNTIME)
        self._define.pace = lambda: pace(LAUNCHER)

    def launch_as(self, times: Times) -> None:
        """Launchers from now on are those of another version."""
        self._define.station = times.launcher
        self._times = times

    # Sandboxes and addresses ----------------------------------------------------------------

    async def make_sandbox(self, key: str) -> bool:
        """The runtime's work for one pod: sandbox, network, containers; False: not in time."""
        deadline = self._times.sandbox_deadline
        made = await self._sandbox.work(key, self.sandboxes, deadline)
        self.sandboxes += made
        return made

    def take_address(self) -> str | None:
        """A pod address, or None if all are taken."""
        return self._addresses.pop() if self._addresses else None

    def free_address(self, address: str) -> None:
        """Give an address back."""
        self._addresses.append(address)

    # Launchers and their guests -------------------------------------------------------------

    def start_launcher(self, pod_uid: str, seconds: float | None) -> Launcher:
        """Start virt-launcher; it panics if no domain is defined within so many seconds."""
        loop = asyncio.get_running_loop()
        launcher = self._launchers[pod_uid] = Launcher(loop.create_future())
        launcher.log.append(Said(self._calendar.now(), "started"))

        def expire() -> None:
            if not launcher.defined:
                self.end_launcher(pod_uid, 2, PANIC)

        if seconds is not None:
            loop.call_later(seconds, expire)
        return launcher

    async def define_domain(self, pod_uid: str, name: str) -> bool:
        """virt-handler's order to start the guest; False if the launcher ended before."""
        launcher = self._launchers.get(pod_uid)
        if launcher is None or launcher.exited.done():
            return False
        await self._define.work(name, self.domains)
        if launcher.exited.done():
            return False
        launcher.defined = True
        launcher.log.append(Said(self._calendar.now(), "defined"))
        launcher.demand = self._times.guest_demand
        self.domains += 1
        self.processor.demand(launcher.demand)
        return True

    def launcher(self, pod_uid: str) -> Launcher | None:
        """The launcher of a pod, if one was started and not cleaned up."""
        return self._launchers.get(pod_uid)

    def end_launcher(self, pod_uid: str, code: int, words: str = "") -> None:
        """End a launcher, and its guest with it."""
        launcher = self._launchers.get(pod_uid)
        if launcher is not None and not launcher.exited.done():
            if launcher.defined:
                self.domains -= 1
                self.processor.demand(-launcher.demand)
            launcher.defined = False
            launcher.log.append(Said(self._calendar.now(), "ended", code, words))
            launcher.exited.set_result((code, words))

    def clean_up(self, pod_uid: str) -> None:
        """Forget a pod's processes."""
        self.end_launcher(pod_uid, 137)
        self._launchers.pop(pod_uid, None)

    def set_devices(self, count: int) -> None:
        """virt-handler's device plugin offers so many devices now."""
        self.devices = count
        self.devices_changed()
