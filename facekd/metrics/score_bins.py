"""Bins of equal width that scores are counted in."""

from __future__ import annotations

import torch
from torch import Tensor

BINS = 1 << 16
EDGE = 1 + 2.0**-8
"""Bins lie evenly in [-EDGE, EDGE); products may pass 1 by their error. Bin 0 holds no pair, only what is left out."""
SLACK = 2.0**-21
"""More than rounding can move the edge of a bin."""


def bin_of(scores: Tensor, work: Tensor | None = None) -> Tensor:
    """The bins of float32 scores, as int32.

    Args:
        scores: Of any shape.
        work: Memory for what comes between, of that shape.

    Example:
        >>> bin_of(torch.tensor([-EDGE, 0.0, 1.0])).tolist()
        [0, 32768, 65408]
    """
    return torch.add(scores, EDGE, out=work).mul_(BINS / (2 * EDGE)).to(torch.int32)


def bin_edges() -> Tensor:
    """Where each bin begins, but for :data:`SLACK`, in float64.

    Example:
        >>> bin_edges()[[0, 32768]].tolist()
        [-1.00390625, 0.0]
    """
    return torch.arange(BINS, dtype=torch.float64) * (2 * EDGE / BINS) - EDGE


def bounds(first: int, last: int) -> tuple[float, float]:
    """Scores of some bins lie between these.

    Args:
        first: The lowest bin.
        last: The highest.

    Example:
        >>> low, high = bounds(32768, 32768)
        >>> low < 0 < 3e-5 < high < 4e-5
        True
    """
    width = 2 * EDGE / BINS
    return first * width - EDGE - SLACK, (last + 1) * width - EDGE + SLACK


def bins_around(counts: Tensor, place: int, margin: int, reach: int) -> tuple[int, int]:
    """First and last of the bins that hold the score with ``place`` higher ones and ``margin`` on either side of it.

    Args:
        counts: (BINS,) scores by bin.
        place: Rank from the top, from 0.
        margin: Scores on either side.
        reach: Bins more on either side.

    Example:
        >>> counts = torch.zeros(BINS, dtype=torch.int64)
        >>> counts[[100, 200, 300]] = 10
        >>> bins_around(counts, 12, 1, 3), bins_around(counts, 12, 5, 3)
        ((197, 203), (197, 303))
    """
    higher = counts.flip(0).cumsum(0)
    first_down = int(torch.searchsorted(higher, place - margin, right=True)) if place >= margin else 0
    last_down = int(torch.searchsorted(higher, min(place + margin + 1, int(higher[-1]))))
    return max(1, BINS - 1 - last_down - reach), min(BINS - 1, BINS - 1 - first_down + reach)
