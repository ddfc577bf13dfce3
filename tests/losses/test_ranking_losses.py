"""EKD against plain loops, closed forms and the properties it exists for."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from facekd.losses import ekd, l2
from facekd.losses.ranking import batch_pairs, thresholds_at

BATCH, DIM, TEACHER_DIM = 8, 4, 6
LABELS = torch.tensor([0, 0, 1, 1, 2, 3, 3, 3])
FPRS = (0.5, 0.2, 0.05)


def pair(seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    student = torch.randn(BATCH, DIM, generator=generator, dtype=torch.float64)
    return 3.0 * student, torch.randn(BATCH, TEACHER_DIM, generator=generator, dtype=torch.float64)


def thresholds(embeddings: Tensor) -> Tensor:
    cosines, genuine = batch_pairs(embeddings, LABELS)
    return thresholds_at(cosines[~genuine], FPRS)


def slow_ekd(student: Tensor, teacher: Tensor, temperature: float, hardest: int) -> float:
    def cosine(rows: list[list[float]], i: int, j: int) -> float:
        lengths = math.hypot(*rows[i]) * math.hypot(*rows[j])
        return sum(a * b for a, b in zip(rows[i], rows[j], strict=True)) / lengths

    def rank(value: float, levels: list[float]) -> float:
        return sum(1.0 / (1.0 + math.exp(-(value - level) / temperature)) for level in levels)

    ranks = [thresholds(rows).tolist() for rows in (student, teacher)]
    genuine, impostor = [], []
    for i in range(BATCH):
        for j in range(i + 1, BATCH):
            one, other = cosine(student.tolist(), i, j), cosine(teacher.tolist(), i, j)
            apart = (rank(one, ranks[0]) - rank(other, ranks[1])) ** 2
            (genuine if LABELS[i] == LABELS[j] else impostor).append((one, apart))
    hard = sorted(impostor, reverse=True)[:hardest]
    return 0.02 * sum(a for _, a in genuine) / len(genuine) + 0.01 * sum(a for _, a in hard) / len(hard)


@pytest.mark.parametrize("hardest", [5, 2000])
@pytest.mark.parametrize("temperature", [0.05, 0.5])
def test_ekd__equals_plain_loops(temperature: float, hardest: int) -> None:
    student, teacher = pair()
    levels = thresholds(student), thresholds(teacher)
    found = ekd(student, teacher, LABELS, *levels, temperature=temperature, hardest=hardest).item()
    assert found == pytest.approx(slow_ekd(student, teacher, temperature, hardest), rel=1e-10)


def test_ekd__gradcheck_and_no_gradient_to_teacher_or_thresholds() -> None:
    student, teacher = pair()
    levels = [thresholds(rows).requires_grad_() for rows in (student, teacher)]
    student.requires_grad_()
    assert torch.autograd.gradcheck(lambda s: ekd(s, teacher, LABELS, *levels, temperature=0.2), (student,))
    ekd(student, teacher.requires_grad_(), LABELS, *levels).backward()
    assert teacher.grad is None and levels[0].grad is None and levels[1].grad is None


def test_ekd__a_turned_teacher_is_a_perfect_student() -> None:
    teacher = pair()[1]
    turn = torch.linalg.qr(pair(1)[1][:TEACHER_DIM]).Q
    levels = thresholds(teacher)
    assert ekd(teacher @ turn, teacher, LABELS, levels, levels).item() == pytest.approx(0.0, abs=1e-20)


def test_ekd__the_same_order_at_another_scale_of_similarity_is_perfect_too_and_not_to_l2() -> None:
    """A direction added to every unit embedding turns cosine c into (c + a^2) / (1 + a^2): no rank changes."""
    teacher = torch.nn.functional.normalize(pair()[1])
    student = torch.cat([teacher, torch.full((BATCH, 1), 0.7, dtype=torch.float64)], dim=1)
    wide = torch.cat([teacher, torch.zeros(BATCH, 1, dtype=torch.float64)], dim=1)
    midway = [halfway(rows) for rows in (student, teacher)]
    assert ekd(student, teacher, LABELS, *midway, temperature=1e-4).item() == pytest.approx(0.0, abs=1e-12)
    assert l2(student, wide).item() > 0.1


def halfway(embeddings: Tensor) -> Tensor:
    """A threshold between two impostor cosines, so that no pair lies on it."""
    cosines, genuine = batch_pairs(embeddings, LABELS)
    falling = cosines[~genuine].sort(descending=True).values
    return ((falling[3] + falling[4]) / 2)[None]


def test_ekd__pulls_only_at_pairs_near_a_threshold() -> None:
    def slope(cosine: float) -> float:
        student = torch.tensor([[1.0, 0.0], [cosine, math.sqrt(1 - cosine**2)]], dtype=torch.float64)
        student.requires_grad_()
        level = torch.tensor([0.4], dtype=torch.float64)
        ekd(student, torch.ones(2, 2), torch.zeros(2), level, level).backward()
        return student.grad.abs().max().item()

    assert slope(0.4 - 0.08) < 0.01 * slope(0.4)


def test_ekd__names_of_classes_do_not_matter() -> None:
    student, teacher = pair()
    levels = thresholds(student), thresholds(teacher)
    plain = ekd(student, teacher, LABELS, *levels).item()
    assert ekd(student, teacher, 9 - LABELS, *levels).item() == pytest.approx(plain, rel=1e-12)


@pytest.mark.parametrize(
    ("labels", "empty", "other"),
    [
        (torch.zeros(BATCH), "negative_weight", "positive_weight"),
        (torch.arange(BATCH), "positive_weight", "negative_weight"),
    ],
)
def test_ekd__a_side_without_pairs_counts_nothing(labels: Tensor, empty: str, other: str) -> None:
    student, teacher = pair()
    levels = thresholds(student), thresholds(teacher)
    student.requires_grad_()
    alone = ekd(student, teacher, labels, *levels, **{empty: 1.0, other: 0.0})
    alone.backward()
    assert alone.item() == 0.0 and not student.grad.any()
    beside = [ekd(student, teacher, labels, *levels, **{empty: weight, other: 1.0}).item() for weight in (0.0, 5.0)]
    assert beside[0] == beside[1] > 0.0


def test_ekd__anchors_at_infinity_are_left_out() -> None:
    student, teacher = pair()
    levels = thresholds(student), thresholds(teacher)
    beyond = [torch.cat([level, torch.tensor([math.inf])]) for level in levels]
    student.requires_grad_()
    loss = ekd(student, teacher, LABELS, *beyond)
    assert loss.item() == ekd(student, teacher, LABELS, *levels).item()
    loss.backward()
    assert student.grad.isfinite().all()


def test_thresholds__leave_exactly_that_many_impostors_above() -> None:
    impostors = torch.randn(1000, generator=torch.Generator().manual_seed(0))
    levels = thresholds_at(impostors, (0.1, 0.01, 1e-3, 1e-4))
    assert [(impostors > level).sum().item() for level in levels] == [100, 10, 1, 0]
    assert levels[-1] == math.inf


def test_ekd__refuses_what_does_not_fit() -> None:
    student, teacher = pair()
    level = torch.tensor([0.1])
    with pytest.raises(ValueError, match="student has 8 rows, teacher 8, labels 7; all the same"):
        ekd(student, teacher, LABELS[:7], level, level)
    with pytest.raises(ValueError, match="1 student thresholds, 2 of the teacher"):
        ekd(student, teacher, LABELS, level, level.expand(2))
    with pytest.raises(ValueError, match="temperature is 0.0"):
        ekd(student, teacher, LABELS, level, level, temperature=0.0)
    with pytest.raises(ValueError, match="hardest is 0"):
        ekd(student, teacher, LABELS, level, level, hardest=0)
