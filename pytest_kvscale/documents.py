"""Reading a user's YAML file into a pydantic model, with errors of one sentence.

It is used for profiles, objectives and settings alike, and imports no other room, so that the
embedded cluster may use it too.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

from pytest_kvscale.errors import ConfigurationError, nearest

__all__ = ["Document", "read_mapping", "read_yaml", "validate"]


class Document(BaseModel):
    """A frozen model that takes no keys but its own."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=False)


Model = TypeVar("Model", bound=BaseModel)


def read_yaml(path: Path, what: str) -> Any:
    """The content of a YAML file, read safely. `what` names it in errors ("profile")."""
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as problem:
        reason = problem.strerror or problem
        raise ConfigurationError(f"the {what} {path} cannot be read: {reason}") from None
    except UnicodeDecodeError:
        raise ConfigurationError(f"the {what} {path} is not a text file (UTF-8)") from None
    return parse_yaml(text, f"the {what} {path}")


def parse_yaml(text: str, where: str) -> Any:
    """YAML text as plain data. `where` begins the sentence of an error."""
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as problem:
        mark = getattr(problem, "problem_mark", None)
        line = f" in line {mark.line + 1}" if mark is not None else ""
        said = getattr(problem, "problem", None) or str(problem)
        raise ConfigurationError(f"{where} is not YAML{line}: {said}") from None


def read_mapping(path: Path, what: str) -> dict[str, Any]:
    """The content of a YAML file that must be a mapping."""
    content = read_yaml(path, what)
    if not isinstance(content, dict):
        raise ConfigurationError(
            f"the {what} {path} must be a mapping of keys to values, not {_kind(content)}"
        )
    return content


def validate(model: type[Model], content: Mapping[str, Any], where: str) -> Model:
    """The content as a model; `where` begins the sentence of an error."""
    try:
        return model.model_validate(content)
    except ValidationError as problem:
        errors = problem.errors()
        # A misspelt key often makes another one missing: the misspelling is what helps.
        unknown = [each for each in errors if each["type"] == "extra_forbidden"]
        first = [*unknown, *errors][0]
        path = ".".join(str(step) for step in first["loc"])
        more = problem.error_count() - 1
        also = f" (and {more} more)" if more else ""
        raise ConfigurationError(f"{where}: {_explain(model, first, path)}{also}") from None


def _explain(model: type[BaseModel], error: Any, path: str) -> str:
    given = error["input"]
    match error["type"]:
        case "extra_forbidden":
            known = _known_keys(model, error["loc"][:-1])
            hint = nearest(str(error["loc"][-1]), known)
            expected = f"; expected one of {', '.join(known)}" if known and not hint else ""
            return f"unknown key {path!r}{hint}{expected}"
        case "missing":
            return f"the key {path!r} is missing"
        case "value_error":
            return f"{path}: {error['ctx']['error']}"
    said = str(error["msg"])
    expected = said[0].lower() + said[1:]
    return f"{path}: {expected}, got {given!r}"


def _known_keys(model: type[BaseModel], path: tuple[Any, ...]) -> list[str]:
    """The keys the model takes at a path (as far as plain nested models go)."""
    here: Any = model
    for step in path:
        field = getattr(here, "model_fields", {}).get(step)
        here = field.annotation if field is not None else None
    return sorted(getattr(here, "model_fields", {}))


def _kind(content: Any) -> str:
    names = {type(None): "empty", list: "a list", str: "text"}
    return names.get(type(content), type(content).__name__)
