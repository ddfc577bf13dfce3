"""Prime-aware adaptive distillation over any distance: one learned variance an image divides its distance.

Zhang et al. (ECCV 2020, arXiv 2008.01458) give the form for features, ``feature.pad``; for other distances it is our
reading: ``mean_i [D_i / sigma_i^2 + ln sigma_i^2]``. Images the student can explain count more, and the value falls
below 0 as the distances shrink. For the floor of the variance see ``feature.variance_weighted``.
"""

from __future__ import annotations

from torch import Tensor

from facekd.losses.common import check_log_variance
from facekd.losses.feature import variance_weighted
from facekd.losses.logits import logit_divergences
from facekd.losses.relation import similarity_distances


def pad_logit(
    student: Tensor,
    teacher: Tensor,
    class_weights: Tensor,
    teacher_class_weights: Tensor,
    log_variance: Tensor,
    *,
    scale: float = 64.0,
    temperature: float = 4.0,
    floor: float = 1e-6,
) -> Tensor:
    """The divergence from the teacher's class probabilities, each image's divided by a variance it predicts.

    Zhang, Lan, Dai et al., "Prime-Aware Adaptive Distillation", ECCV 2020, arXiv 2008.01458, over the distance of
    :func:`facekd.losses.logits.logit_kd`, which is our reading.

    Args:
        student: Raw student embeddings, ``(batch, dim)``.
        teacher: Raw teacher embeddings, ``(batch, teacher_dim)``. Receives no gradient.
        class_weights: The student's classifier, ``(classes, dim)``.
        teacher_class_weights: The teacher's classifier, ``(classes, teacher_dim)``. Receives no gradient.
        log_variance: Natural log of sigma squared, ``(batch, 1)``.
        scale: Factor from cosine to logit, greater than 0, for both.
        temperature: Divides the logits, greater than 0; its square keeps gradients of one size.
        floor: Smallest variance, as a fraction of the batch's mean divergence, above 0 and at most 1.

    Returns:
        The mean over the batch, shape ``()``, float32 or wider.

    Raises:
        ValueError: If sizes do not agree, or an option is out of range.

    Example:
        A divergence of tanh(1 / 2), 0.4621, at variance 2: 0.2311 + ln 2.

        >>> import torch
        >>> east, north, classes = torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, 1.0]]), torch.eye(2)
        >>> double = torch.tensor([[2.0]]).log()
        >>> round(float(pad_logit(east, north, classes, classes, double, scale=1.0, temperature=1.0)), 4)
        0.9242
    """
    _check_scalar(student, log_variance)
    distances = logit_divergences(
        student, teacher, class_weights, teacher_class_weights, scale=scale, temperature=temperature
    )
    return variance_weighted(distances[:, None], log_variance, floor=floor)


def pad_relation(student: Tensor, teacher: Tensor, log_variance: Tensor, *, floor: float = 1e-6) -> Tensor:
    """How otherwise an image stands to the rest of its batch than for the teacher, divided by a variance it predicts.

    Zhang, Lan, Dai et al., "Prime-Aware Adaptive Distillation", ECCV 2020, arXiv 2008.01458, over the distance of
    :func:`facekd.losses.relation.similarity_distances`, which is our reading.

    Args:
        student: Raw student embeddings, ``(batch, dim)``.
        teacher: Raw teacher embeddings, ``(batch, teacher_dim)``. Receives no gradient.
        log_variance: Natural log of sigma squared, ``(batch, 1)``.
        floor: Smallest variance, as a fraction of the batch's mean distance, above 0 and at most 1.

    Returns:
        The mean over the batch, shape ``()``, float32 or wider.

    Raises:
        ValueError: If sizes do not agree, the batch holds fewer than two images, or ``floor`` is out of range.

    Example:
        One pair at cosine 1 for the student and 0 for the teacher: distance 1 for either, at variance 2.

        >>> import torch
        >>> same, apart = torch.tensor([[1.0, 0.0], [1.0, 0.0]]), torch.eye(2)
        >>> round(float(pad_relation(same, apart, torch.full((2, 1), 2.0).log())), 4)
        1.1931
    """
    _check_scalar(student, log_variance)
    return variance_weighted(similarity_distances(student, teacher)[:, None], log_variance, floor=floor)


def _check_scalar(student: Tensor, log_variance: Tensor) -> None:
    check_log_variance(student, log_variance)
    if log_variance.shape[1] != 1:
        raise ValueError(f"log_variance has shape {tuple(log_variance.shape)}, expected {(len(student), 1)}")
