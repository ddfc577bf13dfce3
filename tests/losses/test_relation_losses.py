"""Relation losses against plain loops, closed forms and invariances."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from torch import Tensor

from facekd.losses import LOSSES, cckd, pkt, rkd, sp
from facekd.losses.relation import _cosines, _gaussian

BATCH, DIM, TEACHER_DIM = 5, 4, 7
NAMES = ("cckd", "sp", "pkt", "rkd")


def pair(seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    student = torch.randn(BATCH, DIM, generator=generator, dtype=torch.float64)
    return 2.0 * student, torch.randn(BATCH, TEACHER_DIM, generator=generator, dtype=torch.float64)


def rotation(dim: int) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.linalg.qr(torch.randn(dim, dim, generator=generator, dtype=torch.float64)).Q


def unit(rows: Tensor) -> list[list[float]]:
    return [[x / math.dist(row, [0.0] * len(row)) for x in row] for row in rows.tolist()]


def dot(a: list[float], b: list[float]) -> float:
    return sum(x * y for x, y in zip(a, b, strict=True))


def cosines(rows: Tensor) -> list[list[float]]:
    points = unit(rows)
    return [[dot(a, b) for b in points] for a in points]


def slow_cckd(student: Tensor, teacher: Tensor, gamma: float, order: int | None) -> float:
    def similar(cosine: float) -> float:
        if order is None:
            return math.exp(-gamma * (2.0 - 2.0 * cosine))
        return sum(math.exp(-2 * gamma) * (2 * gamma * cosine) ** p / math.factorial(p) for p in range(order + 1))

    one, other = cosines(student), cosines(teacher)
    pairs = itertools.product(range(BATCH), repeat=2)
    return sum((similar(one[i][j]) - similar(other[i][j])) ** 2 for i, j in pairs) / BATCH**2


def slow_sp(student: Tensor, teacher: Tensor) -> float:
    one, other = (unit(torch.tensor(cosines(rows), dtype=torch.float64)) for rows in (student, teacher))
    return sum((a - b) ** 2 for s, t in zip(one, other, strict=True) for a, b in zip(s, t, strict=True)) / BATCH**2


def slow_pkt(student: Tensor, teacher: Tensor) -> float:
    def chances(rows: Tensor, i: int) -> list[float]:
        row = [(1 + cosine) / 2 for j, cosine in enumerate(cosines(rows)[i]) if j != i]
        return [x / sum(row) for x in row]

    rows = [zip(chances(student, i), chances(teacher, i), strict=True) for i in range(BATCH)]
    return sum(t * math.log(t / s) for row in rows for s, t in row) / BATCH


def huber(a: float, b: float) -> float:
    return 0.5 * (a - b) ** 2 if abs(a - b) < 1 else abs(a - b) - 0.5


def slow_rkd(student: Tensor, teacher: Tensor, distance_weight: float, angle_weight: float) -> float:
    one, other = unit(student), unit(teacher)
    pairs = list(itertools.permutations(range(BATCH), 2))

    def ratio(points: list[list[float]], i: int, j: int) -> float:
        return math.dist(points[i], points[j]) / (sum(math.dist(points[a], points[b]) for a, b in pairs) / len(pairs))

    def angle(points: list[list[float]], i: int, j: int, k: int) -> float:
        to_j, to_k = ([x - y for x, y in zip(points[n], points[i], strict=True)] for n in (j, k))
        return dot(to_j, to_k) / math.dist(points[i], points[j]) / math.dist(points[i], points[k])

    triplets = list(itertools.permutations(range(BATCH), 3))
    distances = sum(huber(ratio(one, i, j), ratio(other, i, j)) for i, j in pairs) / len(pairs)
    angles = sum(huber(angle(one, *t), angle(other, *t)) for t in triplets) / len(triplets)
    return distance_weight * distances + angle_weight * angles


@pytest.mark.parametrize(("gamma", "order"), [(0.4, 1), (0.4, 2), (1.3, 3), (0.4, None)])
def test_cckd__equals_plain_loops(gamma: float, order: int | None) -> None:
    student, teacher = pair()
    found = cckd(student, teacher, gamma=gamma, order=order).item()
    assert found == pytest.approx(slow_cckd(student, teacher, gamma, order), rel=1e-10)


@pytest.mark.parametrize(("order", "most"), [(1, 0.191), (2, 0.0474), (3, 0.00908), (4, 0.00141)])
def test_cckd__the_series_nears_the_exponential_as_published(order: int, most: float) -> None:
    cosine = torch.linspace(-1, 1, 2001, dtype=torch.float64)
    error = (_gaussian(cosine, 0.4, order) - _gaussian(cosine, 0.4, None)).abs().max().item()
    assert error == pytest.approx(most, rel=5e-3)


@pytest.mark.parametrize("order", [1, 2, 3, None])
def test_cckd__an_image_with_itself_has_one_similarity_for_all_and_adds_nothing(order: int | None) -> None:
    wanted = 1.0 if order is None else sum(math.exp(-0.8) * 0.8**p / math.factorial(p) for p in range(order + 1))
    one, other = (_gaussian(cosines, 0.4, order) for cosines in _cosines(*pair()))
    for similar in (one, other):
        torch.testing.assert_close(similar.diagonal(), torch.full((BATCH,), wanted, dtype=torch.float64))
    apart = (one - other).square().fill_diagonal_(0.0).sum().item() / BATCH**2
    assert cckd(*pair(), order=order).item() == pytest.approx(apart, rel=1e-12) and apart > 0.0


def test_cckd__of_high_order_is_the_exponential() -> None:
    student, teacher = pair()
    assert cckd(student, teacher, order=20).item() == pytest.approx(cckd(student, teacher, order=None).item(), rel=1e-9)


def test_sp_pkt_rkd__equal_plain_loops() -> None:
    student, teacher = pair()
    assert sp(student, teacher).item() == pytest.approx(slow_sp(student, teacher), rel=1e-10)
    assert pkt(student, teacher).item() == pytest.approx(slow_pkt(student, teacher), rel=1e-10)
    for weights in ((1.0, 2.0), (1.0, 0.0), (0.0, 1.0)):
        found = rkd(student, teacher, distance_weight=weights[0], angle_weight=weights[1]).item()
        assert found == pytest.approx(slow_rkd(student, teacher, *weights), rel=1e-10)


@pytest.mark.parametrize("name", NAMES)
def test_relation_losses__gradcheck(name: str) -> None:
    student, teacher = pair()
    assert torch.autograd.gradcheck(lambda s: LOSSES[name](s, teacher), (student.requires_grad_(),))


@pytest.mark.parametrize("name", NAMES)
def test_relation_losses__no_gradient_to_the_teacher(name: str) -> None:
    student, teacher = (tensor.requires_grad_() for tensor in pair())
    LOSSES[name](student, teacher).backward()
    assert teacher.grad is None
    assert student.grad.abs().sum() > 0


@pytest.mark.parametrize("name", NAMES)
def test_relation_losses__turning_either_space_or_its_lengths_changes_nothing(name: str) -> None:
    student, teacher = pair()
    plain = LOSSES[name](student, teacher).item()
    turned = LOSSES[name](7.0 * student @ rotation(DIM), 0.1 * teacher @ rotation(TEACHER_DIM)).item()
    assert turned == pytest.approx(plain, rel=1e-10)
    assert LOSSES[name](student + 1.0, teacher).item() != pytest.approx(plain, rel=1e-3)


@pytest.mark.parametrize("name", NAMES)
def test_relation_losses__a_turned_teacher_is_a_perfect_student(name: str) -> None:
    teacher = pair()[1]
    assert LOSSES[name](teacher @ rotation(TEACHER_DIM), teacher).item() == pytest.approx(0.0, abs=1e-14)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("name", NAMES)
def test_relation_losses__finite_for_equal_and_opposite_images(name: str, dtype: torch.dtype) -> None:
    student = torch.tensor([[1.0, 0.0], [1.0, 0.0], [-1.0, 0.0]], dtype=dtype, requires_grad=True)
    teacher = torch.tensor([[1.0, 0.0], [-1.0, 0.0], [-1.0, 0.0]], dtype=dtype)
    loss = LOSSES[name](student, teacher)
    loss.backward()
    assert loss.dtype == torch.float32
    assert math.isfinite(loss.item())
    assert student.grad.isfinite().all()


def test_rkd__a_batch_of_two_has_no_angles() -> None:
    student, teacher = pair()
    assert rkd(student[:2], teacher[:2]).item() == rkd(student[:2], teacher[:2], angle_weight=0.0).item()


@pytest.mark.parametrize("name", NAMES)
def test_relation_losses__refuse_one_image_and_unequal_batches(name: str) -> None:
    student, teacher = pair()
    with pytest.raises(ValueError, match="at least two images, the batch holds 1"):
        LOSSES[name](student[:1], teacher[:1])
    with pytest.raises(ValueError, match="student has 5 rows, teacher 4; one row per image in both"):
        LOSSES[name](student, teacher[:4])


def test_relation_losses__refuse_bad_hyper_parameters() -> None:
    student, teacher = pair()
    with pytest.raises(ValueError, match="gamma is 0.0"):
        cckd(student, teacher, gamma=0.0)
    with pytest.raises(ValueError, match="order is 0, expected 1 or more"):
        cckd(student, teacher, order=0)
    with pytest.raises(ValueError, match="weights are -1.0 and 2.0"):
        rkd(student, teacher, distance_weight=-1.0)
    with pytest.raises(ValueError, match="expected 0 or more and one above 0"):
        rkd(student, teacher, distance_weight=0.0, angle_weight=0.0)
