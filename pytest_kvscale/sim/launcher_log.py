"""What a virt-launcher writes to its log in its life: a line of JSON for each step.

The steps and their moments are the machine's (`machine.Said`); between them stand the lines a real
launcher writes on the way. A panic is plain text, and the monitor around it has the last word.
"""

from __future__ import annotations

import datetime
import json
from collections.abc import Iterable, Iterator

from pytest_kvscale.sim.errors import Object
from pytest_kvscale.sim.machine import Said

Line = tuple[datetime.datetime, str]
_STEP = datetime.timedelta(milliseconds=1)


def lines(said: Iterable[Said], pod: Object) -> Iterator[Line]:
    """The lines of a launcher's log, each with its moment."""
    metadata = pod["metadata"]
    owner: Object = next(iter(metadata.get("ownerReferences") or []), {})
    about = {
        "kind": "",
        "name": owner.get("name", ""),
        "namespace": metadata["namespace"],
        "uid": owner.get("uid", ""),
    }
    for each in said:
        for nth, line in enumerate(_told(each, about)):
            at = each.at + nth * _STEP
            yield at, line if isinstance(line, str) else _json(at, line)


def _told(said: Said, about: Object) -> Iterator[Object | str]:
    match said.what:
        case "started":
            yield _info("Collected all requested hook sidecar sockets", "manager.go:88")
            yield _info(
                "Sorted all collected sidecar sockets per hook point based on their priority and "
                "name: map[]",
                "manager.go:91",
            )
            yield _info("Connecting to libvirt daemon: qemu:///system", "libvirt.go:495")
            yield _info("Connected to libvirt daemon", "libvirt.go:511")
            yield _info("Registered libvirt event notify callback", "client.go:510")
            yield _info("Marked as ready", "virt-launcher.go:75")
        case "defined":
            yield {
                **_info("Executing PreStartHook on VMI pod environment", "manager.go:516"),
                **about,
            }
            yield {**_info("Domain defined.", "manager.go:858"), **about}
            yield _info("DomainLifecycle event 0 with reason 0 received", "client.go:435")
            yield {**_info("Domain started.", "manager.go:886"), **about}
            yield {**_info("Synced vmi", "server.go:191"), **about}
            yield _info("Successfully connected to domain notify socket", "client.go:167")
            yield _info("Found PID for the domain", "virt-launcher.go:236")
        case "ended":
            yield from _end(said, about)


def _end(said: Said, about: Object) -> Iterator[Object | str]:
    if said.code:
        if said.words:
            yield from said.words.split("\n")
        yield {
            "component": "virt-launcher-monitor",
            "level": "error",
            "msg": f"dirty virt-launcher shutdown: exit-code {said.code}",
            "pos": "virt-launcher-monitor.go:181",
        }
        return
    yield _info("Received signal terminated", "virt-launcher.go:476")
    yield {**_info("Signaled graceful shutdown", "server.go:311"), **about}
    yield _info("Exiting...", "virt-launcher.go:519")


def _info(message: str, position: str) -> Object:
    return {"component": "virt-launcher", "level": "info", "msg": message, "pos": position}


def _json(at: datetime.datetime, line: Object) -> str:
    stamp = at.strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    return json.dumps(dict(sorted({**line, "timestamp": stamp}.items())), separators=(",", ":"))
