"""What faults can be asked for: one document for each kind, as `POST /_sim/faults` takes it.

There are four sorts. A request fault befalls requests while it is in force, an event fault the
events of watches; a slowness slows components down; a moment fault happens at its time, once or
again and again. What each does is in `faults`, and in `component_faults` for those that befall
the cluster's components. Seconds are of the loop's time.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, ConfigDict, Field, model_validator

from pytest_kvscale.documents import Document, validate
from pytest_kvscale.errors import ConfigurationError, nearest
from pytest_kvscale.sim import resources

Verb = Literal[
    "get", "list", "watch", "create", "update", "patch", "delete", "deletecollection"
]  # fmt: skip
Callers = Literal["clients", "players", "all"]


def _served(plural: str) -> str:
    known = sorted(each.plural for each in resources.SERVED)
    if plural not in known:
        raise ValueError(f"no such resource {plural!r}{nearest(plural, known)}")
    return plural


Plural = Annotated[str, AfterValidator(_served)]
Seconds = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Share = Annotated[float, Field(gt=0, le=1)]
Times = Annotated[int, Field(ge=1)]


class Fault(Document):
    """What all faults have."""

    model_config = ConfigDict(strict=True)

    kind: str
    after: Seconds = 0
    """Seconds from now until it begins."""
    seed: int = 0
    """Another seed befalls others; the cluster's own seed counts as well."""


class ChoosingFault(Fault):
    """A fault that befalls some of many."""

    resources: list[Plural] = Field(default_factory=list)
    """Plural names; none means all."""
    share: Share = 1
    """Of the requests, events or watches it could befall, drawn by seed."""

    def concerns(self, plural: str) -> bool:
        """Whether it is about this resource."""
        return not self.resources or plural in self.resources


class LastingFault(Fault):
    """A fault that is in force for a time."""

    lasts: Positive | None = None
    """Seconds it is in force; without, until it has happened as often as it may, or is removed."""


class StandingFault(ChoosingFault, LastingFault):
    """A fault that is in force for a time or a number of times, and befalls some of many."""

    times: Times | None = None
    """How often it happens at most."""


class RequestFault(StandingFault):
    """A fault that befalls requests."""

    verbs: list[Verb] = Field(default_factory=list)
    """None means all."""
    callers: Callers = "clients"
    """Clients outside (over HTTP), the players of this cluster, or both."""

    @property
    def takes_effect(self) -> bool:
        """Whether a request it befalls is carried out all the same."""
        return True


class Answer(RequestFault):
    """The request is answered with this status, and carried out only if `carried_out` is set."""

    kind: Literal["answer"]
    status: Annotated[int, Field(ge=400, le=599)]
    retry_after: Annotated[int, Field(ge=0)] | None = None
    """The header's value, seconds."""
    carried_out: bool = False
    """The status is answered although the request has taken effect (a timeout behind the API)."""

    @property
    def takes_effect(self) -> bool:
        """See `RequestFault`."""
        return self.carried_out

    @model_validator(mode="after")
    def _players_try_again(self) -> Answer:
        if self.callers == "clients":
            return self
        if self.carried_out:
            raise ValueError("carried_out is for callers: clients only")
        if self.status != 429 and self.status < 500:
            raise ValueError(f"status {self.status} is for callers: clients only (429 or 5xx)")
        return self


class Delay(RequestFault):
    """The request waits before it is carried out."""

    kind: Literal["delay"]
    seconds: Positive


class Cut(RequestFault):
    """The connection is reset."""

    kind: Literal["cut"]
    when: Literal["before", "middle", "after"] = "before"
    """Before the request is carried out; in the middle of the answer's body; or after the
    request was carried out and before a byte of the answer."""

    @property
    def takes_effect(self) -> bool:
        """See `RequestFault`."""
        return self.when != "before"

    @model_validator(mode="after")
    def _players_have_no_body(self) -> Cut:
        if self.when != "before" and self.callers != "clients":
            raise ValueError(f"when: {self.when} is for callers: clients only")
        return self


class EventFault(StandingFault):
    """A fault that befalls the events of watches from outside."""


class DropEvents(EventFault):
    """The event is not sent."""

    kind: Literal["drop-events"]


class DuplicateEvents(EventFault):
    """The event is sent twice."""

    kind: Literal["duplicate-events"]


class ReorderEvents(EventFault):
    """The event is kept back; those that come meanwhile go first."""

    kind: Literal["reorder-events"]
    seconds: Positive = 0.5


