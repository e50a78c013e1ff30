"""KubeVirt brought to another version, and back: by its CR, or by a command of the user's.

What was there is noted in the journal before anything is changed, and put back if the new version
cannot be rolled out: the CR's fields only where nobody else has changed them since. A command is
not noted, it may hold what is secret; what undoes it is another command, which has to be given.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import re
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from pytest_kvscale import durations
from pytest_kvscale.cluster import kubevirt as kubevirts
from pytest_kvscale.cluster import kubevirt_release as release
from pytest_kvscale.cluster import tuner, upgrade_command
from pytest_kvscale.cluster.client import (
    ApiError,
    Client,
    LostConnectionError,
    Object,
    repeat_until,
)
from pytest_kvscale.cluster.clock import now
from pytest_kvscale.cluster.journal_record import UpgradeNote, field_note
from pytest_kvscale.cluster.kubevirt_owner import NOT_UPGRADED, owned_by
from pytest_kvscale.cluster.tuner import PATIENCE, Notes
from pytest_kvscale.cluster.tuning import Change, MadeAnewError, as_patch, changes
from pytest_kvscale.errors import ConfigurationError

FROM, TO = "KVSCALE_FROM", "KVSCALE_TO"
"""Variables in the environment of a command."""
RECOVER = "python -m pytest_kvscale recover"
_PAUSE = 1.0
_TAKES_EFFECT = 60.0
"""Seconds after which a command that failed has had what effect it has."""
_LOST = (ApiError, LostConnectionError, TimeoutError)
_TAG = re.compile(r"\w[\w.-]{0,127}", re.ASCII)
"""What a container image's tag may be."""
_REGISTRY = re.compile(r"[\w.-]+(:\d+)?(/[\w.-]+)*", re.ASCII)


class UpgradeError(Exception):
    """KubeVirt could not be brought to a version, or back; says what became of it."""


class _HangingError(Exception):
    """A version was not rolled out in time; says what hangs."""


@dataclasses.dataclass(frozen=True)
class Way:
    """How KubeVirt is brought to another version."""

    to: str = ""
    """Which; "": the one that the command makes of it."""
    registry: str | None = None
    """Where its images come from; None: from where they came before."""
    command: str | None = dataclasses.field(default=None, repr=False)
    """A program that does it; None: the CR is changed."""
    back_command: str | None = dataclasses.field(default=None, repr=False)
    """A program that undoes it."""
    timeout: float = 1800.0
    """Seconds that a version is given to be rolled out."""
    environment: Mapping[str, str] = dataclasses.field(default_factory=dict, repr=False)
    """For programs: the way to the cluster."""


@dataclasses.dataclass(frozen=True)
class Reached:
    """A version that was rolled out in the place of another."""

    before: str
    after: str
    took: float
    """Seconds until it was."""


async def check(client: Client, way: Way) -> str:
    """Whether KubeVirt can be brought to a version, as far as that is known; the present one.

    Raises `ConfigurationError`.
    """
    found = await kubevirts.find_kubevirt(client)
    version, status, spec = kubevirts.version(found), found.get("status") or {}, found["spec"]
    target = status.get("targetKubeVirtVersion") or version
    metadata = found["metadata"]
    where = f"the KubeVirt CR {metadata['namespace']}/{metadata['name']}"
    if target != version:
        raise ConfigurationError(
            f"KubeVirt is being brought from {version} to {target}: wait until that is done, or "
            f"take it back, before an upgrade is measured ({where})"
        )
    registry = status.get("targetKubeVirtRegistry") or spec.get("imageRegistry")
    if way.to == version and way.registry in (None, registry):
        raise ConfigurationError(
            f"KubeVirt is {version} already (--kvscale-upgrade-to {way.to}): there is nothing to "
            "upgrade; compare with a baseline of the former version (--kvscale-baseline), or bring "
            "it back to that first"
        )
    if way.command is None:
        _check_names(way, version)
        owner = owned_by(found, NOT_UPGRADED) or await release.named_by_operator(
            client, metadata["namespace"]
        )
        if owner:
            raise ConfigurationError(owner)
    return version


def _check_names(way: Way, version: str) -> None:
    """Refuse what can be the name of no image, before half an hour is waited for one."""
    if not _TAG.fullmatch(way.to):
        raise ConfigurationError(
            f"--kvscale-upgrade-to: {way.to!r} cannot be the tag of an image: expected one like "
            f"{version}"
        )
    if way.registry is None:
        if re.match(r"v\d", version) and re.match(r"\d+\.\d", way.to):
            raise ConfigurationError(
                f"--kvscale-upgrade-to: tags of this registry begin with v ({version}): say "
                f"v{way.to}, not {way.to}"
            )
    elif not _REGISTRY.fullmatch(way.registry):
        raise ConfigurationError(
            f"--kvscale-upgrade-registry: {way.registry!r} cannot be where images come from: "
            "expected a host and a path, like quay.io/kubevirt"
        )


