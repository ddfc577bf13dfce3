"""STKD in the loop: who sees the mixtures, what BatchNorm keeps of them, and that runs repeat bit for bit."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from test_trainer import INHERITED, bits, same, steps, stop_at

from facekd.engine.training import virtual
from facekd.engine.training.trainer import plan_run, train
from facekd.errors import DataError, Interrupted, NonFiniteError, RecipeError
from facekd.models.embedder import TorchEmbedder
from facekd.recipe import Recipe

STKD = {"name": "stkd", "scale": 8.0}
SIMILARITY = {"name": "stkd_similarity"}
OWN = {"name": "margin_softmax", "scale": 8.0, "margin": 0.2}


@pytest.fixture
def teacher(make_recipe, tmp_path: Path) -> Path:
    out = tmp_path / "teacher"
    quick = ("optimizer.name=adamw", "optimizer.learning_rate=0.01", "train.epochs=12", "data.augment.erase=0")
    train(make_recipe(quick), out, device="cpu")
    return out


@pytest.fixture
def distil(make_recipe, teacher: Path):
    def make(overrides: tuple[str, ...] = (), **sections: object) -> Recipe:
        given = {"teacher": {"weights": str(teacher)}, "losses": [OWN, STKD, SIMILARITY]} | sections
        return make_recipe(overrides, **given)

    return make


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> list[torch.Tensor]:
    """What every teacher is shown while the test trains."""
    shown, embed = [], TorchEmbedder.embed

    def watched(self: TorchEmbedder, images: torch.Tensor) -> torch.Tensor:
        shown.append(images.clone())
        return embed(self, images)

    monkeypatch.setattr(TorchEmbedder, "embed", watched)
    return shown


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_resume__ends_with_the_same_bits(distil, tmp_path: Path, precision: str, workers: int) -> None:
    recipe = distil((f"train.precision={precision}",))
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    train(recipe, whole, device="cpu")
    recipe = recipe.model_copy(update={"train": recipe.train.model_copy(update={"workers": workers})})
    with pytest.raises(Interrupted):
        train(recipe, broken, device="cpu", listener=stop_at(5))
    train(recipe, broken, resume=True, device="cpu")
    assert same(whole, broken) and steps(whole) == steps(broken)


def test_terms_fall(distil, tmp_path: Path) -> None:
    quick = ("optimizer.name=adamw", "optimizer.learning_rate=0.01", "train.batch_size=12", "train.epochs=30")
    data = distil().data.model_dump()
    data["augment"] |= {"shift": 0.0, "color": 0.0, "erase": 0.0}
    recipe = distil((*quick, "schedule.name=constant"), data=data, losses=[STKD, SIMILARITY])
    train(recipe, tmp_path / "run", device="cpu")
    records = steps(tmp_path / "run")
    for name in ("stkd", "stkd_similarity"):
        curve = [record["terms"][name] for record in records]
        assert sum(curve[-12:]) < 0.7 * sum(curve[:12])


def test_teacher_and_student_see_the_same_rounded_mixtures(distil, seen, tmp_path: Path, monkeypatch) -> None:
    made, mix = [], virtual.mix_images

    def watched(images: torch.Tensor, mixture) -> torch.Tensor:
        made.append(mix(images, mixture))
        return made[-1]

    monkeypatch.setattr(virtual, "mix_images", watched)
    train(distil(("train.max_steps=1",), losses=[OWN, STKD]), tmp_path / "run", device="cpu")
    assert len(made) == 1 and made[0].dtype == torch.uint8 and len(made[0]) == 6
    assert torch.equal(seen[-1], made[0])


def test_the_clean_pass_stays_cached_and_the_mixtures_run_live(distil, seen, tmp_path: Path) -> None:
    recipe = distil()
    plan = plan_run(recipe, "cpu")
    assert (plan.student_step_images, plan.teacher_step_images) == (12, 6)
    assert plan.cache_bytes == 24 * 2 * 8 * 4
    train(recipe, tmp_path / "first", device="cpu")
    seen.clear()
    train(recipe, tmp_path / "second", device="cpu")
    in_steps = [shown for shown in seen if len(shown) == 6]
    assert len(in_steps) == plan.total_steps
    assert same(tmp_path / "first", tmp_path / "second")


def test_a_recipe_of_stkd_alone_needs_no_cache(distil, tmp_path: Path) -> None:
    recipe = distil(losses=[OWN, STKD])
    plan = plan_run(recipe, "cpu")
    assert plan.cache_bytes == 0 and (plan.student_step_images, plan.teacher_step_images) == (12, 6)
    train(recipe, tmp_path / "run", device="cpu")
    assert not (tmp_path / "teacher-cache").exists()


def test_plan__counts_a_live_teacher_and_no_mixtures_where_none_are_asked_for(distil, teacher: Path) -> None:
    live = {"weights": str(teacher), "view": "same"}
    found = [plan_run(distil(losses=losses, teacher=live), "cpu") for losses in ([{"name": "l2"}], [OWN, SIMILARITY])]
    assert [(plan.student_step_images, plan.teacher_step_images) for plan in found] == [(6, 6), (12, 12)]
    inherited = plan_run(distil(losses=[INHERITED]), "cpu")
    assert (inherited.student_step_images, inherited.teacher_step_images) == (6, 0)


def statistics(run: Path) -> dict[str, torch.Tensor]:
    return {name: tensor for name, tensor in bits(run).items() if "running" in name or "num_batches" in name}


def test_running_statistics__are_those_of_the_clean_images_alone(make_recipe, distil, tmp_path: Path) -> None:
    still = ("train.max_steps=4", "optimizer.learning_rate=1e-30")
    train(make_recipe(still), tmp_path / "plain", device="cpu")
    train(distil(still), tmp_path / "virtual", device="cpu")
    plain, mixed = statistics(tmp_path / "plain"), statistics(tmp_path / "virtual")
    assert plain.keys() == mixed.keys() and plain
    assert all(torch.equal(plain[name], mixed[name]) for name in plain)


def test_running_statistics__negative_control(make_recipe, distil, tmp_path: Path, monkeypatch) -> None:
    from contextlib import nullcontext

    monkeypatch.setattr(virtual, "running_statistics_kept", lambda module: nullcontext())
    still = ("train.max_steps=4", "optimizer.learning_rate=1e-30")
    train(make_recipe(still), tmp_path / "plain", device="cpu")
    train(distil(still), tmp_path / "virtual", device="cpu")
    plain, mixed = statistics(tmp_path / "plain"), statistics(tmp_path / "virtual")
    assert not all(torch.equal(plain[name], mixed[name]) for name in plain)


def test_frozen_norm__holds_for_the_mixtures_too(distil, tmp_path: Path) -> None:
    train(distil(("train.freeze_norm_epochs=3",)), tmp_path / "run", device="cpu")
    assert int(statistics(tmp_path / "run")["student.bn.num_batches_tracked"]) == 0


def test_a_term_that_has_not_begun_costs_nothing(distil, seen, tmp_path: Path) -> None:
    late = {**STKD, "start_epoch": 2.0}
    train(distil(losses=[OWN, late]), tmp_path / "run", device="cpu")
    assert len([shown for shown in seen if len(shown) == 6]) == 4
    assert [("stkd" in record["terms"]) for record in steps(tmp_path / "run")] == [False] * 8 + [True] * 4


def test_only_labelled_images_are_mixed(distil, teacher: Path, tmp_path: Path, monkeypatch) -> None:
    given, fields = [], virtual.virtual_fields

    def watched(session, batch, student, teacher):
        found = fields(session, batch, student, teacher)
        given.append((batch.labels, found))
        return found

    monkeypatch.setattr("facekd.engine.training.step.virtual_fields", watched)
    live = {"weights": str(teacher), "view": "same"}
    data = distil().data.model_dump()
    data["augment"] |= {"mix": 0.25}
    losses = [OWN, STKD, SIMILARITY]
    train(distil(("train.max_steps=4",), data=data, teacher=live, losses=losses), tmp_path / "run", device="cpu")
    assert any((labels < 0).any() for labels, _ in given)
    for labels, found in given:
        assert len(found["virtual_student"]) == int((labels >= 0).sum()) == len(found["virtual_shares"])
        assert bool((found["virtual_labels"] >= 0).all())
    data["augment"] |= {"mix": 0.97}
    recipe = distil(data=data, teacher=live, losses=[{"name": "l2"}, SIMILARITY])
    with pytest.raises(
        DataError, match="step 0: [01] labelled images in the batch, virtual samples are mixtures of two"
    ):
        train(recipe, tmp_path / "scarce", device="cpu")


def test_widths_may_differ_without_a_comparison_of_elements(distil, tmp_path: Path) -> None:
    student = distil().student.model_dump() | {"embedding_size": 5}
    train(distil(("train.max_steps=2",), student=student), tmp_path / "run", device="cpu")
    assert all({"stkd", "stkd_similarity"} <= record["terms"].keys() for record in steps(tmp_path / "run"))


def test_a_teacher_that_is_not_finite_on_a_mixture__stops_before_the_update(
    distil, tmp_path: Path, monkeypatch
) -> None:
    monkeypatch.setattr(
        "facekd.engine.training.step.live_embeddings",
        lambda session, images: torch.full((len(images), 8), float("nan")),
    )
    with pytest.raises(NonFiniteError, match="step 0: loss term stkd is not finite; nothing was updated"):
        train(distil(losses=[OWN, STKD]), tmp_path / "run", device="cpu")


def test_recipe__refuses_no_teacher_and_two_alphas(make_recipe, distil) -> None:
    with pytest.raises(RecipeError, match="stkd needs a teacher"):
        make_recipe(losses=[OWN, STKD])
    with pytest.raises(RecipeError, match=r"losses\.2\.alpha: differs from that of stkd; both see the same"):
        distil(losses=[OWN, STKD, {**SIMILARITY, "alpha": 0.5}])
    for alpha in (0, -1, 101):
        with pytest.raises(RecipeError, match="alpha: must be"):
            distil(losses=[OWN, {**STKD, "alpha": alpha}])


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a C++ compiler")
def test_compiled__keeps_the_running_statistics_too(distil, tmp_path: Path) -> None:
    still = ("train.max_steps=3", "optimizer.learning_rate=1e-30")
    train(distil(still), tmp_path / "plain", device="cpu")
    train(distil((*still, "train.compile=true")), tmp_path / "compiled", device="cpu")
    plain, compiled = statistics(tmp_path / "plain"), statistics(tmp_path / "compiled")
    assert plain.keys() == compiled.keys()
    for name in plain:
        torch.testing.assert_close(compiled[name], plain[name], rtol=1e-4, atol=1e-5)
