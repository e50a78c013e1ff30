"""How many VMIs fit, and what stops the next one: pure arithmetic over what is known.

A wall is one resource that runs out at a number. A fact that may not be read gives no wall: it is
named as unknown.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from decimal import Decimal

from pytest_kvscale.cluster.pod_needs import DEVICES, Amounts, Need

_ZERO = Decimal(0)
_RANK = ("pods", "addresses", "memory", "cpu")
"""In this order where several end at one number; devices come first, others last."""
_SETTINGS = {
    "pods": "the kubelet's `maxPods`",
    "addresses": "the node's part of the pod network",
    "memory": "the node's memory",
    "cpu": "the node's CPUs",
    "ephemeral-storage": "the node's disk",
}
PER_NODE = "`virtualMachineInstancesPerNode`"


@dataclasses.dataclass(frozen=True)
class Wall:
    """One resource, and how many VMIs it lets in."""

    name: str
    fits: int
    setting: str
    """What would have to be changed."""
    why: str
    certain: bool = True
    """False: by an estimate that the canary puts right."""

    def text(self) -> str:
        """`memory at about 428 (the node's memory)`."""
        about = "" if self.certain else "about "
        return f"{self.name} at {about}{self.fits} ({self.setting})"

    def arithmetic(self) -> str:
        """How the number comes about."""
        guess = "" if self.certain else " (an estimate: the canary's launcher pod tells)"
        return f"{self.name} lets in {self.fits}: {self.why}{guess}"


@dataclasses.dataclass(frozen=True)
class Room:
    """What a node has for pods; None where that is not known."""

    allocatable: Mapping[str, Decimal]
    used: Amounts | None
    """What the pods there have asked for; `pods` and `addresses` are their numbers."""
    addresses: int | None


def fitting(available: Decimal, each: Sequence[Decimal]) -> int | None:
    """How many fit one after the other, their needs being taken in turn; None: any number."""
    around = sum(each, _ZERO)
    if not around:
        return None
    turns, rest = divmod(max(_ZERO, available), around)
    number = int(turns) * len(each)
    for need in each:
        if need > rest:
            break
        rest -= need
        number += 1
    return number


def node_walls(room: Room, needs: Sequence[Need]) -> list[Wall]:
    """The walls of a node; of its devices only the first."""
    requests = [each.requests for each in needs]
    certain = all(each.certain for each in needs)
    found: list[Wall] = []
    devices: list[Wall] = []
    for key in sorted({key for each in requests for key in each}):
        known = certain or key not in ("cpu", "memory", "ephemeral-storage")
        wall = _wall(room, key, [each.get(key, _ZERO) for each in requests], known)
        if wall is not None:
            (devices if key.startswith(DEVICES) else found).append(wall)
    one = [Decimal(1)] * len(needs)
    for key in ("pods", "addresses"):
        wall = _wall(room, key, one, True)
        found += [wall] if wall is not None else []
    if devices:
        # Each VMI takes one of each kind: kvm, tun, vhost-net.
        found.append(min(devices, key=lambda wall: (wall.fits, wall.name)))
    return found


def _wall(room: Room, key: str, each: Sequence[Decimal], certain: bool) -> Wall | None:
    there = room.allocatable.get(key)
    if key == "addresses":
        there = None if room.addresses is None else Decimal(room.addresses)
    elif there is None and "/" in key:
        there = _ZERO  # A device nobody offers.
    if there is None or room.used is None:
        return None
    taken = room.used.get(key, _ZERO)
    fits = fitting(there - taken, each)
    if fits is None:
        return None
    setting = PER_NODE if key.startswith(DEVICES) else _SETTINGS.get(key, "the node")
    why = f"{show(key, there)}, {show(key, taken)} taken, {show(key, _mean(each))} each"
    return Wall(key, fits, setting, why, certain)


def _mean(each: Sequence[Decimal]) -> Decimal:
    return sum(each, _ZERO) / len(each)


def show(key: str, value: Decimal) -> str:
    """An amount for people."""
    if "memory" in key or "storage" in key:
        return f"{value / 2**20:,.0f} MiB"
    return f"{value.normalize():f}"


def in_order(walls: Sequence[Wall]) -> list[Wall]:
    """Walls as they are met."""
    return sorted(walls, key=lambda wall: (wall.fits, _rank(wall.name), wall.name))


def _rank(name: str) -> int:
    if name.startswith(DEVICES):
        return -1
    return _RANK.index(name) if name in _RANK else len(_RANK)


@dataclasses.dataclass(frozen=True)
class Forecast:
    """What is known beforehand of one level."""

    level: int
    walls: tuple[Wall, ...]
    """In order."""
    unknown: tuple[str, ...]
    """What could not be read, and so was not counted."""

    @property
    def fits(self) -> int | None:
        """How many VMIs fit by what is known; None: nothing is."""
        return self.walls[0].fits if self.walls else None

    @property
    def is_refused(self) -> bool:
        """Whether the level cannot fit, for certain."""
        return any(wall.certain and wall.fits < self.level for wall in self.walls)

    @property
    def first(self) -> Wall | None:
        """What stops the level first, of what is certain if that does."""
        stopping = [wall for wall in self.walls if wall.certain and wall.fits < self.level]
        return next(iter(stopping or self.walls), None)

    def text(self) -> str:
        """The sentence: how many fit, and what is first."""
        first = self.first
        if first is None:
            return f"{self.level} requested, how many fit is unknown{self._unknown()}"
        about = "" if first.certain else "about "
        rest = [wall for wall in self.walls if wall is not first]
        after = "; next: " + ", ".join(wall.text() for wall in rest) if rest else ""
        verb = "is" if first.fits < self.level else "would be"
        return (
            f"{self.level} requested, {about}{first.fits} fit: {first.name} {verb} the first "
            f"limit ({first.setting}){after}{self._unknown()}"
        )

    def _unknown(self) -> str:
        return f"; unknown: {', '.join(self.unknown)}" if self.unknown else ""


def throttled(vmis: int, per_vmi: float, qps: float, burst: float) -> float:
    """Seconds that a client's rate limit takes for so many VMIs, each so many requests."""
    return max(0.0, math.ceil(vmis * per_vmi) - burst) / qps
