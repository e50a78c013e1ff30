"""KubeVirt settings for the time of a run: applied to the CR, rolled out, and put back.

A tuning is a part of the KubeVirt CR's `spec`. Only the fields it names are sent, and of those
only the ones that have another value; what was there before is kept, to be put back.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence, Set
from pathlib import Path
from typing import Any

from pytest_kvscale.cluster import kubevirt as kubevirts
from pytest_kvscale.cluster.client import KUBEVIRTS, NODES, Client, Object, repeat_until
from pytest_kvscale.cluster.clock import now
from pytest_kvscale.cluster.nodes import DEVICE, amount
from pytest_kvscale.cluster.settle import Mirror, Watched, until
from pytest_kvscale.documents import read_mapping
from pytest_kvscale.errors import ConfigurationError, nearest

TUNINGS = Path(__file__).parent.parent / "tunings"
NONE = "none"
ROLLOUT_TIMEOUT = 600.0
PATIENCE = 120.0
"""Seconds the API is given to answer: settings must not stay changed because it restarts."""
_FIELDS = ("configuration", "customizeComponents")
_PER_NODE = ("configuration", "virtualMachineInstancesPerNode")

Path_ = tuple[str, ...]


class _Absent:
    """The value of a field that is not there."""

    def __repr__(self) -> str:
        return "absent"


ABSENT = _Absent()


class TuningError(Exception):
    """Settings could not be applied, rolled out or put back."""


@dataclasses.dataclass(frozen=True)
class Change:
    """One field of the spec: where, what it was, what it is during the run."""

    path: Path_
    before: Any
    after: Any


def names() -> list[str]:
    """The tunings that come with the package."""
    return sorted(path.stem for path in TUNINGS.glob("*.yaml"))


def load(name: str) -> Object:
    """The tuning of that name, or in the file of that path; `none` is empty.

    Raises `ConfigurationError`: no such tuning, or what is wrong in it.
    """
    if name == NONE:
        return {}
    path = TUNINGS / f"{name}.yaml" if name in names() else Path(name).expanduser()
    if not path.is_file():
        known = [NONE, *names()]
        raise ConfigurationError(
            f"unknown tuning {name!r}{nearest(name, known)}: expected a file or one of "
            + ", ".join(known)
        )
    content = read_mapping(path, "tuning")
    for key, value in content.items():
        if key not in _FIELDS:
            raise ConfigurationError(
                f"the tuning {path}: unknown key {str(key)!r}{nearest(str(key), _FIELDS)}: "
                f"expected parts of the KubeVirt CR's spec: {', '.join(_FIELDS)}"
            )
        if not isinstance(value, dict):
            raise ConfigurationError(f"the tuning {path}: {key}: expected a mapping, got {value!r}")
    for where, value in leaves(content):
        if value is None:
            raise ConfigurationError(f"the tuning {path}: {'.'.join(where)}: a value is missing")
    return content


def leaves(content: Any, path: Path_ = ()) -> Iterator[tuple[Path_, Any]]:
    """The fields of nested mappings that are no mappings themselves, with their paths."""
    if isinstance(content, dict) and content:
        for key, value in content.items():
            yield from leaves(value, (*path, str(key)))
    elif path:
        yield path, content


def changes(spec: Object, tuning: Object) -> list[Change]:
    """What a tuning changes of a spec: only fields that have another value."""
    found = ((path, value, look_up(spec, path)) for path, value in leaves(tuning))
    return [Change(path, held, value) for path, value, held in found if held != value]


def look_up(spec: Any, path: Path_) -> Any:
    """The value at a path, or `ABSENT`."""
    for step in path:
        if not isinstance(spec, dict) or step not in spec:
            return ABSENT
        spec = spec[step]
    return spec


def undo(spec: Object, made: Sequence[Change], before: Object) -> tuple[Object, list[Change]]:
    """The merge patch that puts changes back, and those it leaves because others changed them.

    A field that was absent is removed, and with it the parents that were absent, unless somebody
    else has put something there.
    """
    patch: Object = {}
    left = [change for change in made if look_up(spec, change.path) != change.after]
    ours = {change.path: change.before for change in made if change not in left}
    for path, value in ours.items():
        if value is ABSENT:
            _put(patch, _to_remove(spec, path, ours.keys(), before), None)
        else:
            _put(patch, path, value)
    return patch, left


def _to_remove(spec: Object, path: Path_, ours: Set[Path_], before: Object) -> Path_:
    """The highest parent that was absent before and holds nothing but what is still ours."""
    for length in range(1, len(path) + 1):
        parent = path[:length]
        if look_up(before, parent) is not ABSENT:
            continue
        held = {parent + below for below, _ in leaves(look_up(spec, parent))} or {parent}
        if held <= ours:
            return parent
    return path


def _put(patch: Object, path: Path_, value: Any) -> None:
    for step in path[:-1]:
        patch = patch.setdefault(step, {})
        if not isinstance(patch, dict):
            return  # A parent of it is removed as a whole.
    patch[path[-1]] = value


class Tuner:
    """Applies a tuning to a cluster's KubeVirt CR, and puts back what was there."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._before: Object = {}
        self.made: list[Change] = []
        """What was changed, while it is."""

    async def apply(self, tuning: Object, node: str) -> list[Change]:
        """Apply a tuning, and wait until it is rolled out to the node under test.

        Raises `TuningError`, after what was changed has been put back.
        """
        found = await self._find()
        self._before = found["spec"]
        made = changes(self._before, tuning)
        if not made:
            return []
        patch: Object = {}
        for change in made:
            _put(patch, change.path, change.after)
        self.made = made
        changed = await self._patch(found, patch)
        hanging = await self._wait(changed, node)
        if hanging:
            try:
                await self.put_back(node)
                after = "they have been put back"
            except TuningError as problem:
                after = str(problem)
            raise TuningError(
                f"the KubeVirt settings were not rolled out within {ROLLOUT_TIMEOUT:g} s: "
                f"{hanging}; {after}"
            )
        return made

    async def put_back(self, node: str) -> list[Change]:
        """Put back what was there; returns the changes left alone because others touched them."""
        if not self.made:
            return []
        found = await self._find()
        patch, left = undo(found["spec"], self.made, self._before)
        changed = await self._patch(found, patch) if patch else None
        self.made = []
        if changed is not None:
            hanging = await self._wait(changed, node)
            if hanging:
                raise TuningError(
                    "the former KubeVirt settings are back, but not rolled out within "
                    f"{ROLLOUT_TIMEOUT:g} s: {hanging}"
                )
        return left

    async def _find(self) -> Object:
        return await repeat_until(now() + PATIENCE, lambda: kubevirts.find_kubevirt(self._client))

    async def _patch(self, found: Object, patch: Object) -> Object:
        metadata = found["metadata"]
        where = (KUBEVIRTS, metadata["namespace"], metadata["name"])
        # Merged twice is merged once: it may be sent again if its answer was lost.
        return await repeat_until(
            now() + PATIENCE, lambda: self._client.patch(*where, {"spec": patch})
        )

    async def _wait(self, changed: Object, node: str) -> str:
        hanging = await kubevirts.rolled_out(self._client, changed, ROLLOUT_TIMEOUT)
        wanted = look_up(changed["spec"], _PER_NODE)
        if hanging or wanted is ABSENT:
            return hanging
        have: object = None

        def reached(mirrors: Sequence[Mirror]) -> bool:
            nonlocal have
            status = mirrors[0].objects.get(node, {}).get("status") or {}
            have = (status.get("allocatable") or {}).get(DEVICE)
            return amount(have) == int(wanted)

        # virt-handler is ready a little before the kubelet offers its devices.
        fields = [Watched(NODES, fields=f"metadata.name={node}")]
        if await until(self._client, fields, reached, ROLLOUT_TIMEOUT):
            return ""
        return f"node {node} offers {have} of {wanted} {DEVICE}"
