"""Recipes: what a run is, written down, validated before anything heavy is imported."""

from __future__ import annotations

from facekd.recipe.schema import Recipe

__all__ = ["Recipe"]
