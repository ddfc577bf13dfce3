"""A projector to the teacher's width: which losses see through it, and whether the finished student has it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import onnx
import pytest
import torch
from safetensors.torch import load_file
from test_shipped_training import heads_trained
from test_trainer import same, steps, stop_at
from torch import nn

from facekd.engine.export.exporter import export_onnx
from facekd.engine.training.objective import Objective
from facekd.engine.training.outputs import Sizes, StepOutputs
from facekd.engine.training.trainer import plan_run, train
from facekd.errors import CheckpointError, Interrupted, RecipeError
from facekd.losses import adadistill, l2, logit_kd, margin_softmax, rkd
from facekd.losses.adaptive import moved_centres
from facekd.models.backbone import build_backbone
from facekd.models.embedder import TorchEmbedder, load_embedder
from facekd.recipe.loss_options import L2, AdaDistill, LogitKD, MarginSoftmax, Pad, Rkd

CLASSES, DIM, WIDE, BATCH = 5, 4, 7, 6
SIZES = Sizes(
    classes=CLASSES, embedding_size=DIM, teacher_size=WIDE, batch_size=BATCH, steps_per_epoch=2, projected=True
)


@pytest.fixture
def outputs() -> StepOutputs:
    torch.manual_seed(0)
    return StepOutputs(torch.randn(BATCH, DIM, requires_grad=True), torch.randn(BATCH, WIDE), torch.arange(BATCH) % 5)


def test_dropped__losses_of_the_teacher_s_space_see_the_student_times_the_matrix(outputs: StepOutputs) -> None:
    losses = (L2(name="l2"), MarginSoftmax(name="margin_softmax", class_weights="teacher"), Rkd(name="rkd"))
    inherited = torch.randn(CLASSES, WIDE)
    objective = Objective(losses, SIZES, inherited)
    terms = objective(outputs, 0)
    wide = outputs.student @ objective.projector.weight.T
    torch.testing.assert_close(terms["l2"], l2(wide, outputs.teacher))
    torch.testing.assert_close(terms["margin_softmax"], margin_softmax(wide, inherited, outputs.labels))
    torch.testing.assert_close(terms["rkd"], rkd(outputs.student, outputs.teacher))


def test_dropped__the_student_s_own_classifier_stands_on_the_embedding_that_is_deployed(outputs: StepOutputs) -> None:
    losses = (L2(name="l2"), MarginSoftmax(name="margin_softmax"), LogitKD(name="logit_kd"))
    inherited = torch.randn(CLASSES, WIDE)
    objective = Objective(losses, SIZES, inherited)
    own = objective.own.class_weights
    assert own.shape == (CLASSES, DIM)
    terms = objective(outputs, 0)
    torch.testing.assert_close(terms["margin_softmax"], margin_softmax(outputs.student, own, outputs.labels))
    torch.testing.assert_close(terms["logit_kd"], logit_kd(outputs.student, outputs.teacher, own, inherited))


def test_dropped__a_part_sees_what_its_loss_sees(outputs: StepOutputs) -> None:
    objective = Objective((AdaDistill(name="adadistill"), Pad(name="pad", warmup_epochs=0)), SIZES)
    before = objective.parts["adadistill"].centres.clone()
    terms = objective(outputs, 0)
    wide = outputs.student @ objective.projector.weight.T
    centres = moved_centres(before, wide, outputs.teacher, outputs.labels, weighted=True)
    torch.testing.assert_close(terms["adadistill"], adadistill(wide, centres, outputs.labels))
    assert objective.parts["pad"].residual.shape == (WIDE,)


def test_dropped__gradient_flows_to_the_projector_and_through_it(outputs: StepOutputs) -> None:
    objective = Objective((L2(name="l2"),), SIZES)
    objective(outputs, 0)["l2"].backward()
    assert objective.projector.weight.grad.abs().sum() > 0
    assert outputs.student.grad.abs().sum() > 0
    plain = Objective((L2(name="l2"),), replace(SIZES, projected=False, teacher_size=DIM))
    assert list(plain.parameters()) == []


def test_it_starts_with_the_angles_of_the_embedding(outputs: StepOutputs) -> None:
    wide = Objective((L2(name="l2"),), SIZES).projector(outputs.student)
    apart = nn.functional.cosine_similarity(wide[:1], wide)
    torch.testing.assert_close(apart, nn.functional.cosine_similarity(outputs.student[:1], outputs.student))


@pytest.fixture
def wide_teacher(make_recipe, tmp_path: Path) -> Path:
    quick = ("optimizer.name=adamw", "optimizer.learning_rate=0.01", "train.epochs=12", "student.embedding_size=16")
    train(make_recipe((*quick, "data.augment.erase=0")), tmp_path / "wide", device="cpu")
    return tmp_path / "wide"


@pytest.fixture
def distil(make_recipe, wide_teacher: Path):
    def make(fate: str, *overrides: str):
        losses = [{"name": "margin_softmax", "class_weights": "teacher", "scale": 8.0, "margin": 0.2}, {"name": "l2"}]
        losses += [{"name": "pad", "warmup_epochs": 0.5}, {"name": "adadistill"}]
        projector = () if fate == "none" else (f"student.projector={fate}",)
        return make_recipe((*projector, *overrides), teacher={"weights": str(wide_teacher)}, losses=losses)

    return make


def exported(run: Path) -> tuple[int, int]:
    """Width of the exported embedding, and how many values the exported file holds."""
    file = run / "student.onnx"
    report = export_onnx(load_embedder(run), file)
    return report.output_shape[1], sum(len(t.raw_data) // 4 for t in onnx.load(file).graph.initializer)


def test_fate__keep_is_part_of_the_student_everywhere_and_drop_nowhere(distil, tmp_path: Path) -> None:
    plans = {fate: plan_run(distil(fate), "cpu") for fate in ("drop", "keep")}
    for fate in plans:
        train(distil(fate, "train.ema=0.9"), tmp_path / fate, device="cpu")
    drop, keep = (load_embedder(tmp_path / fate) for fate in plans)
    assert (drop.embedding_size, keep.embedding_size) == (8, 16)
    assert [plans[fate].projector for fate in plans] == [
        "8 to 16, left out of the student",
        "8 to 16, part of the student",
    ]
    assert keep.parameters - drop.parameters == 8 * 16
    assert (drop.parameters, keep.parameters) == tuple(plan.student_parameters for plan in plans.values())
    assert plans["keep"].student_macs - plans["drop"].student_macs == 8 * 16
    assert [model.metadata["projector"] for model in (drop, keep)] == [plan.projector for plan in plans.values()]
    assert "projector.weight" in load_file(tmp_path / "keep" / "student.safetensors")
    assert not any("projector" in name for name in load_file(tmp_path / "drop" / "student.safetensors"))
    assert not (tmp_path / "drop" / "classifier.safetensors").exists()
    (narrow, few), (wide, many) = exported(tmp_path / "drop"), exported(tmp_path / "keep")
    assert (narrow, wide, many - few) == (8, 16, 8 * 16)
    assert "projector: 8 to 16, left out of the student" in (tmp_path / "drop" / "log.txt").read_text()


def test_keep__the_opened_model_is_the_matrix_on_the_backbone(distil, tmp_path: Path) -> None:
    train(distil("keep"), tmp_path / "run", device="cpu")
    model = load_embedder(tmp_path / "run")
    assert isinstance(model, TorchEmbedder)
    images = torch.randint(0, 256, (3, 3, 32, 32), dtype=torch.uint8)
    state = load_file(tmp_path / "run" / "student.safetensors")
    backbone = build_backbone(
        "resnet_tiny", embedding_size=8, input_size=32, options={"channels": "4,8", "blocks": "1,1"}
    ).eval()
    backbone.load_state_dict({k.removeprefix("backbone."): v for k, v in state.items() if k.startswith("backbone.")})
    plain = backbone(model.preprocessing.apply(images)) @ state["projector.weight"].T
    torch.testing.assert_close(model.embed(images), plain, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("fate", ["drop", "keep"])
def test_resume__ends_with_the_same_bits(distil, tmp_path: Path, fate: str) -> None:
    train(distil(fate), tmp_path / "whole", device="cpu")
    with pytest.raises(Interrupted):
        train(distil(fate), tmp_path / "broken", device="cpu", listener=stop_at(5))
    train(distil(fate), tmp_path / "broken", resume=True, device="cpu")
    assert same(tmp_path / "whole", tmp_path / "broken")
    assert steps(tmp_path / "whole") == steps(tmp_path / "broken")


def test_starting_weights__may_have_a_projector_or_not(distil, make_recipe, tmp_path: Path) -> None:
    train(make_recipe(), tmp_path / "plain", device="cpu")
    train(distil("keep", f"student.weights={tmp_path}/plain/student.safetensors"), tmp_path / "one", device="cpu")
    train(distil("keep", f"student.weights={tmp_path}/one/student.safetensors"), tmp_path / "two", device="cpu")
    with pytest.raises(CheckpointError, match="unexpected"):
        again = make_recipe((f"student.weights={tmp_path}/one/student.safetensors",))
        train(again, tmp_path / "three", device="cpu")


def test_refusals__name_the_key(distil, make_recipe, tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"student.embedding_size: 8, the teacher's is 16 \(.*student.projector to d"):
        plan_run(distil("none"), "cpu")
    with pytest.raises(RecipeError, match="student.projector: drop, but the teacher's embedding has 16 values"):
        plan_run(distil("drop", "student.embedding_size=16"), "cpu")
    assisted = {"backbone": "resnet_tiny", "projector": "keep", "assistant": {"backbone": "resnet_tiny"}}
    with pytest.raises(RecipeError, match="student.projector: keep has no place beside an assistant"):
        make_recipe(student=assisted, teacher={"weights": "a.pt"}, losses=[{"name": "l2"}])
    with pytest.raises(RecipeError, match="student.projector: keep, but there is no teacher"):
        make_recipe(("student.projector=keep",))
    still = {"backbone": "resnet_tiny", "projector": "keep", "frozen": True, "weights": "a.pt"}
    with pytest.raises(RecipeError, match="student.projector: keep, but a frozen student learns no projector"):
        make_recipe(student=still, teacher={"weights": "b.pt"}, losses=[{"name": "pad"}])
    with pytest.raises(RecipeError, match="student.projector: drop, but no loss sees through it"):
        make_recipe(("student.projector=drop",), teacher={"weights": "a.pt"}, losses=[{"name": "rkd"}])


def test_bf16__trains_past_the_warm_up_of_the_variance(distil, tmp_path: Path) -> None:
    for fate in ("drop", "keep"):
        recipe = distil(fate, "train.precision=bf16", "train.max_steps=4")
        train(recipe, tmp_path / fate, device="cpu")
        assert heads_trained(recipe, tmp_path / fate)
