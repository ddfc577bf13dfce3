"""Every shipped recipe is right as it ships, and survives its own canonical form."""

from __future__ import annotations

import pytest
from facekd_cli.shipped import shipped_recipes

from facekd.losses import LOSSES
from facekd.recipe import load_recipe, recipe_digest, recipe_yaml, required_keys

SHIPPED = shipped_recipes()


def test_every_loss_has_a_shipped_recipe_and_the_quickstart_and_the_baseline_are_there():
    recipes = [load_recipe(path, allow_required=True) for path in SHIPPED.values()]
    assert {loss.name for recipe in recipes for loss in recipe.losses} == {*LOSSES}
    assert {name.split("/")[0] for name in SHIPPED} >= {"baseline", "proxylesskd", "quickstart", "recommended"}


@pytest.mark.parametrize("name", SHIPPED)
def test_it_loads_once_its_open_values_are_given_and_round_trips(name, tmp_path):
    needs = required_keys(load_recipe(SHIPPED[name], allow_required=True))
    open_keys = {"data.path", "data.images", "teacher.weights", "student.weights"}
    open_keys |= {"subsets.0.weights", "subsets.1.weights"}
    assert set(needs) <= open_keys
    recipe = load_recipe(SHIPPED[name], [f"{key}={tmp_path}/{key}" for key in needs])
    assert required_keys(recipe) == []
    (tmp_path / "again.yaml").write_text(recipe_yaml(recipe), encoding="utf-8")
    again = load_recipe(tmp_path / "again.yaml")
    assert again == recipe
    assert recipe_digest(again) == recipe_digest(recipe)


def test_every_recipe_has_its_own_name_and_a_description():
    recipes = [load_recipe(path, allow_required=True) for path in SHIPPED.values()]
    assert len({recipe.name for recipe in recipes}) == len(recipes)
    assert all(recipe.description for recipe in recipes)


def test_their_backbones_exist():
    from facekd.models.backbone import BACKBONES

    assert {load_recipe(path, allow_required=True).student.backbone for path in SHIPPED.values()} <= set(BACKBONES)
