"""The benchmark scripts name recipes and options that exist, and keep what they measured."""

from __future__ import annotations

import json
from pathlib import Path

import click
import numpy as np
import pytest
from click.testing import CliRunner
from facekd_cli.main import cli
from facekd_cli.shipped import find_recipe

from benchmarks import demo, real_faces, synthetic_hardness
from benchmarks.tables import ALONE, lies_within
from facekd.data.images import encode_png
from facekd.engine.embed import load_embeddings
from facekd.recipe import load_recipe, required_keys


@pytest.mark.parametrize("words", demo.steps(Path("demo")).values(), ids=list(demo.steps(Path("demo"))))
def test_demo__every_step_parses(words: list[str]) -> None:
    group: click.Command = cli
    context = click.Context(cli, **cli.context_settings)
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
    known = (real_faces.RECIPES, real_faces.TERMS, real_faces.ACTIVATIONS, real_faces.CANDIDATES)
    assert changes.keys() <= {name for each in known for name in each}
    assert all([c.split("=")[0] for c in changes[method]] == ["losses"] for method in changes.keys() & real_faces.TERMS)
    loaded = [
        load_recipe(
            find_recipe(real_faces.RECIPES.get(method, real_faces.L2)), overrides=overrides, allow_required=True
        ).train
        for method, overrides in changes.items()
    ]
    assert all(train == loaded[0] for train in loaded)


def test_real_faces__the_study_of_activations_changes_nothing_else() -> None:
    settings = real_faces.STUDIES["real_faces_activations"]
    found = {
        name: load_recipe(find_recipe(real_faces.L2), each, allow_required=True) for name, each in settings.items()
    }
    for student in ("ResNet", "MobileFaceNet"):
        pair = [found[f"{student} with {activation}"] for activation in ("ReLU", "PReLU")]
        assert [recipe.student.options["activation"] for recipe in pair] == ["relu", "prelu"]
        told = [recipe.model_dump() for recipe in pair]
        for each in told:
            each["student"]["options"].pop("activation")
        assert told[0] == told[1]


def test_real_faces__the_study_of_candidates_changes_nothing_else() -> None:
    told = [
        load_recipe(find_recipe(real_faces.L2), each, allow_required=True).model_dump()
        for each in real_faces.STUDIES["real_faces_candidates"].values()
    ]
    assert [recipe["losses"][0].pop("candidates") for recipe in told] == [None, 100, 10]
    assert told[0] == told[1] == told[2]


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


def hardness_rows(teacher: float, alone: list[float], pixels: float) -> list[dict]:
    tprs = [(synthetic_hardness.TEACHER, teacher), *((ALONE, tpr) for tpr in alone)]
    tprs += [(name, pixels) for name in synthetic_hardness.PIXELS]
    points = [{"fpr": 1e-2}, {"fpr": 1e-3}]
    return [{"method": name, "tpr_at_fpr": [{**point, "tpr": tpr} for point in points]} for name, tpr in tprs]


@pytest.mark.parametrize(
    ("teacher", "alone", "pixels", "held"),
    [
        (0.65, [0.35, 0.4, 0.3001], 0.05, [True, True, True]),
        (0.65, [0.35, 0.4, 0.44], 0.16, [False, True, True]),
        (0.65, [0.35, 0.4, 0.46], 0.05, [True, False, True]),
        (0.65, [0.35, 0.4, 0.29], 0.05, [True, True, False]),
        (1.0, [0.7, 0.7, 0.91], 0.05, [True, False, False]),
    ],
)
def test_synthetic_hardness__one_seed_out_of_bounds_is_told(
    teacher: float, alone: list[float], pixels: float, held: list[bool]
) -> None:
    bounds = synthetic_hardness.bounds(hardness_rows(teacher, alone, pixels))
    assert [lies_within(bound) for bound in bounds] == held


def test_synthetic_hardness__trains_on_nobody_it_measures() -> None:
    measured = int(demo.steps(Path("x"))["draw unseen identities"][-1])
    for recipe, *changes in synthetic_hardness.RECIPES.values():
        loaded = load_recipe(find_recipe(recipe), overrides=changes)
        assert loaded.data.synthetic.first_identity + loaded.data.synthetic.identities <= measured
        assert loaded.teacher is None


def test_synthetic_hardness__pixels_are_stored_as_embeddings(tmp_path: Path) -> None:
    faces = np.random.default_rng(0).integers(0, 256, (4, 12, 12, 3)).astype(np.uint8)
    for number, face in enumerate(faces):
        (tmp_path / "faces" / f"p{number // 2}").mkdir(parents=True, exist_ok=True)
        (tmp_path / "faces" / f"p{number // 2}" / f"{number}.png").write_bytes(encode_png(face))
    plain = faces.reshape(4, -1).astype(np.float32)
    for centred in (False, True):
        out = tmp_path / f"{centred}.npz"
        synthetic_hardness.store_pixels(tmp_path / "faces", centred, out)
        found = load_embeddings(out)
        assert found.labels.tolist() == [0, 0, 1, 1]
        assert np.allclose(found.embeddings, plain - plain.mean(1, keepdims=True) * centred, atol=1e-3)


@pytest.mark.slow
def test_synthetic_hardness__runs_from_nothing_and_a_second_time_measures_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    short = ("data.synthetic.identities=8", "data.synthetic.samples=8", "train.epochs=1", "train.freeze_norm_epochs=0")
    recipes = {name: (words[0], *short) for name, words in synthetic_hardness.RECIPES.items()}
    monkeypatch.setattr(synthetic_hardness, "RECIPES", recipes)
    draw = ["data", "synth", str(tmp_path / "runs" / "unseen"), "--identities", "60", "--samples", "4"]
    monkeypatch.setattr(synthetic_hardness, "steps", lambda out: {"draw unseen identities": draw})
    calls: list[str] = []

    def facekd(*words: str) -> None:
        calls.append(words[0])
        assert CliRunner().invoke(cli, list(words)).exit_code == 0

    for module in (synthetic_hardness, real_faces):
        monkeypatch.setattr(module, "facekd", facekd)
    first = synthetic_hardness.study(tmp_path / "runs", [3])
    assert calls == ["data", "eval", "eval", "train", "eval", "train", "eval"]
    assert [(row["method"], row["seed"]) for row in first["rows"]][-2:] == [(ALONE, 3), ("teacher", 3)]
    assert [(row.get("identities"), row["genuine"]) for row in first["rows"]] == [(None, 360)] * 2 + [(8, 360)] * 2
    assert [lies_within(bound) for bound in first["bounds"]] == [True, False, False]
    assert synthetic_hardness.study(tmp_path / "runs", [3]) == first and len(calls) == 7


def test_recommended__is_the_best_run_of_the_study_and_its_losses_at_any_size() -> None:
    (settings,) = real_faces.STUDIES["real_faces_longest"].values()
    recipe = real_faces.RECIPES["ProxylessKD + PAD"]
    measured = load_recipe(find_recipe(recipe), overrides=settings, allow_required=True)
    shipped, general = (
        load_recipe(find_recipe(f"recommended/{name}"), allow_required=True)
        for name in ("edgeface_xs_resnet_tiny", "iresnet50_mobilefacenet")
    )
    told = {"name": shipped.name, "description": shipped.description}
    train = measured.train.model_copy(update={"checkpoint_every": shipped.train.checkpoint_every})
    assert shipped == measured.model_copy(update={**told, "train": train})
    warm = [loss.model_copy(update={"warmup_epochs": 2.0}) for loss in shipped.losses if loss.name == "pad"]
    assert list(general.losses) == [shipped.losses[0], *warm]
