"""How often each score occurs where more pairs lie than can be held: counts in cells, never the pairs.

Scores are float32 numbers, which are ordered as the integers that have their bits. So a stretch of them is cut into
cells of equally many numbers; of a cell that decides, another pass counts each number by itself.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from facekd.metrics.pair_tiles import Rows, tiles
from facekd.metrics.score_bins import EDGE, bin_of

CELLS = 1 << 18
"""Counts of one stretch at most, 8 bytes each."""
BLOCK = 1 << 22
"""Products looked at together."""
SPARSE = 32
"""Where fewer than one product in so many is wanted, each is computed by itself."""


@dataclass(frozen=True)
class Span:
    """Consecutive float32 numbers, of pairs whose products lie in some bins.

    Attributes:
        first: The lowest of the bins, above 0.
        last: The highest.
        low: Key of the lowest number.
        high: Key of the first number above.

    Example:
        >>> [(one.cells, one.shift) for one in (Span(1, 9, 0, 5), Span(1, 9, 0, CELLS + 1))]
        [(5, 0), (131073, 1)]
    """

    first: int
    last: int
    low: int
    high: int

    @property
    def shift(self) -> int:
        """Bits by which numbers of one cell may differ."""
        return max(0, (self.high - self.low - 1).bit_length() - (CELLS - 1).bit_length())

    @property
    def cells(self) -> int:
        """How many cells it has."""
        return max(1, ((self.high - self.low - 1) >> self.shift) + 1)


@dataclass(frozen=True)
class Counted:
    """How many pairs a span has in each of its cells that has any.

    Attributes:
        keys: (k,) key of the lowest number of each cell, ascending.
        times: (k,) pairs.
        below: Pairs of its bins below its lowest number.

    Example:
        >>> Counted(key_of(torch.tensor([0.5])), torch.tensor([7]), 3).below
        3
    """

    keys: Tensor
    times: Tensor
    below: int


def key_of(scores: Tensor) -> Tensor:
    """Integers, as int32, in the order of float32 scores: 1 apart where no other number lies between.

    Args:
        scores: Of any shape, finite.

    Example:
        >>> keys = key_of(torch.tensor([-1.0, -0.0, 0.0, 1.0, 1.0 + 2**-23]))
        >>> keys.diff().tolist()
        [1065353216, 0, 1065353216, 1]
    """
    bits = scores.view(torch.int32)
    return torch.where(bits < 0, -(bits & 0x7FFFFFFF), bits)


def score_of(keys: Tensor) -> Tensor:
    """The float32 scores of keys.

    Args:
        keys: Integers of any shape.

    Example:
        >>> score_of(key_of(torch.tensor([-0.75, 0.0, 0.1]))).tolist()
        [-0.75, 0.0, 0.10000000149011612]
    """
    sizes = keys.abs().to(torch.int32).view(torch.float32)
    return torch.where(keys < 0, -sizes, sizes)


def span(first: int, last: int, low: float, high: float) -> Span:
    """The numbers between two scores, of pairs of some bins.

    Args:
        first: The lowest bin.
        last: The highest.
        low: The lowest score.
        high: A score above all.

    Example:
        >>> span(1, 9, 1.0, 1.0 + 2**-22).high - span(1, 9, 1.0, 2.0).low
        2
    """
    ends = torch.tensor([max(low, -EDGE), min(high, EDGE)], dtype=torch.float64)
    rounded = ends.to(torch.float32)
    keys = key_of(rounded).to(torch.int64) + (rounded < ends)  # the first number that is not below
    return Span(first, last, *keys.tolist())


def count_scores(rows: Rows, spans: Sequence[Span], tile: int) -> list[Counted]:
    """Count the scores of all impostor pairs in some spans: cosines in float64, rounded to float32.

    Memory is :data:`CELLS` counts for each span, a tile and some numbers for each of :data:`BLOCK` products.

    Args:
        rows: The images.
        spans: Where to count.
        tile: Rows and columns of a tile.

    Example:
        >>> three = torch.eye(3, dtype=torch.float64)
        >>> rows = Rows(three, three, torch.arange(3), torch.arange(1, 4))
        >>> (found,) = count_scores(rows, [Span(32700, 32800, -5, 5)], 2)
        >>> found.keys.tolist(), found.times.tolist(), found.below
        ([0], [3], 0)
    """
    windows = {(one.first, one.last): [at for at, other in enumerate(spans) if _same(one, other)] for one in spans}
    counts = [torch.zeros(one.cells + 2, dtype=torch.int64, device=rows.probe.device) for one in spans]
    for top, left, products in _strips(rows, tile):
        bins = bin_of(products)
        for (first, last), places in windows.items():
            keys = key_of(_scores(rows, (bins >= first) & (bins <= last), top, left))
            for at in places if keys.numel() else ():
                counts[at] += _cells(spans[at], keys)
    return [_told(one, found) for one, found in zip(spans, counts, strict=True)]


def _same(one: Span, other: Span) -> bool:
    return (one.first, one.last) == (other.first, other.last)


def _cells(one: Span, keys: Tensor) -> Tensor:
    """(cells + 2,) how many keys lie below a span, in each of its cells, and above it."""
    cells = keys.to(torch.int64).sub_(one.low).bitwise_right_shift_(one.shift).clamp_(-1, one.cells)
    cells.masked_fill_(keys >= one.high, one.cells)
    return torch.bincount(cells.add_(1), minlength=one.cells + 2)


def _told(one: Span, counts: Tensor) -> Counted:
    filled = counts[1:-1].nonzero().flatten()
    return Counted((filled << one.shift) + one.low, counts[1:-1][filled], int(counts[0]))


def _strips(rows: Rows, tile: int) -> Iterator[tuple[int, int, Tensor]]:
    """First row, first column and products of parts of tiles."""
    for top, left, products in tiles(rows, tile):
        for part in products.split(max(1, BLOCK // products.shape[1])):
            yield top, left, part
            top += len(part)


def _scores(rows: Rows, chosen: Tensor, top: int, left: int) -> Tensor:
    """(k,) the scores of the chosen pairs of a strip, in no order."""
    count = int(chosen.sum())
    if count * SPARSE < chosen.numel():
        places = chosen.nonzero()
        return rows.exact(places[:, 0] + top, places[:, 1] + left)
    probe, gallery = rows.probe[top : top + len(chosen)], rows.gallery[left : left + chosen.shape[1]]
    return (probe @ gallery.T).to(torch.float32)[chosen]
