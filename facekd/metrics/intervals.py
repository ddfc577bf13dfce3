"""95 % intervals of the TPR at an FPR, by resampling the people rather than the pairs.

Pairs that share a person are not independent, so an interval that treats them so is far too narrow. Here the subjects
are drawn with replacement; a pair counts as often as the subjects in it were drawn, and the threshold is found again
in every replicate, so its uncertainty is part of the interval.

Papers: Bolle, Ratha and Pankanti, "Error analysis of pattern recognition systems: the subsets bootstrap", 2004;
Efron and Tibshirani, "An Introduction to the Bootstrap", 1993 (percentile interval).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from facekd.metrics.all_pairs import AllPairs, impostor_subjects
from facekd.metrics.allowed import allowed_accepts
from facekd.metrics.resampling import Interval, dense_subjects, multiplicities, quantiles
from facekd.metrics.scores import Scores, ascending


@dataclass(frozen=True)
class _Pairs:
    """Scores in some order, and where in the multiplicities of a replicate the two factors of each weight stand.

    The multiplicities end with a 1: the second factor of a pair of one subject, which counts once per draw.
    """

    scores: np.ndarray
    left: np.ndarray
    right: np.ndarray

    def weights(self, multiplicities: np.ndarray) -> np.ndarray:
        return multiplicities[self.left] * multiplicities[self.right]


def bootstrap_pairs(
    genuine: Scores,
    impostor: Scores,
    subjects: tuple[np.ndarray, np.ndarray] | None,
    fprs: Sequence[float],
    *,
    replicates: int = 1000,
    seed: int = 0,
) -> list[Interval]:
    """Interval of the TPR at each FPR for a list of pairs.

    Args:
        genuine: (g,) scores.
        impostor: (i,) scores.
        subjects: The two subjects (g, 2) and (i, 2) of every pair, as integers; None when nobody knows them: then the
            pairs themselves are resampled, which gives too narrow an interval wherever people occur more than once.
        fprs: FPRs in (0, 1).
        replicates: Samples drawn, at least 1.
        seed: Of the draws; the same seed gives the same interval.

    Returns:
        The 2.5 % and 97.5 % quantiles of the TPR over the replicates, for each FPR. Replicates left without a genuine
        or without an impostor pair have no TPR and are passed over; with none left the interval is (0, 1).

    Raises:
        ValueError: Empty or non-finite scores, or subjects that do not fit them.

    Example:
        >>> people = np.array([[0, 0], [1, 1]]), np.array([[0, 1], [0, 1], [1, 0], [1, 0]])
        >>> bootstrap_pairs([0.9, 0.8], [0.4, 0.3, 0.2, 0.1], people, [0.5], replicates=50)
        [(1.0, 1.0)]
    """
    genuine_scores, impostor_scores = _checked(genuine, "genuine scores"), _checked(impostor, "impostor scores")
    sizes = genuine_scores.size, impostor_scores.size
    if subjects is not None and tuple(len(side) for side in subjects) != sizes:
        raise ValueError(f"subjects of {len(subjects[0])} and {len(subjects[1])} pairs for {sizes[0]} and {sizes[1]}")
    dense, count = dense_subjects(None if subjects is None else np.concatenate(subjects), sum(sizes))
    positive = _ordered(genuine_scores, dense[: sizes[0]], count)
    negative = _ordered(-impostor_scores, dense[sizes[0] :], count)
    below = np.searchsorted(positive.scores, -negative.scores, side="right")
    rates = np.full((replicates, len(fprs)), np.nan)
    for replicate in range(replicates):
        drawn = _drawn(replicate, count, seed)
        weights = negative.weights(drawn).cumsum()
        rates[replicate] = _rates(positive.weights(drawn), weights, below, fprs, int(weights[-1]))
    return quantiles(rates)


def bootstrap_all_pairs(
    pairs: AllPairs, fprs: Sequence[float], *, replicates: int = 1000, seed: int = 0
) -> list[Interval]:
    """Interval of the TPR at each FPR for all pairs of an identity list.

    The number of impostor pairs in a replicate follows from the images per subject, so only the highest impostor
    scores are weighed: some twice as many as the largest FPR accepts, more for the replicates that ask for more.

    Args:
        pairs: What :func:`facekd.metrics.all_pairs.all_pair_scores` gave.
        fprs: FPRs in (0, 1).
        replicates: Samples drawn, at least 1.
        seed: Of the draws.

    Returns:
        As :func:`bootstrap_pairs`, and equal to it for the same scores, subjects and seed.

    Raises:
        ValueError: No genuine or no impostor pair.

    Example:
        >>> from facekd.metrics.all_pairs import all_pair_scores
        >>> pairs = all_pair_scores(np.array([[1.0, 0.0], [1.0, 0.1], [0.0, 1.0], [0.1, 1.0]]), np.array([0, 0, 1, 1]))
        >>> bootstrap_all_pairs(pairs, [0.5], replicates=50)
        [(1.0, 1.0)]
    """
    if not (pairs.genuine.numel() and pairs.impostor.numel()):
        raise ValueError(f"{pairs.genuine.numel()} genuine and {pairs.impostor.numel()} impostor pairs")
    images = torch.bincount(pairs.image_subjects).cpu().numpy()

    def highest(most: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        scores, places = pairs.impostor.topk(most)
        left, right = impostor_subjects(pairs, places).cpu().numpy().T
        return scores.cpu().numpy(), left, right

    def total(replicate: int) -> int:
        times = images * multiplicities(replicate, images.size, seed)
        return int(times.sum() ** 2 - (times**2).sum()) // 2

    genuine = pairs.genuine.cpu().numpy(), pairs.genuine_subjects.cpu().numpy()
    impostors = HighImpostors(pairs.impostor.numel(), highest, total)
    return bootstrap_highest(genuine, impostors, fprs, subjects=images.size, replicates=replicates, seed=seed)


@dataclass(frozen=True)
class HighImpostors:
    """Impostor pairs of which few are looked at.

    Attributes:
        count: Of all.
        highest: Gives that many of the highest, or more where scores tie, from the highest down: scores (k,), and the
            two subjects (k,) and (k,) of each.
        total: Gives the weight of all of them in a replicate, by its number.

    Example:
        >>> few = np.array([0.5, 0.4]), np.array([0, 1]), np.array([1, 2])
        >>> HighImpostors(2, lambda most: few, lambda replicate: 2).total(0)
        2
    """

    count: int
    highest: Callable[[int], tuple[np.ndarray, np.ndarray, np.ndarray]]
    total: Callable[[int], int]


def bootstrap_highest(
    genuine: tuple[np.ndarray, np.ndarray],
    impostors: HighImpostors,
    fprs: Sequence[float],
    *,
    subjects: int,
    replicates: int = 1000,
    seed: int = 0,
) -> list[Interval]:
    """The interval where weighing every impostor in every replicate would take too long.

    Args:
        genuine: (g,) scores and (g,) the subject of each pair.
        impostors: The others.
        fprs: FPRs in (0, 1).
        subjects: How many there are; they are numbered from 0.
        replicates: Samples drawn, at least 1.
        seed: Of the draws.

    Returns:
        As :func:`bootstrap_pairs`, and equal to it for the same scores, subjects and seed.

    Example:
        >>> few = np.array([0.4, 0.3]), np.array([0, 0]), np.array([1, 1])
        >>> weight = lambda replicate: 2 * int(multiplicities(replicate, 2).prod())
        >>> impostors = HighImpostors(2, lambda most: few, weight)
        >>> bootstrap_highest((np.array([0.9, 0.8]), np.array([0, 1])), impostors, [0.5], subjects=2, replicates=50)
        [(1.0, 1.0)]
    """
    positive = _ordered(genuine[0], genuine[1][:, None].repeat(2, axis=1), subjects)
    rates = np.full((replicates, len(fprs)), np.nan)
    weighed = min(impostors.count, 2 * allowed_accepts(max(fprs, default=0.0), impostors.count) + 5000)
    waiting = list(range(replicates)) if fprs else []
    while waiting:
        negative = _Pairs(*impostors.highest(weighed))
        below = np.searchsorted(positive.scores, negative.scores, side="right")
        late = []
        for replicate in waiting:
            drawn = _drawn(replicate, subjects, seed)
            cumulated = negative.weights(drawn).cumsum()
            found = _rates(positive.weights(drawn), cumulated, below, fprs, impostors.total(replicate))
            if found is None:
                late.append(replicate)
            else:
                rates[replicate] = found
        waiting, weighed = late, min(impostors.count, 4 * weighed)
    return quantiles(rates)


def _checked(scores: Scores, name: str) -> np.ndarray:
    """The scores in the order given, once they are known to be usable."""
    ascending(scores, name)
    return scores.detach().cpu().double().numpy() if isinstance(scores, Tensor) else np.asarray(scores, dtype=float)


def _ordered(scores: np.ndarray, subjects: np.ndarray, count: int) -> _Pairs:
    """Pairs in ascending order of score."""
    order = np.argsort(scores, kind="stable")
    left, right = subjects[order].T
    return _Pairs(scores[order], left, np.where(left == right, count, right))


def _drawn(replicate: int, subjects: int, seed: int) -> np.ndarray:
    return np.append(multiplicities(replicate, subjects, seed), 1)


def _rates(
    genuine: np.ndarray, impostor: np.ndarray, below: np.ndarray, fprs: Sequence[float], total: int
) -> np.ndarray | None:
    """TPR of one replicate at each FPR, or None when deeper impostor scores decide.

    Args:
        genuine: Weights, in ascending order of score.
        impostor: Cumulative weights, from the highest score down.
        below: Genuine scores not above each of these impostor scores.
        fprs: FPRs in (0, 1).
        total: Weight of all impostors.
    """
    lost = np.concatenate([[0], genuine.cumsum()])
    if lost[-1] == 0 or total == 0:
        return np.full(len(fprs), np.nan)
    allowed = [allowed_accepts(fpr, total) for fpr in fprs]
    rejected = np.searchsorted(impostor, allowed, side="right")
    if rejected.max(initial=0) == impostor.size:
        return None
    return (lost[-1] - lost[below[rejected]]) / lost[-1]
