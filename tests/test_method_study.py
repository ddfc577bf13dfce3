"""The study of all methods compares them on equal terms, and its table tells what the runs measured."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from facekd_cli.shipped import find_recipe

from benchmarks import methods as study
from benchmarks import real_faces
from benchmarks.method_tables import elsewhere_note, gaps, methods, share_of_gap
from benchmarks.tables import ALONE
from facekd.recipe import Recipe, load_recipe

ARENAS = [study.real_faces(Path("faces")), study.drawn_faces(Path("runs"))]


def loaded(arena: study.Arena, method: str) -> Recipe:
    teacher = [] if method == ALONE else [f"teacher.weights={arena.teacher}"]
    changes = [*arena.equal, *teacher, *study.METHODS[method].settings()]
    return load_recipe(find_recipe(arena.recipe), changes)


@pytest.mark.parametrize(
    ("arena", "method"),
    [pytest.param(arena, method, id=f"{arena.benchmark}-{method}") for arena in ARENAS for method in arena.methods],
)
def test_methods__differ_in_their_losses_and_draws_alone(arena: study.Arena, method: str) -> None:
    recipe, alone = loaded(arena, method), loaded(arena, ALONE)
    assert (recipe.student, recipe.data, recipe.optimizer, recipe.schedule) == (
        alone.student,
        alone.data,
        alone.optimizer,
        alone.schedule,
    )
    assert recipe.train == alone.train.model_copy(update={"images_per_identity": recipe.train.images_per_identity})
    assert (recipe.teacher is None) == (method == ALONE)
    assert recipe.data.augment.mix == 0


def test_drawn_faces__nobody_measured_was_trained_on() -> None:
    arena = ARENAS[1]
    taught, drawn, unseen = arena.preparations.values()
    teacher = load_recipe(find_recipe(taught[1]), [word for word in taught if "=" in word]).data.synthetic
    assert loaded(arena, ALONE).data.path == drawn[2]
    assert drawn[3:] == ("--identities", str(teacher.identities), "--samples", "8") and teacher.first_identity == 0
    assert int(unseen[-1]) >= teacher.identities >= 1000


def recorded(rows: list[dict], machine: str = "here") -> dict:
    there = dict.fromkeys(real_faces.CONDITIONS, "same") | {"machine": machine, "packages": {"torch": "1"}}
    recipes = {row["method"]: " --set ".join(study.METHODS[row["method"]].settings()) for row in rows}
    return {"benchmark": "b", "recipe": "r", "recipes": recipes, "rows": rows, "seeds": [0], "teacher": [], **there}


def told(rows: list[dict]) -> list[tuple[str, int]]:
    return [(row["method"], row["seed"]) for row in rows]


def test_joined__keeps_what_is_not_measured_again_and_says_where_it_comes_from() -> None:
    earlier = recorded([measured("l2", 0, 0.1), measured("l2", 1, 0.2), measured("PAD", 5, 0.3)], "elsewhere")
    now = recorded([measured("l2", 1, 0.7), measured("STKD", 1, 0.8)])
    found = study.joined(earlier, now)
    assert told(found["rows"]) == [("l2", 0), ("PAD", 5), ("l2", 1), ("STKD", 1)]
    assert [row.get("conditions", now)["machine"] for row in found["rows"]] == [
        "elsewhere",
        "elsewhere",
        "here",
        "here",
    ]
    assert found["rows"][2]["auc"] == 0.7 and found["seeds"] == [0, 1, 5]
    assert list(found["recipes"]) == ["l2", "PAD", "STKD"]
    assert "Recorded with elsewhere, python same, torch 1: l2, PAD." in elsewhere_note(found)
    assert not any("conditions" in row for row in study.joined(recorded([measured("PAD", 5, 0.3)]), now)["rows"])


def test_joined__drops_rows_of_another_study_and_of_a_recipe_that_has_changed() -> None:
    now = recorded([measured("STKD", 1, 0.8)])
    assert study.joined(None, now) == now
    shorter, other = recorded([{**measured("l2", 0, 0.1), "steps": 8}]), recorded([measured("l2", 0, 0.1)])
    assert told(study.joined(other, now)["rows"]) == [("l2", 0), ("STKD", 1)]
    other["recipes"]["l2"] = "losses=[{name: l2, weight: 2}]"
    for earlier in (shorter, other, {**recorded([measured("l2", 0, 0.1)]), "recipe": "another"}):
        assert told(study.joined(earlier, now)["rows"]) == [("STKD", 1)]


def measured(method: str, seed: int | None, tpr: float) -> dict:
    points = [{"fpr": fpr, "tpr": tpr, "impostors": 10**6} for fpr in (1e-2, 1e-3)]
    told = {"parameters": 10, "macs": 100, "epochs": 2, "steps": 9, "genuine": 50, "impostor": 10**6, "auc": tpr}
    return {"method": method, "seed": seed, "tpr_at_fpr": points, "train_seconds": 1800, **told}


def test_share_of_gap__is_taken_seed_by_seed() -> None:
    alone = [measured(ALONE, 0, 0.4), measured(ALONE, 1, 0.5)]
    rows = [measured("l2", 1, 0.6), measured("l2", 0, 0.3), measured("l2", 2, 0.9)]
    assert share_of_gap(rows, alone, measured("teacher", None, 0.9), 1e-3) == pytest.approx([0.25, -0.2])


def test_table__names_the_best_first_and_a_loss_as_a_loss() -> None:
    rows = [measured(ALONE, 0, 0.4), measured("worse", 0, 0.3), measured("best", 0, 0.8)]
    data = {"teacher": [measured("teacher", None, 0.9)], "rows": rows, "recipe": "r", "recipes": {"best": "x"}}
    text = methods(data)
    lines = [line for line in text.splitlines() if line.startswith("| ")][1:5]
    assert [line.split(" | ")[0] for line in lines] == ["| teacher", "| best", f"| {ALONE}", "| worse"]
    assert "0.800" in lines[1] and "-0.200" in lines[3]
    assert "Training all 3 students took 1.5 hours of one core." in text


def test_table__tells_mean_and_deviation_over_seeds() -> None:
    rows = [measured(ALONE, seed, 0.4) for seed in range(3)] + [
        measured("l2", seed, 0.5 + seed / 10) for seed in range(3)
    ]
    data = {"teacher": [measured("teacher", None, 0.9)], "rows": rows, "recipe": "r", "recipes": {}}
    (line,) = (line for line in methods(data).splitlines() if line.startswith("| l2 | 3 |"))
    assert line.count("0.6000 ± 0.1000") == 2 and "0.400 ± 0.200" in line


def test_gaps__stand_side_by_side_the_best_first() -> None:
    def arena(**tpr: list[float]) -> dict:
        rows = [measured(name, seed, value) for name, values in tpr.items() for seed, value in enumerate(values)]
        return {
            "teacher": [measured("teacher", None, 0.9)],
            "rows": [*(measured(ALONE, s, 0.4) for s in (0, 1)), *rows],
        }

    told = gaps({"real": arena(a=[0.5, 0.6], b=[0.3], once=[0.5]), "drawn": arena(a=[0.65], b=[0.8, 0.9])})
    assert told.splitlines()[0] == "| method | real | drawn |"
    assert told.splitlines()[2:] == ["| b | -0.20 (one seed) | 0.90 ± 0.14 |", "| a | 0.30 ± 0.14 | 0.50 (one seed) |"]


def test_report__holds_the_finished_runs_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    arena = study.drawn_faces(tmp_path)
    for name in ("l2-0", "l2-1", "teacher"):
        (tmp_path / name).mkdir()
    (tmp_path / "l2-1" / "student.safetensors").touch()
    keys = ("set", "protocol", "pairs", "genuine", "impostor", "accuracy", "auc", "eer", "tpr_at_fpr", "refused")
    for name in ("l2-1", "teacher"):
        (tmp_path / f"{name}.json").write_text(json.dumps({"results": [dict.fromkeys(keys, 0)]}))
    monkeypatch.setattr(study, "run_size", lambda run: {})
    monkeypatch.setattr(study, "conditions", lambda run: {})
    monkeypatch.setattr(study, "load_embedder", lambda path: type("Model", (), {"parameters": 5}))
    found = study.report(arena, tmp_path, ["l2", "PAD"], [0, 1], "command")
    assert [(row["method"], row["seed"]) for row in found["rows"]] == [("l2", 1)]
    assert list(found["recipes"]) == ["l2"] and found["teacher"][0]["parameters"] == 5
    with pytest.raises(SystemExit, match="no run is finished"):
        study.report(arena, tmp_path, ["PAD"], [0, 1], "command")
