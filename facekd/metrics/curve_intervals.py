"""95 % intervals of the area under the ROC curve and of the equal error rate, by resampling the people.

As for the TPR at an FPR (:mod:`facekd.metrics.intervals`), a pair counts as often as the people in it were drawn, and
area and crossing are found anew in every replicate. Where pairs are too many to weigh each of them a thousand times,
those that lie around the crossing are weighed more closely than the rest.

Papers: Bolle, Ratha and Pankanti, "Error analysis of pattern recognition systems: the subsets bootstrap", 2004.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from facekd.metrics.resampling import Interval, multiplicities, quantiles

MOST_WEIGHED = 200_000
"""Scores of a side weighed in every replicate at most."""
AROUND = 5000
"""How many scores beyond twice those on the wrong side of the crossing are weighed closely."""


@dataclass(frozen=True, eq=False)
class Side:
    """The scores of the genuine or of the impostor pairs.

    Attributes:
        scores: (n,) finite, in any order.
        people: The two subjects (k, 2) behind chosen places, numbered from 0.

    Example:
        >>> side = Side(np.array([0.5, 0.25]), lambda places: np.array([[0, 0], [1, 2]])[places])
        >>> side.people(np.array([1])).tolist()
        [[1, 2]]
    """

    scores: np.ndarray
    people: Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True)
class CurveIntervals:
    """What the bootstrap gives of one curve.

    Attributes:
        auc: Of the area.
        eer: Of the equal error rate.

    Example:
        >>> CurveIntervals((0.98, 0.99), (0.01, 0.02)).auc
        (0.98, 0.99)
    """

    auc: Interval
    eer: Interval


@dataclass(frozen=True, eq=False)
class _Weighed:
    """Ascending scores, where the two factors of each weight stand, and for how many neighbours each score stands."""

    scores: np.ndarray
    left: np.ndarray
    right: np.ndarray
    stand: np.ndarray

    def weights(self, drawn: np.ndarray) -> np.ndarray:
        return np.asarray(drawn[self.left] * drawn[self.right] * self.stand)


def bootstrap_curve(
    genuine: Side,
    impostor: Side,
    subjects: int,
    error: float,
    *,
    replicates: int = 1000,
    seed: int = 0,
    most: int = MOST_WEIGHED,
) -> CurveIntervals:
    """Intervals of AUC and EER.

    Up to ``most`` scores of a side every one is weighed, and the intervals are those of the definition. Of more, every
    second (third, ...) stands for its neighbours by score, those around the crossing apart from the rest. That moves an
    end by a small part of the width, for the draw of the people moves the figures far more.

    Args:
        genuine: Pairs of one person.
        impostor: Pairs of two.
        subjects: How many people there are.
        error: The equal error rate of all pairs: how deep the crossing lies.
        replicates: Samples drawn, at least 1.
        seed: Of the draws; those of a replicate are those of :func:`facekd.metrics.intervals.multiplicities`.
        most: Scores of a side to weigh at most.

    Returns:
        The 2.5 % and 97.5 % quantiles over the replicates; those without a genuine or an impostor pair are passed over,
        and with none left the interval is (0, 1).

    Raises:
        ValueError: A side without scores.

    Example:
        >>> people = np.array([[0, 0], [1, 1]]), np.array([[0, 1], [1, 0]])
        >>> sides = [Side(np.array(s), p.__getitem__) for s, p in zip(([0.9, 0.8], [0.2, 0.1]), people)]
        >>> bootstrap_curve(*sides, 2, 0.0, replicates=50)
        CurveIntervals(auc=(1.0, 1.0), eer=(0.0, 0.0))
    """
    if not (genuine.scores.size and impostor.scores.size):
        raise ValueError(f"{genuine.scores.size} genuine and {impostor.scores.size} impostor pairs")
    positive = _weighed(genuine, genuine.scores.argsort(kind="stable"), subjects, error, most)
    negative = _weighed(impostor, (-impostor.scores).argsort(kind="stable"), subjects, error, most)
    beaten = [np.searchsorted(negative.scores, positive.scores, side=side) for side in ("left", "right")]
    thresholds = np.unique(np.concatenate([positive.scores, negative.scores]))
    below = [np.append(np.searchsorted(side.scores, thresholds), side.scores.size) for side in (positive, negative)]
    found = np.full((replicates, 2), np.nan)
    for replicate in range(replicates):
        drawn = np.append(multiplicities(replicate, subjects, seed), 1)
        weights = positive.weights(drawn)
        lost, passed = (np.append(0, side.cumsum()) for side in (weights, negative.weights(drawn)))
        if lost[-1] and passed[-1]:
            area = float(weights @ (passed[beaten[0]] + passed[beaten[1]])) / (2.0 * lost[-1] * passed[-1])
            found[replicate] = area, _crossing(lost, passed, *below)
    return CurveIntervals(*quantiles(found))


def _weighed(side: Side, order: np.ndarray, subjects: int, error: float, most: int) -> _Weighed:
    """Scores of a side, from those that are decided wrongly first to the others, thinned where they are too many."""
    near = order.size if order.size <= most else min(order.size, 2 * int(error * order.size) + AROUND)
    places, stand = [], []
    for part in (order[:near], order[near:]):
        step = max(1, -(-part.size // (most if near == order.size else max(1, most // 2))))
        chosen = part[step // 2 :: step]
        counts = np.full(chosen.size, step)
        if chosen.size:
            counts[-1] += part.size - counts.sum()
        places.append(chosen)
        stand.append(counts)
    chosen, counts = np.concatenate(places), np.concatenate(stand)
    left, right = np.asarray(side.people(chosen)).T
    right = np.where(left == right, subjects, right)
    again = side.scores[chosen].argsort(kind="stable")
    return _Weighed(side.scores[chosen][again], left[again], right[again], counts[again])


def _crossing(lost: np.ndarray, passed: np.ndarray, missed_at: np.ndarray, rejected_at: np.ndarray) -> float:
    """The equal error rate of a replicate, from cumulated weights and where each threshold stands in them."""
    genuine, impostor = int(lost[-1]), int(passed[-1])

    def errors(at: int) -> tuple[int, int]:
        return int(lost[missed_at[at]]), impostor - int(passed[rejected_at[at]])

    def excess(at: int) -> int:
        missed, accepted = errors(at)
        return missed * impostor - accepted * genuine

    places = range(missed_at.size)
    sides = bisect_right(places, 0, key=excess) - 1, bisect_left(places, 0, key=excess)
    return min(missed / genuine + accepted / impostor for missed, accepted in map(errors, sides)) / 2
