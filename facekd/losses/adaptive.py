"""Margins and class centres that are not constants: they follow the teacher's embeddings."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from facekd.losses.class_blocks import entropy_against, own_and_others
from facekd.losses.classifier import check_labels, margin_softmax
from facekd.losses.common import check_classifier, check_pair, check_positive, sine_of, unit_rows, widen

LEAST_MEMORY = 1e-6
LEAST_LENGTH = 1e-6  # of a centre: below it rounding alone decides its direction


def adadistill(
    student: Tensor,
    centres: Tensor,
    labels: Tensor,
    *,
    margin: float = 0.45,
    scale: float = 64.0,
    kind: str = "arcface",
) -> Tensor:
    """Margin softmax against moving centres of the teacher's embeddings.

    Boutros, Struc and Damer, "AdaDistill: Adaptive Knowledge Distillation for Deep Face Recognition", ECCV 2024, arXiv
    2407.01332. :func:`moved_centres` says how the centres move, before the loss of each step.

    Args:
        student: Raw student embeddings, ``(batch, dim)``.
        centres: One row per class, ``(classes, dim)``. Receives no gradient.
        labels: Class of each image, ``(batch,)``.
        margin: In radians, or in units of cosine for ``cosface``.
        scale: Factor from cosine to logit, greater than 0.
        kind: ``arcface`` or ``cosface``.

    Returns:
        Mean cross-entropy over the batch in nats, shape ``()``, float32 or wider.

    Raises:
        ValueError: As :func:`margin_softmax`.

    Example:
        >>> corners, labels = torch.eye(2), torch.tensor([0, 1])
        >>> one = adadistill(corners, corners, labels, margin=0.5, scale=1.0, kind="cosface")
        >>> round(float(one), 4)
        0.4741
    """
    return margin_softmax(student, centres.detach(), labels, margin=margin, scale=scale, kind=kind)


def margin_distillation(
    student: Tensor,
    teacher: Tensor,
    labels: Tensor,
    teacher_class_weights: Tensor,
    *,
    least_margin: float = 0.2,
    most_margin: float = 0.5,
    scale: float = 64.0,
) -> Tensor:
    """Margin softmax on the teacher's classifier, the margin of each image set by how sure the teacher is of it.

    Svitov and Alyamkin, "MarginDistillation: distillation for margin-based softmax", 2020, arXiv 2003.02586. Image
    ``i`` gets ``least + (most - least) cos(t_i, w_y) / c``, ``c`` being the largest such cosine of the batch: margins
    depend on the batch size. A negative cosine counts as 0, so that no margin falls below the least.

    Args:
        student: Raw student embeddings, ``(batch, dim)``.
        teacher: Raw teacher embeddings, ``(batch, dim)``. Receives no gradient.
        labels: Class of each image, ``(batch,)``.
        teacher_class_weights: The teacher's classifier, ``(classes, dim)``. Receives no gradient.
        least_margin: In radians, 0 or more.
        most_margin: In radians, at least ``least_margin`` and below pi / 2.
        scale: Factor from cosine to logit, greater than 0.

    Returns:
        Mean cross-entropy over the batch in nats, shape ``()``, float32 or wider.

    Raises:
        ValueError: If sizes do not agree, or a hyper-parameter is out of range.

    Example:
        The surest image of a batch has the most margin, here cos(pi / 2) = 0 against another class at 0.

        >>> corners, labels = torch.eye(2), torch.tensor([0, 1])
        >>> half = 0.999999 * math.pi / 2
        >>> loss = margin_distillation(corners, corners, labels, corners, most_margin=half, scale=1.0)
        >>> round(float(loss), 4) == round(math.log(2), 4)
        True
    """
    check_positive("scale", scale)
    check_pair(student, teacher)
    if not 0.0 <= least_margin <= most_margin < math.pi / 2:
        raise ValueError(f"margins {least_margin} to {most_margin}, expected 0 <= least <= most < pi / 2 radians")
    check_classifier("student", student, "teacher_class_weights", teacher_class_weights)
    check_labels(labels, len(student), len(teacher_class_weights))
    held = teacher_class_weights.detach()
    seen, rows = widen(unit_rows(teacher.detach()), unit_rows(held[labels]))
    sure = (seen * rows).sum(dim=1).clamp(min=0.0)
    margin = least_margin + (most_margin - least_margin) * sure / sure.max().clamp(min=torch.finfo(sure.dtype).tiny)
    own, others = own_and_others(student, held, labels, scale=scale)
    own, margin = widen(own, margin)
    enlarged = own * margin.cos() - sine_of(own) * margin.sin()
    past_pi = own - margin * margin.sin()
    target = torch.where(own > -margin.cos(), enlarged, past_pi)
    return entropy_against(others, scale * target)


def moved_centres(centres: Tensor, student: Tensor, teacher: Tensor, labels: Tensor, *, weighted: bool) -> Tensor:
    """The centres after a batch: each moves to its images' teacher embeddings, faster while the student is far off.

    For image ``i`` of class ``y`` the centre would become ``a w_y + (1 - a) t_i`` with ``a = cos(s_i, t_i)``, times
    ``cos(w_y, t_i)`` where ``weighted``, clipped to [1e-6, 1]. A class met more than once in the batch takes the mean
    of what its images ask for, where the published code keeps the last.

    Args:
        centres: ``(classes, dim)``.
        student: Raw student embeddings, ``(batch, dim)``.
        teacher: Raw teacher embeddings, ``(batch, dim)``.
        labels: Class of each image, ``(batch,)``.
        weighted: Whether an image the centre does not know well moves it more.

    Returns:
        New centres, ``(classes, dim)``, in the type of ``centres``, without a gradient.

    Raises:
        ValueError: If sizes do not agree.

    Example:
        A student orthogonal to its teacher remembers nothing: the centre is the teacher's embedding.

        >>> east, north = torch.eye(2).split(1)
        >>> moved_centres(torch.eye(2), east, 3 * north, torch.tensor([0]), weighted=False).round(decimals=4)
        tensor([[0., 1.],
                [0., 1.]])
    """
    check_pair(student, teacher)
    check_classifier("teacher", teacher, "centres", centres)
    one, other, held = (rows.detach() for rows in widen(unit_rows(student), unit_rows(teacher), centres))
    memory = (one * other).sum(dim=1)
    if weighted:
        memory = memory * (unit_rows(held[labels]) * other).sum(dim=1)
    memory = memory.clamp(LEAST_MEMORY, 1.0)[:, None]
    asked = memory * held[labels] + (1.0 - memory) * other
    met = labels.bincount(minlength=len(centres))
    sums = held.new_zeros(held.shape).index_add_(0, labels, asked)
    means = sums / met.clamp(min=1)[:, None]
    stays = (met == 0) | (torch.linalg.vector_norm(means, dim=1) < LEAST_LENGTH)
    moved = held.where(stays[:, None], means)
    return moved.to(centres.dtype)
