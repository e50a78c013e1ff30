"""A profile: all that makes one embedded cluster what it is, as data.

Profiles are YAML files; those that come with the package lie in `profiles/`. A profile may
extend another one and name only what differs. Times are seconds, sizes Kubernetes quantities.
"""

from __future__ import annotations

import fnmatch
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, AwareDatetime, Field, field_validator

from pytest_kvscale.documents import Document, read_mapping, validate
from pytest_kvscale.errors import ConfigurationError, nearest
from pytest_kvscale.sim import kubevirt_cr, quantity

PROFILES = Path(__file__).parent / "profiles"


def _quantity(text: str) -> str:
    if quantity.parse(text) < 0:
        raise ValueError(f"{text!r} is negative")
    return text


Quantity = Annotated[str, Field(coerce_numbers_to_str=True), AfterValidator(_quantity)]
Seconds = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Share = Annotated[float, Field(ge=0, le=1)]
Count = Annotated[int, Field(ge=0)]


class Versions(Document):
    """What the components call themselves."""

    kubernetes: str = Field(pattern=r"^v\d+\.\d+\.\d+")
    kubevirt: str = Field(pattern=r"^v\d+\.\d+\.\d+")
    runtime: str = Field(pattern=r"^[a-z-]+://.+")

    @property
    def minor(self) -> int:
        """Kubernetes' minor version: what its components write differs by it."""
        return int(self.kubernetes.split(".")[1])


class ApiTimes(Document):
    """How long the API takes for a request; each is drawn within `spread` of these."""

    read: Seconds
    write: Seconds
    webhooks: Seconds
    """On top, for the creation of a VM, a replica set or a VMI: virt-api's webhooks."""
    spread: Share
    max_requests_inflight: Count = 400
    """How many reading requests it works on at a time before it sheds more (429); 0: no limit.

    Watches are not counted."""
    max_mutating_requests_inflight: Count = 200
    """How many writing requests; 0: no limit."""


