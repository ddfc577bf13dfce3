"""Evaluation-oriented distillation: student and teacher should accept the same pairs at the same false-positive rates.

What counts is on which side of a threshold a pair falls, so the similarities of the two models need not agree.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from facekd.losses.classifier import cosine_logits
from facekd.losses.common import check_embeddings, check_positive, widen


def ekd(
    student: Tensor,
    teacher: Tensor,
    labels: Tensor,
    student_thresholds: Tensor,
    teacher_thresholds: Tensor,
    *,
    temperature: float = 0.01,
    hardest: int = 2000,
    positive_weight: float = 0.02,
    negative_weight: float = 0.01,
) -> Tensor:
    """Squared difference of the soft ranks of pairs among the thresholds of each model.

    Huang et al., "Evaluation-oriented Knowledge Distillation for Deep Face Recognition", CVPR 2022, arXiv 2206.02325.
    A pair's rank is the number of thresholds its cosine exceeds, softened: ``sum_a sigmoid((cos - t_a) / T)``. All
    genuine pairs of the batch count, and the impostor pairs the student finds most alike. A side without pairs counts
    0, where the published code gives NaN.

    Args:
        student: Raw student embeddings, ``(batch, dim)``.
        teacher: Raw teacher embeddings, ``(batch, teacher_dim)``. Receives no gradient.
        labels: Class of each image, ``(batch,)``.
        student_thresholds: The student's cosine threshold at each false-positive rate, ``(anchors,)``. Receives no
            gradient; infinity leaves an anchor out.
        teacher_thresholds: The teacher's, in the same order.
        temperature: Softness of the ranks, in units of cosine.
        hardest: Most impostor pairs that count.
        positive_weight: Weight of the genuine pairs.
        negative_weight: Weight of the impostor pairs.

    Returns:
        The weighted sum of the two means, shape ``()``, float32 or wider.

    Raises:
        ValueError: If sizes do not agree, or a hyper-parameter is out of range.

    Example:
        One genuine pair, below the student's only threshold and above the teacher's: ranks 0 and 1.

        >>> student, teacher = torch.eye(2), torch.ones(2, 2)
        >>> half = torch.tensor([0.5])
        >>> round(float(ekd(student, teacher, torch.zeros(2), half, half, positive_weight=1.0)), 6)
        1.0
    """
    _check(student, teacher, labels, student_thresholds, teacher_thresholds)
    check_positive("temperature", temperature)
    if hardest < 1 or min(positive_weight, negative_weight) < 0:
        raise ValueError(f"hardest is {hardest}, weights {positive_weight} and {negative_weight}; 1 or more, 0 or more")
    one, genuine = batch_pairs(student, labels)
    other, _ = batch_pairs(teacher.detach(), labels)
    apart = (_soft_rank(one, student_thresholds, temperature) - _soft_rank(other, teacher_thresholds, temperature)) ** 2
    impostors = apart[~genuine]
    if len(impostors) > hardest:
        impostors = impostors[one.detach()[~genuine].topk(hardest).indices]
    return positive_weight * _mean(apart[genuine]) + negative_weight * _mean(impostors)


def batch_pairs(embeddings: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Cosines of the unordered pairs of a batch, and whether each pair is of one class.

    Args:
        embeddings: Raw embeddings, ``(batch, dim)``.
        labels: Class of each, ``(batch,)``.

    Returns:
        Cosines ``(pairs,)`` in float32 or wider, and booleans ``(pairs,)``.

    Example:
        >>> cosines, genuine = batch_pairs(torch.eye(3), torch.tensor([0, 0, 1]))
        >>> cosines.tolist(), genuine.tolist()
        ([0.0, 0.0, 0.0], [True, False, False])
    """
    cosines = cosine_logits(embeddings, embeddings)
    first, second = torch.triu_indices(len(cosines), len(cosines), offset=1, device=cosines.device)
    return cosines[first, second], labels[first] == labels[second]


def thresholds_at(impostors: Tensor, fprs: Sequence[float]) -> Tensor:
    """The cosine threshold at each false-positive rate: the hardest impostor left out at it.

    With ``n`` impostor cosines in falling order, the one of index ``floor(n fpr)``, so that exactly ``floor(n fpr)``
    lie above it where all are different.

    Args:
        impostors: Cosines of impostor pairs, ``(pairs,)``.
        fprs: False-positive rates in (0, 1).

    Returns:
        ``(anchors,)``; infinity where the pairs are too few for the rate, ``pairs * fpr < 1``.

    Example:
        >>> thresholds_at(torch.arange(10.0), [0.5, 0.1, 0.01]).tolist()
        [4.0, 8.0, inf]
    """
    places = [math.floor(len(impostors) * fpr + 1e-9) for fpr in fprs]
    most = max(places, default=0)
    if most == 0:
        return impostors.new_full((len(fprs),), math.inf)
    falling = impostors.topk(min(most + 1, len(impostors))).values
    return torch.stack([falling[place] if place else impostors.new_tensor(math.inf) for place in places])


def _check(student: Tensor, teacher: Tensor, labels: Tensor, *thresholds: Tensor) -> None:
    check_embeddings("student", student)
    check_embeddings("teacher", teacher)
    if not len(student) == len(teacher) == len(labels):
        raise ValueError(f"student has {len(student)} rows, teacher {len(teacher)}, labels {len(labels)}; all the same")
    if len({tuple(one.shape) for one in thresholds}) > 1:
        raise ValueError(f"{len(thresholds[0])} student thresholds, {len(thresholds[1])} of the teacher; all the same")


def _soft_rank(cosines: Tensor, thresholds: Tensor, temperature: float) -> Tensor:
    cosines, thresholds = widen(cosines, thresholds.detach())
    return torch.sigmoid((cosines[:, None] - thresholds) / temperature).sum(dim=1)


def _mean(values: Tensor) -> Tensor:
    return values.mean() if len(values) else values.sum()
