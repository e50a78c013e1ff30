"""The objects a run creates: Jinja templates of YAML, rendered once for each object."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
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
_NAME = "kvscale-name-of-this-object"
"""Stands for an object's name in a text that is parsed for all of them."""

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
        self._last: tuple[str | None, Object] = (None, {})
        """The text parsed last, the object's name taken out, and what it was parsed to."""
        self.sample = self._render(_TRIAL, 1, 0, trial)
        """The object as it was tried out, for what can be told of it beforehand."""
        self.kind = kind_of(self.sample)
        self._check_place(self.sample, trial)

    @property
    def machine(self) -> Object:
        """The spec of the VMI (or pod) it makes, as it was tried out."""
        return self.kind.machine(self.sample)

    def render(self, name: str, level: int, index: int, place: Place) -> Object:
        """The object, with the run's label on it and on what it makes.

        Raises `ConfigurationError` if it is none that can be created.
        """
        obj = self._render(name, level, index, place)
        for metadata in self.kind.metadata(obj):
            metadata["labels"] = {**(metadata.get("labels") or {}), RUN_LABEL: place.run}
        obj["metadata"]["namespace"] = place.namespace
        return obj

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
        return self._parse(text, name)

    def _parse(self, text: str, name: str) -> Object:
        """The object in a text.

        Texts that differ in nothing but the object's name are parsed once: parsing takes ten
        times as long as all the rest.
        """
        key = text.replace(name, _NAME)
        known, parsed = self._last
        if key != known:
            parsed = self._load(key)
            self._last = key, parsed
        named: Object = _replace(parsed, name)
        return named

    def _load(self, text: str) -> Object:
        path = self.path
        try:
            obj = yaml.load(text, Loader=_Loader)  # noqa: S506 - a safe loader, in C
        except yaml.YAMLError as problem:
            mark = getattr(problem, "problem_mark", None)
            line = f" in line {mark.line + 1} (as rendered)" if mark is not None else ""
            said = getattr(problem, "problem", None) or problem
            raise ConfigurationError(f"the template {path} is not YAML{line}: {said}") from None
        if not isinstance(obj, dict):
            raise ConfigurationError(f"the template {path} must be one object: a mapping with kind")
        self._check(obj)
        return obj

    def _check(self, obj: Object) -> None:
        """Raise `ConfigurationError` if an object, its name taken out, cannot be created."""
        path = self.path
        for key in ("apiVersion", "kind"):
            if not isinstance(obj.get(key), str):
                raise ConfigurationError(f"the template {path} lacks {key}")
        metadata = obj.get("metadata")
        if not isinstance(metadata, dict) or not isinstance(metadata.get("name"), str):
            raise ConfigurationError(
                f"the template {path} lacks metadata.name: write name: {{{{ name }}}}"
            )
        if metadata["name"] != _NAME:
            raise ConfigurationError(
                f"the template {path}: metadata.name must be {{{{ name }}}}, so that each object "
                f"has its own (it renders to {metadata['name']!r})"
            )
        try:
            kind_of(obj).check(obj)
        except ConfigurationError as problem:
            raise ConfigurationError(f"the template {path} {problem}") from None

    def _check_place(self, obj: Object, place: Place) -> None:
        """Raise `ConfigurationError` if what an object makes may run on other nodes."""
        selector = self.kind.machine(obj).get("nodeSelector")
        given = selector.items() if isinstance(selector, dict) else ()
        if not set(place.node_selector.items()) <= set(given):
            where = "spec.template.spec" if self.kind.is_owner else "spec"
            raise ConfigurationError(
                f"the template {self.path} does not keep to the node under test: write "
                f"{where}.nodeSelector: {{{{ node_selector | tojson }}}}"
            )


def _replace(value: Any, name: str) -> Any:
    """A copy in which the name stands where it was taken out."""
    if isinstance(value, dict):
        return {_replace(key, name): _replace(each, name) for key, each in value.items()}
    if isinstance(value, list):
        return [_replace(each, name) for each in value]
    return value.replace(_NAME, name) if isinstance(value, str) else value


@dataclasses.dataclass(frozen=True)
class Planned:
    """An object that is to be created."""

    name: str
    kind: Kind
    vmis: int
    """How many VMIs (or pods) it makes."""
    obj: Object


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

    def canary(self, place: Place) -> tuple[Planned, ...]:
        """One object of each template."""
        return tuple(self._planned("canary", 1, index, place) for index in range(len(self.all)))

    def level(self, level: int, place: Place, what: str = "density") -> tuple[Planned, ...]:
        """All objects of a level; their names begin with `what`.

        Raises `ConfigurationError` if they do not add up to the level, or one cannot be made.
        """
        objects: list[Planned] = []
        made = 0
        while made < level:
            each = self._planned(what, level, len(objects), place)
            objects.append(each)
            made += each.vmis
            if made > level:
                path = self.all[(len(objects) - 1) % len(self.all)].path
                raise ConfigurationError(
                    f"level {level} cannot be made of objects of {each.vmis} VMIs each ({path}): "
                    f"they add up to {made}"
                )
        return tuple(objects)

    def _planned(self, what: str, level: int, index: int, place: Place) -> Planned:
        template = self.all[index % len(self.all)]
        name = f"{what}-{level}-{index:04d}"
        obj = template.render(name, level, index, place)
        return Planned(name, template.kind, template.kind.vmis(obj), obj)
