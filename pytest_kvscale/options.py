"""The options of the command line and of the ini file, read into one frozen `Settings`.

An option `--kvscale-X` has the ini key `kvscale_X`; the command line wins. Everything is read
as text first, so that both ways have the same errors.
"""

from __future__ import annotations

import argparse
import dataclasses
import math
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from pytest_kvscale import durations
from pytest_kvscale.errors import ConfigurationError, nearest

DEFAULT_LEVELS = (50, 100, 200, 300, 400)


@dataclasses.dataclass(frozen=True)
class Settings:
    """All settings of a run. Times are seconds."""

    cluster: str = "auto"
    """Which cluster: auto, kube or sim."""
    kubeconfig: Path | None = None
    context: str | None = None
    allow_simulated: bool = False
    """Whether `kube` may meet a cluster that says it is simulated."""
    sim_profile: str = "blog-2021"
    sim_seed: int = 0
    levels: tuple[int, ...] = DEFAULT_LEVELS
    repeat: int = 1
    """How often each level is run."""
    node: str | None = None
    """The node under test; None: the one schedulable node with most memory."""
    node_selector: Mapping[str, str] = dataclasses.field(default_factory=dict)
    """Labels the node under test must have."""
    namespace: str | None = None
    """Test namespace; None: one of the run's own, `kvscale-<run id>`."""
    templates: tuple[Path, ...] = ()
    """The objects to create, of each in turn; none: the cirros VMI."""
    variables: Mapping[str, str] = dataclasses.field(default_factory=dict)
    """Variables of the templates."""
    qps: float = 20.0
    """Creations a second; infinity: as fast as possible."""
    burst: int = 20
    timeout: float = 3600.0
    stall: float | None = None
    """None: the larger of 10 minutes and the effective qemu timeout + 3 minutes."""
    delete_timeout: float = 1800.0
    max_lag: float = 1.0
    slo: Path | None = None
    """Objectives; None: `slo.yaml` beside the suite."""
    tune: str | None = None
    """none, density, or a YAML file; None: what the cluster does by default."""
    cooldown: float | None = 3600.0
    """Least rest between levels; None: until the cluster has settled."""
    cooldown_max: float = 7200.0
    """Longest wait for the cluster to settle, from the end of the last level."""
    plan: bool = False
    """Only say what is known beforehand; nothing is created."""
    force: bool = False
    """Whether to run a level that cannot fit."""
    keep: bool = False
    """Whether to leave the objects of a level that failed."""
    prometheus: str = dataclasses.field(default="auto", repr=False)
    """A URL (it may hold a password), auto (look for it in the cluster) or none."""
    prometheus_token_file: Path | None = None
    prometheus_ca: Path | None = None
    report_dir: Path = Path("reports")
    wait: bool = True
    """Whether to wait while another run has the cluster."""
    beside_others: bool = False
    """Whether other VMIs may be on the node under test."""
    baseline: tuple[Path, ...] = ()
    """Runs to compare with: results, folders of runs."""
    calibration: Path | None = None
    """Runs of a calibration: how far equal runs of this cluster lie apart."""
    may_differ: tuple[str, ...] = ()
    """What need not be the same in runs that are compared: names, or patterns of them."""
    relative: float = 0.05
    """The least relative change that fails."""
    summary: Path | None = None
    """A file to which the Markdown summary is appended."""
    upgrade_to: str | None = None
    """The version of KubeVirt that suites/upgrade brings the cluster to."""
    upgrade_registry: str | None = None
    upgrade_command: str | None = dataclasses.field(default=None, repr=False)
    """A program that upgrades KubeVirt; None: its CR is changed."""
    upgrade_back: bool = False
    """Whether to return to the former version."""
    upgrade_back_command: str | None = dataclasses.field(default=None, repr=False)
    upgrade_timeout: float = 1800.0
    upgrade_vmis: int = 10
    """How many VMIs run during the upgrade."""
    record: bool = False
    strict: bool = False
    given: frozenset[str] = dataclasses.field(default=frozenset(), compare=False)
    """Which settings were given, by their names here."""

    def absolute(self) -> Settings:
        """With paths that are used later than they were given."""
        return dataclasses.replace(
            self,
            report_dir=self.report_dir.absolute(),
            baseline=tuple(each.absolute() for each in self.baseline),
            calibration=self.calibration and self.calibration.absolute(),
            summary=self.summary and self.summary.absolute(),
        )


