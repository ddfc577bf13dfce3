"""The scores around the ranks that decide: held where they are few, counted by value where they crowd.

A stretch of exact scores comes from the pairs of a few bins. Where these are more than may be held - a collapsed model
puts all into one bin - another sweep counts how often each score occurs among them, so that memory does not depend on
how the scores lie.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from facekd.metrics.pair_tiles import Kept, Rows, gather
from facekd.metrics.score_bins import SLACK, bin_edges, bins_around
from facekd.metrics.score_counts import Counted, Span, count_scores, score_of, span
from facekd.metrics.scores import Stretch, rank

FIRST_MARGIN = 16

Window = tuple[int, int]
"""First and last of some bins."""


@dataclass(frozen=True)
class Asked:
    """A place in the list of impostor scores around which they are needed.

    Attributes:
        place: How many are higher, perhaps to a bin.
        held: Whether a stretch holds what is needed.
        lies: Which of the values of a stretch it is, if its scores are known to a cell.

    Example:
        >>> rank_at(1).lies(Stretch(torch.tensor([0.1, 0.4, 0.7]), 0, 3))
        1
    """

    place: int
    held: Callable[[Stretch], bool]
    lies: Callable[[Stretch], int]


def rank_at(place: int) -> Asked:
    """The score with ``place`` higher ones, and the next distinct ones on either side.

    Args:
        place: Rank from the top, from 0.

    Example:
        >>> rank_at(1).held(Stretch(torch.tensor([0.1, 0.4, 0.4]), 0, 3))
        True
        >>> rank_at(1).held(Stretch(torch.tensor([0.4, 0.4]), 1, 3))  # what comes below is not known
        False
    """

    def held(stretch: Stretch) -> bool:
        at = stretch.total - place - 1
        if not stretch.below <= at < stretch.end:
            return False
        score = stretch.at(at)
        lower, higher = stretch.rank(score), stretch.rank(score, right=True)
        held_higher = higher == stretch.total or higher < stretch.end
        return held_higher and (lower == 0 or lower > stretch.below)

    return Asked(place, held, lambda stretch: stretch.index(stretch.total - place - 1))


def crossing_at(place: int, genuine: Tensor) -> Asked:
    """The scores between which misses and false accepts cross.

    Args:
        place: How many impostors are higher, to a bin.
        genuine: (g,) ascending scores.

    Example:
        >>> asked = crossing_at(1, torch.tensor([0.3, 0.9]))
        >>> whole = Stretch(torch.tensor([0.1, 0.5]), 0, 2)
        >>> asked.held(whole), asked.held(Stretch(torch.tensor([0.1]), 0, 2)), asked.lies(whole)
        (True, False, 1)
    """

    def excess(stretch: Stretch, score: Tensor) -> int:
        return rank(genuine, score) * stretch.total - (stretch.total - stretch.rank(score)) * genuine.numel()

    def held(stretch: Stretch) -> bool:
        begins = stretch.below == 0 or excess(stretch, stretch.values[0]) <= 0
        return begins and (stretch.ends or excess(stretch, stretch.values[-1]) >= 0)

    def lies(stretch: Stretch) -> int:
        at = partial(excess, stretch)
        return bisect_right(range(stretch.values.numel()), 0, key=lambda index: at(stretch.values[index])) - 1

    return Asked(place, held, lies)


def exact_stretch(rows: Rows, kept: Kept, counts: Tensor) -> Stretch:
    """The impostor scores of some bins, computed again in float64, but those so near their edges that others may mix.

    Args:
        rows: The images.
        kept: Every pair of these bins.
        counts: (BINS,) impostor pairs by bin.

    Example:
        >>> from facekd.metrics.pair_tiles import sweep
        >>> unit = torch.tensor([[1.0, 0.0], [0.6, 0.8], [0.0, 1.0]], dtype=torch.float64)
        >>> rows = Rows(unit, unit, torch.arange(3), torch.arange(1, 4))
        >>> counts, kept = sweep(rows, 3)
        >>> exact_stretch(rows, kept.within(30000, 60000), counts).values.tolist()
        [0.0, 0.6000000238418579, 0.800000011920929]
    """
    exact = rows.exact(kept.left, kept.right).sort().values
    low, high = complete_from(rows, kept.first, counts), _complete_to(rows, kept.last, counts)
    inside = exact[(exact >= low) & (exact < high)]
    below = int(counts[: kept.first].sum()) + int((exact < low).sum())
    return Stretch(inside, below, int(counts.sum()))


def complete_from(rows: Rows, first: int, counts: Tensor) -> float:
    """The score from which on every pair lies in a bin or in higher ones.

    Args:
        rows: The images.
        first: The bin.
        counts: (BINS,) impostor pairs by bin.

    Example:
        >>> rows = Rows(*torch.eye(2, dtype=torch.float64).repeat(2, 1, 1), torch.arange(2), torch.arange(1, 3))
        >>> complete_from(rows, 32768, torch.ones(65536)) > 0.0, complete_from(rows, 32768, torch.zeros(65536))
        (True, -inf)
    """
    return float(bin_edges()[first]) + rows.error + SLACK if int(counts[:first].sum()) else -torch.inf


def _complete_to(rows: Rows, last: int, counts: Tensor) -> float:
    """The score below which every pair lies in a bin or in lower ones."""
    return float(bin_edges()[last + 1]) - rows.error - SLACK if int(counts[last + 1 :].sum()) else torch.inf


def stretches_around(
    rows: Rows, counts: Tensor, highest: Kept, asked: Sequence[Asked], tile: int, most: int
) -> list[Stretch]:
    """The stretch that decides for each place, from the highest pairs or, where it lies deeper, from another sweep.

    Args:
        rows: The images.
        counts: (BINS,) impostor pairs by bin.
        highest: The highest pairs.
        asked: The places.
        tile: Rows and columns of a tile.
        most: Pairs to hold at most beside the highest; where there are more, scores are counted.

    Example:
        >>> from facekd.metrics.pair_tiles import sweep
        >>> three = torch.eye(3, dtype=torch.float64)
        >>> rows = Rows(three, three, torch.arange(3), torch.arange(1, 4))
        >>> counts, highest = sweep(rows, 1, 2)
        >>> (found,) = stretches_around(rows, counts, highest, [rank_at(1)], 2, 0)
        >>> found.values.tolist(), found.times.tolist()
        ([0.0], [3])
    """
    found: dict[int, Stretch] = {}
    margins = dict.fromkeys(range(len(asked)), FIRST_MARGIN)
    windows = {at: bins_around(counts, asked[at].place, margins[at], rows.reach) for at in margins}
    while windows:
        deep = {at: window for at, window in windows.items() if window[0] < highest.first}
        few = {at: window for at, window in deep.items() if _pairs(counts, window) * len(deep) <= most}
        crowded = {at: window for at, window in deep.items() if at not in few}
        kept = dict(zip(few, gather(rows, list(few.values()), tile), strict=True)) if few else {}
        kept |= {at: highest.within(*window) for at, window in windows.items() if at not in deep}
        tried = {at: exact_stretch(rows, pairs, counts) for at, pairs in kept.items()}
        tried |= counted_stretches(rows, counts, crowded, asked, tile) if crowded else {}
        found |= {at: one for at, one in tried.items() if one.values.numel() and asked[at].held(one)}
        for at in [*windows]:
            before = windows.pop(at)
            while at not in found and windows.get(at, before) == before:
                margins[at] *= 16
                windows[at] = bins_around(counts, asked[at].place, margins[at], rows.reach)
    return [found[at] for at in range(len(asked))]


def _pairs(counts: Tensor, window: Window) -> int:
    """Pairs in some bins and, because they may lie at their edges, in the next ones."""
    return int(counts[window[0] - 1 : window[1] + 2].sum())


def counted_stretches(
    rows: Rows, counts: Tensor, windows: Mapping[int, Window], asked: Sequence[Asked], tile: int
) -> dict[int, Stretch]:
    """The scores of some bins, distinct and counted, as many as are needed.

    Args:
        rows: The images.
        counts: (BINS,) impostor pairs by bin.
        windows: The bins for each of some of ``asked``.
        asked: The places.
        tile: Rows and columns of a tile.

    Returns:
        For each window all its scores, or those of the cell that decides and of the next that are not empty.

    Example:
        >>> from facekd.metrics.pair_tiles import sweep
        >>> three = torch.eye(3, dtype=torch.float64)
        >>> rows = Rows(three, three, torch.arange(3), torch.arange(1, 4))
        >>> counts, _ = sweep(rows, 1, 2)
        >>> found = counted_stretches(rows, counts, {0: (32767, 32769)}, [rank_at(1)], 2)[0]
        >>> found.values.tolist(), found.times.tolist(), found.below, found.total
        ([0.0], [3], 0, 3)
    """
    spans = [
        span(*window, complete_from(rows, window[0], counts), _complete_to(rows, window[1], counts))
        for window in windows.values()
    ]
    coarse = dict(zip(windows, zip(spans, count_scores(rows, spans, tile), strict=True), strict=True))
    total = int(counts.sum())
    found = {at: _stretch([told], int(counts[: one.first].sum()), total) for at, (one, told) in coarse.items()}
    finer: dict[int, list[Span]] = {}
    for at, (one, told) in coarse.items():
        if one.shift and told.keys.numel():
            lies = min(max(asked[at].lies(found[at]), 0), told.keys.numel() - 1)
            lowest = told.keys[max(0, lies - 1) : lies + 2].tolist()
            finer[at] = [Span(one.first, one.last, low, min(low + (1 << one.shift), one.high)) for low in lowest]
    fine = iter(count_scores(rows, [one for cells in finer.values() for one in cells], tile) if finer else ())
    for at, cells in finer.items():
        found[at] = _stretch([next(fine) for _ in cells], int(counts[: cells[0].first].sum()), total)
    return found


def _stretch(cells: Sequence[Counted], below: int, total: int) -> Stretch:
    """Counted scores from the lowest of some cells on, between which there are none."""
    values = torch.cat([score_of(one.keys) for one in cells])
    return Stretch(values, below + cells[0].below, total, torch.cat([one.times for one in cells]))