class Upgrader:
    """Brings KubeVirt to another version, and back to the one it was."""

    def __init__(self, client: Client, journal: Notes, way: Way) -> None:
        self._client = client.apart("upgrade")
        self._journal = journal
        self._way = way
        self._note: UpgradeNote | None = None

    @property
    def is_under_way(self) -> bool:
        """Whether there is something to undo."""
        return self._note is not None

    def leave(self) -> None:
        """Somebody else has undone it: what is there now is not ours."""
        self._note = None

    async def upgrade(self) -> Reached:
        """Upgrade, and wait until it is rolled out.

        Raises `UpgradeError`, after what was changed has been undone. What is cancelled stays
        noted, and is undone by `undo`.
        """
        begun, way = now(), self._way
        try:
            return await self._upgrade(begun)
        except upgrade_command.CommandFailedError as problem:
            if problem.is_begun:
                raise UpgradeError(f"{problem}; {await self._give_up()}") from None
            await self.keep()
            raise UpgradeError(f"{problem}; nothing was changed") from None
        except (*_LOST, ConfigurationError) as problem:
            hanging = f"it could not be watched ({problem or 'no answer in time'})"
        except _HangingError as problem:
            hanging = str(problem)
        raise UpgradeError(
            f"KubeVirt {way.to or 'of another version'} was not rolled out within "
            f"{durations.write(way.timeout)} (--kvscale-upgrade-timeout): {hanging}; "
            f"{await self._give_up()}"
        )

    async def _upgrade(self, begun: float) -> Reached:
        way = self._way
        found = await self._find()
        before, namespace = kubevirts.version(found), found["metadata"]["namespace"]
        images = await _patiently(lambda: release.images(self._client, namespace))
        if way.command is None:
            namespace, name = await self._change(found, before)
        else:
            namespace, name = await self._order(found, before, way.command)
        left = begun + way.timeout - now()
        hanging = await release.rolled_out(
            self._client, namespace, name, way.to, max(0.0, left), before
        )
        if hanging:
            raise _HangingError(hanging)
        after = kubevirts.version(await self._find())
        same = release.unchanged(images, await _patiently(
            lambda: release.images(self._client, namespace)
        ))  # fmt: skip
        # A command may be meant to change one of them only.
        if same and (way.command is None or len(same) == len(images)):
            said = f"KubeVirt says it is {after}, but is not: {', '.join(same)}"
            raise UpgradeError(f"{said}; {await self._give_up()}")
        return Reached(before, after, round(now() - begun, 3))

    async def keep(self) -> None:
        """It stays as it is: there is nothing to undo any more."""
        self._note = None
        await self._journal.after(upgrade=None)

    async def undo(self) -> list[str]:
        """Bring KubeVirt back; returns what was left alone, in words.

        Raises `UpgradeError` if that cannot be done.
        """
        if self._note is None:
            return []
        way = self._way
        try:
            left = await undo(self._client, self._note, way.back_command, way.environment)
        except MadeAnewError as problem:
            left = [str(problem)]
        await self.keep()
        return left

    async def _give_up(self) -> str:
        if self._note is None:
            return "nothing was changed"
        try:
            left = await self.undo()
        except UpgradeError as problem:
            return str(problem)
        return "; ".join(left) or "it has been undone"

    async def _find(self) -> Object:
        found: Object = await _patiently(lambda: kubevirts.find_kubevirt(self._client))
        return found

    # By the CR ------------------------------------------------------------------------------

    async def _change(self, found: Object, before: str) -> tuple[str, str]:
        """Note what the CR says, and change it; its namespace and name."""
        way, deadline = self._way, now() + PATIENCE
        wanted = {"imageTag": way.to, **({"imageRegistry": way.registry} if way.registry else {})}
        ours: dict[tuple[str, ...], Change] = {}
        metadata, unsure = found["metadata"], False
        while True:
            more = changes(found["spec"], wanted)
            if not more:
                break
            ours |= {each.path: each for each in more}
            await self._remember(found, before, [*ours.values()])
            try:
                await tuner.patch(self._client, found, as_patch(more))
                break
            except _LOST as problem:
                if not isinstance(problem, ApiError) or problem.passing:
                    unsure = True  # It may have been carried out.
                elif not unsure:
                    ours.clear()
                    if problem.code != 409:
                        await self.keep()
                        raise UpgradeError(f"KubeVirt refuses the upgrade: {problem}") from None
                if now() + _PAUSE > deadline:
                    raise UpgradeError(
                        f"the KubeVirt CR could not be changed: {problem or 'no answer in time'}; "
                        f"{await self._give_up()}"
                    ) from None
            await asyncio.sleep(_PAUSE)
            found = await self._find()
        if not ours:
            # Not ours to undo, whatever comes of it.
            await self.keep()
            raise UpgradeError(
                f"the KubeVirt CR says {way.to} already: somebody else has upgraded it; it is left"
            )
        return metadata["namespace"], metadata["name"]

    async def _remember(self, found: Object, before: str, made: list[Change]) -> None:
        metadata = found["metadata"]
        note = UpgradeNote(
            namespace=metadata["namespace"], name=metadata["name"], uid=metadata["uid"],
            version=before, to=self._way.to, timeout=self._way.timeout,
            fields=tuple(field_note(each) for each in made),
        )  # fmt: skip
        try:
            await self._journal.before(upgrade=note)
        except Exception:
            if self._note is None:
                # Nothing was changed, so nothing is to be undone.
                with contextlib.suppress(*_LOST, ConfigurationError):
                    await self.keep()
            raise
        self._note = note

    # By a command ---------------------------------------------------------------------------

    async def _order(self, found: Object, before: str, command: str) -> tuple[str, str]:
        """Note that KubeVirt is about to change, and run the command."""
        way = self._way
        await self._remember(found, before, [])
        environment = {**way.environment, FROM: before, TO: way.to}
        await upgrade_command.run(command, environment, way.timeout)
        metadata = found["metadata"]
        return metadata["namespace"], metadata["name"]


