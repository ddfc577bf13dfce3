"""Exact figures of all pairs of a list of any length: nothing the size of the matrix of scores is ever held.

One sweep over the tiles counts the impostor scores by bin and keeps the highest; a second, for ranks that lie deeper,
looks at the few bins they fall in. Around each rank that decides, scores are computed again in float64, so thresholds,
TPRs and the EER are those of the whole sorted list. Of impostor pairs never more than :data:`MOST_KEPT` and two tiles'
twice are held, however they crowd: where too many lie around a rank, their scores are counted
(:mod:`facekd.metrics.swept_stretches`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from facekd.metrics.allowed import allowed_accepts
from facekd.metrics.genuine_pairs import GenuinePairs, genuine_pairs
from facekd.metrics.pair_tiles import TILE, TILE_OF_ACCELERATOR, Kept, Rows, sweep
from facekd.metrics.roc import Eer, OperatingPoint, Refused, eer_within, point_within, showable
from facekd.metrics.score_bins import BINS, SLACK, bin_edges, bin_of
from facekd.metrics.swept_stretches import complete_from, crossing_at, rank_at, stretches_around
from facekd.metrics.verification import unit_sides

MOST_KEPT = 6_000_000
"""Impostor pairs kept by the first sweep at most, 12 bytes each."""


@dataclass(frozen=True)
class SweptPairs:
    """Figures of all pairs.

    Attributes:
        points: Operating points of the FPRs that can be shown.
        refused: The others.
        eer: The equal error rate.
        auc: Area under the ROC curve.
        auc_error: The most by which ``auc`` may be off: scores in one bin are not told apart.
        genuine: The genuine pairs.
        highest: The highest impostor pairs; their scores are products in float32, or cosines where tiles were rounded
            or more crowd in one bin than are kept. Of pairs that crowd so none is told, and there may be no others.
        impostors: Impostor pairs in all.
        bins: (BINS,) impostor pairs by bin.
        rows: The images, sorted by subject.
        order: (n,) where each row stood in what was given.

    Example:
        >>> sweep_all_pairs(np.eye(3), np.array([1, 1, 2]), [0.5]).impostors
        2
    """

    points: list[OperatingPoint]
    refused: list[Refused]
    eer: Eer
    auc: float
    auc_error: float
    genuine: GenuinePairs
    highest: Kept
    impostors: int
    bins: Tensor
    rows: Rows
    order: Tensor


def sweep_all_pairs(
    embeddings: Tensor | np.ndarray,
    labels: Tensor | np.ndarray,
    fprs: Sequence[float],
    *,
    gallery: Tensor | np.ndarray | None = None,
    tile: int | None = None,
    most_kept: int = MOST_KEPT,
    rounded: bool | None = None,
) -> SweptPairs:
    """Operating points, EER and AUC of every pair i < j of a list of images.

    Scores are cosines computed in float64 and rounded to float32, as :func:`facekd.metrics.all_pairs.all_pair_scores`
    gives them; thresholds, TPRs and the EER equal those of the whole list.

    Args:
        embeddings: (n, dim), of any length; on a GPU the work is done there.
        labels: (n,) integers; equal labels are one subject.
        fprs: Wanted FPRs, each in (0, 1).
        gallery: (n, dim) other embeddings of the same images, for image j; image i, which comes first by label and
            then by place, is looked up in ``embeddings``.
        tile: Rows and columns of a tile; by the device where None.
        most_kept: Impostor pairs to keep for FPRs that accept many, and around deeper ranks, which take a second sweep
            or, where more crowd around them, a third.
        rounded: Multiply the tiles in TF32, which accelerators do faster, and compute more pairs around each threshold
            again; on an accelerator only where None. It changes no threshold, TPR or EER; the AUC is told with a larger
            ``auc_error``.

    Raises:
        ValueError: Shapes that do not fit, a zero or non-finite embedding, no genuine or no impostor pair, more than
            :data:`facekd.metrics.genuine_pairs.MOST_GENUINE` genuine pairs, or an FPR outside (0, 1).

    Example:
        >>> faces = np.array([[1.0, 0.0], [1.0, 0.2], [0.0, 1.0], [0.3, 1.0]])
        >>> found = sweep_all_pairs(faces, np.array([4, 4, 9, 9]), [0.8, 0.1])
        >>> found.points[0].tpr, found.eer.value, found.refused[0].needed
        (1.0, 0.0, 30)
    """
    rows, order = sorted_rows(embeddings, labels, gallery)
    accelerated = rows.probe.device.type != "cpu"
    rows = replace(rows, rounded=accelerated if rounded is None else rounded)
    tile = tile or (TILE_OF_ACCELERATOR if accelerated else TILE)
    impostors = int((len(rows.ends) - rows.ends).sum())
    genuine = genuine_pairs(rows)
    if not (genuine.scores.numel() and impostors):
        raise ValueError(f"{genuine.scores.numel()} genuine and {impostors} impostor pairs")
    shown, refused = showable(fprs, impostors)
    ranks = [allowed_accepts(fpr, impostors) for fpr in shown]
    keep = 2 * max((place for place in ranks if 2 * place < most_kept), default=0) + min(10_000, most_kept)
    bins, highest = sweep(rows, min(keep, impostors), tile)
    ordered = genuine.scores.sort().values
    crossing = _crossing(ordered, bins)
    asked = [*(rank_at(place) for place in ranks), crossing_at(crossing, ordered)]
    stretches = stretches_around(rows, bins, highest, asked, tile, most_kept)
    area, error = _area(ordered, bins, rows.error)
    precision = torch.float32
    return SweptPairs(
        points=[point_within(ordered, s, fpr, precision) for s, fpr in zip(stretches, shown, strict=False)],
        refused=refused,
        eer=eer_within(ordered, stretches[-1], precision),
        auc=area,
        auc_error=error,
        genuine=genuine,
        highest=_scored_again(rows, highest, bins) if rows.factors.tf32 or highest.crowded else highest,
        impostors=impostors,
        bins=bins,
        rows=rows,
        order=order,
    )


def sorted_rows(
    embeddings: Tensor | np.ndarray, labels: Tensor | np.ndarray, gallery: Tensor | np.ndarray | None = None
) -> tuple[Rows, Tensor]:
    """Unit vectors sorted by subject, and where each stood.

    Args:
        embeddings: (n, dim), of any length.
        labels: (n,) integers; equal labels are one subject.
        gallery: (n, dim) other embeddings of the same images, for the second of a pair.

    Raises:
        ValueError: Shapes that do not fit, or a zero or non-finite embedding.

    Example:
        >>> rows, order = sorted_rows(np.eye(3), np.array([7, 2, 7]))
        >>> rows.subjects.tolist(), rows.ends.tolist(), order.tolist()
        ([0, 1, 1], [1, 3, 3], [1, 0, 2])
    """
    probe, others = unit_sides(embeddings, gallery)
    given = torch.as_tensor(labels, device=probe.device)
    if given.shape != probe.shape[:1]:
        raise ValueError(f"{tuple(given.shape)} labels for {probe.shape[0]} embeddings")
    subjects, order = torch.unique(given, return_inverse=True)[1].sort(stable=True)
    first = probe[order]
    second = first if others is probe else others[order]
    return Rows(first, second, subjects, torch.searchsorted(subjects, subjects, right=True)), order


def _scored_again(rows: Rows, kept: Kept, counts: Tensor) -> Kept:
    """The highest pairs with their cosines, but those below which others may lie that were not kept."""
    low = complete_from(rows, kept.first, counts)
    near = (kept.scores >= low - rows.error - SLACK).nonzero().flatten()
    scores = rows.exact(kept.left[near], kept.right[near])
    chosen = near[scores >= low]
    return Kept(scores[scores >= low], kept.left[chosen], kept.right[chosen], kept.first, kept.last, kept.crowded)


def _crossing(genuine: Tensor, bins: Tensor) -> int:
    """How many impostors are higher than where misses and false accepts cross, to a bin."""
    higher = bins.flip(0).cumsum(0).flip(0)
    missed = torch.searchsorted(genuine, bin_edges().to(genuine))
    balance = missed.double() / genuine.numel() - higher.double() / higher[0]
    at = int(torch.searchsorted(balance, 0.0))
    return min(int(higher[min(at, BINS - 1)]), int(higher[0]) - 1)


def _area(genuine: Tensor, bins: Tensor, error: float) -> tuple[float, float]:
    """The AUC and the most it may be off."""
    upto = bins.cumsum(0)
    sure = upto[bin_of(genuine - error - SLACK).long() - 1].sum().item()
    possible = upto[bin_of(genuine + error + SLACK).long()].sum().item()
    pairs = genuine.numel() * int(upto[-1])
    return (sure + possible) / (2 * pairs), (possible - sure) / (2 * pairs)
