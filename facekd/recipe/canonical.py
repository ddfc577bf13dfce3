"""A recipe written out in full, in one fixed form: its digests, what changed in it, the files it names."""

from __future__ import annotations

from collections.abc import Iterator

import yaml

from facekd.files import value_digest
from facekd.recipe.schema import Recipe
from facekd.recipe.strict_yaml import scalar_value

FREE = ("workers", "log_every", "checkpoint_every")
"""Keys of ``train`` that change no weight: a run may go on with others."""
FILES = ("path", "images", "file", "weights", "class_weights")
"""Last parts of the keys that name files."""


class _Dumper(yaml.SafeDumper):
    """PyYAML's writer with a representer of our own, which its class attributes would otherwise share with everyone."""


def _text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    """Text, quoted where :func:`scalar_value` would read something else."""
    try:
        plain = scalar_value(text) == text
    except ValueError:
        plain = False
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=None if plain else "'")


_Dumper.add_representer(str, _text)


def recipe_yaml(recipe: Recipe) -> str:
    """Every value of a recipe, defaults included, in the schema's order; loads back to an equal recipe.

    Example:
        >>> from facekd.recipe import Recipe
        >>> draft = {"name": "a", "student": {"backbone": "b"}, "data": {"source": "synthetic"},
        ...          "losses": [{"name": "margin_softmax"}], "optimizer": {"learning_rate": 1}, "train": {"epochs": 1}}
        >>> print(recipe_yaml(Recipe.model_validate(draft))[:46])
        name: a
        description: ''
        student:
          backbone: b
    """
    return yaml.dump(recipe.model_dump(mode="json"), Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=110)


def recipe_digest(recipe: Recipe) -> str:
    """SHA-256, in hex, of all values of a recipe; the form and comments of its file do not matter.

    Example:
        >>> from facekd.recipe import Recipe
        >>> draft = {"name": "a", "student": {"backbone": "b"}, "data": {"source": "synthetic"},
        ...          "losses": [{"name": "margin_softmax"}], "optimizer": {"learning_rate": 1}, "train": {"epochs": 1}}
        >>> same = {**draft, "optimizer": {"learning_rate": 1.0, "momentum": 0.9}}
        >>> recipe_digest(Recipe.model_validate(draft)) == recipe_digest(Recipe.model_validate(same))
        True
    """
    return value_digest(recipe.model_dump(mode="json"))


def training_digest(recipe: Recipe) -> str:
    """:func:`recipe_digest` without what changes no weight: two recipes of one digest end with the same student.

    Example:
        >>> from facekd.recipe import Recipe
        >>> draft = {"name": "a", "student": {"backbone": "b"}, "data": {"source": "synthetic"},
        ...          "losses": [{"name": "margin_softmax"}], "optimizer": {"learning_rate": 1}, "train": {"epochs": 1}}
        >>> more = {**draft, "train": {"epochs": 1, "workers": 3}}
        >>> training_digest(Recipe.model_validate(draft)) == training_digest(Recipe.model_validate(more))
        True
    """
    values = recipe.model_dump(mode="json")
    values["train"] = {key: value for key, value in values["train"].items() if key not in FREE}
    return value_digest(values)


def changed_keys(before: Recipe, after: Recipe) -> list[str]:
    """Dotted keys on which two recipes differ, without those that change no weight."""
    old, new = (dict(_leaves("", recipe.model_dump(mode="json"))) for recipe in (before, after))
    free = {f"train.{key}" for key in FREE}
    return sorted(key for key in (old.keys() | new.keys()) - free if old.get(key) != new.get(key))


def named_files(recipe: Recipe) -> dict[str, str]:
    """The files and folders a recipe reads, by dotted key.

    Example:
        >>> from facekd.recipe import Recipe
        >>> draft = {"name": "a", "student": {"backbone": "b"}, "data": {"source": "folder", "path": "faces"},
        ...          "losses": [{"name": "margin_softmax"}], "optimizer": {"learning_rate": 1}, "train": {"epochs": 1}}
        >>> named_files(Recipe.model_validate(draft))
        {'data.path': 'faces'}
    """
    leaves = _leaves("", recipe.model_dump(mode="json", exclude={"losses"}))
    return {key: value for key, value in leaves if isinstance(value, str) and key.rpartition(".")[2] in FILES}


def _leaves(prefix: str, value: object) -> Iterator[tuple[str, object]]:
    """Every value below a key by its dotted key; of an empty list or mapping, its kind."""
    if not isinstance(value, dict | list):
        yield prefix, value
        return
    if not value:
        yield prefix, type(value).__name__
    for name, inner in value.items() if isinstance(value, dict) else enumerate(value):
        yield from _leaves(f"{prefix}.{name}" if prefix else str(name), inner)
