"""Losses between the student's embedding and the teacher's, one image at a time."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from facekd.losses.common import check_log_variance, check_pair, unit_rows, widen


def l2(student: Tensor, teacher: Tensor) -> Tensor:
    """Squared distance between the unit embeddings of student and teacher.

    Summed over dimensions and averaged over the batch, so the value lies in [0, 4] whatever the embedding size:
    ``l2 = 2 - 2 cos``. Boutros et al., "PocketNet", IEEE Access 2022, arXiv 2108.10710, distil by the mean over
    dimensions, which is this divided by the embedding size.

    Args:
        student: Raw student embeddings, ``(batch, dim)``.
        teacher: Raw teacher embeddings, ``(batch, dim)``. Receives no gradient.

    Returns:
        The mean squared distance, shape ``()``, float32 or wider.

    Example:
        Identical directions are at 0, orthogonal ones at 2, opposite ones at 4.

        >>> east, north = torch.tensor([[2.0, 0.0]]), torch.tensor([[0.0, 5.0]])
        >>> [float(l2(east, other)) for other in (east, north, -east)]
        [0.0, 2.0, 4.0]
    """
    check_pair(student, teacher)
    return _squared_residual(student, teacher).sum(dim=1).mean()


def cosine(student: Tensor, teacher: Tensor) -> Tensor:
    """One minus the cosine between student and teacher.

    The plain form of distilling the direction alone, as Duong et al., "ShrinkTeaNet", 2019, arXiv 1905.10620, do; only
    their abstract was at hand. Computed as half the squared distance of the unit embeddings, which is the same number
    without the cancellation near cosine 1: it is never negative, and 0 for equal embeddings.

    Args:
        student: Raw student embeddings, ``(batch, dim)``.
        teacher: Raw teacher embeddings, ``(batch, dim)``. Receives no gradient.

    Returns:
        The mean of ``1 - cos``, in [0, 2], shape ``()``, float32 or wider.

    Example:
        >>> east, north = torch.tensor([[2.0, 0.0]]), torch.tensor([[0.0, 5.0]])
        >>> [float(cosine(east, other)) for other in (east, north, -east)]
        [0.0, 1.0, 2.0]
    """
    check_pair(student, teacher)
    return 0.5 * _squared_residual(student, teacher).sum(dim=1).mean()


def pad(student: Tensor, teacher: Tensor, log_variance: Tensor, *, floor: float = 1e-6) -> Tensor:
    """Distance to the teacher, each element weighted by a variance the student predicts for it.

    Zhang, Lan, Dai et al., "Prime-Aware Adaptive Distillation", ECCV 2020, arXiv 2008.01458. The teacher's unit
    embedding is read as a Gaussian around the student's: ``mean_i mean_j [r_ij^2 / e^v_ij + v_ij]``. This is our
    reading, on unit embeddings and with a floor relative to the batch in place of a constant added to the variance:
    see :func:`variance_weighted` for the floor. The value falls below 0 as the residuals shrink.

    Args:
        student: Raw student embeddings, ``(batch, dim)``.
        teacher: Raw teacher embeddings, ``(batch, dim)``. Receives no gradient.
        log_variance: Natural log of sigma squared, ``(batch, dim)``, or ``(batch, 1)`` for one variance per image.
        floor: Smallest variance, as a fraction of the batch's mean squared residual, above 0 and at most 1.

    Returns:
        The mean over batch and dimensions, shape ``()``, float32 or wider.

    Raises:
        ValueError: If the sizes do not agree, or ``floor`` is not above 0 and at most 1.

    Example:
        Orthogonal unit vectors in two dimensions have squared residual 1 in each: 1 / e^0 + 0 at log variance 0,
        1 / 2 + ln 2 at ln 2.

        >>> east, north = torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, 1.0]])
        >>> float(pad(east, north, torch.zeros(1, 2)))
        1.0
        >>> round(float(pad(east, north, torch.full((1, 1), 2.0).log())), 4)
        1.1931
    """
    check_pair(student, teacher)
    check_log_variance(student, log_variance)
    return variance_weighted(_squared_residual(student, teacher), log_variance, floor=floor)


def variance_weighted(squared_residual: Tensor, log_variance: Tensor, *, floor: float = 1e-6) -> Tensor:
    """Gaussian negative log-likelihood of residuals, without its constant and its factor of one half.

    ``mean_i mean_j [r_ij^2 / e^v_ij + v_ij]`` with ``v`` raised to at least ``ln(floor * mean r^2)``, the mean taken
    over the batch and kept out of the gradient. Without a floor the gradient with respect to a residual is ``2 / r``
    at the best variance, unbounded as ``r`` shrinks. Above the floor the gradients are exact. Below it, ``v`` only
    ever feels a push up: the gradient at the floor where that is negative (descent raises ``v``), and 0 where it is
    positive, so a collapsed variance recovers and none drifts away.

    Args:
        squared_residual: ``(batch, dim)``, at least 0.
        log_variance: Natural log of sigma squared, ``(batch, dim)`` or ``(batch, 1)``.
        floor: Smallest variance, as a fraction of the mean squared residual, above 0 and at most 1.

    Returns:
        The mean over batch and dimensions, shape ``()``, float32 or wider.

    Raises:
        ValueError: If ``floor`` is not above 0 and at most 1.

    Example:
        The best log variance is ln r^2, where the value is 1 + ln r^2.

        >>> squared = torch.full((1, 2), 0.25)
        >>> round(float(variance_weighted(squared, squared.log())), 4) == round(1 + math.log(0.25), 4)
        True
    """
    if not 0.0 < floor <= 1.0:
        raise ValueError(f"floor is {floor}, expected a fraction above 0 and at most 1, such as 1e-6")
    squared_residual, log_variance = widen(squared_residual, log_variance)
    if log_variance.shape[1] == 1:
        squared_residual = squared_residual.mean(dim=1, keepdim=True)
    rounding = torch.finfo(squared_residual.dtype).eps ** 2
    lowest = math.log(floor) + squared_residual.detach().mean().clamp(min=rounding).log()
    values = log_variance.detach()
    learns = (values >= lowest) | (squared_residual.detach() > lowest.exp())
    held = torch.maximum(values, lowest) + torch.where(learns, log_variance - values, 0.0)
    return (squared_residual * torch.exp(-held) + held).mean()


def residual(student: Tensor, assistant: Tensor, teacher: Tensor) -> Tensor:
    """Distance of the student to the teacher, and of the assistant to what the student lacks of the teacher.

    Kong, Zhao, Tu et al., "Cross-Resolution Face Recognition via Prior-Aided Face Hallucination and Residual Knowledge
    Distillation", 2019, arXiv 1905.10777. With ``t``, ``s`` and ``a`` the raw embeddings,
    ``sum_i (|t_i - s_i|^2 + |sg(t_i - s_i) - a_i|^2) / sum_i |t_i|^2``: the student learns by the first term alone, the
    assistant by the second alone, and ``s + a`` is what is deployed. Our reading: at the embedding only, and divided by
    the mean squared length of the batch's teacher embeddings where the released code takes the mean over elements, so
    that the value depends neither on the embedding size nor on the teacher's scale. It is 2 for a student and an
    assistant that give zeros; for unit embeddings the first term is :func:`l2`.

    Args:
        student: Raw student embeddings, ``(batch, dim)``.
        assistant: Raw embeddings of the assistant, ``(batch, dim)``.
        teacher: Raw teacher embeddings, ``(batch, dim)``. Receives no gradient.

    Returns:
        The sum of both terms, at least 0, shape ``()``, float32 or wider; not finite where every teacher embedding is
        zero.

    Raises:
        ValueError: If the sizes do not agree.

    Example:
        The student is 4 short of a teacher of length 5, the assistant 3 short of that: 16 / 25 + 9 / 25.

        >>> student, assistant = torch.tensor([[3.0, 0.0]]), torch.tensor([[0.0, 1.0]])
        >>> float(residual(student, assistant, torch.tensor([[3.0, 4.0]])))
        1.0
    """
    check_pair(student, teacher)
    if assistant.shape != student.shape:
        raise ValueError(
            f"assistant has shape {tuple(assistant.shape)}, student {tuple(student.shape)}; expected equal"
        )
    student, assistant, teacher = widen(student, assistant, teacher.detach())
    lacking = teacher - student
    apart = lacking.square().sum() + (lacking.detach() - assistant).square().sum()
    return apart / teacher.square().sum()


def _squared_residual(student: Tensor, teacher: Tensor) -> Tensor:
    return (unit_rows(student) - unit_rows(teacher.detach())).square()
