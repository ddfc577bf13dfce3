"""The probes a search goes most wrong with, and the templates they are taken for."""

from __future__ import annotations

import torch
from torch import Tensor

from facekd.metrics.details import HARDEST, extreme_places
from facekd.metrics.gallery_search import FAILED_MATE, FAILED_OTHER, NOBODY, Search
from facekd.metrics.templates import gallery_scores


def hard_probes(search: Search, *, genuine: bool, count: int = HARDEST) -> Tensor:
    """The probes with the highest scores with other people, or with the lowest with their mates; worst first.

    Args:
        search: What one gallery says to each probe.
        genuine: Whether mates are looked at.
        count: How many are wanted.

    Returns:
        (k,) places of probes; fewer than ``count`` where fewer have such a score. Failed ones have none.

    Example:
        >>> mate, rank = torch.tensor([0.9, 0.2, -2.0]), torch.tensor([1, 2, 0])
        >>> one = Search(mate, rank, torch.tensor([0.1, 0.3, 0.6]), torch.empty(0))
        >>> hard_probes(one, genuine=True).tolist(), hard_probes(one, genuine=False, count=2).tolist()
        ([1, 0], [2, 1])
    """
    scores = search.mate if genuine else search.highest
    told = (scores > FAILED_MATE) & (scores < FAILED_OTHER)
    there = torch.nonzero(search.mated & told if genuine else told).flatten()
    if not there.numel():
        return there
    return there[extreme_places(scores[there], count, highest=not genuine)]


def best_matches(
    probes: Tensor, probe_subjects: Tensor, gallery: Tensor, gallery_subjects: Tensor, *, genuine: bool
) -> Tensor:
    """The template each of a few probes scores highest with, of its own subject or of the others.

    Args:
        probes: (p, dim) as :func:`facekd.metrics.gallery_search.search_gallery` takes them.
        probe_subjects: (p,) integers.
        gallery: (g, dim), likewise.
        gallery_subjects: (g,) integers.
        genuine: Whether templates of the probe's subject are looked at, or all but those.

    Returns:
        (p,) places in the gallery.

    Raises:
        ValueError: A probe that has no such template.

    Example:
        >>> rows = torch.tensor([[1.0, 0.0], [0.6, 0.8], [0.8, 0.6]])
        >>> best_matches(rows[:1], torch.tensor([7]), rows, torch.tensor([7, 9, 9]), genuine=False).tolist()
        [2]
    """
    scores = gallery_scores(probes, gallery, ~gallery.any(dim=1)).nan_to_num_(nan=FAILED_MATE)
    wanted = (probe_subjects[:, None] == gallery_subjects[None]) == genuine
    if not bool(wanted.any(dim=1).all()):
        raise ValueError(f"a probe has no {'mate' if genuine else 'other subject'} in the gallery")
    return scores.masked_fill_(~wanted, NOBODY).argmax(dim=1)