async def undo(
    client: Client,
    note: UpgradeNote,
    back_command: str | None = None,
    environment: Mapping[str, str] | None = None,
) -> list[str]:
    """Undo an upgrade by its note, and wait for it; returns what was left alone, in words.

    Raises `UpgradeError` if it cannot be done, `MadeAnewError` if the KubeVirt CR is no more.
    """
    try:
        if note.fields:
            return await _put_back(client, note)
        return await _order_back(client, note, back_command, environment or {})
    except _LOST as problem:
        raise UpgradeError(
            f"KubeVirt could not be brought back to {note.version}: {problem or 'no answer'}; the "
            f"next run does it, or: {RECOVER}"
        ) from None


async def _put_back(client: Client, note: UpgradeNote) -> list[str]:
    # Tag and registry are one decision: a version is not put together from two people's.
    _, left = await tuner.former_values(client, note, whole=True)
    if left:
        names = ", ".join(each.name for each in left)
        return [f"left as somebody else has set it since: {names} of the KubeVirt CR"]
    other = note.to if note.to != note.version else ""
    hanging = await release.rolled_out(
        client, note.namespace, note.name, "", note.timeout, other
    )  # fmt: skip
    if hanging:
        raise UpgradeError(
            f"the KubeVirt CR is as it was for {note.version}, but that was not rolled out within "
            f"{durations.write(note.timeout)}: {hanging}"
        )
    found = await _patiently(lambda: kubevirts.find_kubevirt(client))
    version = kubevirts.version(found)
    if version == note.version:
        return []
    said = f"the KubeVirt CR is as it was, but makes it {version} now, not {note.version}"
    return [f"{said}: somebody else has changed virt-operator since"]


async def _order_back(
    client: Client, note: UpgradeNote, command: str | None, environment: Mapping[str, str]
) -> list[str]:
    if command is None:
        # What it did may take a while to be seen.
        await asyncio.sleep(_TAKES_EFFECT)
        found = await _patiently(lambda: kubevirts.find_kubevirt(client))
        version = kubevirts.version(found)
        hanging = await release.look(client, note.namespace, note.name, version)
        if hanging:
            raise UpgradeError(
                f"KubeVirt was being upgraded from {note.version} by a command, which nothing "
                f"undoes ({hanging}): bring it back, or give the command that does: {RECOVER} "
                "--kvscale-upgrade-back-command"
            )
        if version == note.version:
            return []
        return [f"KubeVirt was upgraded by a command and is left as it is: {version}"]
    said = {**environment, FROM: note.to, TO: note.version}
    try:
        await upgrade_command.run(command, said, note.timeout)
    except upgrade_command.CommandFailedError as problem:
        raise UpgradeError(f"KubeVirt could not be brought back: {problem}") from None
    hanging = await release.rolled_out(
        client, note.namespace, note.name, note.version, note.timeout
    )
    if hanging:
        raise UpgradeError(
            f"the command that brings KubeVirt back to {note.version} was run, but that was not "
            f"rolled out within {durations.write(note.timeout)}: {hanging}"
        )
    return []


async def _patiently(request: Callable[[], Awaitable[Any]]) -> Any:
    return await repeat_until(now() + PATIENCE, request)
