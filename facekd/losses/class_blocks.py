"""Softmax over classes without its logits: the classes are met a block at a time, and of each block a sum is kept.

With the other classes' log-sum-exp ``o = ln sum_{c != y} e^(scale cos_c)`` and the logit ``t`` of an image's own class,
cross-entropy is ``ln(1 + e^(o - t))``. A margin changes ``t`` alone; and as ``t`` is never part of the sum, nothing
cancels where it is by far the largest, as it is once a student is trained. The gradient of ``o`` by the embedding is
``scale`` times the mean class row under the softmax of the others, which is attention with one query an image and the
class rows as keys and values, and is gathered beside the sum. So a frozen classifier costs the two products that the
plain form needs, and a classifier in training four instead of three, for its logits are computed again in the backward.
Rows are brought to length 1, and to the precision of the sum, in their block: no copy of the classifier is made.
PyTorch's own attention kernels have every class in their sum, from which the own one could only be subtracted.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from facekd.losses.common import unit_rows

BLOCK_NUMBERS = 2**22
"""Most numbers of a block, of its logits as of its rows: 16 MiB in float32."""
EXACT_BELOW = 40.0
"""Above it, ln(1 + e^x) is x even in float64."""


def entropy_against(others: Tensor, own: Tensor) -> Tensor:
    """Cross-entropy of one logit against the log-sum-exp of all others.

    Args:
        others: Log-sum-exp of the other classes' logits, ``(batch,)``; minus infinity where there is none.
        own: Logits of the own classes, ``(batch,)``.

    Returns:
        The mean in nats, shape ``()``; precise to its last digits near 0 too.

    Example:
        >>> round(float(entropy_against(torch.tensor([1.0]), torch.tensor([1.0]))), 4)
        0.6931
        >>> float(entropy_against(torch.tensor([-torch.inf]), torch.tensor([1.0])))
        0.0
    """
    return F.softplus(others - own, threshold=EXACT_BELOW).mean()


class ClassShare(NamedTuple):
    """The part of the classes that one of several processes sums over, all of which have the same images.

    Attributes:
        rank: Of this process, from 0.
        size: Processes in all.
        gather: Gives the rows of all processes, in the order of their ranks.
        classes: In all, where this process holds the rows of its own part and no others; None where it holds all.
        first: Place among them of the first it holds, where they are not shared out as :meth:`of` does.

    Example:
        >>> ClassShare(1, 3, lambda rows: rows).of(10)
        slice(3, 6, None)
    """

    rank: int
    size: int
    gather: Callable[[Tensor], Tensor]
    classes: int | None = None
    first: int | None = None

    def of(self, classes: int) -> slice:
        """Which of so many classes."""
        return slice(classes * self.rank // self.size, classes * (self.rank + 1) // self.size)


def own_and_others(
    student: Tensor, class_weights: Tensor, labels: Tensor, *, scale: float, share: ClassShare | None = None
) -> tuple[Tensor, Tensor]:
    """Cosine of every embedding to its own class, and the log-sum-exp of its logits to all others.

    Memory does not grow with the classes, but for the gradient of a classifier that is trained. It can be
    differentiated once.

    Args:
        student: Raw embeddings, ``(batch, dim)``.
        class_weights: One row per class, ``(classes, dim)``, of any length and any floating type; those of this
            process alone where ``share.classes`` says how many there are, perhaps none. Rows stored as bfloat16 move a
            cosine by about 5e-5 at 512 dimensions, whatever the number of classes.
        labels: Class of each image, ``(batch,)``, in [0, classes), which is not checked.
        scale: Factor from cosine to logit.
        share: Sum over the classes together with other processes, each a part of them: ``batch (dim + 1)`` numbers of
            each are exchanged, and ``batch dim`` more where each holds its part alone. The gradient of the embeddings
            is whole in each, that of a classifier in training is of the rows a process holds.

    Returns:
        ``own`` and ``others``, ``(batch,)`` each, float32 or wider. Without another class ``others`` is minus infinity.

    Raises:
        ValueError: The classifier is in training and whole in each process, which would have the gradient of a part.

    Example:
        Two other classes at right angles: ln(e^0 + e^0).

        >>> own, others = own_and_others(torch.eye(3)[:1], torch.eye(3), torch.tensor([0]), scale=64.0)
        >>> own.tolist(), [round(x, 4) for x in others.tolist()]
        ([1.0], [0.6931])
    """
    rows = unit_rows(student)
    rows = rows.to(torch.promote_types(rows.dtype, class_weights.dtype))
    if share is not None and share.classes is None and class_weights.requires_grad:
        raise ValueError("class_weights is in training and whole, expected the rows of this process's share alone")
    own, others = _OwnAndOthers.apply(rows, class_weights, labels.long(), scale, share)
    return own, others


class _OwnAndOthers(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, rows: Tensor, class_weights: Tensor, labels: Tensor, scale: float, share: ClassShare | None
    ) -> tuple[Tensor, Tensor]:
        needed = ctx.needs_input_grad[0]
        if share is None or share.classes is None:
            part = slice(0, len(class_weights)) if share is None else share.of(len(class_weights))
            held, first = class_weights[part], part.start
            own_rows = unit_rows(class_weights[labels]).to(rows.dtype)
        else:
            held, first = class_weights, share.of(share.classes).start if share.first is None else share.first
            own_rows = _fetched(held, labels - first, share).to(rows.dtype)
        places = labels - first
        others, mean = _sum_others(rows, held, places, scale, needed)
        if share is not None:
            others, mean = _joined(others, mean, share)
        trained = class_weights if ctx.needs_input_grad[1] else None
        ctx.scale = scale
        ctx.save_for_backward(rows, own_rows, mean, others, places, trained)
        return (rows * own_rows).sum(dim=1), others

    @staticmethod
    @once_differentiable  # type: ignore[misc,untyped-decorator]
    def backward(ctx: Any, of_own: Tensor, of_others: Tensor) -> tuple[Tensor | None, Tensor | None, None, None, None]:
        rows, own_rows, mean, others, places, trained = ctx.saved_tensors
        to_rows = to_classes = None
        if mean is not None:
            to_rows = of_own[:, None] * own_rows + (ctx.scale * of_others)[:, None] * mean
        if trained is not None:
            passed = of_own, ctx.scale * of_others
            to_classes = _gradient_of_classes(rows, trained, places, ctx.scale, others, passed)
        return to_rows, to_classes, None, None, None


@torch.no_grad()
def _fetched(held: Tensor, places: Tensor, share: ClassShare) -> Tensor:
    """Unit rows of some classes, each from the process that holds it; nothing but zeros is added to them."""
    found = held.new_zeros(len(places), held.shape[1])
    inside = (places >= 0) & (places < len(held))
    found[inside] = held[places[inside]]
    return share.gather(unit_rows(found)).view(share.size, *found.shape).sum(dim=0)


@torch.no_grad()
def _joined(others: Tensor, mean: Tensor | None, share: ClassShare) -> tuple[Tensor, Tensor | None]:
    """What :func:`_sum_others` says of all classes, from what it says of each process's."""
    sent = others[:, None] if mean is None else torch.cat([others[:, None], mean], dim=1)
    parts = share.gather(sent).view(share.size, *sent.shape)
    sums = parts[:, :, 0]
    whole = torch.logsumexp(sums, dim=0)
    if mean is None:
        return whole, None
    weights = (sums - whole.clamp(min=torch.finfo(whole.dtype).min)).exp()
    return whole, (weights[:, :, None] * parts[:, :, 1:]).sum(dim=0)


