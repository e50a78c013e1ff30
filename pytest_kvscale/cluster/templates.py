"""The objects a run creates: Jinja templates of YAML, rendered once for each object."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import jinja2
import jinja2.meta
import jinja2.sandbox
import yaml

from pytest_kvscale.cluster.kinds import Kind, kind_of
from pytest_kvscale.errors import ConfigurationError, nearest

RUN_LABEL = "kvscale.io/run"
"""On every object of ours; its value is the run's id."""
SHIPPED = Path(__file__).parent.parent / "templates"
DEFAULT = SHIPPED / "vmi-cirros.yaml"
_TRIAL = "density-1-0000"

_Loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
Object = dict[str, Any]


@dataclasses.dataclass(frozen=True)
class Place:
    """Where objects go, and for which run: what templates may use besides their variables."""

    run: str
    namespace: str
    node: str
    node_selector: Mapping[str, str]
    """Labels that select the node."""


class Template:
    """A template that has been tried out: it renders to an object we can create and follow.

    Variables it may use: `name`, `namespace`, `level`, `index` (from 0), `run`, `node` (the name
    of the node under test), `node_selector` (a mapping that selects it), and those the user sets.
    """

    def __init__(self, path: Path, variables: Mapping[str, str]) -> None:
        self.path = path
        self._variables = dict(variables)
        try:
            self.source = text = path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as problem:
            reason = getattr(problem, "strerror", None) or problem
            raise ConfigurationError(f"the template {path} cannot be read: {reason}") from None
        environment = jinja2.sandbox.SandboxedEnvironment(
            undefined=jinja2.StrictUndefined, autoescape=False, trim_blocks=True,
            lstrip_blocks=True,
        )  # fmt: skip
        try:
            self._template = environment.from_string(text)
            self.uses = jinja2.meta.find_undeclared_variables(environment.parse(text))
        except jinja2.TemplateSyntaxError as problem:
            raise ConfigurationError(
                f"the template {path}, line {problem.lineno}: {problem.message}"
            ) from None
        trial = Place("trial", "kvscale", "node", {"kubernetes.io/hostname": "node"})
        self.sample = self._render(_TRIAL, 1, 0, trial)
        """The object as it was tried out, for what can be told of it beforehand."""
        self.kind = self._check(self.sample, trial)

    def render(self, name: str, level: int, index: int, place: Place) -> Object:
        """The object, with the run's label on it and on what it makes."""
        obj = self._render(name, level, index, place)
        for metadata in self.kind.metadata(obj):
            metadata["labels"] = {**(metadata.get("labels") or {}), RUN_LABEL: place.run}
        obj["metadata"]["namespace"] = place.namespace
        return obj

    def vmis(self, level: int, index: int, place: Place) -> int:
        """How many VMIs the object of this index makes."""
        if not self.kind.is_owner:
            return 1
        obj = self._render(_TRIAL, level, index, place)
        self._check(obj, place)
        return self.kind.vmis(obj)

    def _render(self, name: str, level: int, index: int, place: Place) -> Object:
        known = {
            "name": name, "namespace": place.namespace, "level": level, "index": index,
            "run": place.run, "node": place.node, "node_selector": dict(place.node_selector),
        }  # fmt: skip
        path = self.path
        try:
            text = self._template.render({**self._variables, **known})
        except jinja2.UndefinedError as problem:
            raise ConfigurationError(
                f"the template {path}: {problem.message}: set it with --kvscale-set NAME=VALUE"
            ) from None
        except (jinja2.TemplateError, TypeError, ValueError, ArithmeticError) as problem:
            raise ConfigurationError(f"the template {path} cannot be rendered: {problem}") from None
        try:
            obj = yaml.load(text, Loader=_Loader)  # noqa: S506 - a safe loader, in C
        except yaml.YAMLError as problem:
            mark = getattr(problem, "problem_mark", None)
            line = f" in line {mark.line + 1} (as rendered)" if mark is not None else ""
            said = getattr(problem, "problem", None) or problem
            raise ConfigurationError(f"the template {path} is not YAML{line}: {said}") from None
        if not isinstance(obj, dict):
            raise ConfigurationError(f"the template {path} must be one object: a mapping with kind")
        return obj

    def _check(self, obj: Object, place: Place) -> Kind:
        path = self.path
        for key in ("apiVersion", "kind"):
            if not isinstance(obj.get(key), str):
                raise ConfigurationError(f"the template {path} lacks {key}")
        metadata = obj.get("metadata")
        if not isinstance(metadata, dict) or not isinstance(metadata.get("name"), str):
            raise ConfigurationError(
                f"the template {path} lacks metadata.name: write name: {{{{ name }}}}"
            )
        if metadata["name"] != _TRIAL:
            raise ConfigurationError(
                f"the template {path}: metadata.name must be {{{{ name }}}}, so that each object "
                f"has its own (it renders to {metadata['name']!r})"
            )
        try:
            kind = kind_of(obj)
            kind.check(obj)
        except ConfigurationError as problem:
            raise ConfigurationError(f"the template {path} {problem}") from None
        selector = kind.machine(obj).get("nodeSelector")
        given = selector.items() if isinstance(selector, dict) else ()
        if not set(place.node_selector.items()) <= set(given):
            where = "spec.template.spec" if kind.is_owner else "spec"
            raise ConfigurationError(
                f"the template {path} does not keep to the node under test: write "
                f"{where}.nodeSelector: {{{{ node_selector | tojson }}}}"
            )
        return kind


class Templates:
    """All templates of a run; the objects of a level are made of each in turn."""

    def __init__(self, paths: Sequence[Path], variables: Mapping[str, str]) -> None:
        self.all = tuple(Template(path, variables) for path in paths or [DEFAULT])
        used = frozenset[str]().union(*(each.uses for each in self.all))
        for name in variables:
            if name not in used:
                raise ConfigurationError(
                    f"the variable {name!r} (--kvscale-set) is used by no "
                    f"template{nearest(name, sorted(used))}"
                )

    @property
    def kinds(self) -> tuple[Kind, ...]:
        """The kinds of all templates, each once."""
        return tuple(dict.fromkeys(each.kind for each in self.all))

    @property
    def sources(self) -> list[str]:
        """The text of each."""
        return [each.source for each in self.all]

    def one_each(self, place: Place) -> Iterator[tuple[Template, int]]:
        """One object of each template, and how many VMIs it makes."""
        for index, template in enumerate(self.all):
            yield template, template.vmis(1, index, place)

    def share_out(self, level: int, place: Place) -> Iterator[tuple[Template, int]]:
        """The template of each object of a level, and how many VMIs that object makes.

        Raises `ConfigurationError` if the objects do not add up to the level.
        """
        made = index = 0
        while made < level:
            template = self.all[index % len(self.all)]
            vmis = template.vmis(level, index, place)
            made, index = made + vmis, index + 1
            if made > level:
                raise ConfigurationError(
                    f"level {level} cannot be made of objects of {vmis} VMIs each "
                    f"({template.path}): they add up to {made}"
                )
            yield template, vmis
