"""Distillation of class probabilities, seen through a classifier."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from facekd.losses.classifier import cosine_logits
from facekd.losses.common import check_classifier, check_positive, widen


def logit_kd(
    student: Tensor,
    teacher: Tensor,
    class_weights: Tensor,
    teacher_class_weights: Tensor,
    *,
    scale: float = 64.0,
    temperature: float = 4.0,
) -> Tensor:
    """Match the teacher's class probabilities, softened by a temperature.

    Hinton, Vinyals and Dean, "Distilling the Knowledge in a Neural Network", 2015, arXiv 1503.02531, on cosine
    logits without any margin: ``T^2 KL(teacher || student)`` of ``softmax(scale cos / T)``. The two embeddings may
    differ in dimension; the two classifiers list the same classes in the same order.

    Args:
        student: Raw student embeddings, ``(batch, dim)``.
        teacher: Raw teacher embeddings, ``(batch, teacher_dim)``. Receives no gradient.
        class_weights: The student's classifier, ``(classes, dim)``.
        teacher_class_weights: The teacher's classifier, ``(classes, teacher_dim)``. Receives no gradient.
        scale: Factor from cosine to logit, greater than 0, for both.
        temperature: Divides the logits, greater than 0; its square keeps gradients of one size.

    Returns:
        Divergence in nats times ``temperature`` squared, summed over classes, mean over the batch, shape ``()``.

    Raises:
        ValueError: If sizes do not agree, or ``scale`` or ``temperature`` is not positive.

    Example:
        Logits (1, 0) against (0, 1) diverge by tanh(1 / 2).

        >>> east, north, classes = torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, 1.0]]), torch.eye(2)
        >>> round(float(logit_kd(east, north, classes, classes, scale=1.0, temperature=1.0)), 4)
        0.4621
    """
    found = logit_divergences(
        student, teacher, class_weights, teacher_class_weights, scale=scale, temperature=temperature
    )
    return found.mean()


def logit_divergences(
    student: Tensor,
    teacher: Tensor,
    class_weights: Tensor,
    teacher_class_weights: Tensor,
    *,
    scale: float = 64.0,
    temperature: float = 4.0,
) -> Tensor:
    """The divergences whose mean is :func:`logit_kd`, one an image.

    Args:
        student: Raw student embeddings, ``(batch, dim)``.
        teacher: Raw teacher embeddings, ``(batch, teacher_dim)``. Receives no gradient.
        class_weights: The student's classifier, ``(classes, dim)``.
        teacher_class_weights: The teacher's classifier, ``(classes, teacher_dim)``. Receives no gradient.
        scale: Factor from cosine to logit, greater than 0, for both.
        temperature: Divides the logits, greater than 0; its square keeps gradients of one size.

    Returns:
        Nats times ``temperature`` squared, ``(batch,)``, float32 or wider.

    Raises:
        ValueError: If sizes do not agree, or ``scale`` or ``temperature`` is not positive.

    Example:
        >>> corners, classes = torch.eye(2), torch.eye(2)
        >>> found = logit_divergences(corners, corners[[0, 0]], classes, classes, scale=1.0, temperature=1.0)
        >>> [round(x, 4) for x in found.tolist()]
        [0.0, 0.4621]
    """
    check_positive("scale", scale)
    check_positive("temperature", temperature)
    check_classifier("student", student, "class_weights", class_weights)
    check_classifier("teacher", teacher, "teacher_class_weights", teacher_class_weights)
    if len(student) != len(teacher):
        raise ValueError(f"student has {len(student)} rows, teacher {len(teacher)}; one row per image in both")
    if len(class_weights) != len(teacher_class_weights):
        raise ValueError(
            f"class_weights has {len(class_weights)} classes, teacher_class_weights {len(teacher_class_weights)}; "
            "both list the same classes"
        )
    sharpness = scale / temperature
    teacher_logits = sharpness * cosine_logits(teacher.detach(), teacher_class_weights.detach())
    return temperature**2 * divergences(sharpness * cosine_logits(student, class_weights), teacher_logits)


def divergence(student_logits: Tensor, teacher_logits: Tensor) -> Tensor:
    """The mean of :func:`divergences`.

    Args:
        student_logits: ``(batch, classes)``.
        teacher_logits: The same shape. Receives no gradient.

    Returns:
        Divergence in nats, summed over classes, mean over the batch, shape ``()``, float32 or wider.

    Raises:
        ValueError: If the shapes differ.

    Example:
        >>> east, north = torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, 1.0]])
        >>> round(float(divergence(east, north)), 4)
        0.4621
    """
    return divergences(student_logits, teacher_logits).mean()


def divergences(student_logits: Tensor, teacher_logits: Tensor) -> Tensor:
    """``KL(teacher || student)`` of the probabilities that are the softmax of each row.

    Args:
        student_logits: ``(batch, classes)``.
        teacher_logits: The same shape. Receives no gradient.

    Returns:
        Divergences in nats, summed over classes, ``(batch,)``, float32 or wider.

    Raises:
        ValueError: If the shapes differ.

    Example:
        >>> corners = torch.eye(2)
        >>> [round(x, 4) for x in divergences(corners, corners[[0, 0]]).tolist()]
        [0.0, 0.4621]
    """
    if student_logits.shape != teacher_logits.shape:
        one, other = tuple(student_logits.shape), tuple(teacher_logits.shape)
        raise ValueError(f"student logits {one}, teacher logits {other}; one row per image and one column per class")
    student_logits, teacher_logits = widen(student_logits, teacher_logits.detach())
    with torch.autocast(student_logits.device.type, enabled=False):
        student_log, teacher_log = (F.log_softmax(logits, dim=1) for logits in (student_logits, teacher_logits))
        return F.kl_div(student_log, teacher_log, reduction="none", log_target=True).sum(dim=1)


def shared_head_kd(
    student: Tensor, teacher: Tensor, teacher_class_weights: Tensor, *, scale: float = 64.0, temperature: float = 4.0
) -> Tensor:
    """Match the teacher's class probabilities through the teacher's own classifier, put on the student's embedding.

    Li et al., "It's All in the Head: Representation Knowledge Distillation through Classifier Sharing", 2022, arXiv
    2201.06945: the teacher-head term of TH-KD, whose other two are `margin_softmax` and `logit_kd`.

    Args:
        student: Raw student embeddings, ``(batch, dim)``.
        teacher: Raw teacher embeddings, ``(batch, dim)``. Receives no gradient.
        teacher_class_weights: The teacher's classifier, ``(classes, dim)``. Receives no gradient.
        scale: Factor from cosine to logit, greater than 0.
        temperature: Divides the logits, greater than 0; its square keeps gradients of one size.

    Returns:
        Divergence in nats times ``temperature`` squared, summed over classes, mean over the batch, shape ``()``.

    Raises:
        ValueError: If sizes do not agree, or ``scale`` or ``temperature`` is not positive.

    Example:
        >>> float(shared_head_kd(torch.eye(2), 3 * torch.eye(2), torch.eye(2)))
        0.0
    """
    held = teacher_class_weights.detach()
    return logit_kd(student, teacher, held, held, scale=scale, temperature=temperature)