@torch.no_grad()
def _sum_others(
    rows: Tensor, class_weights: Tensor, labels: Tensor, scale: float, with_mean: bool
) -> tuple[Tensor, Tensor | None]:
    """Log-sum-exp of the other classes' logits, and the mean class row under their softmax where it is asked for."""
    least = torch.finfo(rows.dtype).min
    top = rows.new_full((len(rows), 1), -torch.inf)
    total = torch.zeros_like(top)
    mean = torch.zeros_like(rows) if with_mean else None
    for start, block, shrink, logits in _blocks(rows, class_weights, scale):
        _put_own(logits, labels - start, rows.new_full((len(rows),), -torch.inf))
        higher = torch.maximum(top, logits.amax(dim=1, keepdim=True)).clamp(min=least)
        fade, top = (top - higher).exp(), higher
        shares = logits.sub_(top).exp_()
        total.mul_(fade).add_(shares.sum(dim=1, keepdim=True))
        if mean is not None:
            with torch.autocast(rows.device.type, enabled=False):
                mean.mul_(fade).addmm_(shares.mul_(shrink), block)
    if mean is not None:
        mean.div_(total.clamp(min=torch.finfo(rows.dtype).tiny))
    return (top + total.log()).squeeze(1), mean


@torch.no_grad()
def _gradient_of_classes(
    rows: Tensor, class_weights: Tensor, labels: Tensor, scale: float, others: Tensor, passed: tuple[Tensor, Tensor]
) -> Tensor:
    """The gradient of the class rows, given those of the own cosines and, times the scale, of the sums."""
    found = torch.empty_like(class_weights)
    for start, block, shrink, logits in _blocks(rows, class_weights, scale):
        shares = logits.sub_(others[:, None]).exp_().mul_(passed[1][:, None])
        _put_own(shares, labels - start, passed[0])
        with torch.autocast(rows.device.type, enabled=False):
            to_block = shares.T @ rows
        along = (to_block * block).sum(dim=1) * shrink
        to_block.sub_(block * (along * shrink)[:, None]).mul_(shrink[:, None])
        found[start : start + len(block)] = to_block
    return found


def _blocks(rows: Tensor, class_weights: Tensor, scale: float) -> Iterator[tuple[int, Tensor, Tensor, Tensor]]:
    """Of each block of classes: its first, its rows as they are, what brings them to length 1, and its logits."""
    scaled = rows * scale
    size = max(1, min(len(class_weights), BLOCK_NUMBERS // max(rows.shape)))
    room = rows.new_empty(len(rows) * size)
    for start in range(0, len(class_weights), size):
        block = class_weights[start : start + size].to(rows.dtype)
        lengths = torch.linalg.vector_norm(block, dim=1)
        shrink = torch.where(lengths == 0.0, 0.0, lengths.reciprocal())
        logits = room[: len(rows) * len(block)].view(len(rows), len(block))
        with torch.autocast(rows.device.type, enabled=False):
            torch.mm(scaled, block.T, out=logits)
        yield start, block, shrink, logits.mul_(shrink)


def _put_own(table: Tensor, places: Tensor, values: Tensor) -> None:
    """Write each row's value at its place, where that is within the table; waits for no device."""
    inside = (places >= 0) & (places < table.shape[1])
    index = places.clamp(0, table.shape[1] - 1)[:, None]
    table.scatter_(1, index, torch.where(inside[:, None], values[:, None], table.gather(1, index)))
