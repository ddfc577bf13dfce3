"""What a variance beside an embedding is good for: one figure an image, a score of pairs, templates."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from facekd.metrics.verification import unit

FUSED_VARIANCES = ("inverse_sum", "least")


def harmonic_mean_variance(log_variance: Tensor | np.ndarray) -> Tensor:
    """One uncertainty an image: the harmonic mean of its variances, ``dim / sum(1 / sigma^2)``.

    Chang et al., "Data Uncertainty Learning in Face Recognition", CVPR 2020, arXiv 2003.11339.

    Args:
        log_variance: Natural log of sigma squared, (n, dim), or (n, 1), whose mean is itself.

    Returns:
        (n,) float64, above 0: the larger, the less sure.

    Raises:
        ValueError: Not two-dimensional, or a value is not finite; names the first row.

    Example:
        Variances 1 and 3 have the mean 2 / (1 + 1 / 3).

        >>> round(float(harmonic_mean_variance(np.log([[1.0, 3.0]]))), 6)
        1.5
    """
    values = _checked(log_variance)
    return torch.exp(math.log(values.shape[1]) - torch.logsumexp(-values, dim=1))


def uncertainty_spread(log_variance: Tensor | np.ndarray) -> float:
    """How far the images of a set differ in their uncertainty: the standard deviation of its logarithm.

    Near 0 every image is called equally sure, which is how learning a variance most often fails.

    Args:
        log_variance: Natural log of sigma squared, (n, dim) or (n, 1).

    Raises:
        ValueError: As :func:`harmonic_mean_variance`.

    Example:
        >>> uncertainty_spread(np.log([[1.0, 3.0], [3.0, 1.0]]))
        0.0
        >>> uncertainty_spread(np.array([[-1.0], [1.0]]))
        1.0
    """
    return float(harmonic_mean_variance(log_variance).log().std(correction=0))


def mutual_likelihood(
    embeddings: Tensor | np.ndarray, log_variance: Tensor | np.ndarray, pairs: np.ndarray, *, block: int = 4096
) -> Tensor:
    """The log-likelihood that two Gaussians have one centre: PFE's score of a pair, in place of the cosine.

    Shi and Jain, "Probabilistic Face Embeddings", ICCV 2019, arXiv 1904.09658, on unit embeddings:
    ``-1/2 sum_l [(mu_il - mu_jl)^2 / (s_il + s_jl) + ln(s_il + s_jl)] - dim/2 ln 2 pi`` with ``s = sigma^2``; their
    code leaves out the factor and the constant. It has no upper bound, and a threshold holds for one model only. With
    one variance for all images and dimensions it is affine in the cosine, with slope ``1 / (2 sigma^2)``.

    Args:
        embeddings: (n, dim), of any length.
        log_variance: Natural log of sigma squared, (n, dim) or (n, 1).
        pairs: (p, 2) rows of ``embeddings``.
        block: Pairs worked on at a time, which bounds the memory.

    Returns:
        (p,) float64.

    Raises:
        ValueError: Sizes that do not agree, or values that are zero or not finite.

    Example:
        An image with itself, at variance 1 / 2 in two dimensions: nothing is left but -ln 2 pi.

        >>> score = mutual_likelihood(np.array([[3.0, 4.0]]), np.log([[0.5, 0.5]]), np.array([[0, 0]]))
        >>> round(float(score), 6) == round(-math.log(2 * math.pi), 6)
        True
    """
    means, values = unit(embeddings), _checked(log_variance)
    dim = means.shape[1]
    _check_agreement(means, values)
    chosen = torch.as_tensor(np.asarray(pairs), device=means.device)
    if chosen.ndim != 2 or chosen.shape[1] != 2:
        raise ValueError(f"pairs of shape {tuple(chosen.shape)} where (p, 2) is needed")
    values, found = values.to(means.device).expand(-1, dim), []
    for one, other in ((part[:, 0], part[:, 1]) for part in chosen.split(block)):
        both = torch.logaddexp(values[one], values[other])
        terms = (means[one] - means[other]).square() * torch.exp(-both) + both
        found.append(-0.5 * terms.sum(dim=1) - 0.5 * dim * math.log(2 * math.pi))
    return torch.cat(found)


def fuse_templates(
    embeddings: Tensor | np.ndarray,
    log_variance: Tensor | np.ndarray,
    templates: np.ndarray,
    *,
    variance: str = "inverse_sum",
    block: int = 4096,
) -> tuple[Tensor, Tensor]:
    """One embedding and variance for each set of images of a person: the surer an image, the more it counts.

    The unit embeddings are averaged with weights ``1 / sigma^2`` in each dimension and brought to length 1 again. The
    variance is ``inverse_sum``, that of such a mean, ``1 / sum(1 / sigma^2)``, which shrinks with every image; or
    ``least``, the smallest of each dimension, which PFE takes (Shi and Jain, "Probabilistic Face Embeddings", ICCV
    2019, arXiv 1904.09658), because images of one video are not independent.

    Args:
        embeddings: (n, dim), of any length.
        log_variance: Natural log of sigma squared, (n, dim) or (n, 1).
        templates: (n,) template of each image, whole numbers from 0 without gaps.
        variance: ``inverse_sum`` or ``least``.
        block: Images worked on at a time, which bounds the memory beyond variances and result.

    Returns:
        Unit embeddings (templates, dim) and log variances (templates, dim) or (templates, 1), float64.

    Raises:
        ValueError: Sizes that do not agree, a template without an image, or values that are zero or not finite.

    Example:
        The second image has a third of the first one's variance, and so three times its weight.

        >>> embedding, log_variance = fuse_templates(np.eye(2), np.log([[3.0], [1.0]]), np.array([0, 0]))
        >>> [round(x / float(embedding[0, 0]), 6) for x in embedding[0].tolist()], round(float(log_variance.exp()), 6)
        ([1.0, 3.0], 0.75)
    """
    if variance not in FUSED_VARIANCES:
        raise ValueError(f"variance is {variance!r}, expected one of {', '.join(FUSED_VARIANCES)}")
    values = _checked(log_variance)
    _check_agreement(embeddings, values)
    where = torch.as_tensor(np.asarray(templates), dtype=torch.int64, device=values.device)
    if where.shape != values.shape[:1]:
        raise ValueError(f"{tuple(where.shape)} templates for {len(values)} embeddings")
    count = int(where.max()) + 1
    if int(where.min()) < 0 or len(where.unique()) != count:
        raise ValueError(f"templates are not the numbers 0 to {count - 1}, each with an image")
    index = where[:, None].expand_as(values)
    least = values.new_full((count, values.shape[1]), math.inf).scatter_reduce(0, index, values, "amin")
    total, fused = torch.zeros_like(least), values.new_zeros(count, embeddings.shape[1])
    for start in range(0, len(values), block):
        rows = where[start : start + block]
        weights = torch.exp(least[rows] - values[start : start + block])  # against the surest, so that none overflows
        total.index_add_(0, rows, weights)
        fused.index_add_(0, rows, unit(embeddings[start : start + block]).to(values.device) * weights)
    return unit(fused / total), least if variance == "least" else least - total.log()


def _checked(log_variance: Tensor | np.ndarray) -> Tensor:
    values = torch.as_tensor(log_variance).detach().to(torch.float64)
    if values.ndim != 2 or values.numel() == 0:
        raise ValueError(f"log_variance of shape {tuple(values.shape)} where (n, dim) or (n, 1) is needed")
    bad = torch.nonzero(~torch.isfinite(values).all(dim=1)).flatten().tolist()
    if bad:
        raise ValueError(f"{len(bad)} rows of log_variance are not finite, the first is {bad[0]}")
    return values


def _check_agreement(means: Tensor | np.ndarray, values: Tensor) -> None:
    if means.ndim != 2 or len(means) != len(values) or values.shape[1] not in (1, means.shape[1]):
        raise ValueError(f"log_variance of shape {tuple(values.shape)} for embeddings of shape {tuple(means.shape)}")
