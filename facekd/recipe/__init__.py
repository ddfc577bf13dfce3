"""Recipes: what a run is, written down, validated before anything heavy is imported."""

from __future__ import annotations

from facekd.recipe.base import REQUIRED
from facekd.recipe.canonical import recipe_digest, recipe_yaml
from facekd.recipe.loading import load_recipe, required_keys
from facekd.recipe.schema import Recipe

__all__ = ["REQUIRED", "Recipe", "load_recipe", "recipe_digest", "recipe_yaml", "required_keys"]
