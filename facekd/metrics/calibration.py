"""From a score to the probability that two images show one person, and the other ways a threshold is written.

The probability is that of one person where both answers were equally likely beforehand: genuine and impostor pairs
weigh the same in all, however many there are of each. A prior of another size moves the log-odds by its own.

Papers: Platt, "Probabilistic Outputs for Support Vector Machines", 1999 (logistic); Zadrozny and Elkan, "Transforming
Classifier Scores into Accurate Multiclass Probability Estimates", KDD 2002 (isotonic); Sen, Banerjee and Woodroofe,
"Inconsistency of Bootstrap: The Grenander Estimator", Annals of Statistics 2010 (fewer draws for a monotone fit).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from facekd.metrics.resampling import multiplicities, quantiles

KNOTS = np.round(np.linspace(-0.2, 1.0, 25), 2)
"""Scores at which the probability is told with its interval."""
FEWER = 2 / 3
"""The isotonic interval draws the number of people to this power: with as many draws as people it is too narrow."""
CELLS = 10_000
"""Scores are counted in so many cells before anything is fitted: a fit costs the same for any number of pairs."""


@dataclass(frozen=True, eq=False)
class Calibration:
    """Probabilities of one person by score.

    Attributes:
        slope: Of the log-odds by score.
        intercept: The log-odds at score 0.
        steps: (k, 2) scores and isotonic probabilities, both ascending; between them it is linear.
        low: (25,) lower ends of the 95 % interval of the logistic probability at :data:`KNOTS`.
        high: (25,) upper ends.
        isotonic_low: (25,) lower ends of the 95 % interval of the isotonic probability at :data:`KNOTS`.
        isotonic_high: (25,) upper ends.

    Example:
        >>> ends = KNOTS * 0, KNOTS * 0 + 1
        >>> line = Calibration(10.0, -4.0, np.array([[0.1, 0.2], [0.6, 0.9]]), *ends, *ends)
        >>> float(line.probability(np.array([0.4]))[0]), line.isotonic(np.array([0.35, 0.9])).round(2).tolist()
        (0.5, [0.55, 0.9])
    """

    slope: float
    intercept: float
    steps: np.ndarray
    low: np.ndarray
    high: np.ndarray
    isotonic_low: np.ndarray
    isotonic_high: np.ndarray

    def probability(self, scores: np.ndarray, prior: float = 0.5) -> np.ndarray:
        """Logistic probabilities.

        Args:
            scores: Cosines.
            prior: How likely one person was beforehand, in (0, 1).
        """
        odds = self.intercept + self.slope * np.asarray(scores, dtype=float) + math.log(prior / (1 - prior))
        return _sigmoid(odds)

    def isotonic(self, scores: np.ndarray) -> np.ndarray:
        """Isotonic probabilities, at equal odds beforehand; those of the ends beyond them."""
        return np.interp(np.asarray(scores, dtype=float), *self.steps.T)


def calibrate(
    genuine: np.ndarray,
    impostor: np.ndarray,
    subjects: tuple[np.ndarray, np.ndarray] | None = None,
    *,
    replicates: int = 200,
    seed: int = 0,
) -> Calibration:
    """Fit probabilities to scores, with an interval by resampling people.

    Args:
        genuine: (g,) cosines of pairs of one person.
        impostor: (i,) cosines of pairs of two.
        subjects: The two subjects (g, 2) and (i, 2) of every pair, as integers from 0 up; None resamples pairs.
        replicates: Samples drawn for the interval.
        seed: Of the draws.

    Raises:
        ValueError: An empty side, or a score outside [-1, 1].

    Example:
        >>> draw = np.random.default_rng(0)
        >>> found = calibrate(draw.normal(0.5, 0.1, 4000), draw.normal(0.0, 0.1, 9000), replicates=5)
        >>> abs(float(found.probability(np.array([0.25]))[0]) - 0.5) < 0.05  # half-way between the two
        True
    """
    sides = [np.asarray(side, dtype=float) for side in (genuine, impostor)]
    for name, side in zip(("genuine", "impostor"), sides, strict=True):
        if side.ndim != 1 or not side.size:
            raise ValueError(f"{name}: shape {side.shape} where at least one score in one dimension is needed")
        if not (np.abs(side) <= 1 + 1e-6).all():
            raise ValueError(f"{name}: scores outside -1 to 1 are no cosines")
    cells = [np.clip(((side + 1) * (CELLS / 2)).astype(int), 0, CELLS - 1) for side in sides]
    ones = [np.ones(side.size) for side in sides]
    positive, negative = (_shares(*both) for both in zip(cells, ones, strict=True))
    slope, intercept = _logistic(positive, negative)
    drawn, stepped, steps = [], [], _isotonic(positive, negative)
    people = subjects or tuple(np.arange(side.size)[:, None].repeat(2, axis=1) for side in sides)
    count = 1 + max(int(side.max()) for side in people)
    for replicate in range(replicates):
        for power in (1.0, FEWER):
            weights = _replicate_weights(people, count, replicate, seed, power, pairs=subjects is None)
            if all(side.sum() for side in weights):
                shares = [_shares(*both) for both in zip(cells, weights, strict=True)]
                if power == 1:
                    line = _logistic(*shares)
                    drawn.append(_sigmoid(line[1] + line[0] * KNOTS))
                else:
                    stepped.append(np.interp(KNOTS, *_isotonic(*shares).T))
    low, high = np.array(quantiles(np.array(drawn).reshape(-1, KNOTS.size))).T
    number = count if subjects is not None else min(side.size for side in sides)
    return Calibration(slope, intercept, steps, low, high, *_isotonic_ends(steps, stepped, number))


def distance_of(cosine: float) -> float:
    """The Euclidean distance of unit vectors of a cosine; accept where the distance is at most this.

    Args:
        cosine: In [-1, 1].

    Example:
        >>> distance_of(1.0), distance_of(0.5)
        (0.0, 1.0)
    """
    return math.sqrt(max(0.0, 2 - 2 * cosine))


def percent_of(cosine: float) -> float:
    """A cosine as the percentage that some programs show: -1 is 0 %, 1 is 100 %. It is no probability.

    Args:
        cosine: In [-1, 1].

    Example:
        >>> percent_of(0.0), percent_of(1.0)
        (50.0, 100.0)
    """
    return 50 * (1 + cosine)


def _sigmoid(odds: np.ndarray) -> np.ndarray:
    return np.asarray(0.5 * (1 + np.tanh(odds / 2)))


def _isotonic_ends(steps: np.ndarray, drawn: list[np.ndarray], number: int) -> tuple[np.ndarray, np.ndarray]:
    """The interval out of fits to fewer people: an isotonic fit is off by the cube root of their number."""
    low, high = np.array(quantiles(np.array(drawn).reshape(-1, KNOTS.size))).T
    if not drawn:
        return low, high
    middle, shrink = np.interp(KNOTS, *steps.T), (_fewer(number, FEWER) / number) ** (1 / 3)
    return np.clip(middle + shrink * (low - middle), 0, 1), np.clip(middle + shrink * (high - middle), 0, 1)


def _fewer(number: int, power: float) -> int:
    return round(number**power)


def _replicate_weights(
    subjects: tuple[np.ndarray, ...], count: int, replicate: int, seed: int, power: float, *, pairs: bool
) -> list[np.ndarray]:
    """How often each pair counts: as often as both its subjects were drawn, once per draw for a pair of one subject."""
    if pairs:
        sizes = [len(side) for side in subjects]
        return [multiplicities(replicate, n, seed + place, _fewer(n, power)) for place, n in enumerate(sizes)]
    times = multiplicities(replicate, count, seed, _fewer(count, power))
    return [np.where(side[:, 0] == side[:, 1], times[side[:, 0]], times[side].prod(axis=1)) for side in subjects]


def _shares(cells: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """The share of a side in each cell."""
    counted = np.bincount(cells, weights=weights, minlength=CELLS)
    return np.asarray(counted / counted.sum())


def _logistic(positive: np.ndarray, negative: np.ndarray) -> tuple[float, float]:
    from sklearn.linear_model import LogisticRegression

    scores, truth, weights = _table(positive, negative)
    fitted = LogisticRegression(C=1e4, tol=1e-8, max_iter=500).fit(scores[:, None], truth, sample_weight=weights)
    return float(fitted.coef_[0, 0]), float(fitted.intercept_[0])


def _isotonic(positive: np.ndarray, negative: np.ndarray) -> np.ndarray:
    """Scores and probabilities (k, 2): where a flat stretch begins and where it ends."""
    from sklearn.isotonic import isotonic_regression

    held = np.flatnonzero(positive + negative)
    both = (positive + negative)[held]
    fitted = isotonic_regression(positive[held] / both, sample_weight=both, y_min=0, y_max=1)
    steps = np.flatnonzero(np.diff(fitted) != 0)
    kept = np.unique(np.concatenate([[0], steps, steps + 1, [held.size - 1]]))
    return np.stack([_centres()[held[kept]], fitted[kept]], axis=1)


def _centres() -> np.ndarray:
    """The score that each cell stands for."""
    return np.asarray((np.arange(CELLS) + 0.5) * (2 / CELLS) - 1)


def _table(positive: np.ndarray, negative: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Scores, truth and weights of the cells that hold pairs; the weights sum to twice a thousand."""
    centres = _centres()
    held = [side > 0 for side in (positive, negative)]
    scores = np.concatenate([centres[side] for side in held])
    truth = np.repeat([1, 0], [int(side.sum()) for side in held])
    return scores, truth, 1000 * np.concatenate([positive[held[0]], negative[held[1]]])
