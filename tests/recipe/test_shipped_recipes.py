"""Every shipped recipe is right as it ships, and survives its own canonical form."""

from __future__ import annotations

import math

import pytest
import torch
from facekd_cli.shipped import shipped_recipes

from facekd.losses import LOSSES
from facekd.recipe import load_recipe, recipe_digest, recipe_yaml, required_keys

SHIPPED = shipped_recipes()


def test_every_loss_has_a_shipped_recipe_and_the_quickstart_and_the_baseline_are_there():
    recipes = [load_recipe(path, allow_required=True) for path in SHIPPED.values()]
    assert {loss.name for recipe in recipes for loss in recipe.losses} == {*LOSSES}
    assert {name.split("/")[0] for name in SHIPPED} >= {"baseline", "proxylesskd", "quickstart", "recommended"}


def test_cckd_takes_the_exact_kernel_where_its_recipe_is_told_so():
    recipe = load_recipe(SHIPPED["cckd/iresnet50_mobilefacenet"], ["losses.1.order=null"], allow_required=True)
    options = recipe.losses[1].loss_options()
    same, apart = torch.tensor([[1.0, 0.0], [1.0, 0.0]]), torch.eye(2)
    exact = 0.5 * (1 - math.exp(-2 * options["gamma"])) ** 2  # one pair at cosine 1 and 0: two of four entries differ
    assert LOSSES["cckd"](same, apart, **options).item() == pytest.approx(exact)
    cut = load_recipe(SHIPPED["cckd/iresnet50_mobilefacenet"], allow_required=True).losses[1].loss_options()
    assert LOSSES["cckd"](same, apart, **cut).item() != pytest.approx(exact, rel=1e-3)


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
