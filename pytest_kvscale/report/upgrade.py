"""What came of an upgrade, for people: a line in the terminal, a section of the page."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from html import escape
from typing import Any

Json = Mapping[str, Any]


def shown(upgrade: Json) -> dict[str, Any]:
    """How an upgrade is shown: lines, HTML and properties of JUnit."""
    told = list(lines(upgrade))
    items = "".join(f"<li>{escape(each)}</li>" for each in told)
    took, vmis = upgrade["rolled_out_s"], upgrade["vmis"]
    properties = {
        "kvscale.upgrade.from": upgrade["from"],
        "kvscale.upgrade.to": upgrade["to"],
        "kvscale.upgrade.rolled_out": "no" if took is None else f"{took:g} s",
    }
    if vmis is not None:
        properties["kvscale.upgrade.vmis_lost"] = str(len(vmis["lost"]))
    return {
        "lines": told,
        "html": f'<section id="kvscale-upgrade"><h2>Upgrade</h2><ul>{items}</ul></section>',
        "properties": properties,
    }


def lines(upgrade: Json) -> Iterator[str]:
    """A line for each change of version, and one for each VMI that was lost."""
    for step in upgrade["steps"]:
        way = "upgrade" if step["direction"] == "upgrade" else "return"
        to = step["to"] or "another version"
        yield f"{way} {step['from']} -> {to}: {_outcome(step)}"
        for each in (step["vmis"] or {}).get("lost", ()):
            yield f"  lost: {each['name']} ({each['class']}): {'; '.join(each['evidence'])}"


def _outcome(step: Json) -> str:
    if step["rolled_out_s"] is None:
        return f"failed: {' '.join(step['problem'].split())}"
    parts = [f"rolled out in {step['rolled_out_s']:.0f} s"]
    vmis = step["vmis"]
    if vmis is not None:
        parts.append(f"{vmis['ran']} VMIs ran, {len(vmis['lost']) or 'none'} lost")
        parts.append(_migrations(vmis))
    return ", ".join(parts)


def _migrations(vmis: Json) -> str:
    counted = vmis["migrations"]
    if counted is None:
        return "migrations unknown"
    if not any(counted.values()):
        return "no migrations"
    told = ", ".join(f"{number} {what}" for what, number in counted.items() if number)
    return f"migrations: {told}"
