"""The objective binds losses to step outputs, and a frozen classifier stays frozen."""

from __future__ import annotations

import math

import pytest
import torch
from torch.nn import functional

from facekd.engine.training.objective import Objective, loss_inputs
from facekd.engine.training.outputs import Sizes, StepOutputs
from facekd.errors import RecipeError
from facekd.losses import LOSSES, cosine, l2, margin_softmax, pad
from facekd.losses.candidates import nearest_classes
from facekd.recipe.loss_options import L2, Cosine, LogitKD, MarginSoftmax, Pad

CLASSES, DIM, BATCH, PER_EPOCH = 5, 8, 6, 4
SIZES = Sizes(classes=CLASSES, embedding_size=DIM, teacher_size=DIM, batch_size=BATCH, steps_per_epoch=PER_EPOCH)


def _objective(*losses, teacher_class_weights: torch.Tensor | None = None) -> Objective:
    return Objective(losses, SIZES, teacher_class_weights)


@pytest.fixture
def batch() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    torch.manual_seed(0)
    return torch.randn(BATCH, DIM), torch.randn(BATCH, DIM), torch.arange(BATCH) % CLASSES


def test_terms__are_the_weighted_pure_losses(batch) -> None:
    student, teacher, labels = batch
    weights = torch.randn(CLASSES, DIM)
    margin = MarginSoftmax(name="margin_softmax", class_weights="teacher", weight=0.5, margin=0.3)
    terms = _objective(margin, L2(name="l2", weight=2.0), teacher_class_weights=weights)(
        StepOutputs(student, teacher, labels), 0
    )
    torch.testing.assert_close(terms["margin_softmax"], 0.5 * margin_softmax(student, weights, labels, margin=0.3))
    torch.testing.assert_close(terms["l2"], 2.0 * l2(student, teacher))


def test_candidates__are_those_of_the_classifier_and_the_images_with_a_label_measure_them(batch) -> None:
    student, _, labels = batch
    weights, some = torch.randn(CLASSES, DIM), labels.clone()
    some[::2] = -1
    options = {"margin": 0.3, "scale": 8.0, "kind": "cosface"}
    section = MarginSoftmax(name="margin_softmax", class_weights="teacher", candidates=2, **options)
    objective = _objective(section, teacher_class_weights=weights)
    assert objective.told() == {}
    terms = objective(StepOutputs(student, None, some), 0)
    given = student[1::2], weights, some[1::2]
    limited, whole = (margin_softmax(*given, near, **options) for near in (nearest_classes(weights, 2), None))
    torch.testing.assert_close(terms["margin_softmax"], limited)
    told = objective.told()["margin_softmax"]
    assert told["left_out"] == pytest.approx(float(whole - limited), rel=1e-4)
    assert told["left_out"] <= told["at_most"]
    objective(StepOutputs(-student, None, some), 1)
    assert objective.told()["margin_softmax"] == told
    objective(StepOutputs(-student, None, some), PER_EPOCH)
    assert objective.told()["margin_softmax"] != told


def test_images_without_a_label__are_skipped_by_terms_that_take_labels_and_only_by_those(batch) -> None:
    student, teacher, labels = batch
    weights = torch.randn(CLASSES, DIM)
    some = labels.clone()
    some[::2] = -1
    losses = (MarginSoftmax(name="margin_softmax", class_weights="teacher"), L2(name="l2"))
    terms = _objective(*losses, teacher_class_weights=weights)(StepOutputs(student, teacher, some), 0)
    torch.testing.assert_close(terms["margin_softmax"], margin_softmax(student[1::2], weights, labels[1::2]))
    torch.testing.assert_close(terms["l2"], l2(student, teacher))


def test_every_loss_names_known_outputs_only() -> None:
    for name in LOSSES:
        assert loss_inputs(name)[0] in ("student", "virtual_student"), name


def test_inherited_classifier__is_no_parameter_but_is_saved(batch) -> None:
    objective = _objective(
        MarginSoftmax(name="margin_softmax", class_weights="teacher"), teacher_class_weights=torch.eye(CLASSES, DIM)
    )
    assert list(objective.parameters()) == []
    assert torch.equal(objective.state_dict()["inherited.class_weights"], torch.eye(CLASSES, DIM))


