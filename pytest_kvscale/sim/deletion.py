"""What deleting an object does to those it owns: the API's part, finalizers for the collector.

By default (`Background`) the owner goes at once and the garbage collector deletes what it owned.
`Orphan` and `Foreground` hold the owner by a finalizer until the collector has let its dependents
go, or has seen them gone.
"""

from __future__ import annotations

from collections.abc import Iterator

from pytest_kvscale.sim import errors
from pytest_kvscale.sim.errors import Object

ORPHAN = "orphan"
FOREGROUND = "foregroundDeletion"
_FINALIZERS = {"Orphan": ORPHAN, "Foreground": FOREGROUND, "Background": ""}


def problems(options: Object) -> Iterator[Object]:
    """Causes for options of a deletion that may not be."""
    policy, field = options.get("propagationPolicy"), "propagationPolicy"
    if policy is not None and options.get("orphanDependents") is not None:
        why = "orphanDependents and deletionPropagation cannot be both set"
        yield errors.invalid_value(field, policy, why)
    if policy is not None and policy not in _FINALIZERS:
        yield errors.unsupported(field, policy, ("Background", "Foreground", "Orphan", "nil"))


def hold(obj: Object, options: Object) -> Object:
    """The object with the finalizer its deletion asks for (and without the other one).

    Raises `StatusError` (422) for a policy that does not exist.
    """
    causes = list(problems(options))
    if causes:
        raise errors.invalid_options("DeleteOptions", causes)
    policy = options.get("propagationPolicy")
    orphan = options.get("orphanDependents")
    if orphan is not None:
        policy = "Orphan" if orphan else "Background"
    held = obj["metadata"].get("finalizers") or []
    kept = [each for each in held if policy is None or each not in (ORPHAN, FOREGROUND)]
    wanted = _FINALIZERS[policy] if policy is not None else ""
    finalizers = [*dict.fromkeys([*kept, *([wanted] if wanted else [])])]
    if finalizers == held:
        return obj
    return {**obj, "metadata": {**obj["metadata"], "finalizers": finalizers}}


def unmet(held: Object, options: Object) -> str:
    """Why this is not the object whose deletion is asked for; '' if it is."""
    expected = options.get("preconditions") or {}
    for key, word in (("uid", "UID"), ("resourceVersion", "ResourceVersion")):
        if expected.get(key) not in (None, held[key]):
            return (
                f"the {word} in the precondition ({expected[key]}) does not match the {word} in "
                f"record ({held[key]}). The object might have been changed, or deleted and then "
                "recreated"
            )
    return ""
