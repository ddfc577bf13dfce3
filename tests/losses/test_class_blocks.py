"""The softmax whose logits are never held, against the plain form in float64, and what it allocates."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from facekd.engine.allocations import peak_bytes
from facekd.losses import apply_margin, class_blocks, cosine_logits, margin_softmax
from facekd.losses.class_blocks import ClassShare, entropy_against, own_and_others

CLASSES, DIM, BATCH = 3000, 32, 12


def batch(pull: float, classes: int = CLASSES, seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    """Float64 embeddings, as near to their own rows as ``pull`` says, rows of many lengths, and labels."""
    generator = torch.Generator().manual_seed(seed)
    rows = torch.randn(classes, DIM, generator=generator, dtype=torch.float64)
    labels = torch.randint(classes, (BATCH,), generator=generator)
    student = torch.randn(BATCH, DIM, generator=generator, dtype=torch.float64) + pull * rows[labels]
    return student, rows * torch.rand(classes, 1, generator=generator, dtype=torch.float64).add(0.1), labels


def plain(student: Tensor, class_weights: Tensor, labels: Tensor, scale: float = 64.0, **options: object) -> Tensor:
    """The loss by all its logits."""
    cosines = cosine_logits(student, class_weights)
    index = labels[:, None]
    target = apply_margin(cosines.gather(1, index), **options)  # type: ignore[arg-type]
    return F.cross_entropy(scale * cosines.scatter(1, index, target), labels)


def with_gradients(loss: object, student: Tensor, class_weights: Tensor, labels: Tensor, **options: object) -> list:
    given = [x.clone().requires_grad_() for x in (student, class_weights)]
    value = loss(*given, labels, **options)  # type: ignore[operator]
    return [value.detach(), *torch.autograd.grad(value, given)]


KINDS = ({}, {"past_pi": "easy"}, {"kind": "cosface", "margin": 0.35}, {"kind": "combined", "margin_cosine": 0.1})


@pytest.mark.parametrize("options", KINDS, ids=["arcface", "easy", "cosface", "combined"])
@pytest.mark.parametrize("pull", [0.0, 0.5, 2.0, 30.0])
def test_blocks__float32_is_within_1e_5_of_the_plain_form_in_float64(pull: float, options: dict) -> None:
    student, rows, labels = batch(pull)
    wanted = with_gradients(plain, student.float().double(), rows.float().double(), labels, **options)
    found = with_gradients(margin_softmax, student.float(), rows.float(), labels, **options)
    for one, other in zip(found, wanted, strict=True):
        assert one.dtype == torch.float32
        assert (one - other).norm() <= 1e-5 * other.norm()


@pytest.mark.parametrize("numbers", [1, 7 * DIM, 1000 * DIM, 2**22])
def test_blocks__of_any_size_give_the_plain_form(numbers: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(class_blocks, "BLOCK_NUMBERS", numbers)
    inputs = batch(1.0, classes=50)
    for one, other in zip(with_gradients(margin_softmax, *inputs), with_gradients(plain, *inputs), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-11, atol=1e-14)


def test_blocks__gradcheck_across_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(class_blocks, "BLOCK_NUMBERS", 4 * DIM)
    student, rows, labels = batch(1.0, classes=10)

    def both(one: Tensor, other: Tensor) -> tuple[Tensor, Tensor]:
        return own_and_others(one, other, labels, scale=5.0)

    assert torch.autograd.gradcheck(both, (student.requires_grad_(), rows.requires_grad_()))


def test_blocks__nothing_cancels_where_the_own_class_is_by_far_the_largest() -> None:
    """A trained student; taking its own class out of the sum of all, as an attention kernel would have it, fails."""
    student, rows, labels = batch(30.0)
    _, wanted = own_and_others(student, rows, labels, scale=64.0)
    own, found = own_and_others(student.float(), rows.float(), labels, scale=64.0)
    assert (found - wanted).abs().max() < 1e-4
    everything = torch.logsumexp(64.0 * cosine_logits(student.float(), rows.float()), dim=1)
    subtracted = everything + torch.log1p(-(64.0 * own - everything).exp())
    assert not ((subtracted - wanted).abs() < 0.1).any()


def test_blocks__a_difference_as_small_as_it_gets_is_still_told() -> None:
    """Cross-entropy in float32 would be 0 and its gradient too."""
    own, others = torch.tensor([60.0], requires_grad=True), torch.tensor([20.0])
    loss = entropy_against(others, own)
    loss.backward()
    assert loss.item() == pytest.approx(math.exp(-40.0)) and own.grad.item() == pytest.approx(-math.exp(-40.0))
    assert F.cross_entropy(torch.tensor([[60.0, 20.0]]), torch.tensor([0])).item() == 0.0


def test_blocks__entropy_is_exact_on_both_sides_of_where_it_becomes_a_line() -> None:
    apart = torch.tensor([-50.0, -1.0, 0.0, 39.9, 40.1, 200.0], dtype=torch.float64)
    for x in apart:
        wanted = math.log1p(math.exp(x)) if x < 300 else float(x)
        assert entropy_against(x[None], torch.zeros(1, dtype=torch.float64)).item() == pytest.approx(wanted, rel=1e-15)


def test_blocks__one_class_has_nothing_against_it() -> None:
    student, rows, labels = batch(0.0, classes=1)
    loss, *gradients = with_gradients(margin_softmax, student, rows, labels)
    assert loss == 0.0 and all((gradient == 0.0).all() for gradient in gradients)


def test_blocks__a_row_of_zeros_is_at_a_right_angle_to_all_and_gets_no_gradient() -> None:
    student, rows, labels = batch(1.0, classes=20)
    rows[3] = rows[labels[0]] = 0.0
    found = with_gradients(margin_softmax, student, rows, labels, kind="cosface")
    for one, other in zip(found, with_gradients(plain, student, rows, labels, kind="cosface"), strict=True):
        torch.testing.assert_close(one, other)
    assert (found[2][3] == 0.0).all()


def test_blocks__what_is_not_finite_stays_so() -> None:
    student, rows, labels = batch(1.0, classes=20)
    student[4, 0] = torch.nan
    assert margin_softmax(student, rows, labels).isnan()


class Ring:
    """Threads in place of processes, which hand each other their rows."""

    def __init__(self, size: int) -> None:
        self.held: list[Tensor] = [torch.empty(0)] * size
        self.sent: list[int] = []
        self.barrier = threading.Barrier(size)

    def gather(self, rank: int, rows: Tensor) -> Tensor:
        self.held[rank] = rows
        self.sent.append(rows.numel())
        self.barrier.wait(60)
        whole = torch.cat(self.held)
        self.barrier.wait(60)
        return whole

    def run(self, work: Callable[[ClassShare], list[Tensor]]) -> list[list[Tensor]]:
        shares = [ClassShare(rank, len(self.held), partial(self.gather, rank)) for rank in range(len(self.held))]
        with ThreadPoolExecutor(len(shares)) as pool:
            return list(pool.map(work, shares))


@pytest.mark.parametrize(
    ("size", "classes", "held"),
    [(size, classes, "all") for size in (1, 2, 3) for classes in (1, 2, 7, 50)]
    + [(size, classes, "own part") for size in (1, 2, 3) for classes in (3, 7, 50)],
)
def test_shares__of_several_processes_give_the_plain_form(size: int, classes: int, held: str) -> None:
    student, rows, labels = batch(1.0, classes)

    def work(share: ClassShare) -> list[Tensor]:
        own, kept = student.clone().requires_grad_(), rows
        if held == "own part":
            share, kept = share._replace(classes=classes), rows[share.of(classes)].clone()
        loss = margin_softmax(own, kept, labels, class_share=share)
        return [loss.detach(), *torch.autograd.grad(loss, own)]

    ring = Ring(size)
    found = ring.run(work)
    assert all(torch.equal(one, other) for each in found for one, other in zip(each, found[0], strict=True))
    wanted = with_gradients(plain, student, rows, labels)
    for one, other in zip(found[0], wanted, strict=False):
        torch.testing.assert_close(one, other, rtol=1e-11, atol=1e-14)
    assert sorted(ring.sent) == sorted(([] if held == "all" else [BATCH * DIM] * size) + [BATCH * (DIM + 1)] * size)


@pytest.mark.parametrize("classes", [1, 2, 10, 11])
def test_shares__are_all_the_classes_once(classes: int) -> None:
    parts = [range(classes)[ClassShare(rank, 3, lambda rows: rows).of(classes)] for rank in range(3)]
    assert [one for part in parts for one in part] == list(range(classes))
    assert max(map(len, parts)) - min(map(len, parts)) <= 1


def test_shares__a_label_beyond_all_the_classes_is_refused_and_one_of_another_part_is_not() -> None:
    student, rows, _ = batch(1.0, classes=20)
    share = ClassShare(0, 1, lambda sent: sent, classes=21)
    with pytest.raises(ValueError, match="label 21 is outside the 21 classes"):
        margin_softmax(student, rows, torch.full((BATCH,), 21), class_share=share)
    assert margin_softmax(student, rows, torch.full((BATCH,), 20), class_share=share).isfinite()


@pytest.mark.parametrize(("size", "classes"), [(size, classes) for size in (1, 2, 3) for classes in (3, 7, 50)])
def test_shares__of_a_classifier_in_training_give_its_rows_the_gradient_of_the_plain_form(
    size: int, classes: int
) -> None:
    student, rows, labels = batch(1.0, classes)

    def work(share: ClassShare) -> list[Tensor]:
        share = share._replace(classes=classes)
        given = student.clone().requires_grad_(), rows[share.of(classes)].clone().requires_grad_()
        loss = margin_softmax(*given, labels, class_share=share)
        return [loss.detach(), *torch.autograd.grad(loss, given)]

    found = Ring(size).run(work)
    wanted = with_gradients(plain, student, rows, labels)
    for loss, to_student, _ in found:
        assert torch.equal(loss, found[0][0]) and torch.equal(to_student, found[0][1])
        torch.testing.assert_close([loss, to_student], wanted[:2], rtol=1e-11, atol=1e-14)
    torch.testing.assert_close(torch.cat([each[2] for each in found]), wanted[2], rtol=1e-11, atol=1e-14)


@pytest.mark.parametrize("counts", [(4, 0, 3), (0, 7, 0), (1, 5, 1)])
def test_shares__may_be_uneven_and_empty(counts: tuple[int, ...]) -> None:
    student, rows, labels = batch(1.0, classes=7)

    def work(share: ClassShare) -> list[Tensor]:
        first = sum(counts[: share.rank])
        given = student.clone().requires_grad_(), rows[first:][: counts[share.rank]].clone().requires_grad_()
        loss = margin_softmax(*given, labels, class_share=share._replace(classes=7, first=first))
        return [loss.detach(), *torch.autograd.grad(loss, given)]

    found = Ring(3).run(work)
    wanted = with_gradients(plain, student, rows, labels)
    for each in found:
        torch.testing.assert_close(each[:2], wanted[:2], rtol=1e-11, atol=1e-14)
    torch.testing.assert_close(torch.cat([each[2] for each in found]), wanted[2], rtol=1e-11, atol=1e-14)


def test_shares__of_a_classifier_in_training_that_is_whole_are_refused() -> None:
    student, rows, labels = batch(1.0, classes=20)
    with pytest.raises(ValueError, match="class_weights is in training and whole, expected the rows of this process"):
        margin_softmax(student, rows.requires_grad_(), labels, class_share=ClassShare(0, 1, lambda rows: rows))


def test_blocks__a_second_derivative_is_refused() -> None:
    student, rows, labels = batch(1.0, classes=20)
    student.requires_grad_()
    (first,) = torch.autograd.grad(margin_softmax(student, rows, labels), student, create_graph=True)
    with pytest.raises(RuntimeError, match="differentiate twice"):
        first.sum().backward()


@pytest.mark.parametrize("trained", [False, True], ids=["frozen", "trained"])
def test_blocks__memory_does_not_grow_with_the_classes(trained: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Beside the gradient of the rows; that of the plain form does."""
    monkeypatch.setattr(class_blocks, "BLOCK_NUMBERS", 100 * DIM)

    def most(loss: object, classes: int) -> int:
        student, rows, labels = (x.float() if x.is_floating_point() else x for x in batch(1.0, classes))
        student.requires_grad_(), rows.requires_grad_(trained)
        held = peak_bytes(lambda: loss(student, rows, labels).backward())  # type: ignore[operator]
        return held - trained * rows.numel() * rows.element_size()

    blocks = 4 * 100 * DIM
    assert most(margin_softmax, 1000) == most(margin_softmax, 4000) < 6 * blocks
    assert most(plain, 4000) > 3 * most(plain, 1000)