def test_inherited_classifier__of_another_width_is_refused_before_the_first_step() -> None:
    losses = (MarginSoftmax(name="margin_softmax", class_weights="teacher"),)
    with pytest.raises(RecipeError, match="8, but the inherited classifier has 3 columns"):
        _objective(*losses, teacher_class_weights=torch.randn(CLASSES, 3))


def test_a_term_without_its_input__is_refused_before_the_first_step() -> None:
    with pytest.raises(RecipeError, match="losses.logit_kd: needs class_weights"):
        _objective(LogitKD(name="logit_kd"))


def test_pad__warm_up_trains_the_student_along_l2_and_leaves_the_head_alone(batch) -> None:
    student, teacher, labels = batch
    objective = _objective(Pad(name="pad", warmup_epochs=1.0))
    student.requires_grad_()
    objective(StepOutputs(student, teacher, labels), 0)["pad"].backward()
    assert all(p.grad is None for p in objective.parts["pad"].head.parameters())
    (plain,) = torch.autograd.grad(l2(student, teacher), student)
    cosine = functional.cosine_similarity(student.grad.flatten(), plain.flatten(), dim=0)
    assert float(cosine) == pytest.approx(1, abs=1e-5)


def test_pad__at_the_switch_the_head_answers_the_measured_residual(batch) -> None:
    student, teacher, labels = batch
    objective = _objective(Pad(name="pad", warmup_epochs=0.5))
    for step in range(2):
        objective(StepOutputs(student, teacher, labels), step)
    measured = (functional.normalize(teacher) - functional.normalize(student)).square().mean(0)
    torch.testing.assert_close(objective.parts["pad"].residual, measured)
    value = objective(StepOutputs(student, teacher, labels), 2)["pad"]
    assert math.isfinite(float(value.detach()))
    torch.testing.assert_close(
        objective.parts["pad"].head(student).mean(0).detach(), measured.log(), atol=0.2, rtol=0.05
    )
    value.backward()
    assert any(p.grad is not None for p in objective.parts["pad"].head.parameters())


@pytest.mark.parametrize("detach", [True, False])
def test_pad__detached_head_gives_the_student_no_gradient_through_the_variance(batch, detach: bool) -> None:
    student, teacher, labels = batch
    objective = _objective(Pad(name="pad", warmup_epochs=0.0, detach_variance=detach)).eval()
    objective(StepOutputs(student, teacher, labels), 0)
    for p in objective.parts["pad"].head.parameters():
        torch.nn.init.normal_(p)
    student.requires_grad_()
    objective(StepOutputs(student, teacher, labels), 1)["pad"].backward()
    constant = objective.parts["pad"].head(student).detach()
    (alone,) = torch.autograd.grad(pad(student, teacher, constant), student)
    assert torch.allclose(student.grad, alone, atol=1e-7) == detach


def test_schedule_of_a_term__waits_then_rises_to_its_weight(batch) -> None:
    student, teacher, labels = batch
    losses = (L2(name="l2"), Cosine(name="cosine", weight=3.0, start_epoch=1.0, ramp_epochs=2.0))
    objective = _objective(*losses)
    found = [objective(StepOutputs(student, teacher, labels), step).get("cosine") for step in range(4 * PER_EPOCH)]
    full = 3.0 * cosine(student, teacher).item()
    assert [term is None for term in found] == [True] * (PER_EPOCH + 1) + [False] * (3 * PER_EPOCH - 1)
    risen = [term.item() / full for term in found if term is not None]
    assert risen == pytest.approx([min(1.0, n / (2 * PER_EPOCH)) for n in range(1, 3 * PER_EPOCH)])


def test_schedule_of_pad__its_warm_up_begins_where_the_term_does() -> None:
    late = Pad(name="pad", start_epoch=2.0, warmup_epochs=1.0)
    assert _objective(L2(name="l2"), late).parts["pad"].start == 3 * PER_EPOCH
