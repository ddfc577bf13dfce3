"""Training with a teacher somebody else trained: what it was taken for is in the run's own words."""

from __future__ import annotations

from pathlib import Path

import torch

from facekd.engine.training.trainer import train
from facekd.models.backbone import build_backbone


def test_a_run_tells_what_its_teacher_was_taken_for(make_recipe, tmp_path: Path) -> None:
    torch.manual_seed(0)
    module = build_backbone("mobilefacenet", embedding_size=8, input_size=32, options={"width": 0.25})
    with torch.no_grad():
        module(torch.randn(16, 3, 32, 32))
    torch.save({f"module.{key}": value for key, value in module.state_dict().items()}, tmp_path / "foreign.pth")
    recipe = make_recipe(
        ("train.max_steps=2",), teacher={"weights": str(tmp_path / "foreign.pth")}, losses=[{"name": "l2"}]
    )
    train(recipe, tmp_path / "run")
    log = (tmp_path / "run" / "log.txt").read_text()
    assert "warning: " in log and "foreign.pth: took module. off 331 keys" in log
    assert "looks like TFace or AdaDistill MobileFaceNet, hence rgb and half; options may say otherwise" in log


def test_a_recipe_takes_models_by_name(make_recipe) -> None:
    for name in ("hf:owner/name/weights/r50.pt", "timm/resnet18.a1_in1k"):
        recipe = make_recipe(teacher={"weights": name}, losses=[{"name": "l2"}])
        assert recipe.teacher.weights == name