@dataclasses.dataclass(frozen=True)
class Option:
    """One option: its name, how its text becomes a value, and what it means."""

    name: str
    read: Callable[[str], Any]
    help: str
    metavar: str = ""
    field: str = ""
    flag: bool = False
    means: bool = True
    """What giving a flag sets its field to."""
    repeated: bool = False

    @property
    def target(self) -> str:
        """The field of `Settings` it sets."""
        return self.field or self.name.replace("-", "_")

    @property
    def dest(self) -> str:
        """Its name among pytest's options, and its ini key."""
        return "kvscale_" + self.name.replace("-", "_")


def duration(text: str) -> float:
    """Seconds of a duration."""
    return durations.parse(text)


def rest(text: str) -> float | None:
    """Seconds of a duration, or None for `settle`."""
    return None if text.strip() == "settle" else durations.parse(text)


def patience(text: str) -> float:
    """Seconds of a duration that must not be 0."""
    value = durations.parse(text)
    if value <= 0:
        raise ValueError(f"{text!r} is too short: expected a duration above 0")
    return value


def rate(text: str) -> float:
    """A rate a second, above 0; `max` is as fast as possible, infinity."""
    if text.strip() == "max":
        return math.inf
    value: float = _number(text, float, "a number above 0, or max")
    if value <= 0:
        raise ValueError(f"{text!r} is no rate: expected a number above 0, or max")
    return value


def yes(text: str) -> bool:
    """Yes or no, as ini files have it."""
    word = text.strip().lower()
    if word in ("true", "yes", "on", "1"):
        return True
    if word in ("false", "no", "off", "0"):
        return False
    raise ValueError(f"{text!r} is neither true nor false")


def count(text: str) -> int:
    """A whole number above 0."""
    value: int = _number(text, int, "a whole number above 0")
    if value < 1:
        raise ValueError(f"{text!r} is too small: expected a whole number above 0")
    return value


def amount(text: str) -> int:
    """A whole number, 0 or more."""
    value: int = _number(text, int, "a whole number, 0 or more")
    if value < 0:
        raise ValueError(f"{text!r} is too small: expected a whole number, 0 or more")
    return value


def whole(text: str) -> int:
    """A whole number."""
    value: int = _number(text, int, "a whole number")
    return value


def levels(text: str) -> tuple[int, ...]:
    """Density levels, e.g. `50,100,200`: each above 0, none twice."""
    parts = [part.strip() for part in text.split(",")]
    if not any(parts):
        raise ValueError("no level is given: expected e.g. 50,100,200")
    found: list[int] = []
    for part in parts:
        value = _number(part, int, "a level: a whole number of VMIs above 0")
        if value < 1:
            raise ValueError(f"{part!r} is no level: expected a whole number of VMIs above 0")
        if value in found:
            raise ValueError(f"the level {value} is given twice")
        found.append(value)
    return tuple(found)


def percent(text: str) -> float:
    """A share, from per cent: `5` and `5%` are 0.05."""
    expected = "a percentage: expected a number from 0 to 1000, e.g. 5%"
    value: float = _number(text.strip().removesuffix("%"), float, expected)
    if not 0 <= value <= 1000:
        raise ValueError(f"{text!r} is no percentage: expected a number from 0 to 1000")
    return value / 100


def choice(*words: str) -> Callable[[str], str]:
    """One of these words."""

    def read(text: str) -> str:
        if text not in words:
            expected = ", ".join(words)
            raise ValueError(f"{text!r}{nearest(text, words)}: expected one of {expected}")
        return text

    return read


def label_pairs(text: str) -> dict[str, str]:
    """Labels as `key=value,key=value`."""
    return dict(_pair(part, "a label") for part in text.split(",") if part.strip())


def assignments(text: str) -> dict[str, str]:
    """Template variables: one `NAME=VALUE` a line."""
    return dict(_pair(part, "a variable") for part in text.splitlines() if part.strip())


def names(text: str) -> tuple[str, ...]:
    """Names, one a line."""
    return tuple(line.strip() for line in text.splitlines() if line.strip()) or (name(text),)


def name(text: str) -> str:
    """Some text that is not empty."""
    if not text.strip():
        raise ValueError("it is empty")
    return text.strip()


