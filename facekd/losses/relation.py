"""Losses between the relations of a batch: how alike its images are to the student, and how alike to the teacher.

Only relations are compared, so student and teacher may differ in width. Every function needs at least two images.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional

from facekd.losses.classifier import cosine_logits
from facekd.losses.common import check_embeddings, check_positive, unit_rows, widen

LEAST_CHANCE = 1e-7  # of picking an opposite neighbour, so that its logarithm is finite


def cckd(student: Tensor, teacher: Tensor, *, gamma: float = 0.4, order: int | None = 2) -> Tensor:
    """Correlation congruence: the squared difference of the Gaussian similarities of all pairs.

    Peng et al., "Correlation Congruence for Knowledge Distillation", ICCV 2019, arXiv 1904.01802. On unit embeddings
    the similarity ``e^(-gamma |x - y|^2)`` is ``e^(-2 gamma) e^(2 gamma x.y)``; its Taylor series in ``x.y`` is cut
    after the term of order ``order``, order included, as the paper has it. The mean is over all ``batch^2`` pairs, an
    image with itself among them, which add nothing.

    Args:
        student: Raw student embeddings, ``(batch, dim)``.
        teacher: Raw teacher embeddings, ``(batch, teacher_dim)``. Receives no gradient.
        gamma: Sharpness of the similarity, above 0.
        order: Highest power kept, 1 or more; None takes the exponential itself.

    Returns:
        The mean squared difference, shape ``()``, float32 or wider.

    Raises:
        ValueError: If the batches differ or hold fewer than two images, or a hyper-parameter is out of range.

    Example:
        One pair at cosine 1 for the student and 0 for the teacher: both of its entries of four differ by
        ``e^-0.8 (e^0.8 - 1)``.

        >>> same, apart = torch.tensor([[1.0, 0.0], [1.0, 0.0]]), torch.eye(2)
        >>> round(float(cckd(same, apart, order=None)), 4) == round(0.5 * (1 - math.exp(-0.8)) ** 2, 4)
        True
    """
    check_positive("gamma", gamma)
    if order is not None and order < 1:
        raise ValueError(f"order is {order}, expected 1 or more, or None for the exponential")
    one, other = (_gaussian(similar, gamma, order) for similar in _cosines(student, teacher))
    return (one - other).square().mean()


def sp(student: Tensor, teacher: Tensor) -> Tensor:
    """Similarity-preserving distillation: the squared difference of the normalised rows of similarities.

    Tung and Mori, "Similarity-Preserving Knowledge Distillation", ICCV 2019, arXiv 1907.09682. There the rows come
    from feature maps; here from unit embeddings, which is our reading. The sum over a row is averaged over the batch
    and divided by it once more, as in the paper: ``|G_S - G_T|_F^2 / batch^2``.

    Args:
        student: Raw student embeddings, ``(batch, dim)``.
        teacher: Raw teacher embeddings, ``(batch, teacher_dim)``. Receives no gradient.

    Returns:
        The mean squared difference, shape ``()``, float32 or wider.

    Raises:
        ValueError: If the batches differ or hold fewer than two images.

    Example:
        Two images alike to the student have the rows (1, 1) / sqrt 2, apart to the teacher (1, 0) and (0, 1).

        >>> same, apart = torch.tensor([[1.0, 0.0], [1.0, 0.0]]), torch.eye(2)
        >>> round(float(sp(same, apart)), 4) == round(((1 - 0.5**0.5) ** 2 + 0.5) / 2, 4)
        True
    """
    one, other = (unit_rows(similar) for similar in _cosines(student, teacher))
    return (one - other).square().mean()


def pkt(student: Tensor, teacher: Tensor) -> Tensor:
    """Probabilistic knowledge transfer: the divergence of the student's neighbourhoods from the teacher's.

    Passalis and Tefas, "Learning Deep Representations with Probabilistic Knowledge Transfer", ECCV 2018, arXiv
    1803.10837. The probability of picking image ``j`` as the neighbour of ``i`` is ``(1 + cos_ij) / 2`` over its sum
    for all ``j != i``; the value is ``mean_i KL(teacher_i, student_i)``. Published code lets an image be its own
    neighbour, and takes the mean over all ``batch^2`` entries, not over rows: ``batch`` times smaller.

    Args:
        student: Raw student embeddings, ``(batch, dim)``.
        teacher: Raw teacher embeddings, ``(batch, teacher_dim)``. Receives no gradient.

    Returns:
        The mean divergence in nats, shape ``()``, float32 or wider.

    Raises:
        ValueError: If the batches differ or hold fewer than two images.

    Example:
        >>> batch = torch.eye(3)
        >>> float(pkt(batch, 5 * batch))
        0.0
    """
    one, other = (_neighbour_log_probabilities(similar) for similar in _cosines(student, teacher))
    return (other.exp() * (other - one)).sum(dim=1).mean()


def rkd(student: Tensor, teacher: Tensor, *, distance_weight: float = 1.0, angle_weight: float = 2.0) -> Tensor:
    """Relational distillation: Huber distances between the distances of pairs and the angles of triplets.

    Park et al., "Relational Knowledge Distillation", CVPR 2019, arXiv 1904.05068. Distances are divided by their mean
    over the batch's pairs; an angle is the cosine at ``i`` between the directions to ``j`` and ``k``. Distances are
    averaged over the ``batch (batch - 1)`` ordered pairs, angles over the ordered triplets of different images.
    On unit embeddings, which is our reading for faces; the weights are the paper's for metric learning. Published code
    averages over all ``batch^2`` pairs and ``batch^3`` triplets, those of an image with itself too, which add 0: its
    distances are ``(batch - 1) / batch`` of these, its angles ``(batch - 1) (batch - 2) / batch^2``.

    Args:
        student: Raw student embeddings, ``(batch, dim)``.
        teacher: Raw teacher embeddings, ``(batch, teacher_dim)``. Receives no gradient.
        distance_weight: Weight of the distances, 0 or more.
        angle_weight: Weight of the angles, 0 or more. Memory grows with ``batch^3`` unless it is 0.

    Returns:
        The weighted sum, shape ``()``, float32 or wider; angles of a batch of two count 0.

    Raises:
        ValueError: If the batches differ or hold fewer than two images, or a weight is negative or both are 0.

    Example:
        Three corners of an equilateral triangle keep their relations in any size and place.

        >>> triangle = torch.tensor([[1.0, 0.0], [-0.5, 0.75**0.5], [-0.5, -(0.75**0.5)]])
        >>> float(rkd(triangle, triangle @ torch.tensor([[0.0, 1.0], [1.0, 0.0]])))
        0.0
    """
    if min(distance_weight, angle_weight) < 0 or distance_weight + angle_weight == 0:
        raise ValueError(f"weights are {distance_weight} and {angle_weight}, expected 0 or more and one above 0")
    _check_batches(student, teacher)
    (lengths, directions), (other_lengths, other_directions) = _offsets(student), _offsets(teacher.detach())
    loss = lengths.new_zeros(())
    if distance_weight:
        one, other = (x / x.mean().clamp(min=torch.finfo(x.dtype).tiny) for x in (lengths, other_lengths))
        loss = loss + distance_weight * functional.smooth_l1_loss(one, other)
    if angle_weight and len(lengths) > 2:
        with torch.autocast(student.device.type, enabled=False):
            one, other = (_off_diagonal(x @ x.transpose(1, 2)) for x in (directions, other_directions))
        loss = loss + angle_weight * functional.smooth_l1_loss(one, other)
    return loss


def similarity_distances(student: Tensor, teacher: Tensor) -> Tensor:
    """How otherwise each image stands to the others than for the teacher: ``mean_j (cos_ij - cos^T_ij)^2``, ``j != i``.

    Args:
        student: Raw student embeddings, ``(batch, dim)``.
        teacher: Raw teacher embeddings, ``(batch, teacher_dim)``. Receives no gradient.

    Returns:
        ``(batch,)``, float32 or wider.

    Raises:
        ValueError: If the batches differ or hold fewer than two images.

    Example:
        >>> same, apart = torch.tensor([[1.0, 0.0], [1.0, 0.0]]), torch.eye(2)
        >>> similarity_distances(same, apart).tolist()
        [1.0, 1.0]
    """
    one, other = _cosines(student, teacher)
    return _off_diagonal((one - other).square()).mean(dim=1)


def _check_batches(student: Tensor, teacher: Tensor) -> None:
    check_embeddings("student", student)
    check_embeddings("teacher", teacher)
    if len(student) != len(teacher):
        raise ValueError(f"student has {len(student)} rows, teacher {len(teacher)}; one row per image in both")
    if len(student) < 2:
        raise ValueError("a relation needs at least two images, the batch holds 1")


def _cosines(student: Tensor, teacher: Tensor) -> tuple[Tensor, Tensor]:
    """Cosines of all pairs, ``(batch, batch)``, to the student and, without gradient, to the teacher."""
    _check_batches(student, teacher)
    teacher = teacher.detach()
    one, other = widen(cosine_logits(student, student), cosine_logits(teacher, teacher))
    return one, other


def _gaussian(cosines: Tensor, gamma: float, order: int | None) -> Tensor:
    if order is None:
        return torch.exp(2.0 * gamma * (cosines - 1.0))
    terms = [(2.0 * gamma * cosines) ** power / math.factorial(power) for power in range(order + 1)]
    return math.exp(-2.0 * gamma) * torch.stack(terms).sum(dim=0)


def _neighbour_log_probabilities(cosines: Tensor) -> Tensor:
    chances = (0.5 * (1.0 + _off_diagonal(cosines))).clamp(min=LEAST_CHANCE)
    return chances.log() - chances.sum(dim=1, keepdim=True).log()


def _off_diagonal(square: Tensor, axis: int | None = None) -> Tensor:
    """Two axes, the last unless the first of them is named, without their diagonal: ``(n, n)`` to ``(n, n - 1)``.

    One after the other, all but the first number are rows of ``n + 1`` that end on the diagonal.
    """
    axis = square.dim() - 2 if axis is None else axis
    size = square.shape[axis]
    rows = square.flatten(axis, axis + 1).narrow(axis, 1, size * size - 1).unflatten(axis, (size - 1, size + 1))
    return rows.narrow(axis + 1, 0, size).flatten(axis, axis + 1).unflatten(axis, (size, size - 1))


def _offsets(rows: Tensor) -> tuple[Tensor, Tensor]:
    """From every unit row to every other: lengths ``(batch, batch - 1)`` and unit directions ``(..., dim)``."""
    unit = unit_rows(rows)
    apart = _off_diagonal(unit[None] - unit[:, None], axis=0)
    lengths = torch.linalg.vector_norm(apart, dim=-1)
    return lengths, apart / torch.where(lengths == 0.0, math.inf, lengths)[..., None]
