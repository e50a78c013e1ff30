"""Which KubeVirt settings a run changes: pure arithmetic on a tuning and the KubeVirt CR's spec.

A tuning is a part of the CR's `spec`. Only the fields it names are sent, and of those only the
ones that have another value. Lists are replaced as a whole, but for JSON patches of components:
a tuning's are added to those that are there. What was there is kept, to be put back.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence, Set
from pathlib import Path
from typing import Any

from pytest_kvscale.documents import read_mapping
from pytest_kvscale.errors import ConfigurationError, nearest

TUNINGS = Path(__file__).parent.parent / "tunings"
NONE = "none"
_FIELDS = ("configuration", "customizeComponents")
IMAGE_FIELDS = ("imageTag", "imageRegistry")
"""What says of which version KubeVirt is to be: no tuning's, but it must not drift either."""
_ADDED_TO = {("customizeComponents", "patches")}
"""Lists to which a tuning adds its entries."""

Object = dict[str, Any]
Path_ = tuple[str, ...]


class _Absent:
    """The value of a field that is not there."""

    def __repr__(self) -> str:
        return "absent"


ABSENT = _Absent()


class TuningError(Exception):
    """Settings could not be applied, rolled out or put back."""


class MadeAnewError(TuningError):
    """The KubeVirt CR that was changed is no more: there is nothing to put back into."""


@dataclasses.dataclass(frozen=True)
class Change:
    """One field of the spec: where, what it was, what it is during the run."""

    path: Path_
    before: Any
    after: Any
    present: int
    """How many steps of the path led to something before: the rest is to be absent again."""
    added: tuple[Any, ...] = ()
    """What was added to a list; the list's other entries are others'."""

    @property
    def name(self) -> str:
        """The path, for people."""
        return ".".join(self.path)


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
        if value is None or value == {}:
            raise ConfigurationError(f"the tuning {path}: {'.'.join(where)}: a value is missing")
        if where in _ADDED_TO and not isinstance(value, list):
            raise ConfigurationError(f"the tuning {path}: {'.'.join(where)}: expected a list")
    return content


def leaves(content: Any, path: Path_ = ()) -> Iterator[tuple[Path_, Any]]:
    """The fields of nested mappings that are no mappings themselves, with their paths."""
    if isinstance(content, dict) and content:
        for key, value in content.items():
            yield from leaves(value, (*path, str(key)))
    elif path:
        yield path, content


def changes(spec: Object, tuning: Object) -> list[Change]:
    """What a tuning changes of a spec: only fields that have another value.

    Raises `TuningError` if a field is a mapping in one and a plain value in the other.
    """
    found = []
    for path, value in leaves(tuning):
        held, present = look_up(spec, path), _present(spec, path)
        mapping = isinstance(value, dict), isinstance(held, dict)
        into = present < len(path) and not isinstance(look_up(spec, path[:present]), dict)
        if (held is not ABSENT and mapping[0] != mapping[1]) or into:
            where = ".".join(path[:present])
            raise TuningError(f"the field {where} of the KubeVirt CR is not what the tuning has")
        if path in _ADDED_TO:
            there = [] if held is ABSENT else list(held)
            added = tuple(each for each in value if each not in there)
            if added:
                found.append(Change(path, held, [*there, *added], present, added))
        elif held != value:
            found.append(Change(path, held, value, present))
    return found


def as_patch(made: Sequence[Change]) -> Object:
    """The merge patch of a spec that makes changes."""
    patch: Object = {}
    for change in made:
        _put(patch, change.path, change.after)
    return patch


def look_up(spec: Any, path: Path_) -> Any:
    """The value at a path, or `ABSENT`."""
    for step in path:
        if not isinstance(spec, dict) or step not in spec:
            return ABSENT
        spec = spec[step]
    return spec


def _present(spec: Object, path: Path_) -> int:
    lengths = range(len(path), 0, -1)
    return next((each for each in lengths if look_up(spec, path[:each]) is not ABSENT), 0)


def undo(spec: Object, made: Sequence[Change]) -> tuple[Object, list[Change]]:
    """The merge patch that puts changes back, and those it leaves because others changed them.

    A field that was absent is removed, and with it the parents that were absent, unless somebody
    else has put something there. What has its former value already needs nothing.
    """
    patch: Object = {}
    left, ours = [], {}
    for change in made:
        held = look_up(spec, change.path)
        wanted = _former(held, change)
        if wanted is not held and wanted != held:
            ours[change.path] = wanted, change.present
        elif held != change.before and not (change.added and wanted == change.before):
            left.append(change)
    absent = {path for path, (value, _) in ours.items() if value is ABSENT}
    for path, (value, present) in ours.items():
        if value is ABSENT:
            _put(patch, _to_remove(spec, path, absent, present), None)
        else:
            _put(patch, path, value)
    return patch, left


def _former(held: Any, change: Change) -> Any:
    """What a field that holds this is to be put back to; what it holds, if that is not ours."""
    if not change.added:
        return change.before if held == change.after else held
    if not isinstance(held, list):
        return held
    rest = [each for each in held if each not in change.added]
    return change.before if not rest and change.before is ABSENT else rest


def _to_remove(spec: Object, path: Path_, ours: Set[Path_], present: int) -> Path_:
    """The highest parent that was absent before and holds nothing but what is still ours."""
    for length in range(present + 1, len(path) + 1):
        parent = path[:length]
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


def differences(before: Object, now: Object) -> list[str]:
    """The fields of two specs that differ, in words: what was, what is."""
    had, has = dict(_settings(before)), dict(_settings(now))
    return [
        f"{'.'.join(path)} was {had.get(path, ABSENT)!r}, is {has.get(path, ABSENT)!r}"
        for path in sorted(had.keys() | has.keys())
        if had.get(path, ABSENT) != has.get(path, ABSENT)
    ]


def _settings(spec: Object) -> Iterator[tuple[Path_, Any]]:
    return leaves({key: spec[key] for key in (*_FIELDS, *IMAGE_FIELDS) if key in spec})