class MomentFault(Fault):
    """A fault that happens at a moment, and again."""

    times: Times = 1
    every: Positive | None = None
    """Seconds between two times."""

    @model_validator(mode="after")
    def _again_needs_a_rhythm(self) -> MomentFault:
        if self.times > 1 and self.every is None:
            raise ValueError("times: more than one needs every: seconds between two")
        return self


class WatchFault(MomentFault, ChoosingFault):
    """A moment fault that befalls watches that are open."""


class CloseWatches(WatchFault):
    """The watches that are open end."""

    kind: Literal["close-watches"]
    how: Literal["end", "reset"] = "end"
    """As a watch ends whose time is up, or with a reset of its connection."""


class SilenceWatches(WatchFault):
    """The watches that are open become half open: nothing comes any more, and they do not end."""

    kind: Literal["silence-watches"]


class Compact(MomentFault):
    """The store forgets its history: to take up a watch from before is answered with 410."""

    kind: Literal["compact"]
    running_watches: bool = False
    """Watches that are open get the 410 too, as an ERROR event."""


class Restart(MomentFault):
    """The API goes down, all connections with it, and comes back on its port with its store."""

    kind: Literal["restart"]
    seconds: Positive
    """How long it is down."""


# Components -------------------------------------------------------------------------------------

Component = Literal[
    "kube-controller-manager", "kube-scheduler", "kubelet", "virt-api", "virt-controller",
    "virt-handler", "virt-operator",
]  # fmt: skip
Worker = Literal[
    "kube-controller-manager", "kube-scheduler", "kubelet", "virt-api", "virt-controller",
    "virt-handler", "virt-operator", "kube-apiserver", "container-runtime", "virt-launcher",
]  # fmt: skip


class NodeFault(MomentFault):
    """A fault of what there is on each node."""

    node: str | None = None
    """Only on this node; None: on any."""
    share: Share = 1
    """Of the nodes it could befall, drawn by seed."""


class ComponentFault(NodeFault):
    """A fault of one component."""

    component: Component
    seconds: Positive
    """How long the component does nothing."""

    @model_validator(mode="after")
    def _only_some_run_on_nodes(self) -> ComponentFault:
        if self.component not in ("kubelet", "virt-handler") and (self.node or self.share < 1):
            raise ValueError(f"node and share: there is only one {self.component}")
        return self


class Freeze(ComponentFault):
    """The component stands still, and then goes on where it was."""

    kind: Literal["freeze"]


class Kill(ComponentFault):
    """The component ends, with all it knew, and is started anew after a time."""

    kind: Literal["kill"]


class LoseNode(NodeFault):
    """The node is cut off: its kubelet and virt-handler reach nothing, and nothing reaches them."""

    kind: Literal["lose-node"]
    seconds: Positive | None = None
    """Until it is back; None: it is not, unless the fault is removed."""


class JumpClock(MomentFault):
    """The server's clock is set: its stamps jump, what it times does not."""

    kind: Literal["jump-clock"]
    seconds: Annotated[float, Field(allow_inf_nan=False)]
    """Forward, or (below 0) back."""


class Slow(LastingFault):
    """A component, or everything, takes longer for what it does."""

    kind: Literal["slow"]
    component: Worker | None = None
    """None: all of them."""
    factor: Positive
    """Times as long."""


KINDS: dict[str, type[Fault]] = {
    "answer": Answer,
    "delay": Delay,
    "cut": Cut,
    "drop-events": DropEvents,
    "duplicate-events": DuplicateEvents,
    "reorder-events": ReorderEvents,
    "close-watches": CloseWatches,
    "silence-watches": SilenceWatches,
    "compact": Compact,
    "restart": Restart,
    "freeze": Freeze,
    "kill": Kill,
    "lose-node": LoseNode,
    "jump-clock": JumpClock,
    "slow": Slow,
}


def read(content: dict[str, Any]) -> Fault:
    """The fault a JSON object asks for.

    Raises `ConfigurationError`, which says which key is wrong and what is expected.
    """
    kind = content.get("kind")
    if not isinstance(kind, str) or kind not in KINDS:
        known = ", ".join(KINDS)
        hint = nearest(kind, list(KINDS)) if isinstance(kind, str) else ""
        raise ConfigurationError(f"the fault: kind: {kind!r}{hint}: expected one of {known}")
    return validate(KINDS[kind], content, "the fault")
