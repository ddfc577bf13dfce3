"""A recipe written out in full, in one fixed form, and its digest."""

from __future__ import annotations

import yaml

from facekd.files import value_digest
from facekd.recipe.schema import Recipe
from facekd.recipe.strict_yaml import scalar_value


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
