"""Scores of every pair of an identity list, without ever holding the whole matrix."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from facekd.metrics.verification import unit_sides

MOST_PAIRS = 2_000_000_000
"""More pairs than this are not held: their scores alone take 8 GB."""


@dataclass(frozen=True)
class AllPairs:
    """The scores of all pairs i < j of images sorted by label.

    Impostor scores lie row by row: those of image i with ``ends[i]``, ``ends[i] + 1``, ... start at ``offsets[i]``.

    Attributes:
        genuine: (g,) float32 cosines of pairs of one subject.
        impostor: (m,) float32 cosines of pairs of two subjects.
        genuine_subjects: (g,) subject of each genuine pair, 0..subjects-1 in the order of the labels.
        image_subjects: (n,) subject of each image, sorted.
        ends: (n,) first image after those of the same subject.
        offsets: (n,) where the impostor scores of an image begin.

    Example:
        >>> pairs = all_pair_scores(np.eye(3), np.array([1, 0, 1]))
        >>> pairs.genuine.tolist(), pairs.genuine_subjects.tolist(), pairs.image_subjects.tolist()
        ([0.0], [1], [0, 1, 1])
    """

    genuine: Tensor
    impostor: Tensor
    genuine_subjects: Tensor
    image_subjects: Tensor
    ends: Tensor
    offsets: Tensor


def count_pairs(labels: Tensor | np.ndarray) -> tuple[int, int]:
    """Genuine and impostor pairs of a list of labels.

    Args:
        labels: (n,) integers; equal labels are one subject.

    Example:
        >>> count_pairs(np.array([7, 7, 7, 9]))
        (3, 3)
    """
    counts = torch.as_tensor(labels).unique(return_counts=True)[1]
    total = int(counts.sum())
    genuine = int((counts * (counts - 1) // 2).sum())
    return genuine, total * (total - 1) // 2 - genuine


def all_pair_scores(
    embeddings: Tensor | np.ndarray,
    labels: Tensor | np.ndarray,
    *,
    gallery: Tensor | np.ndarray | None = None,
    block: int = 2048,
) -> AllPairs:
    """Cosine of every pair i < j, exact: float64 products rounded to float32.

    Memory is 4 bytes a pair and three tiles of ``block`` x ``block`` float64 numbers.

    Args:
        embeddings: (n, dim), of any length.
        labels: (n,) integers; equal labels are one subject.
        gallery: (n, dim) other embeddings of the same images, for image j; image i, which comes first by label and
            then by place, is looked up in ``embeddings``.
        block: Rows and columns of a tile.

    Raises:
        ValueError: Shapes that do not fit, a zero or non-finite embedding, or more than :data:`MOST_PAIRS` pairs.

    Example:
        >>> pairs = all_pair_scores(np.array([[1.0, 0.0], [0.0, 2.0], [3.0, 4.0]]), np.array([5, 5, 8]))
        >>> pairs.genuine.tolist(), [round(score, 3) for score in pairs.impostor.tolist()]
        ([0.0], [0.6, 0.8])
    """
    rows, others = unit_sides(embeddings, gallery)
    given = torch.as_tensor(labels, device=rows.device)
    if given.shape != rows.shape[:1]:
        raise ValueError(f"{tuple(given.shape)} labels for {rows.shape[0]} embeddings")
    genuine, impostor = count_pairs(given)
    if genuine + impostor > MOST_PAIRS:
        raise ValueError(
            f"{genuine + impostor:,} pairs of {rows.shape[0]:,} images, above the limit of {MOST_PAIRS:,}; "
            "sweep_all_pairs holds none of them"
        )
    subjects, order = torch.unique(given, return_inverse=True)[1].sort(stable=True)
    ends = torch.searchsorted(subjects, subjects, right=True)
    pairs = AllPairs(
        genuine=rows.new_empty(genuine, dtype=torch.float32),
        impostor=rows.new_empty(impostor, dtype=torch.float32),
        genuine_subjects=subjects.repeat_interleave(ends - 1 - torch.arange(len(ends), device=ends.device)),
        image_subjects=subjects,
        ends=ends,
        offsets=_starts(len(ends) - ends),
    )
    _fill(pairs, rows[order], others[order], block)
    return pairs


def impostor_subjects(pairs: AllPairs, positions: Tensor) -> Tensor:
    """The two subjects behind chosen impostor scores.

    Args:
        pairs: What :func:`all_pair_scores` gave.
        positions: (k,) places in ``pairs.impostor``.

    Returns:
        (k, 2) subjects.

    Example:
        >>> pairs = all_pair_scores(np.eye(3), np.array([2, 4, 6]))
        >>> impostor_subjects(pairs, torch.tensor([0, 1, 2])).tolist()
        [[0, 1], [0, 2], [1, 2]]
    """
    left = torch.searchsorted(pairs.offsets, positions, right=True) - 1
    right = pairs.ends[left] + positions - pairs.offsets[left]
    return torch.stack([pairs.image_subjects[left], pairs.image_subjects[right]], dim=1)


def _starts(sizes: Tensor) -> Tensor:
    return sizes.cumsum(0) - sizes


def _fill(pairs: AllPairs, rows: Tensor, others: Tensor, block: int) -> None:
    """Write the cosines of sorted unit rows, tile by tile, to where ``pairs`` keeps them."""
    count = len(rows)
    ends, offsets = pairs.ends.tolist(), pairs.offsets.tolist()
    starts = _starts(pairs.ends - 1 - torch.arange(count, device=rows.device)).tolist()
    for top in range(0, count, block):
        for left in range(top, count, block):
            tile = (rows[top : top + block] @ others[left : left + block].T).to(torch.float32)
            right = left + tile.shape[1]
            for row in range(top, min(top + block, count)):
                scores = tile[row - top]
                first, end = max(left, row + 1), min(right, ends[row])
                if first < end:
                    at = starts[row] + first - row - 1
                    pairs.genuine[at : at + end - first] = scores[first - left : end - left]
                first = max(left, ends[row])
                if first < right:
                    at = offsets[row] + first - ends[row]
                    pairs.impostor[at : at + right - first] = scores[first - left :]
