"""Templates fused by how sure a model is of each image, and compared by cosine or by mutual likelihood."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from facekd.metrics.uncertainty import fuse_templates, mutual_likelihood

FUSION = "inverse-variance"
"""How the JSON calls templates that are no plain means."""
BLOCK = 2048


@dataclass(frozen=True, eq=False)
class Fused:
    """Templates with their variances.

    Attributes:
        embeddings: float32 (t, dim) of length one; zero where a template failed.
        log_variance: float64 (t, dim) or (t, 1).
    """

    embeddings: Tensor
    log_variance: Tensor


def fuse_views(views: np.ndarray, width: int, rows: np.ndarray, usable: np.ndarray, *, flip: bool) -> Fused:
    """Every template as the mean of its unit embeddings, weighted by 1 / sigma^2.

    Media, lengths and detector scores have no part in it: what an image is worth, its variance says. The variance of a
    template is the least of its images', for frames of one video are not independent (Shi and Jain, "Probabilistic Face
    Embeddings", ICCV 2019, arXiv 1904.09658).

    Args:
        views: (n, 2, width + outputs): embedding and log variance of every image and of its mirror.
        width: Columns that are the embedding.
        rows: (n,) row of each image's template, every row from 0 with an image.
        usable: (n,) False for images that have no embedding.
        flip: Add the mirror's embedding, and take the mean of both log variances.

    Example:
        The second image has a third of the first one's variance, and so three times its weight; the third failed.

        >>> one = np.array([[1.0, 0.0, np.log(3.0)], [0.0, 1.0, 0.0], [np.nan, np.nan, np.nan]])
        >>> views, usable = np.stack([one, one], 1), np.array([True, True, False])
        >>> fused = fuse_views(views, 2, np.array([0, 0, 1]), usable, flip=True)
        >>> [round(x / float(fused.embeddings[0, 0]), 4) for x in fused.embeddings[0].tolist()]
        [1.0, 3.0]
        >>> fused.embeddings[1].tolist()
        [0.0, 0.0]
    """
    kept = views[usable]
    summed = kept.sum(axis=1) if flip else kept[:, 0]
    shown, numbers = np.unique(rows[usable], return_inverse=True)
    log_variance = summed[:, width:] * np.float32(0.5 if flip else 1.0)
    embeddings, variances = fuse_templates(summed[:, :width], log_variance, numbers, variance="least")
    count, place = int(rows.max()) + 1, torch.from_numpy(shown)
    return Fused(
        torch.zeros(count, width).index_copy_(0, place, embeddings.float()),
        torch.zeros(count, variances.shape[1], dtype=torch.float64).index_copy_(0, place, variances),
    )


def template_likelihoods(fused: Fused, left: np.ndarray, right: np.ndarray) -> Tensor:
    """Mutual likelihood of listed pairs of templates; NaN where one failed.

    Args:
        fused: The templates.
        left: (p,) row of the first template of each pair.
        right: (p,) row of the second.

    Returns:
        float64 (p,). What NaN counts as, :mod:`facekd.metrics.failures` says.
    """
    failed = ~fused.embeddings.any(dim=1).numpy()
    lost = failed[left] | failed[right]
    known = np.flatnonzero(~lost)
    scores = torch.full((len(left),), torch.nan, dtype=torch.float64)
    if known.size:
        stand_in = fused.embeddings.clone()
        stand_in[torch.from_numpy(failed)] = 1.0  # never compared, but every row must have a direction
        pairs = np.stack([left[known], right[known]], axis=1)
        scores[torch.from_numpy(known)] = mutual_likelihood(stand_in, fused.log_variance, pairs, block=BLOCK)
    return scores
