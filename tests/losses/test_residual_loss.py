"""The residual loss: plain loops, what each of the two learns by, and independence of size and scale."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from facekd.losses import l2, residual
from facekd.losses.common import unit_rows

BATCH, DIM = 6, 5


def three(seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    student, assistant, teacher = torch.randn(3, BATCH, DIM, generator=generator, dtype=torch.float64).unbind()
    return 2.0 * student, assistant, 3.0 * teacher


def test_residual__equals_plain_loops() -> None:
    student, assistant, teacher = three()
    apart = length = 0.0
    for s, a, t in zip(student.tolist(), assistant.tolist(), teacher.tolist(), strict=True):
        for s_j, a_j, t_j in zip(s, a, t, strict=True):
            apart += (t_j - s_j) ** 2 + (t_j - s_j - a_j) ** 2
            length += t_j**2
    assert float(residual(student, assistant, teacher)) == pytest.approx(apart / length, rel=1e-12)


def test_perfect_assistant__makes_the_sum_the_teacher() -> None:
    student, _, teacher = three()
    assistant = (teacher - student).requires_grad_()
    assert torch.allclose(student + assistant, teacher, rtol=0, atol=1e-14)
    value = residual(student, assistant, teacher)
    value.backward()
    assert value.item() == pytest.approx(float((teacher - student).square().sum() / teacher.square().sum()))
    assert assistant.grad is not None and not assistant.grad.any()


def test_student_that_is_the_teacher__leaves_the_assistant_zero_to_learn() -> None:
    _, assistant, teacher = three()
    assert float(residual(teacher, torch.zeros_like(teacher), teacher)) == 0.0
    expected = assistant.square().sum() / teacher.square().sum()
    assert float(residual(teacher, assistant, teacher)) == pytest.approx(float(expected))


def test_gradients__the_assistants_term_never_reaches_the_student_nor_anything_the_teacher() -> None:
    _, assistant, teacher = three()
    student = teacher.clone().requires_grad_()  # its own term is at its minimum: whatever came now would be a leak
    teacher.requires_grad_()
    residual(student, assistant.requires_grad_(), teacher).backward()
    assert student.grad is not None and not student.grad.any()
    assert assistant.grad is not None and assistant.grad.any()
    assert teacher.grad is None


def test_gradients__negative_control__without_the_detaching_the_student_would_follow_the_assistant() -> None:
    _, assistant, teacher = three()
    student = teacher.clone().requires_grad_()
    (teacher - student - assistant).square().sum().backward()
    assert student.grad is not None and bool(student.grad.any())


def test_gradients__are_those_of_each_term_alone() -> None:
    student, assistant, teacher = (part.requires_grad_() for part in three())
    residual(student, assistant, teacher).backward()
    length = teacher.detach().square().sum()
    lacking = (teacher - student).detach()
    assert torch.allclose(student.grad, -2 * lacking / length)
    assert torch.allclose(assistant.grad, 2 * (assistant.detach() - lacking) / length)


def test_gradcheck_of_the_assistant() -> None:
    student, assistant, teacher = three()
    assert torch.autograd.gradcheck(lambda a: residual(student, a, teacher), assistant.requires_grad_())


def test_first_term__is_l2_for_unit_embeddings_and_the_mean_over_elements_up_to_the_teachers_length() -> None:
    student, _, teacher = three()
    s, t = unit_rows(student), unit_rows(teacher)
    assert float(residual(s, t - s, t)) == pytest.approx(float(l2(student, teacher)), rel=1e-12)
    mean = torch.nn.functional.mse_loss(student, teacher)
    value = float(residual(student, teacher - student, teacher))
    assert value == pytest.approx(float(mean * DIM / teacher.square().sum(1).mean()), rel=1e-12)


def test_value__depends_neither_on_scale_nor_on_width_nor_on_rotation() -> None:
    student, assistant, teacher = three()
    value = float(residual(student, assistant, teacher))
    assert float(residual(7 * student, 7 * assistant, 7 * teacher)) == pytest.approx(value)
    wide = [torch.cat([part, part], dim=1) for part in (student, assistant, teacher)]
    assert float(residual(*wide)) == pytest.approx(value)
    turn = torch.linalg.qr(torch.randn(DIM, DIM, dtype=torch.float64)).Q
    assert float(residual(student @ turn, assistant @ turn, teacher @ turn)) == pytest.approx(value)
    assert float(residual(7 * student, assistant, teacher)) != pytest.approx(value)
    zeros = torch.zeros_like(student)
    assert float(residual(zeros, zeros, teacher)) == 2.0


def test_sizes_that_do_not_fit__are_refused() -> None:
    student, assistant, teacher = three()
    with pytest.raises(ValueError, match="student has 5 dimensions, teacher 4"):
        residual(student, assistant, teacher[:, :4])
    with pytest.raises(ValueError, match=r"assistant has shape \(6, 4\), student \(6, 5\)"):
        residual(student, assistant[:, :4], teacher)
