"""The object a run creates: a Jinja template of YAML, rendered once for each VMI."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jinja2
import jinja2.sandbox
import yaml

from pytest_kvscale.errors import ConfigurationError

RUN_LABEL = "kvscale.io/run"
"""On every object of ours; its value is the run's id."""
SHIPPED = Path(__file__).parent.parent / "templates"
DEFAULT = SHIPPED / "vmi-cirros.yaml"
KINDS = {("kubevirt.io/v1", "VirtualMachineInstance")}

_Loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class Template:
    """A template that has been tried out: it renders to an object we can create and follow.

    Variables it may use: `name`, `namespace`, `level`, `index` (from 0), `run`, `node` (the name
    of the node under test), `node_selector` (a mapping that selects it), and those the user sets.
    """

    def __init__(self, path: Path, variables: Mapping[str, str]) -> None:
        self._path = path
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
        except jinja2.TemplateSyntaxError as problem:
            raise ConfigurationError(
                f"the template {path}, line {problem.lineno}: {problem.message}"
            ) from None
        self._check(self._render("density-1-0000", "kvscale", 1, 0, "trial", "node", {}))

    def render(
        self, name: str, namespace: str, level: int, index: int, run: str, node: str,
        node_selector: Mapping[str, str],
    ) -> dict[str, Any]:  # fmt: skip
        """The object, with the run's label."""
        obj = self._render(name, namespace, level, index, run, node, node_selector)
        metadata = obj["metadata"]
        metadata["labels"] = {**(metadata.get("labels") or {}), RUN_LABEL: run}
        metadata["namespace"] = namespace
        return obj

    def _render(
        self, name: str, namespace: str, level: int, index: int, run: str, node: str,
        node_selector: Mapping[str, str],
    ) -> dict[str, Any]:  # fmt: skip
        known = {
            "name": name, "namespace": namespace, "level": level, "index": index, "run": run,
            "node": node, "node_selector": dict(node_selector),
        }  # fmt: skip
        path = self._path
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

    def _check(self, obj: dict[str, Any]) -> None:
        path, kind, version = self._path, obj.get("kind"), obj.get("apiVersion")
        for key in ("apiVersion", "kind"):
            if not isinstance(obj.get(key), str):
                raise ConfigurationError(f"the template {path} lacks {key}")
        metadata = obj.get("metadata")
        if not isinstance(metadata, dict) or not isinstance(metadata.get("name"), str):
            raise ConfigurationError(
                f"the template {path} lacks metadata.name: write name: {{{{ name }}}}"
            )
        if metadata["name"] != "density-1-0000":
            raise ConfigurationError(
                f"the template {path}: metadata.name must be {{{{ name }}}}, so that each object "
                f"has its own (it renders to {metadata['name']!r})"
            )
        if (version, kind) not in KINDS:
            expected = " or ".join(f"{each} ({api})" for api, each in sorted(KINDS))
            raise ConfigurationError(
                f"the template {path} makes a {kind} ({version}): expected {expected}"
            )
