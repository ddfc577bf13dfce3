"""The pairs of one subject, all held: they are few beside the others."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from facekd.metrics.pair_tiles import Rows

MOST_GENUINE = 500_000_000
"""More genuine pairs than this are refused: each takes 12 bytes."""


@dataclass(frozen=True)
class GenuinePairs:
    """Every pair i < j of one subject.

    Attributes:
        scores: (g,) float32 cosines.
        left: (g,) rows of the first images, as int32.
        right: (g,) rows of the second.

    Example:
        >>> GenuinePairs(torch.ones(1), torch.tensor([0]), torch.tensor([1])).scores.numel()
        1
    """

    scores: Tensor
    left: Tensor
    right: Tensor


def genuine_pairs(rows: Rows, block: int = 1 << 22) -> GenuinePairs:
    """Every pair of one subject: subjects with as many images each are multiplied at once.

    Args:
        rows: The images.
        block: Scores computed at a time.

    Raises:
        ValueError: More than :data:`MOST_GENUINE` pairs.

    Example:
        >>> from facekd.metrics.swept_pairs import sorted_rows
        >>> rows, _ = sorted_rows(torch.tensor([[1.0, 0.0], [0.6, 0.8], [0.0, 1.0]]), torch.tensor([3, 3, 8]))
        >>> found = genuine_pairs(rows)
        >>> found.scores.tolist(), found.left.tolist(), found.right.tolist()
        ([0.6000000238418579], [0], [1])
    """
    sizes = torch.bincount(rows.subjects)
    starts = sizes.cumsum(0) - sizes
    count = int((sizes * (sizes - 1) // 2).sum())
    if count > MOST_GENUINE:
        raise ValueError(f"{count:,} genuine pairs, above the limit of {MOST_GENUINE:,}; evaluate fewer images")
    found: list[tuple[Tensor, Tensor, Tensor]] = []
    for size in (size for size in sizes.unique().tolist() if size > 1):
        first, second = torch.triu_indices(size, size, 1, device=sizes.device)
        for firsts in starts[sizes == size].split(max(1, block // size**2)):
            at = firsts[:, None] + torch.arange(size, device=sizes.device)
            scores = (rows.probe[at] @ rows.gallery[at].mT)[:, first, second].to(torch.float32)
            left, right = ((firsts[:, None] + side).to(torch.int32).flatten() for side in (first, second))
            found.append((scores.flatten(), left, right))
    empty = [(rows.probe.new_empty(0, dtype=torch.float32), *(starts[:0].to(torch.int32) for _ in range(2)))]
    return GenuinePairs(*(torch.cat(parts) for parts in zip(*(found or empty), strict=True)))
