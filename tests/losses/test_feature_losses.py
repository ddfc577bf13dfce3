"""Embedding losses against plain-loop references, closed forms and invariances."""

from __future__ import annotations

import inspect
import math

import pytest
import torch
from torch import Tensor

from facekd.engine.training.outputs import FIELDS
from facekd.losses import LOSSES, cosine, l2, pad, variance_weighted
from facekd.losses.common import unit_rows

BATCH, DIM = 6, 5


def pair(seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    student, teacher = torch.randn(2, BATCH, DIM, generator=generator, dtype=torch.float64).unbind()
    return 3.0 * student, teacher


def log_variances(columns: int, seed: int = 4) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(BATCH, columns, generator=generator, dtype=torch.float64) - 1.0


def rotation() -> Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.linalg.qr(torch.randn(DIM, DIM, generator=generator, dtype=torch.float64)).Q


def slow_residuals(student: Tensor, teacher: Tensor) -> list[list[float]]:
    rows = []
    for s, t in zip(student.tolist(), teacher.tolist(), strict=True):
        s_length, t_length = math.dist(s, [0] * DIM), math.dist(t, [0] * DIM)
        rows.append([b / t_length - a / s_length for a, b in zip(s, t, strict=True)])
    return rows


def slow_pad(student: Tensor, teacher: Tensor, log_variance: Tensor, floor: float) -> float:
    residuals = slow_residuals(student, teacher)
    lowest = math.log(floor * sum(r * r for row in residuals for r in row) / (BATCH * DIM))
    total = 0.0
    for row, variances in zip(residuals, log_variance.tolist(), strict=True):
        for index, residual in enumerate(row):
            v = max(variances[index if len(variances) > 1 else 0], lowest)
            total += residual**2 / math.exp(v) + v
    return total / (BATCH * DIM)


def bound(name: str, student: Tensor, teacher: Tensor) -> Tensor:
    """Call a loss, with log variances when it wants them."""
    loss = LOSSES[name]
    return loss(student, teacher, log_variances(DIM)) if name == "pad" else loss(student, teacher)


def test_l2_and_cosine__equal_plain_loops() -> None:
    student, teacher = pair()
    squared = [sum(r * r for r in row) for row in slow_residuals(student, teacher)]
    assert l2(student, teacher).item() == pytest.approx(sum(squared) / BATCH, rel=1e-12)
    cosines = [
        sum(a * b for a, b in zip(s, t, strict=True)) / math.dist(s, [0] * DIM) / math.dist(t, [0] * DIM)
        for s, t in zip(student.tolist(), teacher.tolist(), strict=True)
    ]
    assert cosine(student, teacher).item() == pytest.approx(1.0 - sum(cosines) / BATCH, rel=1e-12)
    assert l2(student, teacher).item() == pytest.approx(2.0 * cosine(student, teacher).item(), rel=1e-12)


@pytest.mark.parametrize("columns", [DIM, 1])
@pytest.mark.parametrize("floor", [1e-6, 0.9])
def test_pad__equals_plain_loops(columns: int, floor: float) -> None:
    student, teacher = pair()
    log_variance = log_variances(columns)
    loss = pad(student, teacher, log_variance, floor=floor)
    assert loss.item() == pytest.approx(slow_pad(student, teacher, log_variance, floor), rel=1e-10)


@pytest.mark.parametrize("name", ["l2", "cosine", "pad"])
def test_feature_losses__gradcheck(name: str) -> None:
    student, teacher = pair()
    assert torch.autograd.gradcheck(lambda s: bound(name, s, teacher), (student.requires_grad_(),))


@pytest.mark.parametrize("columns", [DIM, 1])
def test_pad__gradcheck_of_the_log_variance(columns: int) -> None:
    student, teacher = pair()
    assert torch.autograd.gradcheck(lambda v: pad(student, teacher, v), (log_variances(columns).requires_grad_(),))


@pytest.mark.parametrize("name", ["l2", "cosine", "pad"])
def test_feature_losses__no_gradient_to_the_teacher(name: str) -> None:
    student, teacher = (tensor.requires_grad_() for tensor in pair())
    bound(name, student, teacher).backward()
    assert teacher.grad is None
    assert student.grad is not None


@pytest.mark.parametrize("name", ["l2", "cosine", "pad"])
def test_feature_losses__lengths_do_not_matter(name: str) -> None:
    student, teacher = pair()
    assert bound(name, 5.0 * student, 0.01 * teacher).item() == pytest.approx(bound(name, student, teacher).item())


@pytest.mark.parametrize("name", ["l2", "cosine"])
def test_feature_losses__joint_rotation_changes_nothing(name: str) -> None:
    student, teacher = pair()
    turned = bound(name, student @ rotation(), teacher @ rotation()).item()
    assert turned == pytest.approx(bound(name, student, teacher).item(), rel=1e-12)
    assert bound(name, student @ rotation(), teacher).item() != pytest.approx(turned, rel=1e-3)


def test_pad__joint_rotation_changes_nothing_with_one_variance_per_image() -> None:
    student, teacher = pair()
    log_variance, turn = log_variances(1), rotation()
    turned = pad(student @ turn, teacher @ turn, log_variance).item()
    assert turned == pytest.approx(pad(student, teacher, log_variance).item(), rel=1e-12)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("sign", [1.0, -1.0])
@pytest.mark.parametrize("name", ["l2", "cosine", "pad"])
def test_feature_losses__finite_on_and_opposite_the_teacher(name: str, sign: float, dtype: torch.dtype) -> None:
    teacher = pair()[1].to(dtype)
    student = (sign * teacher).requires_grad_()
    loss = bound(name, student, teacher)
    loss.backward()
    assert math.isfinite(loss.item())
    assert student.grad.isfinite().all()
    if name != "pad":
        expected = {("l2", 1.0): 0.0, ("l2", -1.0): 4.0, ("cosine", 1.0): 0.0, ("cosine", -1.0): 2.0}[name, sign]
        assert loss.item() == pytest.approx(expected, abs=1e-6)


def test_unit_rows__zeros_stay_and_trouble_is_passed_on() -> None:
    rows = torch.tensor([[0.0, 0.0], [3e-20, 4e-20], [math.nan, 1.0], [math.inf, 1.0]], dtype=torch.float64)
    unit = unit_rows(rows.requires_grad_())
    assert unit[0].tolist() == [0.0, 0.0]
    assert unit[1].tolist() == pytest.approx([0.6, 0.8])
    assert unit[2:, 0].isnan().all()
    unit[0].sum().backward()
    assert rows.grad[0].tolist() == [0.0, 0.0]


def test_pad__gradient_vanishes_at_the_log_of_the_squared_residual() -> None:
    student, teacher = pair()
    squared = (unit_rows(student) - unit_rows(teacher)).square()
    best = squared.log().requires_grad_()
    loss = pad(student, teacher, best)
    loss.backward()
    assert best.grad.abs().max() < 1e-12
    assert loss.item() == pytest.approx(1.0 + squared.log().mean().item(), rel=1e-12)
    per_image = squared.mean(dim=1, keepdim=True).log().requires_grad_()
    pad(student, teacher, per_image).backward()
    assert per_image.grad.abs().max() < 1e-12


def test_pad__constant_variance_is_l2_times_a_constant() -> None:
    student, teacher = pair()
    for value in (-3.0, 0.0, 2.0):
        gradients = []
        for loss in (lambda s, v=value: pad(s, teacher, torch.full((BATCH, DIM), v)), lambda s: l2(s, teacher)):
            embeddings = student.clone().requires_grad_()
            loss(embeddings).backward()
            gradients.append(embeddings.grad)
        torch.testing.assert_close(gradients[0], math.exp(-value) * gradients[1] / DIM, rtol=1e-10, atol=0.0)


def test_variance_weighted__scaling_residuals_adds_its_logarithm() -> None:
    factor = 7.0
    plain = pair()[0].requires_grad_()
    scaled = plain.detach().clone().requires_grad_()
    log_variance = log_variances(DIM)
    log_variance[0] = -100.0  # below the floor, which moves along
    first = variance_weighted(plain.square(), log_variance)
    second = variance_weighted((factor * scaled).square(), log_variance + 2.0 * math.log(factor))
    assert second.item() - first.item() == pytest.approx(2.0 * math.log(factor), rel=1e-9)
    first.backward()
    second.backward()
    torch.testing.assert_close(plain.grad, scaled.grad, rtol=1e-9, atol=0.0)


def test_variance_weighted__weights_are_inverse_squared_residuals_at_the_best_variance() -> None:
    small, large = 0.1, 0.4
    residuals = torch.tensor([[small], [large]], dtype=torch.float64, requires_grad=True)
    variance_weighted(residuals.square(), residuals.detach().square().log()).backward()
    weights = residuals.grad / (2.0 * residuals.detach())
    assert (weights[0] / weights[1]).item() == pytest.approx(large**2 / small**2)


def test_pad__floor_bounds_the_gradient() -> None:
    floor = 1e-2
    generator = torch.Generator().manual_seed(6)
    teacher = unit_rows(torch.randn(BATCH, DIM, generator=generator, dtype=torch.float64))
    for size in (1.0, 1e-2, 1e-4):
        student = unit_rows(teacher + size * torch.randn(BATCH, DIM, generator=generator, dtype=torch.float64))
        student.requires_grad_()
        pad(student, teacher, torch.full((BATCH, DIM), -200.0, dtype=torch.float64), floor=floor).backward()
        mean_squared = (student.detach() - teacher).square().mean().item()
        limit = 2.0 / (floor * math.sqrt(BATCH * DIM * mean_squared))
        assert student.grad.norm().item() <= limit * (1.0 + 1e-6)


def test_variance_weighted__below_the_floor_only_a_push_up() -> None:
    squared = torch.tensor([[1.0, 1e-9]], dtype=torch.float64)
    lowest = math.log(1e-6 * squared.mean().item())
    log_variance = torch.full((1, 2), lowest - 5.0, dtype=torch.float64, requires_grad=True)
    loss = variance_weighted(squared, log_variance)
    loss.backward()
    expected = sum(r2 / math.exp(lowest) + lowest for r2 in squared[0].tolist()) / 2
    assert loss.item() == pytest.approx(expected, rel=1e-10)
    push = (1.0 - math.exp(-lowest)) / 2
    assert log_variance.grad[0].tolist() == [pytest.approx(push, rel=1e-10), 0.0]
    assert push < 0.0


def test_variance_weighted__floor_sends_no_gradient_to_the_residuals() -> None:
    squared = torch.tensor([[1.0, 0.25]], dtype=torch.float64, requires_grad=True)
    variance_weighted(squared, torch.full((1, 2), -50.0, dtype=torch.float64)).backward()
    weight = 1.0 / (1e-6 * squared.mean().item())
    assert squared.grad[0].tolist() == pytest.approx([weight / 2, weight / 2], rel=1e-10)


def test_pad__a_collapsed_variance_recovers() -> None:
    student, teacher = pair()
    squared = (unit_rows(student) - unit_rows(teacher)).square()
    log_variance = torch.full((BATCH, DIM), -30.0, dtype=torch.float64, requires_grad=True)
    for _ in range(800):
        (gradient,) = torch.autograd.grad(pad(student, teacher, log_variance), log_variance)
        with torch.no_grad():
            log_variance -= 0.05 * gradient.sign()
    torch.testing.assert_close(log_variance.detach(), squared.log(), rtol=0.0, atol=0.1)


@pytest.mark.parametrize("value", [-1e10, -80.0, 80.0, 1e10])
def test_pad__finite_at_extreme_variances_and_tiny_residuals(value: float) -> None:
    student, teacher = (tensor.float() for tensor in pair())
    for other in (teacher, student, student * (1.0 + 1e-6)):
        embeddings = student.clone().requires_grad_()
        log_variance = torch.full((BATCH, DIM), value).requires_grad_()
        loss = pad(embeddings, other, log_variance)
        loss.backward()
        assert math.isfinite(loss.item())
        assert embeddings.grad.isfinite().all()
        assert log_variance.grad.isfinite().all()


@pytest.mark.parametrize("name", ["l2", "cosine", "pad"])
def test_feature_losses__refuse_sizes_that_do_not_agree(name: str) -> None:
    student, teacher = pair()
    with pytest.raises(ValueError, match="student has 4 dimensions, teacher 5; give the student a projector"):
        bound(name, student[:, :4], teacher)
    with pytest.raises(ValueError, match="student has 6 rows, teacher 1; one row per image"):
        bound(name, student, teacher[:1])
    with pytest.raises(ValueError, match=r"teacher has shape \(5,\), expected \(rows, dim\)"):
        bound(name, student, teacher[0])
    with pytest.raises(ValueError, match=r"student has shape \(0, 5\), expected at least one row"):
        bound(name, student[:0], teacher[:0])


def test_pad__refuses() -> None:
    student, teacher = pair()
    with pytest.raises(ValueError, match=r"log_variance has shape \(6, 3\), student \(6, 5\); expected"):
        pad(student, teacher, log_variances(3))
    with pytest.raises(ValueError, match=r"log_variance has shape \(6,\)"):
        pad(student, teacher, log_variances(1)[:, 0])
    for floor in (0.0, 1.1, -1e-6, math.nan):
        with pytest.raises(ValueError, match="floor is .*, expected a fraction above 0 and at most 1"):
            pad(student, teacher, log_variances(DIM), floor=floor)


def test_losses__tensors_are_positional_and_options_keyword_only() -> None:
    for name in LOSSES:
        for parameter in inspect.signature(LOSSES[name]).parameters.values():
            if parameter.kind is inspect.Parameter.KEYWORD_ONLY:
                assert parameter.default is not inspect.Parameter.empty, f"{name}: {parameter.name} has no default"
            else:
                assert parameter.name in FIELDS, f"{name}: {parameter.name} is no step output"
