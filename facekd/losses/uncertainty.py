"""Losses that learn with the embedding how far it may be off: a Gaussian about it in place of a point.

They are means over dimensions, so that a weight means the same at any width. ``dul`` has ten parameters because each
is a field of the step or one key of a recipe, under the same name.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from facekd.losses.class_blocks import ClassShare
from facekd.losses.classifier import check_labels, margin_softmax
from facekd.losses.common import check_classifier, check_log_variance, unit_rows, widen
from facekd.losses.feature import variance_weighted


def dul(
    student: Tensor,
    log_variance: Tensor,
    noise: Tensor,
    class_weights: Tensor,
    labels: Tensor,
    class_share: ClassShare | None = None,
    *,
    kl_weight: float = 0.01,
    margin: float = 0.5,
    scale: float = 64.0,
    kind: str = "arcface",
) -> Tensor:
    """Classify a draw from the Gaussian about the embedding, and keep that Gaussian near the unit one.

    Chang et al., "Data Uncertainty Learning in Face Recognition", CVPR 2020, arXiv 2003.11339, the form DUL_cls:
    ``margin_softmax(mu + noise sigma) + kl_weight KL(N(mu, sigma^2) || N(0, 1))``. What is compared at test is ``mu``.
    There ``mu`` and ``ln sigma^2`` come from two layers on the last feature map; here ``mu`` is the embedding and
    ``ln sigma^2`` is read off it, which is our reading. The divergence asks for a ``mu`` of unit spread in each
    dimension, which the BatchNorm at the end of every backbone gives it.

    The divergence is a mean over images and dimensions, so that ``kl_weight`` means the same at any width. In the sum
    over dimensions that the paper prints, ``kl_weight`` is ``dim`` times smaller: 0.01 here is 0.01 / 512 there, and
    0.01 there is 5.12 here. At 0 nothing holds the variance up, and it shrinks away.

    Args:
        student: Raw student embeddings, the ``mu``, ``(batch, dim)``.
        log_variance: Natural log of sigma squared, ``(batch, dim)``, or ``(batch, 1)`` for one variance per image.
        noise: Standard normal numbers, ``(batch, dim)``; zeros give the deterministic loss.
        class_weights: One row per class, ``(classes, dim)``. Receives a gradient if it asks for one.
        labels: Index of each image's class, ``(batch,)``, integers in [0, classes).
        class_share: The classes this process sums over, where others do the rest.
        kl_weight: Weight of the divergence, 0 or more.
        margin: In radians, or with ``cosface`` a cosine; see :func:`facekd.losses.classifier.apply_margin`.
        scale: Factor from cosine to logit, greater than 0.
        kind: ``arcface`` or ``cosface``.

    Returns:
        Mean cross-entropy in nats plus the weighted divergence, shape ``()``, float32 or wider.

    Raises:
        ValueError: If sizes do not agree, or an option is out of range.

    Example:
        Each image sits on its own class; at variance 1 the divergence is mu^2 / 2 in each dimension, 1 / 4 on average.

        >>> corners, labels, nothing = torch.eye(2), torch.tensor([0, 1]), torch.zeros(2, 2)
        >>> options = {"scale": 1.0, "kind": "cosface"}
        >>> round(float(dul(corners, nothing, nothing, corners, labels, kl_weight=0.0, **options)), 4)
        0.4741
        >>> round(float(dul(corners, nothing, nothing, corners, labels, kl_weight=2.0, **options)), 4)
        0.9741
    """
    if kl_weight < 0:
        raise ValueError(f"kl_weight is {kl_weight}, expected 0 or more")
    if noise.shape != student.shape:
        raise ValueError(f"noise has shape {tuple(noise.shape)}, student {tuple(student.shape)}; expected the same")
    drawn = reparameterised(student, log_variance, noise)
    classified = margin_softmax(
        drawn, class_weights, labels, class_share=class_share, margin=margin, scale=scale, kind=kind
    )
    return classified + kl_weight * unit_gaussian_divergence(student, log_variance)


def dul_regression(
    student: Tensor, log_variance: Tensor, class_weights: Tensor, labels: Tensor, *, floor: float = 1e-6
) -> Tensor:
    """How unlikely the row of an image's class is under the Gaussian about the image's embedding.

    Chang et al., "Data Uncertainty Learning in Face Recognition", CVPR 2020, arXiv 2003.11339, the form DUL_rgs:
    ``mean_i mean_l [(w_il - mu_il)^2 / (2 sigma_il^2) + ln sigma_il^2 / 2 + ln(2 pi) / 2]``, ``w_i`` the classifier's
    row. Rows and embeddings are brought to length 1, as the test compares them; rows of a margin classifier have
    arbitrary lengths. Times ``dim`` it is the sum over dimensions of the paper. There ``mu`` is a new layer on a frozen
    network; here it is the embedding, frozen or not, which is our reading. For the floor of the variance see
    :func:`facekd.losses.feature.variance_weighted`.

    Args:
        student: Raw student embeddings, the ``mu``, ``(batch, dim)``.
        log_variance: Natural log of sigma squared, ``(batch, dim)``, or ``(batch, 1)`` for one variance per image.
        class_weights: One row per class, ``(classes, dim)``. Receives no gradient.
        labels: Index of each image's class, ``(batch,)``, integers in [0, classes).
        floor: Smallest variance, as a fraction of the batch's mean squared residual, above 0 and at most 1.

    Returns:
        The mean negative log-likelihood in nats a dimension, shape ``()``, float32 or wider.

    Raises:
        ValueError: If sizes do not agree, a label is out of range, or ``floor`` is.

    Example:
        On its row at variance 1, nothing but ln(2 pi) / 2 is left; at a right angle 1 / 2 more in each dimension.

        >>> rows, nothing = torch.eye(2), torch.zeros(2, 2)
        >>> [round(float(dul_regression(3 * rows, nothing, rows, torch.tensor(own))), 4) for own in ([0, 1], [1, 0])]
        [0.9189, 1.4189]
    """
    check_log_variance(student, log_variance)
    check_classifier("student", student, "class_weights", class_weights)
    check_labels(labels, len(student), len(class_weights))
    rows = unit_rows(class_weights.detach()[labels])
    return _gaussian((unit_rows(student) - rows).square(), log_variance, floor)


def pfe(student: Tensor, log_variance: Tensor, labels: Tensor, *, floor: float = 1e-6) -> Tensor:
    """Minus the mutual likelihood score of all genuine pairs of a batch.

    Shi and Jain, "Probabilistic Face Embeddings", ICCV 2019, arXiv 1904.09658: two images of a person should be likely
    to have one centre, ``mean_pairs mean_l [(mu_il - mu_jl)^2 / (2 s) + ln s / 2 + ln(2 pi) / 2]`` with
    ``s = sigma_il^2 + sigma_jl^2``, on unit embeddings. Times ``dim`` it is minus the score of the paper, whose code
    leaves out the halves and the constant. Nothing in it keeps people apart: it is for a frozen network, or beside a
    loss that does. For the floor of ``s`` see :func:`facekd.losses.feature.variance_weighted`.

    Args:
        student: Raw student embeddings, the ``mu``, ``(batch, dim)``.
        log_variance: Natural log of sigma squared, ``(batch, dim)``, or ``(batch, 1)`` for one variance per image.
        labels: Class of each image, ``(batch,)``.
        floor: Smallest sum of two variances, as a fraction of the mean squared difference of the pairs, above 0 and at
            most 1.

    Returns:
        The mean in nats a dimension, shape ``()``, float32 or wider; 0 for a batch without a genuine pair.

    Raises:
        ValueError: If sizes do not agree, or ``floor`` is out of range.

    Example:
        One image twice, at variance 1 / 2: s is 1, and ln(2 pi) / 2 is left.

        >>> twice, half = torch.tensor([[0.0, 2.0], [0.0, 2.0]]), torch.full((2, 1), 0.5).log()
        >>> round(float(pfe(twice, half, torch.zeros(2))), 4), float(pfe(twice, half, torch.arange(2)))
        (0.9189, 0.0)
    """
    check_log_variance(student, log_variance)
    one, other = genuine_pairs(labels)
    mean, log_variance = widen(unit_rows(student), log_variance)
    if len(one) == 0:
        return 0.0 * (mean.sum() + log_variance.sum())
    both = torch.logaddexp(log_variance[one], log_variance[other])
    return _gaussian((mean[one] - mean[other]).square(), both, floor)


def genuine_pairs(labels: Tensor) -> tuple[Tensor, Tensor]:
    """All pairs of images with one label, each once.

    Args:
        labels: ``(batch,)``.

    Returns:
        Indices of the first and of the second image of each pair, ``(pairs,)``.

    Example:
        >>> one, other = genuine_pairs(torch.tensor([4, 7, 4, 4]))
        >>> list(zip(one.tolist(), other.tolist()))
        [(0, 2), (0, 3), (2, 3)]
    """
    one, other = torch.triu(labels[:, None] == labels, diagonal=1).nonzero(as_tuple=True)
    return one, other


def _gaussian(squared: Tensor, log_variance: Tensor, floor: float) -> Tensor:
    return 0.5 * (variance_weighted(squared, log_variance, floor=floor) + math.log(2.0 * math.pi))


def reparameterised(mean: Tensor, log_variance: Tensor, noise: Tensor) -> Tensor:
    """A draw from a Gaussian, as a function of its parameters: ``mean + noise e^(log_variance / 2)``.

    Args:
        mean: ``(batch, dim)``.
        log_variance: Natural log of sigma squared, ``(batch, dim)`` or ``(batch, 1)``.
        noise: Standard normal numbers, ``(batch, dim)``. Receives no gradient.

    Returns:
        ``(batch, dim)``, float32 or wider.

    Raises:
        ValueError: If the sizes do not agree.

    Example:
        >>> reparameterised(torch.tensor([[1.0, 2.0]]), torch.full((1, 1), 4.0).log(), torch.tensor([[1.0, -1.0]]))
        tensor([[3., 0.]])
    """
    check_log_variance(mean, log_variance)
    mean, log_variance, noise = widen(mean, log_variance, noise.detach())
    return mean + noise * torch.exp(0.5 * log_variance)


def unit_gaussian_divergence(mean: Tensor, log_variance: Tensor) -> Tensor:
    """The divergence of a diagonal Gaussian from the unit one, for each dimension.

    ``(mu^2 + sigma^2 - 1 - ln sigma^2) / 2``: never negative, and 0 at mean 0 and variance 1 alone.

    Args:
        mean: ``(batch, dim)``.
        log_variance: Natural log of sigma squared, ``(batch, dim)`` or ``(batch, 1)``.

    Returns:
        The mean over images and dimensions in nats, shape ``()``, float32 or wider; times ``dim`` it is the mean over
        images of the sum over dimensions.

    Raises:
        ValueError: If the sizes do not agree.

    Example:
        >>> float(unit_gaussian_divergence(torch.zeros(1, 4), torch.zeros(1, 4)))
        0.0
        >>> float(unit_gaussian_divergence(torch.full((1, 4), 2.0), torch.zeros(1, 1)))
        2.0
    """
    check_log_variance(mean, log_variance)
    mean, log_variance = widen(mean, log_variance)
    return 0.5 * (mean.square() + (torch.expm1(log_variance) - log_variance)).mean()
