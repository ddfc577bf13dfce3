"""Losses with a learned variance against closed forms, plain loops, draws and failures they are known for."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from facekd.losses import dul, margin_softmax
from facekd.losses.uncertainty import reparameterised, unit_gaussian_divergence

BATCH, DIM, CLASSES = 6, 5, 4
LABELS = torch.tensor([0, 3, 3, 1, 3, 0])


def draw(seed: int = 0, columns: int = DIM) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Student, log variance, noise and class weights in double precision."""
    generator = torch.Generator().manual_seed(seed)
    student, noise = torch.randn(2, BATCH, DIM, generator=generator, dtype=torch.float64).unbind()
    log_variance = torch.randn(BATCH, columns, generator=generator, dtype=torch.float64) - 1.0
    return student, log_variance, noise, torch.randn(CLASSES, DIM, generator=generator, dtype=torch.float64)


def slow_divergence(mean: float, variance: float) -> float:
    return 0.5 * (mean**2 + variance - 1.0 - math.log(variance))


@pytest.mark.parametrize("columns", [DIM, 1])
def test_divergence__equals_plain_loops(columns: int) -> None:
    student, log_variance, _, _ = draw(columns=columns)
    rows = zip(student.tolist(), log_variance.expand(-1, DIM).tolist(), strict=True)
    terms = [slow_divergence(m, math.exp(v)) for row, vs in rows for m, v in zip(row, vs, strict=True)]
    assert unit_gaussian_divergence(student, log_variance).item() == pytest.approx(sum(terms) / len(terms), rel=1e-12)


def test_divergence__agrees_with_the_integral_of_torch() -> None:
    student, log_variance, _, _ = draw()
    one = torch.distributions.Normal(student, (0.5 * log_variance).exp())
    other = torch.distributions.Normal(torch.zeros_like(student), torch.ones_like(student))
    wanted = torch.distributions.kl_divergence(one, other).mean()
    torch.testing.assert_close(unit_gaussian_divergence(student, log_variance), wanted)


def test_divergence__is_0_and_flat_at_the_unit_gaussian_and_nowhere_below() -> None:
    mean, log_variance = torch.zeros(1, 3, requires_grad=True), torch.zeros(1, 3, requires_grad=True)
    value = unit_gaussian_divergence(mean, log_variance)
    value.backward()
    assert value.item() == 0.0
    assert mean.grad.abs().max() == 0.0 and log_variance.grad.abs().max() == 0.0
    generator = torch.Generator().manual_seed(1)
    for spread in (1e-3, 0.1, 1.0, 5.0):
        found = unit_gaussian_divergence(
            spread * torch.randn(200, 1, generator=generator, dtype=torch.float64),
            spread * torch.randn(200, 1, generator=generator, dtype=torch.float64),
        )
        assert found > 0.0


def test_divergence__negative_control__the_misprint_with_the_log_of_sigma_is_told_apart() -> None:
    """With ln sigma in place of ln sigma^2 the least value would be -0.077 at sigma^2 = 0.5, not 0 at 1."""
    sigma2 = torch.linspace(0.2, 2.0, 1801, dtype=torch.float64)
    misprint = 0.5 * (sigma2 - 1.0 - 0.5 * sigma2.log())
    assert float(sigma2[misprint.argmin()]) == pytest.approx(0.5, abs=1e-3)
    assert float(misprint.min()) == pytest.approx(-0.0767, abs=1e-4)
    ours = torch.stack([unit_gaussian_divergence(torch.zeros(1, 1), v.log().reshape(1, 1)) for v in sigma2])
    assert float(sigma2[ours.argmin()]) == pytest.approx(1.0, abs=1e-3)


def test_draws__have_the_mean_and_the_variance_asked_for() -> None:
    count = 200_000
    mean, variance = torch.tensor([[1.0, -2.0, 0.0]]), torch.tensor([[0.25, 4.0, 1.0]])
    noise = torch.randn(count, 3, generator=torch.Generator().manual_seed(0))
    found = reparameterised(mean.expand(count, -1), variance.log().expand(count, -1), noise)
    torch.testing.assert_close(found.mean(0), mean[0], atol=0.02, rtol=0)
    torch.testing.assert_close(found.var(0), variance[0], atol=0, rtol=0.02)


