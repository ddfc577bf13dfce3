"""95 % interval of the cross-validated accuracy of pairs, by resampling the people.

Paper: Bolle, Ratha and Pankanti, "Error analysis of pattern recognition systems: the subsets bootstrap", 2004.
"""

from __future__ import annotations

import numpy as np

from facekd.metrics.resampling import Interval, dense_subjects, multiplicities, quantiles
from facekd.metrics.verification import fold_accuracies, fold_cells


def bootstrap_kfold(
    distances: np.ndarray,
    genuine: np.ndarray,
    folds: np.ndarray,
    subjects: np.ndarray | None,
    *,
    replicates: int = 1000,
    seed: int = 0,
) -> Interval:
    """Interval of the mean accuracy of :func:`facekd.metrics.verification.kfold_distances`.

    A pair counts as often as the people in it were drawn, in its own fold, and thresholds are chosen anew.

    Args:
        distances: (p,) squared distances of unit vectors.
        genuine: (p,) whether a pair is of one person.
        folds: (p,) fold number of each pair.
        subjects: (p, 2) the two subjects of each pair, as integers; None resamples pairs, which gives too narrow an
            interval wherever people occur more than once.
        replicates: Samples drawn, at least 1.
        seed: Of the draws.

    Returns:
        The 2.5 % and 97.5 % quantiles of the mean over the folds that hold a pair; replicates with fewer than two such
        folds are passed over, and with none left the interval is (0, 1).

    Raises:
        ValueError: As :func:`facekd.metrics.verification.kfold_distances`, or subjects that do not fit the pairs.

    Example:
        >>> same, folds = np.array([True, False, True, False]), np.array([0, 0, 1, 1])
        >>> bootstrap_kfold(np.array([0.5, 1.5, 0.5, 1.5]), same, folds, np.full((4, 2), 7), replicates=20)
        (1.0, 1.0)
    """
    cell, shape = fold_cells(distances, genuine, folds)
    people, count = dense_subjects(subjects, cell.size)
    left, right = people[:, 0], np.where(people[:, 0] == people[:, 1], count, people[:, 1])
    size = int(np.prod(shape))
    means = np.full((replicates, 1), np.nan)
    for replicate in range(replicates):
        drawn = np.append(multiplicities(replicate, count, seed), 1)
        counts = np.bincount(cell, weights=drawn[left] * drawn[right], minlength=size).reshape(shape)
        held = counts.sum(axis=(0, 2)) > 0
        if held.sum() > 1:
            means[replicate] = fold_accuracies(counts[:, held])[0].mean()
    return quantiles(means)[0]
