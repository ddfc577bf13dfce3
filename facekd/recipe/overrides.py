"""``--set key.path=value``: changes to a recipe from the command line."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from facekd.recipe.base import Location, Problem
from facekd.recipe.strict_yaml import YamlError, read_yaml
from facekd.registry import did_you_mean


@dataclass
class Overridden:
    """What overrides did to a document.

    Attributes:
        origins: For each location that was set, the ``--set key.path`` that did it.
        problems: Origin and problem of what could not be set.
    """

    origins: dict[Location, str] = field(default_factory=dict)
    problems: list[tuple[str, Problem]] = field(default_factory=list)


class _Refused(Exception):
    """An override that leads nowhere: what is wrong, and how to mend it."""


def _index(items: list[Any], part: str, path: str) -> int:
    """Which item of a list a part of a key path means: by index, or a loss by its name."""
    if part.isascii() and part.isdigit() and len(part) < 10:
        if int(part) < len(items):
            return int(part)
        raise _Refused(f"{path} has {len(items)} items", "the first is 0")
    names = [item["name"] for item in items if isinstance(item, dict) and isinstance(item.get("name"), str)]
    if part in names:
        return next(i for i, item in enumerate(items) if isinstance(item, dict) and item.get("name") == part)
    raise _Refused(f"{path} has no item {part!r}", did_you_mean(part, names) if names else "give its index")


def _assign(document: dict[str, Any], parts: Sequence[str], value: object) -> Location:
    """Set one value in place and return where it went."""
    here: Any = document
    location: list[str | int] = []
    for depth, part in enumerate(parts):
        path = ".".join(parts[:depth]) or "the recipe"
        if not isinstance(here, dict | list):
            raise _Refused(f"{path} is a single value, not a section", "")
        key: Any = _index(here, part, path) if isinstance(here, list) else part
        location.append(key)
        if depth == len(parts) - 1:
            here[key] = value
        elif isinstance(here, dict) and here.get(part) is None:
            here[part] = {}
        here = here[key]
    return tuple(location)


def apply_overrides(document: dict[str, Any], overrides: Sequence[str]) -> Overridden:
    """Set values in a document, in place; a list item is named by index, a loss also by its name.

    Args:
        document: The recipe as read.
        overrides: ``key.path=value`` each; the value is read as YAML.

    Example:
        >>> document = {"losses": [{"name": "l2"}], "train": {"epochs": 3}}
        >>> done = apply_overrides(document, ["losses.l2.weight=1e-1", "train.epochs=5", "losses.pad.weight=1"])
        >>> document
        {'losses': [{'name': 'l2', 'weight': 0.1}], 'train': {'epochs': 5}}
        >>> done.problems[0][1].what
        "losses has no item 'pad'"
    """
    done = Overridden()
    for text in overrides:
        path, equals, written = text.partition("=")
        origin = f"--set {path}"
        parts = path.strip().split(".")
        try:
            if not equals or not all(parts):
                raise _Refused("not of the form key.path=value", "such as --set train.epochs=10")
            read = read_yaml(written)
            done.problems += [(origin, problem._replace(location=())) for _, problem in read.problems]
            location = _assign(document, parts, read.value)
        except _Refused as refusal:
            done.problems.append((origin, Problem((), *refusal.args)))
        except YamlError as error:
            done.problems.append((origin, Problem((), error.what, "put quotes around the value, inside the shell's")))
        else:
            done.origins = {key: o for key, o in done.origins.items() if key[: len(location)] != location}
            done.origins[location] = origin
    return done
