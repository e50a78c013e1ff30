"""What deleting an object does to those it owns: the API's part, finalizers for the collector.

By default (`Background`) the owner goes at once and the garbage collector deletes what it owned.
`Orphan` and `Foreground` hold the owner by a finalizer until the collector has let its dependents
go, or has seen them gone.
"""

from __future__ import annotations

from pytest_kvscale.sim import errors
from pytest_kvscale.sim.errors import Object

ORPHAN = "orphan"
FOREGROUND = "foregroundDeletion"
_FINALIZERS = {"Orphan": ORPHAN, "Foreground": FOREGROUND, "Background": "", None: ""}


def hold(obj: Object, options: Object) -> Object:
    """The object with the finalizer its deletion asks for (and without the other one).

    Raises `StatusError` (422) for a policy that does not exist.
    """
    policy = options.get("propagationPolicy")
    if policy is None and options.get("orphanDependents"):
        policy = "Orphan"
    if policy not in _FINALIZERS:
        text = (
            f'Unsupported value: "{policy}": supported values: "Background", "Foreground", '
            '"Orphan", "nil"'
        )
        why = f'DeleteOptions.meta.k8s.io "" is invalid: propagationPolicy: {text}'
        causes = [errors.cause("FieldValueNotSupported", "propagationPolicy", text)]
        details = {"group": "meta.k8s.io", "kind": "DeleteOptions", "causes": causes}
        raise errors.StatusError(422, "Invalid", why, details)
    held = obj["metadata"].get("finalizers") or []
    kept = [each for each in held if policy is None or each not in (ORPHAN, FOREGROUND)]
    wanted = _FINALIZERS[policy]
    finalizers = [*dict.fromkeys([*kept, *([wanted] if wanted else [])])]
    if finalizers == held:
        return obj
    return {**obj, "metadata": {**obj["metadata"], "finalizers": finalizers}}