@pytest.mark.parametrize("trained", [False, True], ids=["frozen", "trained"])
def test_blocks__a_student_without_a_gradient_needs_no_mean(trained: bool) -> None:
    student, rows, labels = batch(1.0, classes=20)
    rows.requires_grad_(trained)
    loss = margin_softmax(student, rows, labels)
    assert loss.requires_grad == trained
    torch.testing.assert_close(loss.detach(), plain(student, rows.detach(), labels))
    if trained:
        wanted = torch.autograd.grad(plain(student, rows, labels), rows)
        torch.testing.assert_close(torch.autograd.grad(loss, rows), wanted)


def test_blocks__rows_in_bf16_move_a_cosine_by_what_is_stated() -> None:
    generator = torch.Generator().manual_seed(0)
    rows = torch.randn(2000, 512, generator=generator)
    student, labels = torch.randn(256, 512, generator=generator), torch.randint(2000, (256,), generator=generator)
    exact, others = own_and_others(student, rows, labels, scale=64.0)
    moved, sums = own_and_others(student, rows.bfloat16(), labels, scale=64.0)
    assert moved.dtype == torch.float32
    assert 3e-5 < (moved - exact).std() < 8e-5
    assert 0.0 < (sums - others).abs().max() < 1e-2


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("trained", [False, True], ids=["frozen", "trained"])
def test_blocks__on_a_gpu_are_those_of_the_cpu(trained: bool) -> None:
    inputs = [x.float() if x.is_floating_point() else x for x in batch(2.0)]
    wanted = with_gradients(margin_softmax, *inputs)
    found = with_gradients(margin_softmax, *(x.cuda() for x in inputs))
    for one, other in zip(found[: 2 + trained], wanted, strict=False):
        assert (one.cpu() - other).norm() <= 1e-5 * other.norm()
