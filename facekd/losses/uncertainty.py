"""Losses that learn with the embedding how far it may be off: a Gaussian about it in place of a point.

``dul`` has nine parameters because each is a field of the step or one key of a recipe, under the same name.
"""

from __future__ import annotations

import torch
from torch import Tensor

from facekd.losses.classifier import margin_softmax
from facekd.losses.common import check_log_variance, widen


def dul(
    student: Tensor,
    log_variance: Tensor,
    noise: Tensor,
    class_weights: Tensor,
    labels: Tensor,
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
    classified = margin_softmax(drawn, class_weights, labels, margin=margin, scale=scale, kind=kind)
    return classified + kl_weight * unit_gaussian_divergence(student, log_variance)


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
