"""Comparisons that failed: what they count as, so that no failure can raise a figure.

Where a template failed there is no score, and whatever stands in for it may flatter the model: a failed template that
would have been behind the hardest impostors lets the threshold fall, and the TPR rises. So a failed comparison is an
error at every threshold:

- a failed genuine comparison is missed at every threshold;
- a failed impostor comparison counts as accepted when a threshold is chosen, at every threshold. An FPR that allows
  fewer false accepts than comparisons failed is refused;
- at the threshold so chosen it is what a system would make of it, a non-match: false accepts that are told do not
  hold it;
- a search ranks a failed template of another person before every mate.

Scores the failed templates would have had can only be kinder, so TPR, AUC, TPIR and ranks are at most what they would
be without the failures. (The EER takes failures as errors as well, but it is no monotone figure.) The other convention,
by which a failed comparison is a non-match and nothing else (NIST's ``frvt11.h``: similarity -1), is told beside it.
"""

from __future__ import annotations

import numpy as np

UNSCORED = (-1.0, 1.0)
"""What stands below and above all scores where every comparison failed."""


def as_errors(genuine: np.ndarray, impostor: np.ndarray) -> tuple[int, int]:
    """Put failed comparisons where they are errors at every threshold that a living score could be.

    Args:
        genuine: (g,) float scores, NaN where a comparison failed; there the next number below every score is written.
        impostor: (i,) likewise; the next number above every score.

    Returns:
        How many genuine and how many impostor comparisons failed.

    Example:
        >>> genuine, impostor = np.array([0.5, np.nan]), np.array([np.nan, 0.25, 0.75])
        >>> as_errors(genuine, impostor)
        (1, 1)
        >>> bool(genuine[1] < 0.25), bool(impostor[0] > 0.75)
        (True, True)
    """
    lost = np.isnan(genuine), np.isnan(impostor)
    counts = int(lost[0].sum()), int(lost[1].sum())
    if any(counts):
        below, above = beyond(genuine, impostor)
        genuine[lost[0]], impostor[lost[1]] = below, above
    return counts


def as_non_matches(scores: np.ndarray) -> np.ndarray:
    """The scores with failed comparisons below all others, genuine or not.

    Args:
        scores: (p,) float, NaN where a comparison failed.

    Example:
        >>> found = as_non_matches(np.array([0.5, np.nan, 0.25]))
        >>> bool(found[1] < found.min(initial=1, where=[True, False, True]))
        True
    """
    return np.where(np.isnan(scores), beyond(scores, scores)[0], scores)


def beyond(genuine: np.ndarray, impostor: np.ndarray) -> tuple[np.floating, np.floating]:
    """The next number below every score and the next above, in the precision of the scores.

    Args:
        genuine: (g,) scores, NaN where a comparison failed.
        impostor: (i,) likewise.

    Example:
        >>> beyond(np.full(1, np.nan), np.full(2, np.nan))
        (np.float64(-1.0), np.float64(1.0))
    """
    kind = genuine.dtype.type
    living = [side for side in (genuine, impostor) if not np.isnan(side).all()]
    if not living:
        return kind(UNSCORED[0]), kind(UNSCORED[1])
    least, most = min(np.nanmin(side) for side in living), max(np.nanmax(side) for side in living)
    return np.nextafter(least, kind(-np.inf)), np.nextafter(most, kind(np.inf))