def namespace(text: str) -> str:
    """A namespace's name."""
    if len(text) > 63 or not re.fullmatch(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?", text):
        raise ValueError(
            f"{text!r} is no namespace: expected lower-case letters, digits and dashes, at most 63"
        )
    return text


def _number(text: str, kind: Callable[[str], Any], expected: str) -> Any:
    try:
        value = kind(text.strip())
    except ValueError:
        raise ValueError(f"{text!r} is not {expected}") from None
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError(f"{text!r} is not {expected}")
    return value


def _pair(text: str, what: str) -> tuple[str, str]:
    key, found, value = text.strip().partition("=")
    if not found or not key.strip():
        raise ValueError(f"{text!r} is not {what}: expected NAME=VALUE")
    return key.strip(), value


def paths(text: str) -> tuple[Path, ...]:
    """Paths, one a line."""
    return tuple(path(line) for line in text.splitlines() if line.strip()) or (path(text),)


def path(text: str) -> Path:
    """A path; `~` is the home folder."""
    return Path(name(text)).expanduser()


CLUSTER_OPTIONS: tuple[Option, ...] = (
    Option(
        "cluster",
        choice("auto", "kube", "sim"),
        "which cluster: kube (a kubeconfig's), sim (the embedded one), or auto (default): kube if "
        "one is named explicitly, sim if there is none at all",
        "auto|kube|sim",
    ),
    Option("kubeconfig", path, "the kubeconfig of the cluster", "FILE"),
    Option("context", name, "the kubeconfig's context", "NAME"),
    Option(
        "allow-simulated",
        yes,
        "let --kvscale-cluster kube run on a cluster that says it is simulated",
        flag=True,
    ),
    Option(
        "sim-profile",
        name,
        "hardware and versions of the embedded cluster (default: blog-2021)",
        "NAME|FILE",
    ),
    Option("sim-seed", whole, "the embedded cluster's randomness (default: 0)", "N"),
)

OPTIONS: tuple[Option, ...] = (
    *CLUSTER_OPTIONS,
    Option("levels", levels, "density levels (default: 50,100,200,300,400)", "N,N,..."),
    Option(
        "repeat",
        count,
        "how often each level is run, in rounds (50, 100, 50-2, 100-2), so that a drift of the "
        "cluster falls on all levels alike (default: 1)",
        "N",
    ),
    Option(
        "node", name, "the node under test (default: the schedulable node with most memory)", "NAME"
    ),
    Option("node-selector", label_pairs, "labels the node under test must have", "KEY=VALUE,..."),
    Option(
        "namespace",
        namespace,
        "test namespace; one that exists is used and kept (default: one of the run's own)",
        "NAME",
    ),
    Option(
        "template",
        paths,
        "the object to create (default: a cirros VMI); given several times, objects are made of "
        "each in turn",
        "FILE", field="templates", repeated=True,
    ),
    Option(
        "set", assignments, "a variable of the template; may be given several times", "NAME=VALUE",
        field="variables", repeated=True,
    ),
    Option(
        "qps", rate, "creations a second, or max: as fast as the API takes them (default: 20)",
        "N|max",
    ),
    Option("burst", count, "creations at once at the start (default: 20)", "N"),
    Option("timeout", patience, "longest wait for a level (default: 1h)", "TIME"),
    Option(
        "stall",
        patience,
        "a level in which nothing progressed for so long ends (default: the larger of 10m and the "
        "effective qemu timeout + 3m)",
        "TIME",
    ),
    Option(
        "delete-timeout", patience, "longest wait for everything to be gone (default: 30m)", "TIME"
    ),
    Option(
        "max-lag", duration, "lag_p99 above which a level is inconclusive (default: 1s)", "TIME"
    ),
    Option("slo", path, "objectives (default: slo.yaml beside the suite)", "FILE"),
    Option(
        "tune",
        name,
        "KubeVirt settings for the run: none, density, or a YAML file; they are put back at the "
        "end (default: none; density on the embedded cluster)",
        "none|density|FILE",
    ),
    Option(
        "cooldown",
        rest,
        "least rest of the cluster since the last level on it, whoever ran it (default: 1h); "
        "settle: only until it has settled; 0: none",
        "TIME|settle",
    ),
    Option(
        "cooldown-max",
        duration,
        "longest wait for the cluster to settle, since the last level's end (default: 2h)",
        "TIME",
    ),
    Option("plan", yes, "say how many VMIs fit and what stops the next; create nothing", flag=True),
    Option("force", yes, "run a level although it cannot fit", flag=True),
    Option(
        "keep",
        yes,
        "leave the objects of a level that failed, to look into them; python -m pytest_kvscale "
        "recover removes them",
        flag=True,
    ),
    Option(
        "no-wait",
        yes,
        "fail if another run has the cluster, rather than wait for its end",
        flag=True, field="wait", means=False,
    ),
    Option(
        "beside-others",
        yes,
        "run though VMIs that are not of this run are on the node under test",
        flag=True,
    ),
    Option(
        "prometheus",
        name,
        "where KubeVirt's metrics are asked for: a URL, none, or auto (default): the cluster's "
        "own, through the API server",
        "URL|auto|none",
    ),
    Option(
        "prometheus-token-file",
        path,
        "holds the bearer token for a Prometheus given by URL",
        "FILE",
    ),
    Option(
        "prometheus-ca", path, "the authorities whose certificate that Prometheus may show", "FILE"
    ),
    Option("report-dir", path, "where results go (default: reports)", "DIR"),
    Option(
        "baseline",
        paths,
        "what the run is compared with: results.json, or a folder of runs; may be given several "
        "times",
        "PATH", repeated=True,
    ),
    Option(
        "calibration",
        path,
        "a run of suites/calibrate: how far equal runs of this cluster lie apart",
        "PATH",
    ),
    Option(
        "may-differ",
        names,
        "what need not be the same in runs that are compared, e.g. versions.kubernetes or "
        "settings.*; may be given several times",
        "NAME", repeated=True,
    ),
    Option(
        "relative", percent, "the least relative change that fails, in per cent (default: 5)",
        "PERCENT",
    ),
    Option(
        "summary",
        path,
        "a file to which a summary in Markdown is appended, e.g. $GITHUB_STEP_SUMMARY",
        "FILE",
    ),
    Option(
        "upgrade-to",
        name,
        "suites/upgrade: the version KubeVirt is upgraded to, as the KubeVirt CR's imageTag has it",
        "VERSION",
    ),
    Option(
        "upgrade-registry",
        name,
        "where that version's images come from: the KubeVirt CR's imageRegistry (default: from "
        "where they came before)",
        "REGISTRY",
    ),
    Option(
        "upgrade-command",
        name,
        "a program that upgrades KubeVirt, instead of a change of its CR; run without a shell, "
        "with KVSCALE_FROM and KVSCALE_TO (and KUBECONFIG, as given) in its environment",
        "COMMAND",
    ),
    Option(
        "upgrade-back",
        yes,
        "return to the former version: between the rounds of --kvscale-repeat, so that they are "
        "interleaved (before, after, after, before, ...), and at the end",
        flag=True,
    ),
    Option(
        "upgrade-back-command",
        name,
        "the program that does so, where one has upgraded; it undoes an upgrade that failed, too",
        "COMMAND",
    ),
    Option(
        "upgrade-timeout",
        patience,
        "longest wait for a version to be rolled out (default: 30m)",
        "TIME",
    ),
    Option(
        "upgrade-vmis",
        amount,
        "VMIs that run on the node during the upgrade and must not be lost (default: 10)",
        "N",
    ),
    Option("record", yes, "write a recording of each level, for replay", flag=True),
    Option("strict", yes, "let an inconclusive level or comparison fail", flag=True),
)  # fmt: skip


def add_to(parser: Any) -> None:
    """Add the options and ini keys to pytest's parser."""
    group = parser.getgroup("kvscale", "KubeVirt density (pytest-kvscale)")
    for option in OPTIONS:
        flag = f"--kvscale-{option.name}"
        if option.flag:
            group.addoption(flag, dest=option.dest, action="store_true", default=None,
                            help=option.help)  # fmt: skip
            parser.addini(option.dest, option.help, type="string", default=None)
            continue
        action = "append" if option.repeated else "store"
        group.addoption(flag, dest=option.dest, action=action, metavar=option.metavar,
                        default=None, help=option.help)  # fmt: skip
        parser.addini(option.dest, option.help, type="string", default=None)


def add_to_command(parser: argparse.ArgumentParser, options: Sequence[Option]) -> None:
    """Add options to a command's parser; they are called as on pytest's command line."""
    for option in options:
        flag = f"--kvscale-{option.name}"
        if option.flag:
            parser.add_argument(flag, dest=option.dest, action="store_true", default=None,
                                help=option.help)  # fmt: skip
        else:
            parser.add_argument(flag, dest=option.dest, metavar=option.metavar, help=option.help)


def read(given: Callable[[str], Any], ini: Callable[[str], Any]) -> Settings:
    """The settings; `given` has the command line's values by dest, `ini` the ini file's.

    Both answer None for what is not set. Raises `ConfigurationError` naming the option.
    """
    values: dict[str, Any] = {}
    for option in OPTIONS:
        raw, where = given(option.dest), f"--kvscale-{option.name}"
        if raw is None:
            raw, where = ini(option.dest), option.dest
        if raw is None or (raw == "" and where == option.dest):
            continue
        text = "\n".join(raw) if isinstance(raw, list) else str(raw)
        try:
            value = option.read(text)
            values[option.target] = value is option.means if option.flag else value
        except ValueError as problem:
            raise ConfigurationError(f"{where}: {problem}") from None
    return Settings(**values, given=frozenset(values))
