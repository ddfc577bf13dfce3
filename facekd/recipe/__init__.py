"""Recipes: what a run is, written down, validated before anything heavy is imported."""

from __future__ import annotations

from facekd.recipe.base import REQUIRED
from facekd.recipe.canonical import changed_keys, named_files, recipe_digest, recipe_yaml, training_digest
from facekd.recipe.loading import load_recipe, required_keys
from facekd.recipe.schema import Recipe

__all__ = [
    "REQUIRED",
    "Recipe",
    "changed_keys",
    "load_recipe",
    "named_files",
    "recipe_digest",
    "recipe_yaml",
    "required_keys",
    "training_digest",
]
