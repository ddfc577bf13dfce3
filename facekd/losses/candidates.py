"""Softmax among the classes that can be confused: of a classifier that never moves, the nearest ones are found once.

A class that is no candidate of ``y`` lies at least the angle ``r_y`` of its furthest candidate from row ``y``; so its
angle to an embedding at ``a`` from row ``y`` is at least ``r_y - a``, and all of them together add at most
``(classes - 1 - candidates) e^(scale cos(r_y - a))`` to the sum over the other classes. The bound says something of
embeddings near their rows only: of one further away than ``r_y`` it allows every ignored class to lie right on it.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from facekd.losses import class_blocks
from facekd.losses.common import unit_rows, widen

ROUNDING = 1e-5
"""Radians a bound allows for the rounding of a cosine in float32, several times what 512 numbers give."""
GATHERED_NUMBERS = 2**19
"""Most numbers of the rows gathered at a time, 2 MiB in float32: they are read three times, best from a cache."""


class Neighbours(NamedTuple):
    """The candidates of every class.

    Attributes:
        classes: The nearest other classes of each, int32 ``(classes, candidates)``, in no order.
        reach: Cosine of each class to its furthest candidate, float32 ``(classes,)``.

    Example:
        >>> nearest_classes(torch.eye(2), 1).to("cpu").classes.tolist()
        [[1], [0]]
    """

    classes: Tensor
    reach: Tensor

    def to(self, device: torch.device | str) -> Neighbours:
        """The same on another device."""
        return Neighbours(self.classes.to(device), self.reach.to(device))


@torch.no_grad()
def nearest_classes(class_weights: Tensor, candidates: int) -> Neighbours:
    """The classes nearest to each class; the product of all of them is never held.

    Args:
        class_weights: ``(classes, dim)``, of any length and any floating type.
        candidates: How many; all others, where there are fewer.

    Example:
        Of three directions in a quarter circle, the middle one is nearest to both.

        >>> nearest_classes(torch.tensor([[1.0, 0.0], [1.0, 1.0], [0.0, 1.0]]), 1).classes.tolist()
        [[1], [0], [1]]
    """
    count = min(candidates, len(class_weights) - 1)
    rows = unit_rows(class_weights)
    size = max(1, class_blocks.BLOCK_NUMBERS // len(rows))
    found = torch.empty(len(rows), count, dtype=torch.int32, device=rows.device)
    reach = rows.new_empty(len(rows))
    for start in range(0, len(rows), size):
        with torch.autocast(rows.device.type, enabled=False):
            cosines = rows[start : start + size] @ rows.T
        cosines.diagonal(start).fill_(-torch.inf)
        near = cosines.topk(count, dim=1, sorted=False)
        found[start : start + size] = near.indices
        reach[start : start + size] = near.values.amin(dim=1) if count else -1.0
    return Neighbours(found, reach.float())


def own_and_candidates(
    student: Tensor, class_weights: Tensor, labels: Tensor, neighbours: Neighbours, *, scale: float
) -> tuple[Tensor, Tensor]:
    """As :func:`facekd.losses.class_blocks.own_and_others`, over the candidates of each image's class alone.

    Args:
        student: Raw embeddings, ``(batch, dim)``.
        class_weights: One row per class, ``(classes, dim)``. Receives no gradient: candidates would not stay nearest.
        labels: Class of each image, ``(batch,)``.
        neighbours: Of the same classes.
        scale: Factor from cosine to logit.

    Returns:
        Cosines to the own classes, and log-sum-exps of the candidates' logits, ``(batch,)`` each, float32 or wider.

    Raises:
        ValueError: If the classifier is in training, or the candidates are of another number of classes.

    Example:
        >>> rows = torch.eye(3)
        >>> own, others = own_and_candidates(rows[:1], rows, torch.tensor([0]), nearest_classes(rows, 1), scale=64.0)
        >>> own.tolist(), others.tolist()
        ([1.0], [0.0])
    """
    if class_weights.requires_grad:
        raise ValueError("class_weights is in training, expected a frozen classifier: nearest classes would move")
    if len(neighbours.classes) != len(class_weights):
        raise ValueError(f"neighbours of {len(neighbours.classes)} classes, class_weights {len(class_weights)}")
    rows, own_rows = widen(unit_rows(student), unit_rows(class_weights[labels]))
    others = _CandidateSum.apply(rows, class_weights, labels, neighbours.classes, scale)
    return (rows * own_rows).sum(dim=1), others


class _CandidateSum(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, rows: Tensor, class_weights: Tensor, labels: Tensor, candidates: Tensor, scale: float
    ) -> Tensor:
        sums, mean = rows.new_empty(len(rows)), torch.empty_like(rows)
        count, dim = candidates.shape[1], rows.shape[1]
        size = max(1, GATHERED_NUMBERS // max(1, count * dim))
        for start in range(0, len(rows), size):
            one = slice(start, start + size)
            near = candidates[labels[one]]
            block = class_weights.index_select(0, near.flatten()).view(*near.shape, dim).to(rows.dtype)
            lengths = torch.linalg.vector_norm(block, dim=2)
            shrink = torch.where(lengths == 0.0, 0.0, lengths.reciprocal())
            with torch.autocast(rows.device.type, enabled=False):
                logits = scale * (block @ rows[one, :, None]).squeeze(2) * shrink
                sums[one] = torch.logsumexp(logits, dim=1)
                shares = torch.softmax(logits, dim=1) * shrink
                mean[one] = (shares[:, None] @ block).squeeze(1)
        ctx.scale = scale
        ctx.save_for_backward(mean)
        return sums

    @staticmethod
    @once_differentiable  # type: ignore[misc,untyped-decorator]
    def backward(ctx: Any, of_sums: Tensor) -> tuple[Tensor, None, None, None, None]:
        (mean,) = ctx.saved_tensors
        return (ctx.scale * of_sums)[:, None] * mean, None, None, None, None


@torch.no_grad()
def ignored_at_most(own: Tensor, labels: Tensor, neighbours: Neighbours, *, scale: float) -> Tensor:
    """A bound on what the classes that are no candidates would add, as the log of their sum.

    Args:
        own: Cosine of each image to its own class, ``(batch,)``.
        labels: Class of each image, ``(batch,)``.
        neighbours: The candidates.
        scale: Factor from cosine to logit.

    Returns:
        At least the log-sum-exp of the logits left out, ``(batch,)``; minus infinity where none is.

    Example:
        Of four classes at right angles one is a candidate; two are left, both at cosine 0, which the bound allows.

        >>> near = nearest_classes(torch.eye(4), 1)
        >>> bound = ignored_at_most(torch.ones(1), torch.tensor([0]), near, scale=64.0)
        >>> abs(float(bound) - math.log(2)) < 64 * 2 * ROUNDING
        True
    """
    classes, count = neighbours.classes.shape
    left = classes - 1 - count
    if left == 0:
        return torch.full_like(own, -torch.inf)
    angles = neighbours.reach[labels].double().clamp(-1, 1).acos() - own.double().clamp(-1, 1).acos()
    nearest = (angles - ROUNDING).clamp(min=0.0).cos()
    return (math.log(left) + scale * nearest).to(own.dtype)


def entropy_left_out(others: Tensor, ignored: Tensor, own: Tensor) -> Tensor:
    """How much the cross-entropy would rise, had the ignored classes been in the sum.

    Args:
        others: Log-sum-exp of the candidates' logits, ``(batch,)``.
        ignored: Log-sum-exp of the others', ``(batch,)``, or a bound on it.
        own: Logits of the own classes, ``(batch,)``.

    Returns:
        The mean in nats, shape ``()``, at least 0.

    Example:
        All three alike: from ln 2 to ln 3.

        >>> nothing = torch.zeros(1)
        >>> round(float(entropy_left_out(nothing, nothing, nothing)), 4) == round(math.log(3 / 2), 4)
        True
    """
    return F.softplus(ignored - torch.logaddexp(others, own), threshold=class_blocks.EXACT_BELOW).mean()
