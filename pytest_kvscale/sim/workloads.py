"""Which Deployments, sets and jobs of clients the API refuses: their selector and their template.

The players' own objects are not asked: nothing runs by them.
"""

from __future__ import annotations

from collections.abc import Iterator

from pytest_kvscale.sim import errors, selectors
from pytest_kvscale.sim.errors import Object, StatusError
from pytest_kvscale.sim.pod_rules import part
from pytest_kvscale.sim.resources import (
    DAEMON_SETS,
    DEPLOYMENTS,
    JOBS,
    REPLICA_SETS,
    STATEFUL_SETS,
    Resource,
)

_BY_SELECTOR = (DEPLOYMENTS, REPLICA_SETS, STATEFUL_SETS, DAEMON_SETS)


def problems(resource: Resource, workload: Object) -> Iterator[Object]:
    """Causes for which a new workload is refused."""
    if resource is not JOBS and resource not in _BY_SELECTOR:
        return
    spec = part(workload, "spec")
    template = part(spec, "template")
    if resource in _BY_SELECTOR:
        yield from _selector_problems(spec, template)
    field = "spec.template.spec"
    inner = part(template, "spec")
    containers = inner.get("containers") or []
    if not containers:
        yield errors.required(f"{field}.containers")
    for index, each in enumerate(containers):
        for key in ("name", "image"):
            if isinstance(each, dict) and not each.get(key):
                yield errors.required(f"{field}.containers[{index}].{key}")
    policy = inner.get("restartPolicy")
    allowed = ("OnFailure", "Never") if resource is JOBS else ("Always",)
    if policy not in allowed and (policy or resource is JOBS):
        if policy:
            yield errors.unsupported(f"{field}.restartPolicy", policy, allowed)
        else:
            why = "valid values: " + ", ".join(f'"{each}"' for each in allowed)
            yield errors.required(f"{field}.restartPolicy", why)


def _selector_problems(spec: Object, template: Object) -> Iterator[Object]:
    selector, field = spec.get("selector"), "spec.selector"
    labels = part(part(template, "metadata"), "labels")
    matching = False
    if selector is None:
        yield errors.required(field)
    elif not selector:
        yield errors.invalid_value(field, {}, "empty selector is invalid for deployment")
        matching = True
    else:
        try:
            matches = selectors.labels(selectors.of_spec(selector))
        except (ValueError, StatusError) as problem:
            yield errors.invalid_value(field, selector, str(problem))
            return
        matching = matches({"metadata": {"labels": labels}})
    if not matching:
        why = "`selector` does not match template `labels`"
        yield errors.invalid_value("spec.template.metadata.labels", labels, why)
