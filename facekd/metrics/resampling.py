"""Drawing people with replacement, and what the draws say of a figure: the bootstrap over subjects.

Paper: Efron and Tibshirani, "An Introduction to the Bootstrap", 1993 (percentile interval).
"""

from __future__ import annotations

import numpy as np

LEVEL = 0.95
"""The share of samples whose interval should hold the truth."""

Interval = tuple[float, float]


def multiplicities(replicate: int, subjects: int, seed: int = 0, draws: int | None = None) -> np.ndarray:
    """How often each subject is drawn in a replicate, decided by seed and number alone.

    Args:
        replicate: Its number.
        subjects: How many there are.
        seed: Of the whole bootstrap.
        draws: How many are drawn; as many as there are where None.

    Example:
        >>> int(multiplicities(3, 50).sum()), int(multiplicities(3, 50, draws=14).sum())
        (50, 14)
    """
    drawn = np.random.default_rng([seed, replicate]).integers(0, subjects, subjects if draws is None else draws)
    return np.bincount(drawn, minlength=subjects)


def quantiles(figures: np.ndarray) -> list[Interval]:
    """The 2.5 % and 97.5 % quantiles of each figure over the replicates that have all of them; (0, 1) where none has.

    Args:
        figures: (replicates, n), NaN where a replicate has none.

    Example:
        >>> quantiles(np.array([[0.5, 0.25], [0.5, 0.25], [np.nan, 0.0]]))
        [(0.5, 0.5), (0.25, 0.25)]
    """
    defined = figures[~np.isnan(figures).any(axis=1)]
    if not len(defined):
        return [(0.0, 1.0)] * figures.shape[1]
    low, high = np.quantile(defined, [(1 - LEVEL) / 2, (1 + LEVEL) / 2], axis=0)
    return list(zip(low.tolist(), high.tolist(), strict=True))


def dense_subjects(subjects: np.ndarray | None, pairs: int) -> tuple[np.ndarray, int]:
    """Subjects numbered from 0 without gaps, and how many there are; every pair its own subject where they are unknown.

    Args:
        subjects: (p, 2) the two subjects of each pair, as integers, or None.
        pairs: How many there are.

    Raises:
        ValueError: Subjects of another number of pairs.

    Example:
        >>> people, count = dense_subjects(np.array([[7, 7], [7, 9]]), 2)
        >>> people.tolist(), count
        ([[0, 0], [0, 1]], 2)
    """
    if subjects is None:
        return np.arange(pairs)[:, None].repeat(2, axis=1), pairs
    if subjects.shape != (pairs, 2):
        raise ValueError(f"subjects of shape {subjects.shape} for {pairs} pairs")
    names, dense = np.unique(subjects, return_inverse=True)
    return dense.reshape(-1, 2), names.size