@pytest.mark.parametrize("kind", ["arcface", "cosface"])
@pytest.mark.parametrize("columns", [DIM, 1])
def test_dul__is_margin_softmax_of_the_draw_and_the_divergence(columns: int, kind: str) -> None:
    student, log_variance, noise, weights = draw(columns=columns)
    options = {"margin": 0.3, "scale": 8.0, "kind": kind}
    drawn = student + noise * (0.5 * log_variance).exp()
    wanted = margin_softmax(drawn, weights, LABELS, **options)
    wanted = wanted + 0.2 * unit_gaussian_divergence(student, log_variance)
    torch.testing.assert_close(dul(student, log_variance, noise, weights, LABELS, kl_weight=0.2, **options), wanted)


def test_dul__without_noise_and_divergence_is_margin_softmax() -> None:
    student, log_variance, _, weights = draw()
    found = dul(student, log_variance, torch.zeros_like(student), weights, LABELS, kl_weight=0.0)
    torch.testing.assert_close(found, margin_softmax(student, weights, LABELS))


def test_dul__gradcheck_and_a_gradient_to_the_variance_through_the_draw_alone() -> None:
    student, log_variance, noise, weights = draw()
    inputs = tuple(x.requires_grad_() for x in (student, log_variance, weights))

    def value(s: Tensor, v: Tensor, w: Tensor) -> Tensor:
        return dul(s, v, noise, w, LABELS, kl_weight=0.1, scale=8.0)

    assert torch.autograd.gradcheck(value, inputs)
    dul(student, log_variance, noise, weights, LABELS, kl_weight=0.0, scale=8.0).backward()
    assert (log_variance.grad != 0).all()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_dul__half_precision_gives_a_float32_value(dtype: torch.dtype) -> None:
    student, log_variance, noise, weights = (x.to(dtype).requires_grad_() for x in draw())
    found = dul(student, log_variance, noise, weights, LABELS, scale=8.0)
    found.backward()
    assert found.dtype == torch.float32
    wide = dul(student.float(), log_variance.float(), noise.float(), weights.float(), LABELS, scale=8.0)
    assert found.item() == pytest.approx(wide.item(), rel=1e-5)
    assert student.grad.isfinite().all() and log_variance.grad.isfinite().all()
    assert noise.grad is None


def collapsed(kl_weight: float, steps: int) -> float:
    """Mean log variance after training it about embeddings that stay, a free one for each of a toy problem."""
    generator = torch.Generator().manual_seed(0)
    weights = torch.eye(CLASSES, 8)
    labels = torch.arange(32) % CLASSES
    mean = weights[labels] + 0.3 * torch.randn(32, 8, generator=generator)
    log_variance = torch.zeros(32, 8, requires_grad=True)
    optimizer = torch.optim.Adam([log_variance], lr=0.05)
    for _ in range(steps):
        optimizer.zero_grad()
        noise = torch.randn(32, 8, generator=generator)
        dul(mean, log_variance, noise, weights, labels, kl_weight=kl_weight, scale=8.0, margin=0.3).backward()
        optimizer.step()
    return float(log_variance.detach().mean())


def test_dul__the_variance_shrinks_away_without_the_divergence_and_only_without_it() -> None:
    assert collapsed(0.0, 1200) < collapsed(0.0, 400) - 1.0
    assert abs(collapsed(1.0, 1200) - collapsed(1.0, 400)) < 0.2


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"kl_weight": -0.1}, "kl_weight is -0.1"),
        ({"noise": torch.zeros(BATCH, 1)}, "noise has shape"),
        ({"log_variance": torch.zeros(BATCH, 2)}, "log_variance has shape"),
        ({"scale": 0.0}, "scale is 0.0"),
        ({"kind": "combined2"}, "kind is 'combined2'"),
    ],
)
def test_dul__refuses(changes: dict, message: str) -> None:
    student, log_variance, noise, weights = draw()
    inputs = {"student": student, "log_variance": log_variance, "noise": noise}
    options = {key: value for key, value in changes.items() if key not in inputs}
    inputs |= {key: value for key, value in changes.items() if key in inputs}
    with pytest.raises(ValueError, match=message):
        dul(*inputs.values(), weights, LABELS, **options)
