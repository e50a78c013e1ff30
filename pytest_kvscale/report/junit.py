"""What stands in the JUnit file: figures as properties of the test suite.

pytest writes the file; properties of the suite are what its default family (xunit2) allows. The
file of the command `compare` is written here, in that form.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree

from pytest_kvscale.json_files import showable

if TYPE_CHECKING:
    from pytest_kvscale.judge.comparison import Comparison

Json = Mapping[str, Any]
_CASES = "kvscale.comparison"


def properties(run: Json, cluster: Json, reports: Sequence[Json]) -> Iterator[tuple[str, str]]:
    """Names and values, e.g. `kvscale.400.p95`; what was not reached is left out.

    A report has a level's object and its label (`400`; `400-2` if it was run twice).
    """
    yield "kvscale.run", str(run["id"])
    yield "kvscale.simulated", str(run["simulated"])
    for name in ("kubernetes", "kubevirt", "fingerprint"):
        yield f"kvscale.{name}", str(cluster.get(name, ""))
    for report in reports:
        yield from _level(report["level"], f"kvscale.{report['label']}")


def _level(level: Json, prefix: str) -> Iterator[tuple[str, str]]:
    for name in ("verdict", "requested", "created", "running", "deleted", "left_behind"):
        yield f"{prefix}.{name}", str(level[name])
    ends = ("p50_low", "p50_high", "p95_low", "p95_high")
    for name in ("p50", "p90", "p95", "p99", "max", "mean", *ends):
        value = level["phases"]["Running"][name]
        if value is not None:
            yield f"{prefix}.{name}", str(value)
    if level["deletion"]["p95"] is not None:
        yield f"{prefix}.deletion.p95", str(level["deletion"]["p95"])
    for name, value in level["rates"]["running_per_min"].items():
        if value is not None:
            yield f"{prefix}.running_per_min.{name}", str(value)
    for name, number in level["failures"].items():
        yield f"{prefix}.failures.{name}", str(number)
    for each in level["slo"]:
        if each["value"] is not None:
            yield f"{prefix}.slo.{each['name'].replace(' ', '.')}", str(each["limit"])
    for name, value in level["cooldown"].items():
        if value is not None:
            yield f"{prefix}.cooldown.{name}", str(value)


def comparison(found: Comparison, strict: bool) -> str:
    """A JUnit file with a test case for each row of a comparison."""
    suite = _suite()
    for name, value in (
        ("kvscale.comparison", found.verdict), ("kvscale.simulated", found.simulated),
        ("kvscale.before", ", ".join(found.before)), ("kvscale.after", ", ".join(found.after)),
    ):  # fmt: skip
        ElementTree.SubElement(suite[0], "property", name=name, value=value)
    failed = 0
    for row in found.rows():
        case = ElementTree.SubElement(suite, "testcase", classname=_CASES, name=row.id, time="0")
        if row.verdict == "fail" or (strict and row.verdict == "inconclusive"):
            failed += 1
            ElementTree.SubElement(case, "failure", message=row.text).text = row.text
        else:
            ElementTree.SubElement(case, "system-out").text = row.text
    return _file(suite, failures=failed)


def comparison_error(sentence: str) -> str:
    """A JUnit file with one error: why nothing was compared."""
    suite, sentence = _suite(), showable(sentence)
    case = ElementTree.SubElement(suite, "testcase", classname=_CASES, name="compare", time="0")
    ElementTree.SubElement(case, "error", message=sentence).text = sentence
    return _file(suite, errors=1)


def _suite() -> ElementTree.Element:
    suite = ElementTree.Element("testsuite", name="kvscale")
    ElementTree.SubElement(suite, "properties")
    return suite


def _file(suite: ElementTree.Element, failures: int = 0, errors: int = 0) -> str:
    cases = len(suite.findall("testcase"))
    counts = {"tests": cases, "failures": failures, "errors": errors, "skipped": 0}
    suite.attrib.update({name: str(number) for name, number in counts.items()}, time="0")
    suites = ElementTree.Element("testsuites")
    suites.append(suite)
    return ElementTree.tostring(suites, encoding="unicode", xml_declaration=True) + "\n"
