"""What losses keep from step to step: thresholds that are right from their first step, centres that follow."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from facekd.engine.training.objective import Objective
from facekd.engine.training.outputs import Sizes, StepOutputs
from facekd.engine.training.parts import Centres, Thresholds
from facekd.losses import ekd, margin_softmax
from facekd.losses.adaptive import moved_centres
from facekd.losses.ranking import thresholds_at
from facekd.recipe.loss_options import AdaDistill, Ekd

BATCH, DIM, TEACHER_DIM, CLASSES = 6, 5, 7, 4
SIZES = Sizes(classes=CLASSES, embedding_size=DIM, teacher_size=DIM, batch_size=BATCH, steps_per_epoch=3)
WIDER = replace(SIZES, teacher_size=TEACHER_DIM)


def batches(steps: int) -> list[tuple[Tensor, Tensor, Tensor]]:
    generator = torch.Generator().manual_seed(0)
    return [
        (
            torch.randn(BATCH, DIM, generator=generator),
            torch.randn(BATCH, TEACHER_DIM, generator=generator),
            torch.randint(CLASSES, (BATCH,), generator=generator),
        )
        for _ in range(steps)
    ]


def impostors(now: Tensor, labels: Tensor, before: Tensor, old_labels: Tensor) -> Tensor:
    """Every impostor cosine of a batch with itself and with earlier images, pair by pair."""
    found = []
    for i in range(len(now)):
        others = [(now[j], labels[j]) for j in range(i + 1, len(now))] + list(zip(before, old_labels, strict=True))
        found += [torch.cosine_similarity(now[i], other, dim=0) for other, label in others if label != labels[i]]
    return torch.stack(found)


@pytest.mark.parametrize("queue", [0, 4, 20])
def test_thresholds__are_the_weighted_mean_of_every_step_so_far(queue: int) -> None:
    options = Ekd(name="ekd", fprs=(0.2,), momentum=0.9, queue=queue)
    part = Thresholds(options, WIDER)
    students, teachers, labels = torch.zeros(0, DIM), torch.zeros(0, TEACHER_DIM), torch.zeros(0, dtype=torch.int64)
    seen: list[list[Tensor]] = []
    for step, (student, teacher, label) in enumerate(batches(8)):
        held = slice(max(0, len(labels) - queue), None)
        pairs = ((student, students[held]), (teacher, teachers[held]))
        seen.append([thresholds_at(impostors(now, label, old, labels[held]), (0.2,)) for now, old in pairs])
        students, teachers = torch.cat([students, student]), torch.cat([teachers, teacher])
        labels = torch.cat([labels, label])
        shares = torch.tensor([0.9 ** (step - i) for i in range(step + 1)])
        found = part(StepOutputs(student, teacher, label), step)
        for name, values in zip(("student_thresholds", "teacher_thresholds"), zip(*seen, strict=True), strict=True):
            expected = (shares * torch.cat(values)).sum() / shares.sum()
            torch.testing.assert_close(found[name], expected[None], atol=1e-5, rtol=1e-5)


def test_thresholds__images_without_a_label_are_left_out() -> None:
    part, other = (Thresholds(Ekd(name="ekd", fprs=(0.2,), queue=8), WIDER) for _ in range(2))
    student, teacher, labels = batches(1)[0]
    blend = torch.cat([labels, torch.tensor([-1])])
    found = part(StepOutputs(torch.cat([student, student[:1]]), torch.cat([teacher, teacher[:1]]), blend), 0)
    plain = other(StepOutputs(student, teacher, labels), 0)
    assert torch.equal(found["student_thresholds"], plain["student_thresholds"])
    assert torch.equal(part.labels, other.labels)


def test_thresholds__a_rate_the_pairs_are_too_few_for_is_dropped_and_told() -> None:
    objective = Objective((Ekd(name="ekd", fprs=(0.1, 1e-3, 1e-6), queue=200),), SIZES)
    assert objective.notes == ["ekd: 1,215 pairs a step are too few for FPR 1e-06; left out"]
    assert objective.parts["ekd"].fprs == (0.1, 1e-3)


def test_thresholds__a_rate_waits_for_a_queue_to_fill_and_counts_nothing_before() -> None:
    part = Thresholds(Ekd(name="ekd", fprs=(0.2, 0.02), queue=60), WIDER)
    found = [part(StepOutputs(*batch), step)["student_thresholds"].tolist() for step, batch in enumerate(batches(6))]
    assert math.isinf(found[0][1]) and math.isfinite(found[0][0])
    assert math.isfinite(found[-1][1])


def test_objective__gives_ekd_its_thresholds_and_adadistill_its_centres() -> None:
    torch.manual_seed(0)
    objective = Objective((Ekd(name="ekd", fprs=(0.2,), queue=0), AdaDistill(name="adadistill", margin=0.3)), SIZES)
    before = objective.parts["adadistill"].centres.clone()
    student, teacher, labels = torch.randn(BATCH, DIM, requires_grad=True), torch.randn(BATCH, DIM), batches(1)[0][2]
    terms = objective(StepOutputs(student, teacher, labels), 0)
    after = moved_centres(before, student, teacher, labels, weighted=True)
    torch.testing.assert_close(terms["adadistill"], margin_softmax(student, after, labels, margin=0.3))
    levels = [
        thresholds_at(impostors(rows.detach(), labels, rows[:0], labels[:0]), (0.2,)) for rows in (student, teacher)
    ]
    torch.testing.assert_close(terms["ekd"], ekd(student, teacher, labels, *levels))
    assert list(objective.parameters()) == []
    assert {"parts.adadistill.centres", "parts.ekd.sums"} <= objective.state_dict().keys()


def test_centres__are_moved_by_labelled_images_only() -> None:
    part = Centres(AdaDistill(name="adadistill"), SIZES)
    before = part.centres.clone()
    part(StepOutputs(torch.randn(BATCH, DIM), torch.randn(BATCH, DIM), torch.full((BATCH,), -1)), 0)
    assert torch.equal(part.centres, before)
