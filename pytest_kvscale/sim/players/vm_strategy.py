"""What a VirtualMachine's run strategy asks for, given its VMI: pure decisions."""

from __future__ import annotations

import enum

from pytest_kvscale.sim.errors import Object

ALWAYS, HALTED, MANUAL = "Always", "Halted", "Manual"
RERUN, ONCE = "RerunOnFailure", "Once"
STRATEGIES = (HALTED, MANUAL, ALWAYS, RERUN, ONCE)
FINAL = ("Succeeded", "Failed")
_LONGEST_BACKOFF = 300
"""Seconds between two starts, at most."""
_SHORTEST_BACKOFF = 10


class Step(enum.Enum):
    """What the VM controller does next."""

    NOTHING = "nothing"
    START = "start"
    STOP = "stop"
    STOP_AND_REQUEST_START = "stop, and note that it shall start again"
    TURN_ON = "make the strategy one that runs"


def strategy(vm: Object) -> str:
    """The run strategy; `running` is the older way to say Always or Halted."""
    spec = vm["spec"]
    if spec.get("runStrategy"):
        return str(spec["runStrategy"])
    return ALWAYS if spec.get("running") else HALTED


def next_step(vm: Object, vmi: Object | None) -> Step:
    """The next step of a VM that is not being deleted; whether to wait is decided elsewhere."""
    wanted = strategy(vm)
    if vmi is None:
        return _without(vm, wanted)
    failed, over = phase_of(vmi) == "Failed", phase_of(vmi) in FINAL
    if "deletionTimestamp" in vmi["metadata"]:
        return Step.NOTHING
    if wanted == RERUN and failed:
        return Step.STOP_AND_REQUEST_START
    ends = {
        ALWAYS: over or _asked_to_stop(vm, vmi),
        RERUN: over or _asked_to_stop(vm, vmi),
        MANUAL: _asked_to_stop(vm, vmi),
        HALTED: True,
    }
    return Step.STOP if ends.get(wanted, False) else Step.NOTHING


def _without(vm: Object, wanted: str) -> Step:
    start = asked_to_start(vm)
    if wanted == HALTED:
        return Step.TURN_ON if start else Step.NOTHING
    # Coming from another strategy, one that reruns failures has to be started once.
    changed = (vm.get("status") or {}).get("runStrategy") != wanted
    starts = start or wanted in (ALWAYS, ONCE) or (wanted == RERUN and changed)
    return Step.START if starts else Step.NOTHING


def waits_after_failures(vm: Object) -> bool:
    """Whether starts under this strategy wait for the back-off."""
    return strategy(vm) in (ALWAYS, RERUN)


def counts_failures(vm: Object) -> bool:
    """Whether failed starts are counted under this strategy."""
    return strategy(vm) in (ALWAYS, RERUN, ONCE)


def backoff(failures: int) -> tuple[int, int]:
    """Seconds to wait after so many failed starts in a row, and up to how many more at random."""
    seconds = max(_LONGEST_BACKOFF // 30, _SHORTEST_BACKOFF) * max(failures, 1) ** 2
    return seconds, seconds // 2


def longest(seconds: int) -> int:
    """A back-off, cut off at the longest there is."""
    return min(seconds, _LONGEST_BACKOFF)


def phase_of(vmi: Object) -> str:
    """The VMI's phase."""
    return str((vmi.get("status") or {}).get("phase") or "")


def request(vm: Object) -> Object | None:
    """The change of state that is asked for first, if any (`status.stateChangeRequests`)."""
    asked = (vm.get("status") or {}).get("stateChangeRequests") or []
    return asked[0] if asked else None


def asked_to_start(vm: Object) -> bool:
    """Whether a start is asked for."""
    first = request(vm)
    return first is not None and first.get("action") == "Start"


def _asked_to_stop(vm: Object, vmi: Object) -> bool:
    first = request(vm)
    return (
        first is not None
        and first.get("action") == "Stop"
        and first.get("uid") == vmi["metadata"]["uid"]
    )


def request_is_done(vm: Object, vmi: Object | None) -> bool:
    """Whether the first request has been met and can go."""
    first = request(vm)
    if first is None:
        return False
    if first.get("action") == "Stop":
        return vmi is None or first.get("uid") != vmi["metadata"]["uid"]
    return (
        vmi is not None
        and "deletionTimestamp" not in vmi["metadata"]
        and phase_of(vmi) not in FINAL
    )