class NodeHardware(Document):
    """The nodes, all alike."""

    count: Annotated[int, Field(ge=1)]
    name: str = Field(pattern=r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$")
    cpu: Quantity
    memory: Quantity
    disk: Quantity
    reserved_cpu: Quantity
    reserved_memory: Quantity
    max_pods: Count
    pod_network_prefix: Annotated[int, Field(ge=8, le=30)]
    """Length of the node's pod network prefix: 24 gives 254 addresses."""
    heartbeat: Annotated[float, Field(gt=0)]
    labels: dict[str, str] = Field(default_factory=dict)
    """More labels than every node has."""


class RateLimit(Document):
    """A client's token bucket."""

    qps: Annotated[float, Field(gt=0)]
    burst: Annotated[int, Field(ge=1)]


class RateLimits(Document):
    """The client rate limits of each component, where the KubeVirt CR does not set others."""

    api: RateLimit
    controller: RateLimit
    handler: RateLimit
    webhook: RateLimit
    kubelet: RateLimit
    scheduler: RateLimit


class Station(Document):
    """Work on the node that a starting VMI has to queue for, first come, first served."""

    parallel: Annotated[int, Field(ge=1)]
    """So many at a time."""
    work: Seconds
    """CPU-seconds of one start; it takes longer where CPUs are short."""
    growth: Seconds = 0
    """CPU-seconds more for each VMI that is there already: whoever walks through all of them."""
    spread: Share


class Times(Document):
    """How long things take on the node and in the control plane."""

    sandbox: Station
    """kubelet and runtime: pod sandbox, network, containers started."""
    launcher: Station
    """virt-launcher and libvirt: until the domain is defined and runs."""
    guest_demand: Annotated[float, Field(ge=0, allow_inf_nan=False)]
    """CPUs that each running guest wants for ever, with its launcher's processes. A guest that has
    too little to finish booting wants all it can get."""
    sandbox_retry: Annotated[float, Field(gt=0)]
    """kubelet's pause before it tries a sandbox again."""
    sandbox_deadline: Annotated[float, Field(gt=0)]
    """How long kubelet waits for the runtime to make a sandbox, once that is at work."""
    late_sandbox_killed: bool
    """Whether the runtime can remove a sandbox it did not make in time."""
    schedule: Seconds
    """Scheduler, for one pod."""
    sync: Seconds
    """A controller, for one look at one object, beside its requests."""
    tear_down: Seconds
    """Ending a pod's containers and sandbox."""
    guest_ignores_shutdown: bool
    """The guest never booted: shutting it down takes the whole grace period."""
    guest_stop: Seconds
    """Until a guest that is told to end has ended, beside the grace it may take."""
    rollout: Seconds
    """Until a changed Deployment or DaemonSet runs its new pods."""
    device_plugin: Seconds
    """Until a restarted virt-handler has registered its devices with the kubelet."""


class Launcher(Document):
    """What virt-controller asks for in a launcher pod beside the guest's own memory."""

    overhead: Quantity
    """For a guest of 10 MiB with one vCPU and a screen. Larger ones need more: 8 MiB for each
    further vCPU, 1/512 of the memory; without a screen `graphics` less; `guaranteed` more where
    requests equal limits for cpu and memory."""
    graphics: Quantity
    guaranteed: Quantity
    container_disk: Literal["container", "init container"]
    container_disk_memory: Quantity
    console_log_memory: Quantity
    """The guest-console-log sidecar's request; 0: there is no sidecar."""


class Metrics(Document):
    """How this version's metrics are called and what their histograms can tell apart."""

    phase_buckets: list[Annotated[float, Field(gt=0)]]
    """Upper edges, in seconds, of the phase transition times; +Inf is not named."""
    rest_client_prefix: Literal["", "kubevirt_"]
    """What `rest_client_requests_total` begins with."""
    vmi_count: str
    """The number of VMIs by phase."""


class KubeVirt(Document):
    """KubeVirt's defaults in this version, and what its CR holds at the start."""

    namespace: str = Field(pattern=r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$", max_length=63)
    name: str = Field(pattern=r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$")
    registry: str = "quay.io/kubevirt"
    """Where the components' images come from, where the KubeVirt CR does not say."""
    objects: Literal["0.46", "1.9"]
    """Which version's labels, annotations, finalizer and status fields objects have."""
    max_devices: Count
    qemu_timeout: Count
    qemu_timeout_spread: Count
    """Each launcher waits up to so many seconds longer, at random."""
    launcher: Launcher
    metrics: Metrics
    configuration: dict[str, Any]
    """`spec.configuration` of the KubeVirt CR."""
    never_ready: tuple[Literal["virt-api", "virt-controller", "virt-handler"], ...] = ()
    """Components of this version whose pods never become ready: an upgrade to it hangs there."""

    @field_validator("namespace")
    @classmethod
    def _own(cls, value: str) -> str:
        if value == "default" or value.startswith("kube-"):
            raise ValueError(f"KubeVirt has a namespace of its own, not {value!r}")
        return value

    @field_validator("configuration")
    @classmethod
    def _readable(cls, value: dict[str, Any]) -> dict[str, Any]:
        for path, why in kubevirt_cr.problems({"configuration": value}):
            raise ValueError(f"{path}: {why}")
        return value


class Faults(Document):
    """Shares of the VMIs that something befalls, drawn by seed and name."""

    names: str = "*"
    """Only VMIs whose name matches this pattern; `density-*` spares a run's canary."""
    create_rejected: Share = 0
    """virt-api's webhook refuses the VMI."""
    kill_pod_sandbox: Share = 0
    """The sandbox is never made and cannot be killed either."""
    sandbox_timeout: Share = 0
    """The sandbox is never made."""
    launcher_crash: Share = 0
    """The launcher ends at once."""
    qemu_timeout: Share = 0
    """The domain is never defined."""
    stuck: Share = 0
    """The kubelet never gets to the launcher pod, and says nothing."""
    stuck_terminating: Share = 0
    """The launcher never ends."""
    lost_by_upgrade: Share = 0
    """The guest ends when virt-handler is upgraded to this version."""

    def share(self, fault: str, name: str) -> float:
        """The share of VMIs of this name that something befalls: 0 or what is set."""
        return float(getattr(self, fault)) if fnmatch.fnmatchcase(name, self.names) else 0.0


class Scheduler(Document):
    """How the scheduler words a refusal."""

    preemption_note: str
    """What follows the reasons; `{nodes}` is the number of nodes."""

    @field_validator("preemption_note")
    @classmethod
    def _formats(cls, value: str) -> str:
        try:
            value.format(nodes=1)
        except (LookupError, ValueError, AttributeError):
            raise ValueError("only {nodes} may stand in braces") from None
        return value


class Profile(Document):
    """One embedded cluster."""

    description: str
    epoch: AwareDatetime
    """The cluster's date when it starts (in virtual time)."""
    versions: Versions
    api: ApiTimes
    node: NodeHardware
    rate_limits: RateLimits
    times: Times
    kubevirt: KubeVirt
    scheduler: Scheduler
    faults: Faults = Faults()
    upgrades: tuple[str, ...] = ()
    """Profiles (names or files) whose versions of KubeVirt this cluster can be upgraded to; of
    another version it finds no images."""


def names() -> list[str]:
    """The profiles that come with the package."""
    return sorted(path.stem for path in PROFILES.glob("*.yaml"))


def load(name: str) -> Profile:
    """The profile of that name, or in the file of that path.

    Raises `ConfigurationError`: no such profile, or what is wrong in it and where.
    """
    found = _load(name)
    for each in found.upgrades:
        if each not in names():
            _load(each)  # A mistake in it is told now, not in the middle of an upgrade.
    return found


def _load(name: str) -> Profile:
    return validate(Profile, _resolve(name, ()), f"the profile {name}")


def derived(base: str, content: dict[str, Any], what: str) -> Profile:
    """The profile that extends another one by this content; `what` names it in errors."""
    return validate(Profile, _overlay(_resolve(base, ()), content), what)


def _resolve(name: str, seen: tuple[str, ...], beside: Path | None = None) -> dict[str, Any]:
    path = _find(name, beside)
    if str(path) in seen:
        raise ConfigurationError(f"the profile {path} extends itself")
    content = read_mapping(path, "profile")
    upgrades = content.get("upgrades")
    if isinstance(upgrades, list):
        # Names in a file that another one extends are beside the one they stand in.
        content["upgrades"] = [_as_named(each, path.parent) for each in upgrades]
    base = content.pop("extends", None)
    if base is None:
        return content
    if not isinstance(base, str):
        raise ConfigurationError(f"the profile {path}: extends: expected a profile's name or path")
    return _overlay(_resolve(base, (*seen, str(path)), path.parent), content)


def _as_named(name: Any, beside: Path) -> Any:
    """The name of a profile as it can be loaded from anywhere; what is no text is told later."""
    return str(_find(name, beside)) if isinstance(name, str) and name not in names() else name


def _find(name: str, beside: Path | None) -> Path:
    if name in names():
        return PROFILES / f"{name}.yaml"
    for folder in filter(None, (beside, Path())):
        if (folder / name).is_file():
            return folder / name
    raise ConfigurationError(
        f"unknown profile {name!r}{nearest(name, names())}: expected a file or one of "
        + ", ".join(names())
    )


def _overlay(base: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    result = dict(base)
    for key, value in over.items():
        held = result.get(key)
        both = isinstance(held, dict) and isinstance(value, dict)
        result[key] = {**_overlay(held, value)} if both else value  # type: ignore[arg-type]
    return result
