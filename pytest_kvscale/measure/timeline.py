"""What is known of one VMI: when it was sent, how far it came, and what spoke against it.

Times are seconds of the cluster's clock (the loop's) as the harness saw things happen; the
API's own stamps are kept beside them, as POSIX seconds of the server's clock.
"""

from __future__ import annotations

import dataclasses
import re

PHASES = ("Scheduling", "Scheduled", "Running")
"""The phases a VMI passes, in order, that are measured from the first send of its creation."""
FINAL = ("Succeeded", "Failed")
_UNSHOWABLE = re.compile(r"[\x00-\x08\x0a-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff]")
"""What a terminal would obey, and files of text cannot have: anybody may have written it."""


@dataclasses.dataclass(slots=True)
class Sign:
    """Something that speaks of trouble: a Warning event, a condition, a container's end."""

    at: float
    """When the harness saw it last."""
    source: str
    """`event`, `pod`, `container`, `vmi` or `api`."""
    reason: str
    message: str
    stamp: float = 0.0
    """The server's stamp of the last time it happened; 0 if it has none."""
    count: int = 1
    current: bool = True
    """Whether it still holds (a condition that went away no longer does)."""

    def text(self) -> str:
        """One line that can be shown: where it was seen and what it says."""
        times = f" ({self.count} times)" if self.count > 1 else ""
        first_line = self.message.partition("\n")[0].strip()
        said = f": {first_line}" if first_line else ""
        return _UNSHOWABLE.sub(
            "\N{REPLACEMENT CHARACTER}", f"{self.source} {self.reason}{said}{times}"
        )


@dataclasses.dataclass(slots=True)
class Creation:
    """The request that asked for an object: one VMI, or an object that makes some."""

    name: str
    due: float
    sent: float | None = None
    """When the create was sent first."""
    acked: float | None = None
    """When the API said it is there."""
    refusal: Sign | None = None
    """Why it was not created, if it was not."""
    refusal_code: int = 0
    """HTTP status of the refusal; 0 without an answer."""
    turned_away: tuple[float, str] | None = None
    """When the API first answered with something else than success, and its words."""
    vmis: int = 1
    """How many VMIs the object makes."""
    is_pod: bool = False
    """Whether it is a plain pod, which is measured itself."""
    is_owner: bool = False
    """Whether it makes VMIs, and makes new ones in the place of those that failed."""


@dataclasses.dataclass(slots=True)
class PodFacts:
    """How far a VMI's launcher pod came."""

    uid: str = ""
    name: str = ""
    phase: str = ""
    seen: float | None = None
    scheduled: float | None = None
    sandbox: float | None = None
    """When its containers could begin: it had a sandbox and an address."""
    initialised: float | None = None
    started: float | None = None
    """When the compute container ran."""
    stamps: dict[str, float] = dataclasses.field(default_factory=dict)
    """The server's stamps of the same moments, and of its creation, by their names here."""
    has_sandbox: bool = False
    ended: bool = False
    mute: bool = False
    """It ended, and its status does not say why."""
    node: str = ""
    gone: float | None = None
    state: tuple[object, ...] = ()
    """What must change for it to count as progress."""


@dataclasses.dataclass(slots=True)
class Timeline:
    """One VMI from the request for it until it is gone."""

    name: str
    creation: Creation
    uid: str = ""
    created_stamp: float | None = None
    """`metadata.creationTimestamp`."""
    phase: str = ""
    phases: dict[str, float] = dataclasses.field(default_factory=dict)
    """When the watch told of each phase first."""
    stamps: dict[str, float] = dataclasses.field(default_factory=dict)
    """`status.phaseTransitionTimestamps`."""
    bounds: dict[str, tuple[float, float]] = dataclasses.field(default_factory=dict)
    """For phases learnt from a list after a lost watch: between which times it happened."""
    pod: PodFacts = dataclasses.field(default_factory=PodFacts)
    signs: list[Sign] = dataclasses.field(default_factory=list)
    first_refusal: tuple[float, str] | None = None
    """When something was refused first (a create, a place, a sandbox, an image), and its words."""
    lost: bool = False
    """It ran, and then no longer did, before the level ended."""
    restarts: int = 0
    """How often its owner put a new VMI in its place."""
    delete_asked: float | None = None
    terminating: float | None = None
    """When it was first seen marked for deletion."""
    deleted_stamp: float | None = None
    """The server's stamp of the moment its deletion was asked for."""
    final_phase: float | None = None
    """When it was first seen Succeeded or Failed."""
    final: str = ""
    """Which of them."""
    gone: float | None = None

    @property
    def sent(self) -> float | None:
        """When the create was sent first."""
        return self.creation.sent

    @property
    def ran(self) -> bool:
        """Whether it came to run (and may have been lost since)."""
        return "Running" in self.phases

    @property
    def running(self) -> bool:
        """Whether it runs."""
        return self.phase == "Running" and not self.lost

    @property
    def hopeless(self) -> bool:
        """Whether it can no longer come to run, or has been lost."""
        if self.lost or self.creation.refusal is not None:
            return True
        if self.creation.is_owner:
            return False  # The owner will try again.
        return self.phase in FINAL or (self.gone is not None and not self.ran)

    def begin_again(self) -> None:
        """Its owner has put a new VMI in its place; what it reached before stays known."""
        self.restarts += 1
        self.uid = self.phase = self.final = ""
        self.created_stamp = self.final_phase = self.gone = None
        self.terminating = self.deleted_stamp = None
        self.stamps, self.pod = {}, PodFacts()
        for sign in self.signs:
            sign.current = False

    def since_sent(self, moment: float | None) -> float | None:
        """Seconds from the first send to a moment, in microseconds' resolution."""
        if moment is None or self.sent is None:
            return None
        return round(moment - self.sent, 6)
