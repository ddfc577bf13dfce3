"""Distillation from several teachers, each of which knows some of the classes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from facekd.losses.classifier import cosine_logits
from facekd.losses.common import check_embeddings, check_positive, unit_rows, widen


class SubsetTeacher(NamedTuple):
    """A teacher of some of the classes, and what it says of a batch.

    Attributes:
        teacher: Its raw embeddings, ``(batch, teacher_dim)``; rows of images of other classes count nothing.
        columns: The classes it knows, int64 ``(subset,)``.
        share: Its part of the loss, shape ``()``.
        class_weights: Its classifier, ``(subset, teacher_dim)``, in the order of ``columns``.
        projector: From the student's embedding to its own, ``(teacher_dim, dim)``.

    Example:
        >>> SubsetTeacher(torch.eye(2), torch.tensor([4, 7]), torch.tensor(1.0)).columns.tolist()
        [4, 7]
    """

    teacher: Tensor
    columns: Tensor
    share: Tensor
    class_weights: Tensor | None = None
    projector: Tensor | None = None


def subset_kd(
    student: Tensor,
    labels: Tensor,
    class_weights: Tensor,
    subsets: Sequence[SubsetTeacher],
    *,
    scale: float = 64.0,
    temperature: float = 4.0,
) -> Tensor:
    """Match the class probabilities of several teachers, each among the classes it knows.

    Our reading of Ju et al., "Relational Subsets Knowledge Distillation for Long-tailed Retinal Diseases Recognition",
    MICCAI 2021, arXiv 2104.11057, whose body was not at hand, beside the experts of Xiang, Ding and Han, "Learning From
    Multiple Experts", ECCV 2020, arXiv 2001.01536. With ``G_k`` the classes of teacher ``k``, ``n_k`` the images of
    the batch whose class is in it, and ``z`` cosine logits without a margin:
    ``sum_k share_k / n_k sum_{i: y_i in G_k} T^2 KL(softmax(z^k_i / T) || softmax(z_i[G_k] / T))``. The student's
    logits are cut to ``G_k`` before the softmax. A teacher without an image in the batch adds 0.

    Args:
        student: Raw student embeddings, ``(batch, dim)``.
        labels: Class of each image, ``(batch,)``.
        class_weights: The student's classifier, ``(classes, dim)``.
        subsets: The teachers, with ``class_weights``. These and their embeddings receive no gradient.
        scale: Factor from cosine to logit, greater than 0, for all.
        temperature: Divides the logits, greater than 0; its square keeps gradients of one size.

    Returns:
        Divergence in nats times ``temperature`` squared, shape ``()``, float32 or wider.

    Raises:
        ValueError: If sizes do not agree, a teacher has no classifier, or an option is not positive.

    Example:
        Of classes 0, 1 and 2 the teacher knows 0 and 1: logits (1, 0) against its (0, 1) diverge by tanh(1 / 2).

        >>> east, north = torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, 1.0]])
        >>> knows = SubsetTeacher(north, torch.tensor([0, 1]), torch.tensor(1.0), torch.eye(2))
        >>> classes = torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]])
        >>> label, other = torch.tensor([0]), torch.tensor([2])
        >>> [round(float(subset_kd(east, y, classes, [knows], scale=1.0, temperature=1.0)), 4) for y in (label, other)]
        [0.4621, 0.0]
    """
    check_positive("scale", scale)
    check_positive("temperature", temperature)
    _check(student, labels, subsets)
    total = student.new_zeros((), dtype=torch.promote_types(student.dtype, torch.float32))
    for one in subsets:
        if one.class_weights is None or len(one.class_weights) != len(one.columns):
            raise ValueError(f"a teacher of {len(one.columns)} classes needs as many rows of class_weights")
        taught = cosine_logits(one.teacher.detach(), one.class_weights.detach())
        learned, taught = widen(cosine_logits(student, class_weights[one.columns]), taught)
        with torch.autocast(student.device.type, enabled=False):
            student_log = F.log_softmax(learned * (scale / temperature), dim=1)
            teacher_log = F.log_softmax(taught * (scale / temperature), dim=1)
            divergence = F.kl_div(student_log, teacher_log, reduction="none", log_target=True).sum(dim=1)
        total = total + one.share * temperature**2 * _mean_inside(divergence, labels, one.columns)
    return total


def subset_l2(student: Tensor, labels: Tensor, subsets: Sequence[SubsetTeacher]) -> Tensor:
    """Squared distance to the unit embeddings of several teachers, each through a projector of its own.

    Our reading on embeddings of Ju et al., "Relational Subsets Knowledge Distillation for Long-tailed Retinal Diseases
    Recognition", MICCAI 2021, arXiv 2104.11057, as :func:`subset_kd` is on class probabilities. Teachers of different
    classes live in spaces of their own, so the student's embedding is brought to each of them by a matrix ``P_k`` that
    is learned with it:
    ``sum_k share_k / n_k sum_{i: y_i in G_k} |unit(P_k s_i) - unit(t^k_i)|^2``.

    Args:
        student: Raw student embeddings, ``(batch, dim)``.
        labels: Class of each image, ``(batch,)``.
        subsets: The teachers, with ``projector``. Their embeddings receive no gradient.

    Returns:
        In [0, 4] where the shares sum to 1, shape ``()``, float32 or wider.

    Raises:
        ValueError: If sizes do not agree, or a teacher has no projector.

    Example:
        Turned by a right angle, east is where the teacher sees it.

        >>> east, north, label = torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, 3.0]]), torch.tensor([5])
        >>> one = SubsetTeacher(north, torch.tensor([5]), torch.tensor(1.0), projector=torch.eye(2))
        >>> turned = one._replace(projector=torch.tensor([[0.0, -1.0], [1.0, 0.0]]))
        >>> float(subset_l2(east, label, [one])), float(subset_l2(east, label, [turned]))
        (2.0, 0.0)
    """
    _check(student, labels, subsets)
    total = student.new_zeros((), dtype=torch.promote_types(student.dtype, torch.float32))
    for one in subsets:
        if one.projector is None or one.projector.shape != (one.teacher.shape[1], student.shape[1]):
            raise ValueError(f"a projector of {student.shape[1]} to {one.teacher.shape[1]} dimensions is needed")
        with torch.autocast(student.device.type, enabled=False):
            embeddings, matrix = widen(student, one.projector)
            apart = unit_rows(embeddings @ matrix.T) - unit_rows(one.teacher.detach())
        total = total + one.share * _mean_inside(apart.square().sum(dim=1), labels, one.columns)
    return total


def _mean_inside(values: Tensor, labels: Tensor, columns: Tensor) -> Tensor:
    """Mean over the images whose class is among some, 0 where there is none."""
    inside = torch.isin(labels, columns)
    return torch.where(inside, values, 0.0).sum() / inside.sum().clamp(min=1)


def _check(student: Tensor, labels: Tensor, subsets: Sequence[SubsetTeacher]) -> None:
    check_embeddings("student", student)
    if not subsets:
        raise ValueError("no teacher, expected at least one")
    for rows in (labels, *(one.teacher for one in subsets)):
        if len(rows) != len(student):
            raise ValueError(f"student has {len(student)} rows, a teacher or labels {len(rows)}; one row per image")
