"""95 % intervals of the TPR at an FPR for lists of very many pairs, like the 15.7 million of IJB-C."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from facekd.metrics.intervals import HighImpostors, bootstrap_highest
from facekd.metrics.resampling import Interval, multiplicities

MOST_WEIGHTS = 200_000_000
"""Impostor pairs times replicates that are weighed one by one."""

MOST_SUBJECTS = 6000
"""Subjects up to which impostor pairs are counted by their two subjects instead, in a table of at most 144 MB."""

CHUNK = 2**20
ROWS = 256


def bootstrap_listed_pairs(
    genuine: np.ndarray,
    impostor: np.ndarray,
    subjects: tuple[np.ndarray, np.ndarray, np.ndarray],
    fprs: Sequence[float],
    *,
    replicates: int = 1000,
    seed: int = 0,
) -> list[Interval] | None:
    """Interval of the TPR at each FPR for a list of pairs of known subjects, however long.

    Of the impostors only the highest scores are weighed, as for all pairs; how much all of them weigh in a replicate
    follows from how many there are of each two subjects.

    Args:
        genuine: (g,) scores, finite.
        impostor: (i,) scores, finite.
        subjects: (g,) subject of each genuine pair, and the two subjects (i,) and (i,) of each impostor pair; numbers
            from 0 up, with few gaps.
        fprs: FPRs in (0, 1).
        replicates: Samples drawn, at least 1.
        seed: Of the draws.

    Returns:
        As :func:`facekd.metrics.intervals.bootstrap_pairs`, and equal to it for the same scores, subjects and seed.
        None where it would take too much: above both :data:`MOST_WEIGHTS` and :data:`MOST_SUBJECTS`.

    Raises:
        ValueError: No genuine or no impostor pair, or subjects that do not fit them.

    Example:
        >>> people = np.array([0, 1]), np.array([0, 0, 1, 1]), np.array([1, 1, 0, 0])
        >>> bootstrap_listed_pairs(np.array([0.9, 0.8]), np.array([0.4, 0.3, 0.2, 0.1]), people, [0.5], replicates=50)
        [(1.0, 1.0)]
    """
    sizes = tuple(side.size for side in subjects)
    if not (genuine.size and impostor.size) or sizes != (genuine.size, impostor.size, impostor.size):
        raise ValueError(f"subjects of {sizes} for {genuine.size} genuine and {impostor.size} impostor pairs")
    place, count = _places(subjects)
    own, left, right = subjects
    counted = impostor.size * replicates > MOST_WEIGHTS
    if counted and count > MOST_SUBJECTS:
        return None
    drawn = np.stack([multiplicities(number, count, seed) for number in range(replicates)], axis=1)
    totals = _counted(left, right, place, drawn) if counted else _weighed(left, right, place, drawn)

    def highest(most: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        least = np.partition(impostor, impostor.size - most)[impostor.size - most]
        chosen = np.flatnonzero(impostor >= least)
        chosen = chosen[np.argsort(-impostor[chosen], kind="stable")]
        return impostor[chosen], place[left[chosen]], place[right[chosen]]

    impostors = HighImpostors(impostor.size, highest, totals.__getitem__)
    people = genuine, place[own]
    return bootstrap_highest(people, impostors, fprs, subjects=count, replicates=replicates, seed=seed)


def _places(subjects: Sequence[np.ndarray]) -> tuple[np.ndarray, int]:
    """A number without gaps for each subject that occurs, and how many those are."""
    seen = np.zeros(1 + max(int(side.max()) for side in subjects), bool)
    for side in subjects:
        seen[side] = True
    return np.cumsum(seen) - 1, int(seen.sum())


def _weighed(left: np.ndarray, right: np.ndarray, place: np.ndarray, drawn: np.ndarray) -> list[int]:
    """The weight of all impostor pairs in each replicate, pair by pair."""
    first, second = place[left], place[right]
    return [int((times[first] * times[second]).sum()) for times in drawn.T]


def _counted(left: np.ndarray, right: np.ndarray, place: np.ndarray, drawn: np.ndarray) -> list[int]:
    """The same from how many pairs there are of each two subjects: exact below 2**24 of two and 2**53 in all."""
    count = len(drawn)
    table = np.zeros(count * count, np.float32)
    for start in range(0, len(left), CHUNK):
        part = slice(start, start + CHUNK)
        np.add.at(table, place[left[part]] * count + place[right[part]], np.float32(1))
    square, times = table.reshape(count, count), drawn.astype(np.float64)
    totals = np.zeros(drawn.shape[1])
    for start in range(0, count, ROWS):
        rows = slice(start, start + ROWS)
        totals += ((square[rows].astype(np.float64) @ times) * times[rows]).sum(axis=0)
    return [int(total) for total in totals]
