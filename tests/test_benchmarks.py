"""The benchmark scripts name recipes and options that exist, and keep what they measured."""

from __future__ import annotations

import json
from pathlib import Path

import click
import pytest
from facekd_cli.main import cli
from facekd_cli.shipped import find_recipe

from benchmarks import demo, real_faces
from facekd.recipe import load_recipe, required_keys


@pytest.mark.parametrize("words", demo.steps(Path("demo")).values(), ids=list(demo.steps(Path("demo"))))
def test_demo__every_step_parses(words: list[str]) -> None:
    group: click.Command = cli
    context = click.Context(cli)
    rest = list(words)
    while isinstance(group, click.Group):
        name, group, rest = group.resolve_command(context, rest)
        context = click.Context(group, parent=context, info_name=name)
    options, left, _ = group.make_parser(context).parse_args(list(rest))
    assert options and not left


def test_demo__trains_unmodified_quickstart_recipes_on_identities_it_does_not_measure() -> None:
    steps = demo.steps(Path("demo"))
    trained = [
        load_recipe(find_recipe(w[1]), allow_required=True).data.synthetic for w in steps.values() if w[0] == "train"
    ]
    measured = int(steps["draw unseen identities"][-1])
    assert len(trained) == 3 and len(set(trained)) == 1
    assert measured >= trained[0].first_identity + trained[0].identities


@pytest.mark.parametrize("recipe", real_faces.RECIPES.values())
def test_real_faces__recipes_differ_in_nothing_but_the_method(recipe: str) -> None:
    loaded = load_recipe(find_recipe(recipe), allow_required=True)
    alone = load_recipe(find_recipe(real_faces.RECIPES["student alone"]), allow_required=True)
    assert (loaded.student, loaded.optimizer, loaded.schedule, loaded.train) == (
        alone.student,
        alone.optimizer,
        alone.schedule,
        alone.train,
    )
    same = loaded.data.augment.model_copy(update={"mix": 0.0})
    assert same == alone.data.augment
    assert set(required_keys(loaded)) <= {"data.path", "data.images", "teacher.weights"}


@pytest.mark.parametrize("study", real_faces.STUDIES)
def test_real_faces__every_study_changes_the_length_of_all_methods_alike(study: str) -> None:
    changes = real_faces.STUDIES[study]
    assert list(changes) == list(real_faces.RECIPES)
    loaded = [
        load_recipe(find_recipe(real_faces.RECIPES[method]), overrides=overrides, allow_required=True).train
        for method, overrides in changes.items()
    ]
    assert all(train == loaded[0] for train in loaded)


def test_real_faces__a_finished_run_and_a_measured_model_are_left_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[tuple[str, ...]] = []
    monkeypatch.setattr(real_faces, "facekd", lambda *words: calls.append(words))
    (tmp_path / "student.safetensors").touch()
    (tmp_path / "figures.json").write_text(json.dumps({"results": [1]}))
    real_faces.train("l2/edgeface_xs_resnet_tiny", tmp_path, 0, tmp_path, [])
    assert real_faces.evaluate([tmp_path], tmp_path, tmp_path / "figures.json") == [1]
    assert calls == []
    real_faces.train("l2/edgeface_xs_resnet_tiny", tmp_path, 3, tmp_path / "new", ["train.epochs=1"])
    assert calls[0][:2] == ("train", "l2/edgeface_xs_resnet_tiny") and "--resume" not in calls[0]
    assert {"train.seed=3", "train.epochs=1"} <= set(calls[0])
