"""Searching for probes in a gallery: the mate's score and rank, and the highest scores with others."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from facekd.metrics.templates import gallery_scores

BLOCK_SCORES = 2**23
"""Scores held at a time: 32 MB."""
NOBODY = -2.0
FAILED_MATE, FAILED_OTHER = -1.5, 1.5
"""What failed comparisons score, with a mate and with others: below and above every cosine."""
UNRANKED = 2**31
"""Beyond every rank."""


@dataclass(frozen=True, eq=False)
class Search:
    """What one gallery says to each probe.

    Attributes:
        mate: (p,) float32, highest score with a template of the probe's subject; -2 where the gallery has none, and
            :data:`FAILED_MATE` where all of them, or the probe, failed.
        rank: (p,) int64, 1 and one more for each template of another subject that scores as high or higher; 0 without
            a mate, and :data:`UNRANKED` where that failed.
        highest: (p,) float32, highest score with any template of another subject; -2 where there is none, and
            :data:`FAILED_OTHER` where one of them, or the probe, failed.
        top: (k,) float32, the highest scores of all probes with other subjects, highest first.
        failed: Comparisons with other subjects that failed.
        top_probes: (k,) int64, whose each of ``top`` is; None where none were kept.

    Example:
        >>> rows = torch.tensor([[1.0, 0.0], [0.6, 0.8]])
        >>> found = search_gallery(rows, torch.tensor([7, 9]), rows[:1], torch.tensor([7]))
        >>> found.rank.tolist(), found.highest.tolist()
        ([1, 0], [-2.0, 0.6000000238418579])
    """

    mate: Tensor
    rank: Tensor
    highest: Tensor
    top: Tensor
    failed: int = 0
    top_probes: Tensor | None = None

    @property
    def mated(self) -> Tensor:
        """(p,) whether the gallery holds the probe's subject."""
        return self.rank > 0


def search_gallery(
    probes: Tensor,
    probe_subjects: Tensor,
    gallery: Tensor,
    gallery_subjects: Tensor,
    *,
    keep: int = 0,
    errors: bool = True,
) -> Search:
    """Search for every probe in a gallery: float64 products rounded to float32, so that equal templates tie.

    Memory beyond the embeddings is a few blocks of :data:`BLOCK_SCORES`, however many probes and templates there are.

    Args:
        probes: (p, dim) of length one, or zero where a template failed.
        probe_subjects: (p,) integers.
        gallery: (g, dim), likewise.
        gallery_subjects: (g,) integers.
        keep: How many of the highest scores with other subjects to keep.
        errors: Count a comparison that failed as an error, see :mod:`facekd.metrics.failures`: with a template of
            another subject it scores above every other. As a non-match, and so below every other, where False.

    Raises:
        ValueError: No probe, no gallery, or subjects that do not fit them.

    Example:
        >>> eye, people = torch.eye(3), torch.tensor([0, 1, 2])
        >>> search_gallery(eye, people, eye, torch.tensor([0, 2, 1])).rank.tolist()
        [1, 3, 3]
        >>> eye[2] = 0  # whom does it look like? perhaps everybody
        >>> found = search_gallery(eye[:2], people[:2], eye, people)
        >>> found.rank.tolist(), found.highest.tolist(), found.failed
        ([2, 2], [1.5, 1.5], 2)
    """
    if not (len(probes) and len(gallery)) or (len(probe_subjects), len(gallery_subjects)) != (
        len(probes),
        len(gallery),
    ):
        sizes = f"{len(probes)} probes, {len(gallery)} templates"
        raise ValueError(f"{sizes}, subjects of {len(probe_subjects)} and {len(gallery_subjects)}")
    block = max(1, BLOCK_SCORES // len(gallery))
    absent, other = ~gallery.any(dim=1), FAILED_OTHER if errors else FAILED_MATE
    parts, failed = [], 0
    top, whose = probes.new_empty(0, dtype=torch.float32), probes.new_empty(0, dtype=torch.int64)
    for start in range(0, len(probes), block):
        rows = probes[start : start + block]
        scores = gallery_scores(rows, gallery, absent)
        own = probe_subjects[start : start + block, None] == gallery_subjects[None]
        if bool(absent.any()) or not bool(rows.any(dim=1).all()):
            lost = scores.isnan()
            scores.masked_fill_(lost & own, FAILED_MATE).masked_fill_(lost & ~own, other)
            failed += int((lost & ~own).sum())
        mate = torch.where(own, scores, NOBODY).amax(dim=1)
        others = scores.masked_fill_(own, NOBODY)
        ranked = torch.where(own.any(dim=1), 1 + (others >= mate[:, None]).sum(dim=1), 0)
        ranked[mate == FAILED_MATE] = UNRANKED
        parts.append((mate, ranked, others.amax(dim=1)))
        if keep:
            best, places = others.flatten().topk(min(keep, others.numel()))
            places = start + places[best > NOBODY] // len(gallery)
            top, order = torch.cat([top, best[best > NOBODY]]).sort(descending=True, stable=True)
            top, whose = top[:keep], torch.cat([whose, places])[order[:keep]]
    mates, ranks, highest = (torch.cat(column) for column in zip(*parts, strict=True))
    return Search(mates, ranks, highest, top, failed, whose if keep else None)
