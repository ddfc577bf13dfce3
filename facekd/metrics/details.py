"""Curve, histogram and hardest pairs of scores that are at hand."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from facekd.metrics.all_pairs import AllPairs
from facekd.metrics.allowed import allowed_accepts
from facekd.metrics.measured import Curve, HardPair, Histogram
from facekd.metrics.scores import Scores, ascending, both_sides

PER_DECADE = 40
BINS = 200
HARDEST = 12


def curve_fprs(impostors: int) -> np.ndarray:
    """FPRs at which a curve is read: 40 a decade from 1 down to the least that the impostors can show.

    Args:
        impostors: Impostor scores in all.

    Returns:
        (k,) float64, ascending, from 3 / impostors to 1; only 1 where the impostors show nothing less.

    Example:
        >>> fprs = curve_fprs(3000)
        >>> len(fprs), float(fprs[0]), float(fprs[-1])
        (121, 0.001, 1.0)
    """
    least = min(3 / impostors, 1.0)
    steps = np.arange(math.floor(-math.log10(least) * PER_DECADE + 1), dtype=np.float64)
    fprs = 10 ** (-steps[::-1] / PER_DECADE)
    return np.concatenate([[least], fprs[fprs > least * (1 + 1e-9)]])


def roc_curve(genuine: Scores, impostor: Scores) -> Curve:
    """The largest TPR whose FPR does not exceed each of :func:`curve_fprs`.

    Args:
        genuine: (g,) scores.
        impostor: (i,) scores.

    Raises:
        ValueError: An empty, non-finite or not one-dimensional side.

    Example:
        >>> curve = roc_curve([0.9, 0.5], [0.6, 0.4, 0.3])
        >>> curve.fpr.tolist(), curve.tpr.tolist()
        ([1.0], [1.0])
    """
    positive, negative = both_sides(genuine, impostor)
    total = negative.numel()
    fprs = curve_fprs(total)
    allowed = np.array([allowed_accepts(float(fpr), total) for fpr in fprs])
    places = torch.as_tensor(np.maximum(total - allowed - 1, 0), device=negative.device)
    missed = torch.searchsorted(positive, negative[places], right=True).cpu().numpy()
    missed = np.where(allowed >= total, 0, missed)
    return Curve(fprs, (positive.numel() - missed) / positive.numel())


def score_histogram(genuine: Scores, impostor: Scores, ends: tuple[float, float] = (-1.0, 1.0)) -> Histogram:
    """Scores counted in 200 bins of equal width; the edges are rounded to the precision of the scores.

    Args:
        genuine: (g,) scores.
        impostor: (i,) scores.
        ends: First and last edge; those of cosines if not given.

    Raises:
        ValueError: An empty, non-finite or not one-dimensional side.

    Example:
        >>> found = score_histogram([1.0, 0.995], [-1.0, 0.0, 0.001])
        >>> int(found.genuine[-1]), int(found.impostor[0]), int(found.impostor[100])
        (2, 1, 2)
    """
    steps = np.arange(BINS + 1)
    edges = (steps * ends[1] + steps[::-1] * ends[0]) / BINS
    counts = []
    for scores in (ascending(genuine, "genuine scores"), ascending(impostor, "impostor scores")):
        inner = torch.as_tensor(edges[1:-1], device=scores.device).to(scores.dtype)
        below = torch.searchsorted(scores, inner).cpu().numpy()
        counts.append(np.diff(below, prepend=0, append=scores.numel()))
    return Histogram(edges, *counts)


def extreme_places(scores: Tensor, count: int = HARDEST, *, highest: bool) -> Tensor:
    """Where the highest or lowest scores stand, the most extreme first and, of equals, the first.

    Args:
        scores: (n,) scores, in any order.
        count: How many are wanted.
        highest: Whether the highest are.

    Example:
        >>> extreme_places(torch.tensor([0.5, 0.9, 0.1, 0.9]), 3, highest=True).tolist()
        [1, 3, 0]
    """
    last = scores.topk(min(count, scores.numel()), largest=highest).values[-1]
    places = torch.nonzero(scores >= last if highest else scores <= last).flatten()
    return places[scores[places].sort(descending=highest, stable=True).indices[:count]]


def hard_pairs(scores: Tensor, places: Tensor, images: Tensor | np.ndarray) -> tuple[HardPair, ...]:
    """Chosen pairs with their images.

    Args:
        scores: (n,) scores.
        places: (k,) places in ``scores``.
        images: (k, 2) images of each.

    Example:
        >>> hard_pairs(torch.tensor([0.5, 0.25]), torch.tensor([1]), np.array([[7, 9]]))
        (HardPair(first=7, second=9, score=0.25),)
    """
    rows = torch.as_tensor(images).tolist()
    return tuple(HardPair(one, other, score) for (one, other), score in zip(rows, scores[places].tolist(), strict=True))


def all_pairs_images(pairs: AllPairs, labels: Tensor | np.ndarray, places: Tensor, *, genuine: bool) -> Tensor:
    """The two images behind chosen scores of all pairs.

    Args:
        pairs: What :func:`facekd.metrics.all_pairs.all_pair_scores` gave.
        labels: (n,) labels it was given.
        places: (k,) places in ``pairs.genuine`` or ``pairs.impostor``.
        genuine: In which of the two.

    Returns:
        (k, 2) images, the first by label and then by place first.

    Example:
        >>> from facekd.metrics.all_pairs import all_pair_scores
        >>> labels = np.array([5, 2, 5])
        >>> pairs = all_pair_scores(np.eye(3), labels)
        >>> all_pairs_images(pairs, labels, torch.tensor([0, 1]), genuine=False).tolist()
        [[1, 0], [1, 2]]
        >>> all_pairs_images(pairs, labels, torch.tensor([0]), genuine=True).tolist()
        [[0, 2]]
    """
    order = torch.as_tensor(labels, device=places.device).sort(stable=True).indices
    rows = torch.arange(len(order), device=places.device)
    sizes = pairs.ends - 1 - rows
    offsets = sizes.cumsum(0) - sizes if genuine else pairs.offsets
    left = torch.searchsorted(offsets, places, right=True) - 1
    right = (left + 1 if genuine else pairs.ends[left]) + places - offsets[left]
    return order[torch.stack([left, right], dim=1)]
