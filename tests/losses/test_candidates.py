"""Softmax among the nearest classes, against plain loops; the bound on what it leaves out is never broken."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from facekd.engine.allocations import peak_bytes
from facekd.losses import Neighbours, candidates, class_blocks, cosine_logits, margin_softmax
from facekd.losses.candidates import (
    entropy_left_out,
    ignored_at_most,
    nearest_classes,
    own_and_candidates,
)
from facekd.losses.class_blocks import own_and_others

BATCH, CLASSES, DIM = 10, 60, 8


def batch(pull: float = 1.0, classes: int = CLASSES, seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    rows = torch.randn(classes, DIM, generator=generator, dtype=torch.float64)
    labels = torch.randint(classes, (BATCH,), generator=generator)
    student = torch.randn(BATCH, DIM, generator=generator, dtype=torch.float64) + pull * rows[labels]
    return student, rows * torch.rand(classes, 1, generator=generator, dtype=torch.float64).add(0.1), labels


def ignored(student: Tensor, rows: Tensor, labels: Tensor, near: Neighbours, scale: float) -> Tensor:
    """The log-sum-exp of what the candidates leave out, class by class."""
    logits = scale * cosine_logits(student, rows)
    for image, label in enumerate(labels.tolist()):
        logits[image, [label, *near.classes[label].tolist()]] = -torch.inf
    return logits.logsumexp(dim=1)


@pytest.mark.parametrize("numbers", [1, 7 * CLASSES, 2**22])
@pytest.mark.parametrize("count", [1, 5, CLASSES - 1, 1000])
def test_nearest_classes__are_those_of_the_whole_product(
    numbers: int, count: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(class_blocks, "BLOCK_NUMBERS", numbers)
    rows = batch()[1]
    cosines = cosine_logits(rows, rows).fill_diagonal_(-2.0)
    order = cosines.argsort(dim=1, descending=True)[:, : min(count, CLASSES - 1)]
    found = nearest_classes(rows, count)
    assert found.classes.dtype == torch.int32
    assert torch.equal(found.classes.long().sort(dim=1).values, order.sort(dim=1).values)
    torch.testing.assert_close(found.reach, cosines.gather(1, order[:, -1:]).squeeze(1).float())


def test_candidates__all_of_them_give_the_loss_over_all_classes() -> None:
    student, rows, labels = batch()
    student.requires_grad_()
    whole, near = (margin_softmax(student, rows, labels, near) for near in (None, nearest_classes(rows, CLASSES)))
    torch.testing.assert_close(near, whole, rtol=1e-12, atol=0.0)
    (one,), (other,) = (torch.autograd.grad(loss, student) for loss in (near, whole))
    torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-14)


@pytest.mark.parametrize("numbers", [1, 3 * 4 * DIM, 2**22])
def test_candidates__are_a_softmax_of_their_own_for_each_image(numbers: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(candidates, "GATHERED_NUMBERS", numbers)
    student, rows, labels = batch()
    near = nearest_classes(rows, 4)
    losses = [
        margin_softmax(student[i : i + 1], rows[[label, *near.classes[label].tolist()]], torch.tensor([0]))
        for i, label in enumerate(labels.tolist())
    ]
    torch.testing.assert_close(margin_softmax(student, rows, labels, near), torch.stack(losses).mean())


def test_candidates__gradcheck() -> None:
    student, rows, labels = batch()
    near = nearest_classes(rows, 4)
    student.requires_grad_()
    assert torch.autograd.gradcheck(lambda x: own_and_candidates(x, rows, labels, near, scale=5.0), (student,))


@pytest.mark.parametrize("pull", [-3.0, 0.0, 1.0, 3.0, 1e6])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_bound__is_never_broken(pull: float, dtype: torch.dtype) -> None:
    for seed in range(20):
        student, rows, labels = batch(pull, seed=seed)
        student, rows = student.to(dtype), rows.to(dtype)
        near = nearest_classes(rows, 5)
        own, _ = own_and_others(student, rows, labels, scale=64.0)
        left = ignored(student.double(), rows.double(), labels, near, 64.0)
        assert (ignored_at_most(own, labels, near, scale=64.0) >= left).all()


def test_bound__is_attained_where_the_ignored_lie_as_near_as_they_can() -> None:
    """Two classes at right angles and two at 45 degrees, all in one plane; the embedding leans to an ignored one."""
    rows = torch.tensor([[1.0, 0.0], [1.0, 1.0], [1.0, -1.0], [0.0, 1.0]], dtype=torch.float64)
    near = nearest_classes(rows, 2)
    assert sorted(near.classes[0].tolist()) == [1, 2]
    near = Neighbours(torch.tensor([[1, 2], [0, 3], [0, 3], [1, 0]]), torch.tensor([0.0, 0.0, 0.0, 0.0]))
    leaning, label = torch.tensor([[1.0, 0.5]], dtype=torch.float64), torch.tensor([0])
    own, _ = own_and_others(leaning, rows, label, scale=64.0)
    left = ignored(leaning, rows, label, near, 64.0)
    assert 0.0 <= float(ignored_at_most(own, label, near, scale=64.0) - left) < 64 * 2e-5


def test_left_out__is_the_difference_of_the_two_losses() -> None:
    student, rows, labels = batch(0.5)
    near, options = nearest_classes(rows, 5), {"margin": 0.35, "kind": "cosface", "scale": 16.0}
    own, others = own_and_candidates(student, rows, labels, near, scale=16.0)
    rise = entropy_left_out(others, ignored(student, rows, labels, near, 16.0), 16.0 * (own - 0.35))
    whole, limited = (margin_softmax(student, rows, labels, given, **options) for given in (None, near))
    assert rise > 1e-4
    torch.testing.assert_close(rise, whole - limited)


def test_left_out__is_nothing_where_all_are_candidates() -> None:
    student, rows, labels = batch()
    near = nearest_classes(rows, CLASSES)
    own, others = own_and_candidates(student, rows, labels, near, scale=64.0)
    bound = ignored_at_most(own, labels, near, scale=64.0)
    assert entropy_left_out(others, bound, 64.0 * own) == 0.0


def test_candidates__memory_does_not_grow_with_the_classes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(candidates, "GATHERED_NUMBERS", 3 * 5 * DIM)

    def most(classes: int) -> int:
        student, rows, labels = batch(classes=classes)
        near = nearest_classes(rows, 5)
        student.requires_grad_()
        return peak_bytes(lambda: margin_softmax(student, rows, labels, near).backward())

    assert most(100) == most(400)


def test_candidates__one_class_has_none() -> None:
    student, rows, labels = batch(classes=1)
    student.requires_grad_()
    loss = margin_softmax(student, rows, labels, nearest_classes(rows, 3))
    loss.backward()
    assert loss == 0.0 and (student.grad == 0.0).all()


def test_candidates__refuse_a_classifier_in_training_and_another_one() -> None:
    student, rows, labels = batch()
    near = nearest_classes(rows, 3)
    with pytest.raises(ValueError, match="class_weights is in training, expected a frozen classifier"):
        margin_softmax(student, rows.clone().requires_grad_(), labels, near)
    with pytest.raises(ValueError, match="neighbours of 60 classes, class_weights 50"):
        margin_softmax(student, rows[:50], labels % 50, near)


def test_neighbours__follow_to_a_device() -> None:
    near = nearest_classes(batch()[1], 3)
    assert all(one.is_meta for one in near.to("meta"))
