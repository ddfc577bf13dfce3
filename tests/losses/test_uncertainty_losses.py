"""Losses with a learned variance against closed forms, plain loops, draws and failures they are known for."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from facekd.losses import (
    dul,
    dul_regression,
    logit_kd,
    margin_softmax,
    pad_logit,
    pad_relation,
    pfe,
    variance_weighted,
)
from facekd.losses.uncertainty import genuine_pairs, reparameterised, unit_gaussian_divergence

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


def slow_gaussian(squared: float, variance: float) -> float:
    return 0.5 * (squared / variance + math.log(variance) + math.log(2 * math.pi))


def unit(row: list[float]) -> list[float]:
    return [x / math.dist(row, [0] * len(row)) for x in row]


def test_dul_regression__equals_plain_loops() -> None:
    student, log_variance, _, weights = draw()
    total = 0.0
    for mean, values, label in zip(student.tolist(), log_variance.tolist(), LABELS.tolist(), strict=True):
        row = unit(weights[label].tolist())
        total += sum(slow_gaussian((w - m) ** 2, math.exp(v)) for w, m, v in zip(row, unit(mean), values, strict=True))
    found = dul_regression(student, log_variance, weights, LABELS)
    assert found.item() == pytest.approx(total / (BATCH * DIM), rel=1e-10)


def test_dul_regression__agrees_with_the_likelihood_of_torch_with_one_variance_for_all_dimensions() -> None:
    student, log_variance, _, weights = draw(columns=1)
    mean, rows = (torch.nn.functional.normalize(x) for x in (student, weights[LABELS]))
    wanted = -torch.distributions.Normal(mean, (0.5 * log_variance).exp()).log_prob(rows).mean()
    torch.testing.assert_close(dul_regression(student, log_variance, weights, LABELS), wanted)


def test_dul_regression__the_best_variance_is_the_squared_residual() -> None:
    student, _, _, weights = draw()
    rows = torch.nn.functional.normalize(weights[LABELS])
    best = (torch.nn.functional.normalize(student) - rows).square().log().requires_grad_()
    value = dul_regression(student, best, weights, LABELS, floor=1e-12)
    value.backward()
    assert best.grad.abs().max() < 1e-12
    for step in (-0.3, 0.3):
        assert dul_regression(student, best.detach() + step, weights, LABELS, floor=1e-12) > value


def test_dul_regression__with_one_variance_for_all_the_embedding_feels_the_squared_error() -> None:
    student, _, _, weights = draw()
    student.requires_grad_()
    (found,) = torch.autograd.grad(dul_regression(student, torch.full((BATCH, 1), -2.0), weights, LABELS), student)
    residual = torch.nn.functional.normalize(student) - torch.nn.functional.normalize(weights[LABELS])
    (plain,) = torch.autograd.grad(residual.square().mean(), student)
    torch.testing.assert_close(found, 0.5 * math.exp(2.0) * plain)


def test_dul_regression__lengths_do_not_matter_and_the_rows_feel_nothing() -> None:
    student, log_variance, _, weights = draw()
    weights.requires_grad_()
    student.requires_grad_()
    value = dul_regression(student, log_variance, weights, LABELS)
    value.backward()
    assert weights.grad is None and student.grad.abs().max() > 0
    longer = dul_regression(7.0 * student, log_variance, 0.1 * weights, LABELS)
    torch.testing.assert_close(longer, value)


@pytest.mark.parametrize("name", ["dul_regression", "pfe"])
@pytest.mark.parametrize("columns", [DIM, 1])
def test_regressions__gradcheck(name: str, columns: int) -> None:
    student, log_variance, _, weights = draw(columns=columns)

    def value(s: Tensor, v: Tensor) -> Tensor:
        return dul_regression(s, v, weights, LABELS) if name == "dul_regression" else pfe(s, v, LABELS)

    assert torch.autograd.gradcheck(value, (student.requires_grad_(), log_variance.requires_grad_()))


def slow_score(one: list[float], other: list[float], log_one: list[float], log_other: list[float]) -> float:
    return -sum(
        slow_gaussian((a - b) ** 2, math.exp(v) + math.exp(w))
        for a, b, v, w in zip(unit(one), unit(other), log_one, log_other, strict=True)
    )


def test_pfe__is_minus_the_mean_score_of_the_genuine_pairs_in_either_order() -> None:
    student, log_variance, _, _ = draw()
    rows, values = student.tolist(), log_variance.tolist()
    ordered = [(i, j) for i in range(BATCH) for j in range(BATCH) if i != j and LABELS[i] == LABELS[j]]
    scores = [slow_score(rows[i], rows[j], values[i], values[j]) for i, j in ordered]
    found = pfe(student, log_variance, LABELS)
    assert found.item() == pytest.approx(-sum(scores) / len(scores) / DIM, rel=1e-10)
    assert len(ordered) == 2 * len(genuine_pairs(LABELS)[0]) == 8


def test_pfe__a_batch_without_genuine_pairs_gives_0_and_a_gradient_of_0() -> None:
    student, log_variance = torch.randn(3, DIM, requires_grad=True), torch.zeros(3, DIM, requires_grad=True)
    value = pfe(student, log_variance, torch.arange(3))
    value.backward()
    assert value.item() == 0.0
    assert not student.grad.any() and not log_variance.grad.any()


def test_pfe__may_fall_below_0_and_a_repeated_image_does_not_drive_it_off() -> None:
    student, _, _, _ = draw()
    close = student[:1] + 1e-3 * student
    sure = torch.full((BATCH, 1), -12.0, dtype=torch.float64)
    assert pfe(close, sure, torch.zeros(BATCH)).item() < 0.0
    twice = student[:1].expand(2, -1)
    deep = torch.full((2, 1), -200.0, dtype=torch.float64, requires_grad=True)
    value = pfe(twice, deep, torch.zeros(2))
    value.backward()
    assert math.isfinite(value.item()) and deep.grad.isfinite().all()


def test_regressions__scale_equivariance_of_the_variance() -> None:
    """Residuals c times as long with variances c^2 times as large cost ln c more in each dimension."""
    squared = torch.rand(BATCH, DIM, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    _, log_variance, _, _ = draw()
    plain = variance_weighted(squared, log_variance)
    scaled = variance_weighted(9.0 * squared, log_variance + math.log(9.0))
    torch.testing.assert_close(scaled, plain + math.log(9.0))


@pytest.mark.parametrize(
    ("labels", "message"),
    [(torch.tensor([0, 1, 2, 3, 0, 4]), "label 4 is outside the 4 classes"), (LABELS[:3], "labels 3")],
)
def test_dul_regression__refuses_labels(labels: Tensor, message: str) -> None:
    student, log_variance, _, weights = draw()
    with pytest.raises(ValueError, match=message):
        dul_regression(student, log_variance, weights, labels)


def classifiers() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(9)
    one, other = torch.randn(2, CLASSES, DIM, generator=generator, dtype=torch.float64).unbind()
    return one, other


def distance_and_loss(name: str, student: Tensor, teacher: Tensor, log_variance: Tensor) -> tuple[Tensor, Tensor]:
    """The plain distances, one an image, and the PAD loss over them."""
    if name == "pad_logit":
        options = {"scale": 8.0, "temperature": 2.0}
        distances = [logit_kd(student[i : i + 1], teacher[i : i + 1], *classifiers(), **options) for i in range(BATCH)]
        return torch.stack(distances), pad_logit(student, teacher, *classifiers(), log_variance, **options)
    one, other = (torch.nn.functional.normalize(x) @ torch.nn.functional.normalize(x).T for x in (student, teacher))
    squared = (one - other).square()
    rows = [sum(squared[i, j] for j in range(BATCH) if j != i) / (BATCH - 1) for i in range(BATCH)]
    return torch.stack(rows), pad_relation(student, teacher, log_variance)


@pytest.mark.parametrize("name", ["pad_logit", "pad_relation"])
class TestPadOverOtherDistances:
    def inputs(self) -> tuple[Tensor, Tensor, Tensor]:
        student, log_variance, teacher, _ = draw(columns=1)
        return student.requires_grad_(), teacher.requires_grad_(), log_variance.requires_grad_()

    def test_equals_plain_sums(self, name: str) -> None:
        distances, found = distance_and_loss(name, *self.inputs())
        log_variance = self.inputs()[2][:, 0]
        torch.testing.assert_close(found, (distances / log_variance.exp() + log_variance).mean())

    def test_the_best_variance_is_the_distance_and_the_value_there_one_and_its_logarithm(self, name: str) -> None:
        student, teacher, log_variance = self.inputs()
        best = distance_and_loss(name, student, teacher, log_variance)[0].detach().log()[:, None].requires_grad_()
        found = distance_and_loss(name, student, teacher, best)[1]
        found.backward()
        torch.testing.assert_close(found, 1 + best.mean())
        assert best.grad.abs().max() < 1e-12 and teacher.grad is None

    def test_a_constant_variance_rescales_the_gradient_of_the_plain_distance(self, name: str) -> None:
        student, teacher, _ = self.inputs()
        distances, found = distance_and_loss(name, student, teacher, torch.full((BATCH, 1), -3.0).double())
        (ours,) = torch.autograd.grad(found, student, retain_graph=True)
        (plain,) = torch.autograd.grad(distances.mean(), student)
        torch.testing.assert_close(ours, math.exp(3.0) * plain)

    def test_gradcheck(self, name: str) -> None:
        student, teacher, log_variance = self.inputs()
        teacher = teacher.detach()
        inputs = (student, log_variance)
        assert torch.autograd.gradcheck(lambda s, v: distance_and_loss(name, s, teacher, v)[1], inputs)

    def test_a_variance_of_each_dimension_is_refused(self, name: str) -> None:
        student, teacher, _ = self.inputs()
        with pytest.raises(ValueError, match="expected \\(6, 1\\)"):
            distance_and_loss(name, student, teacher, torch.zeros(BATCH, DIM))
