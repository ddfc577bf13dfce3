"""Distillation on virtual samples against plain loops, the cases it must reduce to, and what it must not touch."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from facekd.data.virtual import Mixture, mix_images
from facekd.losses import LOSSES, logit_kd, margin_softmax, stkd, stkd_similarity

BATCH, VIRTUAL, DIM, TEACHER_DIM, CLASSES = 5, 4, 3, 6, 7


def rows(count: int, dim: int, seed: int) -> Tensor:
    return torch.randn(count, dim, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


LABELS = torch.tensor([[0, 6], [2, 2], [5, 1], [3, 4]])
SHARES = torch.tensor([0.25, 0.5, 1.0, 0.875])


def classified() -> list[Tensor]:
    """The inputs of stkd: a student and a teacher of different widths."""
    return [
        2.0 * rows(VIRTUAL, DIM, 0),
        rows(VIRTUAL, TEACHER_DIM, 1),
        LABELS,
        SHARES,
        rows(CLASSES, DIM, 2),
        rows(CLASSES, TEACHER_DIM, 3),
    ]


def compared() -> list[Tensor]:
    """The inputs of stkd_similarity."""
    pairs = ((BATCH, DIM), (BATCH, TEACHER_DIM), (VIRTUAL, DIM), (VIRTUAL, TEACHER_DIM))
    return [rows(count, dim, seed) for seed, (count, dim) in enumerate(pairs)]


def cosine(a: list[float], b: list[float]) -> float:
    return sum(x * y for x, y in zip(a, b, strict=True)) / math.hypot(*a) / math.hypot(*b)


def chances(logits: list[float]) -> list[float]:
    powers = [math.exp(value) for value in logits]
    return [power / sum(powers) for power in powers]


def slow_divergence(student: Tensor, teacher: Tensor, to: Tensor, teacher_to: Tensor, factor: float) -> float:
    total = 0.0
    for s, t in zip(student.tolist(), teacher.tolist(), strict=True):
        p = chances([factor * cosine(s, row) for row in to.tolist()])
        q = chances([factor * cosine(t, row) for row in teacher_to.tolist()])
        total += sum(b * math.log(b / a) for a, b in zip(p, q, strict=True))
    return total / len(student)


@pytest.mark.parametrize("label_weight", [0.0, 0.7])
def test_stkd__is_the_formula_term_by_term(label_weight: float) -> None:
    student, teacher, labels, shares, own, others = classified()
    scale, temperature = 5.0, 3.0
    expected = temperature**2 * slow_divergence(student, teacher, own, others, scale / temperature)
    for row, (first, second), share in zip(student.tolist(), labels.tolist(), shares.tolist(), strict=True):
        wanted = [share * (k == first) + (1 - share) * (k == second) for k in range(CLASSES)]
        assert sum(wanted) == 1.0
        found = chances([scale * cosine(row, weights) for weights in own.tolist()])
        terms = [y * math.log(p) for y, p in zip(wanted, found, strict=True)]
        expected -= label_weight * sum(terms) / VIRTUAL
    options = {"scale": scale, "temperature": temperature, "label_weight": label_weight}
    assert stkd(student, teacher, labels, shares, own, others, **options).item() == pytest.approx(expected, rel=1e-10)


def test_stkd_similarity__is_the_formula_term_by_term() -> None:
    student, teacher, virtual_student, virtual_teacher = compared()
    expected = slow_divergence(virtual_student, virtual_teacher, student, teacher, 1 / 0.3)
    found = stkd_similarity(student, teacher, virtual_student, virtual_teacher, temperature=0.3)
    assert found.item() == pytest.approx(expected, rel=1e-10)


def test_stkd__with_all_of_one_image_is_plain_distillation_of_that_image() -> None:
    student, teacher, labels, _, own, others = classified()
    found = stkd(student, teacher, labels, torch.ones(VIRTUAL), own, others, scale=9.0, temperature=2.0)
    plain = margin_softmax(student, own, labels[:, 0], kind="combined", margin=0.0, scale=9.0)
    plain = plain + logit_kd(student, teacher, own, others, scale=9.0, temperature=2.0)
    assert found.item() == pytest.approx(plain.item(), rel=1e-12)


def test_stkd__does_not_care_which_image_is_called_first() -> None:
    student, teacher, labels, shares, own, others = classified()
    one = stkd(student, teacher, labels, shares, own, others)
    assert stkd(student, teacher, labels.flip(1), 1 - shares, own, others).item() == pytest.approx(one.item())
    assert stkd(student, teacher, labels.flip(1), shares, own, others).item() != pytest.approx(one.item(), rel=1e-3)


def test_equal_networks_diverge_by_nothing() -> None:
    student, _, labels, shares, own, _ = classified()
    assert stkd(student, 3 * student, labels, shares, own, own, label_weight=0.0).item() == pytest.approx(0, abs=1e-14)
    batch, _, mixed, _ = compared()
    assert stkd_similarity(batch, 2 * batch, mixed, 5 * mixed).item() == pytest.approx(0, abs=1e-14)


def test_a_linear_network_puts_the_mixture_of_two_images_on_the_mixture_of_their_embeddings() -> None:
    """On pixels that are multiples of 4 no mixture in quarters is rounded."""
    images = 4 * torch.randint(64, (2, 3, 4, 5), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    mixture = Mixture(torch.tensor([0, 1]), torch.tensor([1, 0]), torch.tensor([0.25, 0.5]))
    network = rows(3 * 4 * 5, DIM, 4)
    one, other = images.double().flatten(1) @ network
    found = mix_images(images, mixture).double().flatten(1) @ network
    torch.testing.assert_close(found, torch.stack([0.25 * one + 0.75 * other, 0.5 * (one + other)]))


@pytest.mark.parametrize(
    ("name", "inputs", "own"), [("stkd", classified, (0, 4)), ("stkd_similarity", compared, (0, 2))]
)
def test_gradcheck_and_no_gradient_to_the_teacher(name: str, inputs, own: tuple[int, ...]) -> None:
    given = inputs()
    options = {"scale": 8.0} if name == "stkd" else {"temperature": 0.5}

    def of_student(*trained: Tensor) -> Tensor:
        placed = dict(zip(own, trained, strict=True))
        return LOSSES[name](*(placed.get(place, value) for place, value in enumerate(given)), **options)

    assert torch.autograd.gradcheck(of_student, tuple(given[place].clone().requires_grad_() for place in own))
    leaves = [value.clone().requires_grad_(value.is_floating_point()) for value in given]
    LOSSES[name](*leaves, **options).backward()
    touched = [place for place, leaf in enumerate(leaves) if leaf.grad is not None and bool(leaf.grad.any())]
    assert touched == [*own] if name == "stkd_similarity" else set(touched) - {3} == set(own)


@pytest.mark.parametrize(
    ("place", "value", "said"),
    [
        (2, LABELS[:, :1], r"virtual_labels are torch.int64 of shape \(4, 1\), expected integers \(4, 2\)"),
        (2, LABELS + 1, "virtual_labels hold 7, expected 0 to 6"),
        (2, LABELS - 1, "virtual_labels hold -1, expected 0 to 6"),
        (3, SHARES[:3], r"virtual_shares have shape \(3,\), expected \(4,\)"),
        (3, SHARES * 2, r"virtual_shares hold a value outside \[0, 1\]"),
        (3, SHARES * math.nan, r"virtual_shares hold a value outside \[0, 1\]"),
        (4, rows(CLASSES, DIM + 1, 0), "virtual_student has 3 dimensions, class_weights 4"),
        (5, rows(CLASSES - 1, TEACHER_DIM, 0), r"student logits \(4, 7\), teacher logits \(4, 6\)"),
        (1, rows(VIRTUAL - 1, TEACHER_DIM, 0), r"student logits \(4, 7\), teacher logits \(3, 7\)"),
    ],
)
def test_stkd__refuses_what_does_not_fit(place: int, value: Tensor, said: str) -> None:
    given = classified()
    given[place] = value
    with pytest.raises(ValueError, match=said):
        stkd(*given)


@pytest.mark.parametrize("option", [{"scale": 0.0}, {"temperature": -1.0}, {"label_weight": math.nan}])
def test_stkd__refuses_a_bad_option(option: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=next(iter(option))):
        stkd(*classified(), **option)


def test_stkd_similarity__refuses_what_does_not_fit() -> None:
    student, teacher, virtual_student, virtual_teacher = compared()
    with pytest.raises(ValueError, match="student has 1 rows, teacher 1; the same number, 2 or more"):
        stkd_similarity(student[:1], teacher[:1], virtual_student, virtual_teacher)
    with pytest.raises(ValueError, match="student has 5 rows, teacher 4"):
        stkd_similarity(student, teacher[:4], virtual_student, virtual_teacher)
    with pytest.raises(ValueError, match="virtual_teacher has 3 dimensions, teacher 6"):
        stkd_similarity(student, teacher, virtual_student, virtual_student)
    with pytest.raises(ValueError, match="temperature is 0.0"):
        stkd_similarity(student, teacher, virtual_student, virtual_teacher, temperature=0.0)
