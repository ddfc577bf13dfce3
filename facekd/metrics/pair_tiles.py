"""One pass over the matrix of all cosines, tile by tile: how they are distributed, and which are the highest.

The tiles are products in float32, or on accelerators in TF32, of which :mod:`facekd.metrics.tile_products` says how far
they can be from the cosines. So a tile decides about all pairs but those within that distance of a threshold, and only
these few are computed again in float64. Memory is a few tiles and the pairs that are kept, which are never more than
asked for, whatever the number of images and however their scores crowd.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from facekd.metrics.score_bins import BINS, EDGE, bin_of, bounds
from facekd.metrics.tile_products import Factors, arithmetic, factors

TILE = 1024
TILE_OF_ACCELERATOR = 8192


@dataclass(frozen=True)
class Rows:
    """Unit vectors sorted by subject.

    Attributes:
        probe: (n, dim) float64; the first of each pair is looked up here.
        gallery: (n, dim) float64; the second.
        subjects: (n,) ascending subject numbers.
        ends: (n,) first row after those of the same subject.
        rounded: Whether tiles are products of rows rounded to TF32.

    Example:
        >>> two = torch.eye(2, dtype=torch.float64)
        >>> Rows(two, two, torch.arange(2), torch.arange(1, 3)).exact(torch.tensor([0]), torch.tensor([1])).tolist()
        [0.0]
    """

    probe: Tensor
    gallery: Tensor
    subjects: Tensor
    ends: Tensor
    rounded: bool = False

    @cached_property
    def factors(self) -> Factors:
        """What tiles are products of."""
        return factors(self.probe, self.gallery, rounded=self.rounded)

    @property
    def error(self) -> float:
        """More than a product can differ from the cosine rounded to float32."""
        return self.factors.error

    @property
    def reach(self) -> int:
        """Bins on either side of one in which a score may lie that its products are counted to."""
        return 1 + math.ceil(2 * self.error / (2 * EDGE / BINS))

    def exact(self, left: Tensor, right: Tensor, block: int = 1 << 12) -> Tensor:
        """Cosines of chosen pairs: float64 products rounded to float32.

        Args:
            left: (k,) rows of ``probe``.
            right: (k,) rows of ``gallery``.
            block: Pairs worked on at a time.
        """
        parts = zip(left.split(block), right.split(block), strict=True)
        found = [(self.probe[i.long()] * self.gallery[j.long()]).sum(dim=1).to(torch.float32) for i, j in parts]
        return torch.cat(found) if found else self.probe.new_empty(0, dtype=torch.float32)


@dataclass(frozen=True)
class Kept:
    """The impostor pairs of some bins, and perhaps some below them, with their float32 products.

    Attributes:
        scores: (k,) products, in no order.
        left: (k,) rows of the first images, as int32.
        right: (k,) rows of the second.
        first: The lowest of the bins of which no pair is missing.
        last: The highest.
        crowded: Whether bins below held more than could be kept, and what is kept of them may be a part.

    Example:
        >>> pairs = Kept(torch.tensor([0.0, 0.5]), torch.zeros(2), torch.ones(2), 1, BINS - 1)
        >>> pairs.within(32000, 33000).scores.tolist()
        [0.0]
    """

    scores: Tensor
    left: Tensor
    right: Tensor
    first: int
    last: int
    crowded: bool = False

    def within(self, first: int, last: int) -> Kept:
        """Those of fewer bins."""
        scores, left, right = _between(self.scores, self.left, self.right, first, last)
        bins = bin_of(scores)
        chosen = ((bins >= first) & (bins <= last)).nonzero().flatten()
        return Kept(scores[chosen], left[chosen], right[chosen], first, last)


def _between(scores: Tensor, left: Tensor, right: Tensor, first: int, last: int) -> tuple[Tensor, Tensor, Tensor]:
    """The pairs of some bins, and perhaps some at their edges."""
    low, high = bounds(first, last)
    chosen = ((scores >= low) & (scores <= high)).nonzero().flatten()
    return scores[chosen], left[chosen], right[chosen]


class _Collector:
    """Pairs of some bins, picked from tiles; below bin ``whole`` only those above a product.

    They lie in a room of their own that doubles as it fills. Kept where they were picked, each tile's few pairs would
    split the memory that its large intermediate tables have left, and no later table would fit there again.
    """

    def __init__(self, first: int, last: int, device: torch.device) -> None:
        self.first, self.last = first, last
        self.whole, self.above = first, -EDGE
        self.room = (torch.empty(0, device=device), *torch.empty((2, 0), dtype=torch.int32, device=device))
        self.held = 0

    def add(self, tile: Tensor, top: int, left: int) -> None:
        low, high = bounds(self.first, self.last)
        chosen = tile > self.above if self.above > low else tile >= low
        if self.last < BINS - 1:
            chosen &= tile <= high
        places = chosen.flatten().nonzero().flatten()
        if places.numel():
            rows = places // tile.shape[1]
            columns = places - rows * tile.shape[1] + left
            self._put(self.held, tile.flatten()[places], rows + top, columns)

    def joined(self) -> tuple[Tensor, Tensor, Tensor]:
        scores, left, right = (column[: self.held] for column in self.room)
        return scores, left, right

    def kept(self) -> Kept:
        return Kept(*self.joined(), self.first, self.last).within(self.first, self.last)

    def forget_below(self, first: int, most: int) -> None:
        """Leave out what lies below a bin and, if more than ``most`` are left, all but so many of the highest."""
        self.first, self.whole = max(first, self.first), max(first, self.whole)
        scores, left, right = _between(*self.joined(), self.first, self.last)
        if scores.numel() > most:
            chosen = scores.topk(most, sorted=False).indices
            scores, left, right = scores[chosen], left[chosen], right[chosen]
            lowest = scores.min()
            self.above, self.first, self.whole = lowest.item(), int(bin_of(lowest)), int(bin_of(lowest)) + 1
        self._put(0, scores, left, right)

    def _put(self, at: int, *pairs: Tensor) -> None:
        """Put pairs behind the first ``at``, in place of all that are held there."""
        end = at + pairs[0].numel()
        if end > self.room[0].numel():
            larger = [column.new_empty(2 * end) for column in self.room]
            for wide, column in zip(larger, self.room, strict=True):
                wide[:at] = column[:at]
            self.room = (larger[0], larger[1], larger[2])
        for column, values in zip(self.room, pairs, strict=True):
            column[at:end] = values
        self.held = end


def sweep(rows: Rows, keep: int, tile: int = TILE) -> tuple[Tensor, Kept]:
    """Count the products of all impostor pairs by bin, and keep the highest pairs.

    Args:
        rows: The images.
        keep: How many pairs to keep, at least 1; twice as many and two tiles' are held at a time.
        tile: Rows and columns of a tile.

    Returns:
        Counts (BINS,) int64, and the highest ``keep`` pairs or somewhat more, never above twice as many and a tile's;
        all of them where there are fewer. Where more than that crowd in the bin they begin in, some of that bin are
        kept and :attr:`Kept.first` is the next.

    Example:
        >>> three = torch.eye(3, dtype=torch.float64)
        >>> counts, kept = sweep(Rows(three, three, torch.arange(3), torch.arange(1, 4)), 2)
        >>> int(counts.sum()), kept.scores.tolist()
        (3, [0.0, 0.0, 0.0])
    """
    counts = torch.zeros(BINS, dtype=torch.int64, device=rows.probe.device)
    total, seen = int((len(rows.ends) - rows.ends).sum()), 0
    found, work = _Collector(1, BINS - 1, counts.device), rows.probe.new_empty((tile, tile), dtype=torch.float32)
    most = 2 * keep + tile * tile
    for top, left, products in tiles(rows, tile):
        bins = bin_of(products, work[: products.shape[0], : products.shape[1]])
        counts += torch.bincount(bins.flatten(), minlength=BINS)
        found.add(products, top, left)
        if seen == 0:  # what share is worth collecting, by the first tile; if too little, a rank takes another sweep
            seen = int(counts[1:].sum())
            found.forget_below(_lowest_bin(counts, 2 * keep * seen // total + 1) if seen else 1, most)
        if found.held > most:
            found.forget_below(_lowest_bin(counts, keep), most // 2)
    counts[0] = 0
    if found.held > keep:
        found.forget_below(_lowest_bin(counts, keep), most)
    return counts, Kept(*found.joined(), found.whole, found.last, crowded=found.above > -EDGE)


def _lowest_bin(counts: Tensor, keep: int) -> int:
    """The highest bin with at least ``keep`` scores in it and above; 1 where there are fewer."""
    return max(1, BINS - 1 - int(torch.searchsorted(counts.flip(0).cumsum(0), keep)))


def gather(rows: Rows, windows: Sequence[tuple[int, int]], tile: int = TILE) -> list[Kept]:
    """The impostor pairs whose products lie in some ranges of bins, in one more pass.

    Args:
        rows: The images.
        windows: First and last bin of each range, above 0.
        tile: Rows and columns of a tile.

    Example:
        >>> three = torch.eye(3, dtype=torch.float64)
        >>> rows = Rows(three, three, torch.arange(3), torch.arange(1, 4))
        >>> [kept.scores.numel() for kept in gather(rows, [(1, 10), (32768, 32770)])]
        [0, 3]
    """
    found = [_Collector(first, last, rows.probe.device) for first, last in windows]
    for top, left, products in tiles(rows, tile):
        for collector in found:
            collector.add(products, top, left)
    return [collector.kept() for collector in found]


def tiles(rows: Rows, tile: int) -> Iterator[tuple[int, int, Tensor]]:
    """First row, first column and products of every tile with impostor pairs; all other pairs are at ``-EDGE``.

    A tile's memory is that of the next one.

    Args:
        rows: The images.
        tile: Rows and columns of a tile.

    Example:
        >>> two = torch.eye(2, dtype=torch.float64)
        >>> rows = Rows(two, two, torch.arange(2), torch.arange(1, 3))
        >>> [(top, left, products.tolist()) for top, left, products in tiles(rows, 1)]
        [(0, 0, [[-1.00390625]]), (0, 1, [[0.0]]), (1, 1, [[-1.00390625]])]
    """
    count, made = len(rows.ends), rows.factors
    probe, gallery = made.probe, made.gallery
    ends = rows.ends.tolist()
    columns = torch.arange(count, device=rows.ends.device)
    held = probe.new_empty(tile * tile)
    for top in range(0, count, tile):
        bottom = min(top + tile, count)
        for left in range(top, count, tile):
            right = min(left + tile, count)
            shape = (bottom - top, right - left)
            products = held[: shape[0] * shape[1]].view(shape)
            with arithmetic(made.tf32):
                torch.mm(probe[top:bottom], gallery[left:right].T, out=products)
            if left < ends[bottom - 1]:
                products.masked_fill_(columns[left:right] < rows.ends[top:bottom, None], -EDGE)
            yield top, left, products
