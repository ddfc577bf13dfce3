"""Accuracy of same-or-different decisions by k-fold cross-validation, as face recognition has reported it since LFW."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

STEPS = np.arange(0, 4, 0.01)
"""Candidate thresholds on the squared distance of unit vectors, in [0, 4)."""


@dataclass(frozen=True)
class KFold:
    """Cross-validated accuracy.

    Attributes:
        mean: Mean test accuracy of the folds.
        std: Its standard deviation over the folds (divided by their number).
        threshold: Mean chosen threshold, as a cosine.
        per_fold: Test accuracy of each fold, in the order of the fold numbers.
        interval: 95 % interval of the mean, where it was asked for.

    Example:
        >>> found = kfold_distances(np.array([0.5, 1.5, 0.5, 1.5]), np.array([1, 0, 1, 0]), np.array([0, 0, 1, 1]))
        >>> found.mean, found.std, round(found.threshold, 3)  # 0.51 is the first step above 0.5
        (1.0, 0.0, 0.745)
    """

    mean: float
    std: float
    threshold: float
    per_fold: tuple[float, ...]
    interval: tuple[float, float] | None = None


def contiguous_folds(count: int, folds: int = 10) -> np.ndarray:
    """Fold numbers of pairs in the order given; the first ``count % folds`` folds get one pair more.

    Args:
        count: Pairs.
        folds: Folds.

    Example:
        >>> contiguous_folds(7, 3).tolist()
        [0, 0, 0, 1, 1, 2, 2]
    """
    sizes = np.full(folds, count // folds)
    sizes[: count % folds] += 1
    return np.repeat(np.arange(folds), sizes)


def unit(embeddings: Tensor | np.ndarray) -> Tensor:
    """The embeddings at length one, in float64.

    Args:
        embeddings: (n, dim) finite embeddings.

    Raises:
        ValueError: Not two-dimensional, or an embedding that is zero, NaN or infinite; names the first row.

    Example:
        >>> unit(np.array([[3.0, 4.0]])).tolist()
        [[0.6, 0.8]]
    """
    tensor = torch.as_tensor(embeddings).detach().to(torch.float64)
    if tensor.ndim != 2:
        raise ValueError(f"embeddings of shape {tuple(tensor.shape)} where (n, dim) is needed")
    length = torch.linalg.vector_norm(tensor, dim=1, keepdim=True)
    bad = torch.nonzero(~(torch.isfinite(length) & (length > 0)).flatten()).flatten().tolist()
    if bad:
        raise ValueError(f"{len(bad)} embeddings are zero or not finite, the first in row {bad[0]}")
    return tensor / length


def unit_sides(embeddings: Tensor | np.ndarray, gallery: Tensor | np.ndarray | None = None) -> tuple[Tensor, Tensor]:
    """What the first and the second image of a pair are looked up in, each at length one, in float64.

    Args:
        embeddings: (n, dim) finite embeddings.
        gallery: (n, dim) other embeddings of the same images, for the second; the same when None.

    Raises:
        ValueError: As :func:`unit`, or shapes that differ.

    Example:
        >>> [side.tolist() for side in unit_sides(np.array([[3.0, 4.0]]), np.array([[0.0, 2.0]]))]
        [[[0.6, 0.8]], [[0.0, 1.0]]]
    """
    rows = unit(embeddings)
    if gallery is None:
        return rows, rows
    others = unit(gallery)
    if others.shape != rows.shape:
        raise ValueError(f"embeddings of shape {tuple(rows.shape)}, gallery of {tuple(others.shape)}")
    return rows, others


def pair_scores(
    embeddings: Tensor | np.ndarray,
    pairs: np.ndarray,
    *,
    gallery: Tensor | np.ndarray | None = None,
    block: int = 4096,
) -> tuple[Tensor, Tensor]:
    """Cosine and squared distance of chosen pairs of unit vectors.

    Args:
        embeddings: (n, dim), of any length.
        pairs: (p, 2) rows of ``embeddings``.
        gallery: (n, dim) other embeddings of the same images, for the second image of each pair.
        block: Pairs worked on at a time, which bounds the memory.

    Returns:
        Cosines (p,) and squared Euclidean distances (p,) in float64.

    Raises:
        ValueError: A zero or non-finite embedding, or a gallery of another shape.

    Example:
        >>> cosine, distance = pair_scores(np.array([[2.0, 0.0], [0.0, 1.0], [1.0, 0.0]]), np.array([[0, 1], [0, 2]]))
        >>> cosine.tolist(), distance.tolist()
        ([0.0, 1.0], [2.0, 0.0])
    """
    rows, others = unit_sides(embeddings, gallery)
    cosines, distances = [], []
    for part in torch.as_tensor(pairs, device=rows.device).split(block):
        left, right = rows[part[:, 0]], others[part[:, 1]]
        cosines.append((left * right).sum(dim=1))
        distances.append((left - right).square().sum(dim=1))
    return torch.cat(cosines), torch.cat(distances)


def kfold_accuracy(
    embeddings_a: Tensor | np.ndarray,
    embeddings_b: Tensor | np.ndarray,
    genuine: Tensor | np.ndarray,
    folds: Tensor | np.ndarray,
) -> KFold:
    """Cross-validated accuracy of pairs of embeddings: :func:`kfold_distances` on their squared distances.

    Args:
        embeddings_a: (p, dim) first of each pair, of any length; usually the sum over image and mirrored image.
        embeddings_b: (p, dim) second of each pair.
        genuine: (p,) whether a pair is of one person.
        folds: (p,) fold number of each pair.

    Raises:
        ValueError: Shapes that differ, fewer than two folds, or a zero or non-finite embedding.

    Example:
        >>> a = np.array([[1.0, 0.0]] * 4)
        >>> b = np.array([[1.0, 0.1], [0.0, 1.0], [1.0, 0.1], [0.0, 1.0]])
        >>> kfold_accuracy(a, b, np.array([True, False, True, False]), np.array([0, 0, 1, 1])).per_fold
        (1.0, 1.0)
    """
    left, right = unit(embeddings_a), unit(embeddings_b)
    if left.shape != right.shape:
        raise ValueError(f"embeddings of shape {tuple(left.shape)} paired with {tuple(right.shape)}")
    return kfold_distances((left - right).square().sum(dim=1), genuine, folds)


def kfold_distances(distances: Tensor | np.ndarray, genuine: Tensor | np.ndarray, folds: Tensor | np.ndarray) -> KFold:
    """Cross-validated accuracy of squared distances, by the rule of LFW's View 2 as the field computes it.

    A pair is accepted when its distance is below t (strictly), t one of :data:`STEPS`. For each fold, t is the first
    of the best on all other folds. Pairs are counted once by fold and step, so the cost does not grow with the number
    of steps; the accuracies are those of the plain loops, bit for bit.

    Paper: Huang et al., "Labeled Faces in the Wild", 2007.

    Args:
        distances: (p,) squared distances of unit vectors, in [0, 4].
        genuine: (p,) whether a pair is of one person.
        folds: (p,) fold number of each pair.

    Raises:
        ValueError: Shapes that differ, non-finite distances, or fewer than two folds.

    Example:
        >>> genuine, folds = np.array([True, False, True, False]), np.array([0, 0, 1, 1])
        >>> kfold_distances(np.array([0.505, 1.5, 0.705, 1.2]), genuine, folds).per_fold  # 0.705 is missed at 0.51
        (1.0, 0.5)
    """
    cell, shape = fold_cells(distances, genuine, folds)
    accuracy, best = fold_accuracies(np.bincount(cell, minlength=int(np.prod(shape))).reshape(shape))
    threshold = 1 - float(STEPS[best].mean()) / 2
    return KFold(float(accuracy.mean()), float(accuracy.std()), threshold, tuple(accuracy.tolist()))


def fold_cells(
    distances: Tensor | np.ndarray, genuine: Tensor | np.ndarray, folds: Tensor | np.ndarray
) -> tuple[np.ndarray, tuple[int, int, int]]:
    """Where each pair is counted in a table of kind, fold and first step that accepts it, and the shape of that table.

    Args:
        distances: (p,) squared distances of unit vectors.
        genuine: (p,) whether a pair is of one person.
        folds: (p,) fold number of each pair.

    Raises:
        ValueError: Shapes that differ, non-finite distances, or fewer than two folds.

    Example:
        >>> fold_cells(np.array([0.0, 0.005]), np.array([False, True]), np.array([4, 7]))  # 0 < 0.01 and 0.005 < 0.01
        (array([   1, 1204]), (2, 2, 401))
    """
    distances, genuine, folds = (torch.as_tensor(given).cpu().numpy() for given in (distances, genuine, folds))
    genuine = genuine.astype(bool)
    if not distances.shape == genuine.shape == folds.shape or distances.ndim != 1:
        raise ValueError(f"shapes differ: {distances.shape} distances, {genuine.shape} labels, {folds.shape} folds")
    if not np.isfinite(distances).all():
        raise ValueError(f"{int((~np.isfinite(distances)).sum())} of {distances.size} distances are NaN or infinite")
    names, fold = np.unique(folds, return_inverse=True)
    if names.size < 2:
        raise ValueError(f"{names.size} folds where cross-validation needs at least 2")
    shape = 2, names.size, STEPS.size + 1
    return (genuine * shape[1] + fold) * shape[2] + np.searchsorted(STEPS, distances, side="right"), shape


def fold_accuracies(counts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Test accuracy of each fold, and the step chosen on all other folds.

    Args:
        counts: (2, folds, steps + 1) impostor and genuine pairs, or their weights, by :func:`fold_cells`; every fold
            holds some.

    Example:
        >>> counts = np.zeros((2, 2, 401))
        >>> counts[1, :, 51], counts[0, :, 151] = 1, 1  # genuine pairs below 0.51, impostors from 1.5 up
        >>> [found.tolist() for found in fold_accuracies(counts)]
        [[1.0, 1.0], [51, 51]]
    """
    accepted, totals = counts.cumsum(axis=2)[:, :, :-1], counts.sum(axis=2)
    correct, sizes = accepted[1] + totals[0][:, None] - accepted[0], totals.sum(axis=0)
    training = (correct.sum(axis=0) - correct) / (sizes.sum() - sizes)[:, None]
    best = training.argmax(axis=1)
    return correct[np.arange(sizes.size), best] / sizes, best
