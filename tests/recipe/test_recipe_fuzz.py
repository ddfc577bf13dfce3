"""Damaged recipes: every one is either a recipe that round-trips, or a RecipeError; nothing else ever comes out."""

from __future__ import annotations

import random

import pytest
from facekd_cli.shipped import find_recipe

from facekd.errors import RecipeError
from facekd.recipe import load_recipe, recipe_yaml

PIECES = (
    """&a |*a|!!x |- |: |[|]|{|}|  |\t|'|"|"\\ud800"|1e999|-1|0|.nan|null|true|010|#|>|?|%|\0|name|l2|<<: |~|\u2028"""
)
PIECES_BYTES = [*(piece.encode() for piece in PIECES.split("|")), b"|", b"\n", b"---\n", b"\xff", b"9" * 50]
TARGETS = ("losses.0.weight", "losses.l2", "data", "a.b.c", "losses", "", "student.options.x.y", "evaluate.sets.0")


def damaged(text: bytes, rng: random.Random) -> bytes:
    for _ in range(rng.randint(1, 6)):
        at, kind = rng.randrange(len(text) + 1), rng.random()
        if kind < 0.6:
            text = text[:at] + rng.choice(PIECES_BYTES) + text[at:]
        elif kind < 0.8:
            text = text[:at] + text[at + rng.randint(1, 20) :]
        else:
            text = text[:at] + bytes([rng.randrange(256)]) + text[at + 1 :]
    return text


@pytest.mark.parametrize("seed", range(4))
def test_damage_is_told_or_harmless(seed, tmp_path):
    rng = random.Random(seed)
    whole = find_recipe("quickstart/proxylesskd_pad").read_bytes()
    path, outcomes = tmp_path / "r.yaml", set()
    for _ in range(150):
        path.write_bytes(damaged(whole, rng))
        value = rng.choice(PIECES_BYTES).decode("utf-8", "surrogateescape")
        overrides = [f"{rng.choice(TARGETS)}={value}"] if rng.random() < 0.3 else []
        try:
            recipe = load_recipe(path, overrides, allow_required=True)
        except RecipeError as error:
            assert error.lines
            outcomes.add("refused")
            continue
        path.write_text(recipe_yaml(recipe), encoding="utf-8")
        assert load_recipe(path, allow_required=True) == recipe
        outcomes.add("loaded")
    assert outcomes == {"refused", "loaded"}
