"""What is done beside a run while it trains: it sees whole files, and the run ends with the bits of one left alone."""

from __future__ import annotations

from pathlib import Path

import pytest
from random_model import save_random_model
from run_bits import same

from facekd.engine.evaluation.evaluation_sets import open_set
from facekd.engine.evaluation.evaluator import evaluate_set
from facekd.engine.evaluation.figures import EvalSettings
from facekd.engine.training.run import Listener
from facekd.engine.training.trainer import train
from facekd.models.embedder import load_embedder
from facekd.recipe import Recipe

MEASURED = {"sets": [{"synthetic": {"identities": 3, "samples": 2}}], "every": 0.5, "select": "best", "fpr": [0.5]}


@pytest.fixture
def recipe(make_recipe, tmp_path: Path) -> Recipe:
    """A student of a teacher whose embeddings are cached, kept whenever it is the best so far."""
    save_random_model(tmp_path / "teacher.safetensors", size=8)
    teacher = {"weights": str(tmp_path / "teacher.safetensors")}
    return make_recipe(teacher=teacher, losses=[{"name": "l2"}], evaluate=MEASURED)


@pytest.mark.slow
def test_evaluations_and_another_run_on_the_same_cache_change_nothing(
    recipe: Recipe, faces: Path, tmp_path: Path
) -> None:
    alone, watched, other = (tmp_path / name for name in ("alone", "watched", "other"))
    train(recipe, alone, device="cpu")
    measured: list[float] = []

    def look(record: dict, total: int) -> None:
        if (watched / "student.safetensors").exists() and "terms" in record:
            settings = EvalSettings(bootstrap=0)
            measured.append(evaluate_set(load_embedder(watched), open_set(faces), settings).result["auc"])
        if record["step"] == 3 and not other.exists():
            train(recipe, other, device="cpu")

    train(recipe, watched, device="cpu", listener=Listener(step=look))
    assert len(measured) > 6 and min(measured) > 0, "there is always a whole student to be measured"
    assert same(alone, watched) and same(alone, other)
    assert len(list((tmp_path / "teacher-cache").iterdir())) == 1
