"""AdaDistill's centres against plain loops and the ends of their range."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from facekd.losses import adadistill, logit_kd, margin_distillation, margin_softmax, shared_head_kd
from facekd.losses.adaptive import moved_centres

CLASSES, DIM = 5, 4
LABELS = torch.tensor([0, 3, 3, 1, 3, 0])


def draw(seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    student, teacher = torch.randn(2, len(LABELS), DIM, generator=generator, dtype=torch.float64).unbind()
    return torch.randn(CLASSES, DIM, generator=generator, dtype=torch.float64), student + teacher, teacher


def slow(centres: Tensor, student: Tensor, teacher: Tensor, weighted: bool) -> Tensor:
    moved = centres.clone()
    for label in LABELS.unique().tolist():
        asked = []
        for i in (label == LABELS).nonzero().flatten().tolist():
            target = teacher[i] / teacher[i].norm()
            memory = float(functional.cosine_similarity(student[i], teacher[i], dim=0))
            if weighted:
                memory *= float(functional.cosine_similarity(centres[label], teacher[i], dim=0))
            memory = min(max(memory, 1e-6), 1.0)
            asked.append(memory * centres[label] + (1 - memory) * target)
        moved[label] = torch.stack(asked).mean(0)
    return moved


@pytest.mark.parametrize("weighted", [False, True])
def test_centres__move_as_the_plain_loop_says(weighted: bool) -> None:
    centres, student, teacher = draw()
    found = moved_centres(centres, student, teacher, LABELS, weighted=weighted)
    torch.testing.assert_close(found, slow(centres, student, teacher, weighted))
    untouched = [2, 4]
    assert torch.equal(found[untouched], centres[untouched])


def test_centres__stand_still_where_the_student_is_the_teacher() -> None:
    centres, _, teacher = draw()
    torch.testing.assert_close(moved_centres(centres, 2 * teacher, teacher, LABELS, weighted=False), centres)


def test_centres__of_a_repeated_label_do_not_depend_on_the_order_of_the_batch() -> None:
    centres, student, teacher = draw()
    order = torch.tensor([4, 1, 5, 0, 2, 3])
    plain = moved_centres(centres, student, teacher, LABELS, weighted=True)
    moved = moved_centres(centres, student[order], teacher[order], LABELS[order], weighted=True)
    torch.testing.assert_close(moved, plain)


def test_centres__approach_the_mean_of_the_teacher_where_the_memory_is_constant() -> None:
    """At a student 60 degrees from its teacher half is kept each time: after 40 visits the start is forgotten."""
    centres = draw()[0][:1]
    teacher = functional.normalize(draw(1)[2][:2])
    sideways = draw(2)[2][:2]
    sideways = functional.normalize(sideways - (sideways * teacher).sum(1, keepdim=True) * teacher)
    student = 0.5 * teacher + 0.75**0.5 * sideways
    for _ in range(40):
        centres = moved_centres(centres, student, teacher, torch.zeros(2, dtype=torch.int64), weighted=False)
    torch.testing.assert_close(centres, teacher.mean(0, keepdim=True))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_centres__keep_their_place_where_what_is_asked_of_them_cancels_out(dtype: torch.dtype) -> None:
    """Half of a centre and half of an embedding opposite to it are nothing, and nothing has no direction."""
    teacher = functional.normalize(draw()[2][:1]).to(dtype)
    sideways = functional.normalize(draw()[2][1:2].to(dtype) - (draw()[2][1:2].to(dtype) @ teacher.T) * teacher)
    student = 0.5 * teacher + 0.75**0.5 * sideways
    label = torch.zeros(1, dtype=torch.int64)
    centres = moved_centres(-teacher, student, teacher, label, weighted=False)
    assert torch.equal(centres, -teacher)
    closer = moved_centres(centres, student - 0.1 * teacher, teacher, label, weighted=False)
    assert functional.cosine_similarity(closer, teacher).item() == pytest.approx(1.0, abs=1e-6)
    loss = adadistill(student.requires_grad_(), centres, label)
    loss.backward()
    assert loss.isfinite() and student.grad.isfinite().all()


def test_adadistill__is_margin_softmax_on_the_centres_without_a_gradient_to_them() -> None:
    centres, student, _ = draw()
    centres.requires_grad_(), student.requires_grad_()
    loss = adadistill(student, centres, LABELS, margin=0.3, scale=16.0)
    torch.testing.assert_close(loss, margin_softmax(student, centres, LABELS, margin=0.3, scale=16.0))
    loss.backward()
    assert centres.grad is None and student.grad.abs().sum() > 0


def test_adadistill__gradcheck() -> None:
    centres, student, _ = draw()
    student.requires_grad_()
    assert torch.autograd.gradcheck(lambda s: adadistill(s, centres, LABELS, scale=8.0), (student,))


def test_centres__refuse_another_width() -> None:
    centres, student, teacher = draw()
    with pytest.raises(ValueError, match="teacher has 4 dimensions, centres 3"):
        moved_centres(centres[:, :3], student, teacher, LABELS, weighted=False)


def slow_margins(teacher: Tensor, classes: Tensor, least: float, most: float) -> list[float]:
    sure = [
        max(0.0, float(functional.cosine_similarity(t, classes[y], dim=0)))
        for t, y in zip(teacher, LABELS, strict=True)
    ]
    return [least + (most - least) * one / max(sure) for one in sure]


@pytest.mark.parametrize(("least", "most"), [(0.2, 0.5), (0.0, 1.2)])
def test_margin_distillation__is_margin_softmax_with_a_margin_for_each_image(least: float, most: float) -> None:
    classes, student, teacher = draw()
    found = margin_distillation(student, teacher, LABELS, classes, least_margin=least, most_margin=most, scale=16.0)
    each = [
        margin_softmax(student[i : i + 1], classes, LABELS[i : i + 1], margin=margin, scale=16.0)
        for i, margin in enumerate(slow_margins(teacher, classes, least, most))
    ]
    torch.testing.assert_close(found, torch.stack(each).mean())


def test_margin_distillation__gradcheck_and_no_gradient_to_the_teacher() -> None:
    classes, student, teacher = (tensor.requires_grad_() for tensor in draw())
    assert torch.autograd.gradcheck(lambda s: margin_distillation(s, teacher, LABELS, classes, scale=8.0), (student,))
    margin_distillation(student, teacher, LABELS, classes).backward()
    assert teacher.grad is None and classes.grad is None


def test_margin_distillation__finite_for_an_opposite_teacher_and_a_perfect_student() -> None:
    classes = draw()[0].float()
    student = classes[LABELS].clone().requires_grad_()
    loss = margin_distillation(student, -classes[LABELS], LABELS, classes)
    loss.backward()
    assert loss.isfinite() and student.grad.isfinite().all()


def test_margin_distillation__refuses_margins_out_of_order() -> None:
    classes, student, teacher = draw()
    with pytest.raises(ValueError, match="margins 0.5 to 0.2"):
        margin_distillation(student, teacher, LABELS, classes, least_margin=0.5, most_margin=0.2)


def test_shared_head_kd__is_logit_kd_with_the_teachers_head_on_both_sides() -> None:
    classes, student, teacher = draw()
    found = shared_head_kd(student, teacher, classes, scale=16.0, temperature=2.0)
    torch.testing.assert_close(found, logit_kd(student, teacher, classes, classes, scale=16.0, temperature=2.0))
    assert shared_head_kd(5 * teacher, teacher, classes).item() == pytest.approx(0.0, abs=1e-12)
