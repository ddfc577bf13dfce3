"""Curve, histogram and hardest pairs of all pairs of which the scores were never held."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from facekd.metrics.allowed import allowed_accepts
from facekd.metrics.details import BINS, curve_fprs, extreme_places, hard_pairs
from facekd.metrics.measured import Curve, Details, HardPair, Histogram
from facekd.metrics.score_bins import bin_edges
from facekd.metrics.swept_pairs import SweptPairs


def swept_details(swept: SweptPairs) -> Details:
    """What pictures of swept pairs are drawn from; thresholds of the curve and edges are met to a bin of 0.00003 and
    the error of the products. No hardest impostors are told where the highest crowd in one bin, more than are kept.

    Args:
        swept: What :func:`facekd.metrics.swept_pairs.sweep_all_pairs` found.

    Example:
        >>> from facekd.metrics.swept_pairs import sweep_all_pairs
        >>> faces = np.array([[1.0, 0.0], [0.6, 0.8], [0.0, 1.0], [0.1, 1.0]])
        >>> found = swept_details(sweep_all_pairs(faces, np.array([0, 0, 1, 1]), [0.8]))
        >>> found.hardest_genuine[0].first, found.hardest_genuine[0].second, int(found.histogram.impostor.sum())
        (0, 1, 4)
    """
    kept, genuine = swept.highest, swept.genuine
    return Details(
        curve=_curve(swept),
        histogram=_histogram(swept),
        hardest_impostor=_hardest(swept, kept.scores, kept.left, kept.right, highest=True),
        hardest_genuine=_hardest(swept, genuine.scores, genuine.left, genuine.right, highest=False),
    )


def _curve(swept: SweptPairs) -> Curve:
    fprs = curve_fprs(swept.impostors)
    above = swept.bins.flip(0).cumsum(0).flip(0)  # scores in a bin and all higher ones
    allowed = torch.tensor([allowed_accepts(float(fpr), swept.impostors) for fpr in fprs], device=above.device)
    lowest = above.numel() - torch.searchsorted(above.flip(0), allowed, right=True)
    edges = torch.cat([bin_edges(), torch.tensor([torch.inf])]).to(swept.genuine.scores)
    ordered = swept.genuine.scores.sort().values
    missed = torch.searchsorted(ordered, edges[lowest]).cpu().numpy()
    return Curve(fprs, (ordered.numel() - missed) / ordered.numel())


def _histogram(swept: SweptPairs) -> Histogram:
    edges = np.arange(-BINS // 2, BINS // 2 + 1) / (BINS // 2)
    at = np.searchsorted(bin_edges().numpy(), edges[1:-1])
    upto = swept.bins.cumsum(0).cpu().numpy()
    impostor = np.diff(upto[at - 1], prepend=0, append=swept.impostors)
    below = np.searchsorted(swept.genuine.scores.sort().values.cpu().numpy(), edges[1:-1].astype(np.float32))
    return Histogram(edges, np.diff(below, prepend=0, append=swept.genuine.scores.numel()), impostor)


def _hardest(swept: SweptPairs, scores: Tensor, left: Tensor, right: Tensor, *, highest: bool) -> tuple[HardPair, ...]:
    if not scores.numel():
        return ()
    places = extreme_places(scores, highest=highest)
    images = swept.order[torch.stack([left[places], right[places]], dim=1).long()]
    return hard_pairs(scores, places, images.cpu())
