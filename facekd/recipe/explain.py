"""Validation errors in the words of a recipe's author."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator, Mapping
from typing import Any, Literal, get_args, get_origin

from pydantic import BaseModel, TypeAdapter, ValidationError

from facekd.recipe.base import Location, Problem
from facekd.recipe.rules import contradictions_between
from facekd.recipe.schema import Recipe
from facekd.registry import did_you_mean

_EXPECTED = {
    "int": "a whole number",
    "float": "a number",
    "string": "text",
    "bool": "true or false",
    "model": "a mapping",
    "dict": "a mapping",
    "mapping": "a mapping",
    "tuple": "a list",
}
_BOUNDS = {
    "greater_than": ("greater than", "gt"),
    "greater_than_equal": ("at least", "ge"),
    "less_than": ("less than", "lt"),
    "less_than_equal": ("at most", "le"),
}


def shown(value: object) -> str:
    """A value as a message names it.

    Example:
        >>> [shown(value) for value in ("no", 32.5, True, None, [1], {})]
        ["text 'no'", 'number 32.5', 'true', 'null', 'a list', 'a mapping']
    """
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, str):
        return f"text {value!r}" if len(value) <= 60 else f"text {value[:57]!r}..."
    if isinstance(value, int | float):
        return f"number {value}" if abs(value) < 1e30 else f"number {value:g}"
    return "a list" if isinstance(value, list | tuple) else "a mapping"


def _models(annotation: object) -> list[type[BaseModel]]:
    """The recipe parts that a field's type may hold."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    if get_origin(annotation) is Literal:
        return []
    return [model for part in get_args(annotation) for model in _models(part)]


def _section(location: Location, document: object) -> type[BaseModel] | None:
    """The part of the schema that the keys of ``location`` lead to."""
    models: list[type[BaseModel]] = [Recipe]
    for key in location:
        document = document[key] if isinstance(document, dict | list) else None  # type: ignore[index]
        if isinstance(key, str):
            if len(models) != 1 or key not in models[0].model_fields:
                return None
            models = _models(models[0].model_fields[key].annotation)
        elif isinstance(document, Mapping):
            name = document.get("name")
            models = [m for m in models if len(models) == 1 or name in get_args(m.model_fields["name"].annotation)]
    return models[0] if len(models) == 1 else None


def _places(model: type[BaseModel], prefix: str = "") -> Iterator[tuple[str, str]]:
    """Every key of the schema and the dotted path it belongs at."""
    for name, field in model.model_fields.items():
        yield name, f"{prefix}{name}"
        parts = _models(field.annotation)
        for part in parts:
            inner = f"{prefix}{name}."
            if len(parts) > 1:
                inner += f"{get_args(part.model_fields['name'].annotation)[0]}."
            yield from _places(part, inner)


def _unknown_key(location: Location, document: object) -> Problem:
    section, key = _section(location[:-1], document), str(location[-1])
    known = list(section.model_fields) if section else []
    near = difflib.get_close_matches(key.lower(), known, n=1, cutoff=0.8)
    elsewhere = [place for name, place in _places(Recipe) if name == key]
    if elsewhere and not near:
        return Problem(location, "unknown key here", f"it belongs at {' or '.join(elsewhere[:3])}")
    return Problem(location, "unknown key", did_you_mean(key, known))


def _bound(error: Mapping[str, Any]) -> str:
    words, key = _BOUNDS[error["type"]]
    limit = error["ctx"][key]
    limit = f"{limit:.4g}" if isinstance(limit, float) else limit
    return f"must be {words} {limit}, got {shown(error['input']).removeprefix('number ')}"


def _wrong_type(location: Location, kind: str, value: object) -> Problem:
    fix = ""
    if kind == "string" and isinstance(value, int | float):
        fix = "put quotes around it"
    elif kind in ("int", "float") and isinstance(value, str) and re.fullmatch(r"[-+]?[0-9.]+(e[-+]?[0-9]+)?", value):
        fix = "remove the quotes"
    elif kind == "bool" and isinstance(value, str):
        fix = "write true or false"
    return Problem(location, f"expected {_EXPECTED[kind]}, got {shown(value)}", fix)


def _explain(error: Mapping[str, Any], document: object) -> list[Problem]:
    kind, location, value, context = error["type"], error["loc"], error["input"], error.get("ctx", {})
    if location[:1] == ("losses",):
        location = location[:2] + location[3:]  # without the tag of the union
    elif "options" in location[:-1]:
        place = location[: location.index("options") + 2]
        return [Problem(place, f"expected a number, text, true or false, got {shown(value)}")]
    if kind == "contradictions":
        return [Problem((*location, *found.location), found.what, found.fix) for found in context["problems"]]
    if kind == "extra_forbidden":
        return [_unknown_key(location, document)]
    if kind == "missing":
        return [Problem(location, "missing", "add it")]
    if kind in _BOUNDS:
        return [Problem(location, _bound(error))]
    if kind == "int_from_float" or (kind.endswith("_type") and kind.split("_")[0] in _EXPECTED):
        return [_wrong_type(location, kind.split("_")[0], value)]
    if kind == "model_attributes_type":
        return [_wrong_type(location, "model", value)]
    if kind == "finite_number":
        return [Problem(location, f"must be finite, got {value}")]
    if kind in ("literal_error", "union_tag_invalid"):
        tags = re.findall(r"'([^']*)'", context["expected" if kind == "literal_error" else "expected_tags"])
        place = location if kind == "literal_error" else (*location, "name")
        named = value if kind == "literal_error" else context["tag"]
        return [Problem(place, f"unknown value: {shown(named)}", did_you_mean(str(named), tags))]
    if kind == "union_tag_not_found":
        return [Problem((*location, "name"), "missing", "name the loss")]
    if kind == "string_pattern_mismatch":
        what = f"expected letters, digits, dots, underscores and hyphens, at most 100, got {shown(value)}"
        return [Problem(location, what)]
    if kind == "too_short":
        return [Problem(location, "empty", "give at least one")]
    return [Problem(location, error["msg"])]


def _valid_sections(document: Mapping[str, Any]) -> dict[str, Any]:
    """The sections that are right in themselves, whatever the others are."""
    valid: dict[str, Any] = {}
    for name, field in Recipe.model_fields.items():
        value = document.get(name, None if field.is_required() else field.default)
        section: TypeAdapter[Any] = TypeAdapter(field.rebuild_annotation())
        try:
            valid[name] = section.validate_python(value)
        except ValidationError:
            continue
    return valid


def validate(document: Mapping[str, Any]) -> Recipe | list[Problem]:
    """The recipe a document describes, or every problem it has.

    Example:
        >>> for problem in validate({"name": "a", "train": {"epochs": 0, "epoch": 3}})[:3]:
        ...     print(".".join(map(str, problem.location)), problem.what)
        student missing
        data missing
        losses missing
    """
    try:
        return Recipe.model_validate(document)
    except ValidationError as error:
        errors = error.errors(include_url=False)
    problems = [problem for one in errors for problem in _explain(one, document)]
    crowded = {problem.location[0] for problem in problems if len(problem.location) > 1}
    problems = [p for p in problems if not (p.what == "empty" and p.location[0] in crowded and document.get("losses"))]
    if not any(one["type"] == "contradictions" and not one["loc"] for one in errors):
        problems += contradictions_between(_valid_sections(document))
    return list(dict.fromkeys(problems))
