"""95 % intervals of the TPR of swept pairs: the bootstrap over subjects, at a cost not growing with the pairs."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch

from facekd.metrics.allowed import allowed_accepts
from facekd.metrics.intervals import HighImpostors, bootstrap_highest
from facekd.metrics.resampling import Interval, multiplicities
from facekd.metrics.swept_pairs import SweptPairs

MOST_WEIGHED = 400_000
"""Scores of a side weighed in every replicate at most."""


def bootstrap_swept_pairs(
    swept: SweptPairs, fprs: Sequence[float], *, replicates: int = 1000, seed: int = 0, most: int = MOST_WEIGHED
) -> list[Interval | None]:
    """Interval of the TPR at each FPR.

    Where an FPR accepts too many impostors to weigh them all in every replicate, every second (third, ...) of them by
    score stands for its neighbours, and likewise of too many genuine pairs. That widens nothing that can be seen: the
    draw of the people moves the TPR far more.

    Args:
        swept: What :func:`facekd.metrics.swept_pairs.sweep_all_pairs` found.
        fprs: FPRs in (0, 1).
        replicates: Samples drawn, at least 1.
        seed: Of the draws.
        most: Scores of a side to weigh at most.

    Returns:
        As :func:`facekd.metrics.intervals.bootstrap_pairs`; None for an FPR that accepts more impostors than half of
        those that were kept.

    Example:
        >>> from facekd.metrics.swept_pairs import sweep_all_pairs
        >>> faces = np.array([[1.0, 0.0], [1.0, 0.1], [0.0, 1.0], [0.1, 1.0]])
        >>> bootstrap_swept_pairs(sweep_all_pairs(faces, np.array([0, 0, 1, 1]), [0.8]), [0.8], replicates=50)
        [(1.0, 1.0)]
    """
    subjects = swept.rows.subjects.cpu()
    images = torch.bincount(subjects).numpy()
    weights = (multiplicities(number, images.size, seed) * images for number in range(replicates))
    totals = [int(times.sum() ** 2 - (times**2).sum()) // 2 for times in weights]
    every = -(-swept.genuine.scores.numel() // most)
    order = swept.genuine.scores.argsort()[every // 2 :: every].cpu()
    genuine = swept.genuine.scores.cpu()[order].numpy(), subjects[swept.genuine.left.cpu()[order].long()].numpy()
    found: list[Interval | None] = []
    for fpr in fprs:
        impostors = _every(swept, allowed_accepts(fpr, swept.impostors), totals, most)
        try:
            (interval,) = bootstrap_highest(
                genuine, impostors, [fpr], subjects=images.size, replicates=replicates, seed=seed
            )
            found.append(interval)
        except _NotKept:
            found.append(None)
    return found


class _NotKept(Exception):
    """A replicate is decided by pairs that were not kept."""


def _every(swept: SweptPairs, accepts: int, totals: Sequence[int], most: int) -> HighImpostors:
    """The highest impostors, thinned so that those an FPR accepts can be weighed."""
    kept = swept.highest
    step = math.ceil(2 * accepts / most) or 1
    order = kept.scores.argsort(descending=True)[step // 2 :: step].cpu()
    scores = kept.scores.cpu()[order].numpy()
    left, right = (swept.rows.subjects.cpu()[side.cpu()[order].long()].numpy() for side in (kept.left, kept.right))
    asked = [0]

    def highest(count: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        if asked[-1] >= scores.size and kept.scores.numel() < swept.impostors:
            raise _NotKept
        asked.append(count)
        return scores[:count], left[:count], right[:count]

    return HighImpostors(swept.impostors // step, highest, lambda replicate: totals[replicate] // step)
