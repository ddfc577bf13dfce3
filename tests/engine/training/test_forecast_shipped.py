"""A dry run of every shipped recipe says what it will cost."""

from __future__ import annotations

from pathlib import Path

import pytest
from facekd_cli.shipped import find_recipe
from test_shipped_training import every_recipe, smaller, teachers

from facekd.engine.training import inheritance
from facekd.engine.training.forecast import forecast_run
from facekd.engine.training.trainer import train
from facekd.errors import UsageError

__all__ = ["teachers"]
TINY = ("student.backbone=resnet_tiny", "student.options={channels: '4,8', blocks: '1,1'}", "student.input_size=32")


@pytest.mark.slow
@every_recipe
def test_a_shipped_recipe_is_forecast(path: Path, faces: Path, teachers: dict[int, Path]) -> None:
    recipe = smaller(path, faces, teachers, *TINY, "train.max_steps=3")
    told = forecast_run(recipe, "cpu")[1]
    assert (told is None) == bool(recipe.subsets)
    assert told is None or (told.step_seconds > 0 and told.memory_bytes > 0)


def test_so_few_images_do_not_refuse_an_inherited_classifier(
    faces: Path, teachers: dict[int, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = smaller(find_recipe("proxylesskd/iresnet50_mobilefacenet"), faces, teachers, *TINY)
    monkeypatch.setattr(inheritance, "nearest_centre_agreement", lambda *_: 0.1)
    assert forecast_run(recipe, "cpu")[1] is not None
    with pytest.raises(UsageError, match="only 10.0%"):
        train(recipe, tmp_path / "run", device="cpu")
