"""A dry run of every shipped recipe says what it will cost."""

from __future__ import annotations

from pathlib import Path

import pytest
from test_shipped_training import every_recipe, smaller, teachers

from facekd.engine.training.forecast import forecast_run

__all__ = ["teachers"]
TINY = ("student.backbone=resnet_tiny", "student.options={channels: '4,8', blocks: '1,1'}", "student.input_size=32")


@pytest.mark.slow
@every_recipe
def test_a_shipped_recipe_is_forecast(path: Path, faces: Path, teachers: dict[int, Path]) -> None:
    recipe = smaller(path, faces, teachers, *TINY, "train.max_steps=3")
    told = forecast_run(recipe, "cpu")[1]
    assert (told is None) == bool(recipe.subsets)
    assert told is None or (told.step_seconds > 0 and told.memory_bytes > 0)
