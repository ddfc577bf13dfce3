"""Searching for probes in galleries (1:N): rank-k, and the share identified at a share of false alarms.

A probe is mated in a gallery that holds its subject. Equal scores are counted against the model: a mate ranks behind
every other template that scores as high. Two rules for false alarms are about, and figures of one say nothing of the
other:

- ``nist``: galleries are searched apart. Probes without a mate in a gallery are its non-mated ones; the FPIR is the
  share of them whose highest score is accepted, the TPIR the share of mated probes whose mate is accepted. The mean
  over galleries is told.
- ``merged``: one gallery of all. The threshold is the k-th highest score of any probe with any other subject, k the
  FPIR times the number of probes, rounded up, and the mate has to score above it. One probe can raise many false
  alarms, and none is without a mate.

Papers: Grother, Ngan and Hanaoka, "Face Recognition Vendor Test Part 2: Identification", NISTIR 8271, 2019; Maze et
al., "IARPA Janus Benchmark-C: Face Dataset and Protocol", ICB 2018.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from facekd.metrics.roc import needed_impostors, operating_points
from facekd.metrics.templates import gallery_scores

BLOCK_SCORES = 2**23
"""Scores held at a time: 32 MB."""


@dataclass(frozen=True, eq=False)
class Search:
    """What one gallery says to each probe.

    Attributes:
        mate: (p,) float32, highest score with a template of the probe's subject; -2 where the gallery has none.
        rank: (p,) int64, 1 and one more for each template of another subject that scores as high or higher; 0 without
            a mate.
        highest: (p,) float32, highest score with any template of another subject; -2 where there is none.
        top: (k,) float32, the highest scores of all probes with other subjects, highest first.

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

    @property
    def mated(self) -> Tensor:
        """(p,) whether the gallery holds the probe's subject."""
        return self.rank > 0


@dataclass(frozen=True)
class IdentificationPoint:
    """The share of mated probes identified at a share of false alarms.

    Attributes:
        definition: ``nist`` or ``merged``.
        fpir: The share of false alarms asked for.
        tpir: Share of mated probes whose mate scores at least the threshold, whatever its rank.
        tpir_rank1: Share of those that also rank first.
        threshold: Of each gallery: the lowest accepted score.
        attained_fpir: False alarms by probes without mate; of ``merged``, by all probes.
        false_alarms: Their number, over all galleries.
        nonmated: Probes without mate, over all galleries; of ``merged``, all probes.

    Example:
        >>> IdentificationPoint("nist", 0.1, 0.9, 0.9, (0.3, 0.4), 0.05, 4, 80).attained_fpir
        0.05
    """

    definition: str
    fpir: float
    tpir: float
    tpir_rank1: float
    threshold: tuple[float, ...]
    attained_fpir: float
    false_alarms: int
    nonmated: int


@dataclass(frozen=True)
class RefusedFpir:
    """An FPIR that is too small for the probes there are.

    Attributes:
        definition: ``nist`` or ``merged``.
        fpir: The share asked for.
        nonmated: Probes that could show it, in the gallery that has fewest.
        needed: Probes that would do.

    Example:
        >>> RefusedFpir("nist", 0.01, 20, 300).needed
        300
    """

    definition: str
    fpir: float
    nonmated: int
    needed: int


def search_gallery(
    probes: Tensor, probe_subjects: Tensor, gallery: Tensor, gallery_subjects: Tensor, *, keep: int = 0
) -> Search:
    """Search for every probe in a gallery: float64 products rounded to float32, so that equal templates tie.

    Memory beyond the embeddings is a few blocks of :data:`BLOCK_SCORES`, however many probes and templates there are.

    Args:
        probes: (p, dim) of length one, or zero where a template failed; that one scores -1 with everything.
        probe_subjects: (p,) integers.
        gallery: (g, dim), likewise.
        gallery_subjects: (g,) integers.
        keep: How many of the highest scores with other subjects to keep.

    Raises:
        ValueError: No probe, no gallery, or subjects that do not fit them.

    Example:
        >>> eye = torch.eye(3)
        >>> search_gallery(eye, torch.tensor([0, 1, 2]), eye, torch.tensor([0, 2, 1])).rank.tolist()
        [1, 3, 3]
    """
    if not (len(probes) and len(gallery)) or (len(probe_subjects), len(gallery_subjects)) != (
        len(probes),
        len(gallery),
    ):
        sizes = f"{len(probes)} probes, {len(gallery)} templates"
        raise ValueError(f"{sizes}, subjects of {len(probe_subjects)} and {len(gallery_subjects)}")
    block = max(1, BLOCK_SCORES // len(gallery))
    absent = ~gallery.any(dim=1)
    parts, top = [], probes.new_empty(0, dtype=torch.float32)
    for start in range(0, len(probes), block):
        rows = probes[start : start + block]
        scores = gallery_scores(rows, gallery, absent)
        own = probe_subjects[start : start + block, None] == gallery_subjects[None]
        mate = torch.where(own, scores, -2.0).amax(dim=1)
        others = scores.masked_fill_(own, -2.0)
        ranked = torch.where(own.any(dim=1), 1 + (others >= mate[:, None]).sum(dim=1), 0)
        parts.append((mate, ranked, others.amax(dim=1)))
        if keep:
            best = others.flatten().topk(min(keep, others.numel())).values
            top = torch.cat([top, best[best > -2.0]]).sort(descending=True).values[:keep]
    mates, ranks, highest = (torch.cat(column) for column in zip(*parts, strict=True))
    return Search(mates, ranks, highest, top)


def rank_rates(searches: Sequence[Search], ranks: Sequence[int]) -> list[float]:
    """Share of mated probes whose mate ranks k-th or better, averaged over galleries: points of the CMC curve.

    Args:
        searches: One a gallery.
        ranks: Values of k.

    Raises:
        ValueError: A gallery in which no probe has a mate.

    Example:
        >>> scores = torch.zeros(3)
        >>> rank_rates([Search(scores, torch.tensor([1, 4, 0]), scores, scores)], [1, 3, 4])
        [0.5, 0.5, 1.0]
    """
    if not all(bool(search.mated.any()) for search in searches):
        raise ValueError("no probe has a mate in a gallery")
    mated = [search.rank[search.mated] for search in searches]
    return [sum(float((rank <= k).double().mean()) for rank in mated) / len(mated) for k in ranks]


def nist_points(
    searches: Sequence[Search], fpirs: Sequence[float]
) -> tuple[list[IdentificationPoint], list[RefusedFpir]]:
    """The largest TPIR whose FPIR does not exceed each target in any gallery, averaged over galleries.

    Args:
        searches: One a gallery, of the same probes.
        fpirs: Wanted FPIRs, each in (0, 1).

    Returns:
        A point for each FPIR of at least 3 / non-mated probes in every gallery, and a refusal for each below.

    Raises:
        ValueError: A gallery in which no probe has a mate, or an FPIR outside (0, 1).

    Example:
        >>> mate, rank = torch.tensor([0.875, 0.5, -2, -2, -2, -2]), torch.tensor([1, 2, 0, 0, 0, 0])
        >>> one = Search(mate, rank, torch.tensor([0.125, 0.75, 0.625, 0.25, 0.25, 0.125]), torch.empty(0))
        >>> points, refused = nist_points([one], [0.75, 0.5])
        >>> points[0].tpir, points[0].tpir_rank1, points[0].threshold, points[0].false_alarms
        (1.0, 0.5, (0.25,), 3)
        >>> refused
        [RefusedFpir(definition='nist', fpir=0.5, nonmated=4, needed=6)]
    """
    points, refused = [], []
    for fpir in fpirs:
        fewest = min(int((~search.mated).sum()) for search in searches)
        if not 0 < fpir < 1:
            raise ValueError(f"FPIR {fpir} is not between 0 and 1")
        if fewest == 0 or fpir < 3 / fewest:
            refused.append(RefusedFpir("nist", fpir, fewest, needed_impostors(fpir)))
            continue
        found = [_nist_point(search, fpir) for search in searches]
        tpir, first, attained = (sum(one[at] for one in found) / len(found) for at in range(3))
        alarms, thresholds = sum(one[3] for one in found), tuple(one[4] for one in found)
        nonmated = sum(int((~search.mated).sum()) for search in searches)
        points.append(IdentificationPoint("nist", fpir, tpir, first, thresholds, attained, alarms, nonmated))
    return points, refused


def merged_points(search: Search, fpirs: Sequence[float]) -> tuple[list[IdentificationPoint], list[RefusedFpir]]:
    """TPIR by the rule of the field's script: the threshold is the k-th highest score with any other subject.

    Args:
        search: In the gallery of all templates, with :func:`merged_keep` scores kept.
        fpirs: Wanted FPIRs, each in (0, 1).

    Returns:
        A point for each FPIR of at least 3 / probes, and a refusal for each below.

    Raises:
        ValueError: Fewer scores kept than k, no mated probe, or an FPIR outside (0, 1).

    Example:
        >>> mate, rank = torch.tensor([0.875, 0.5, 0.25, 0.75]), torch.tensor([1, 2, 3, 1])
        >>> one = Search(mate, rank, torch.tensor([0.125, 0.625, 0.5, 0.25]), torch.tensor([0.625, 0.5, 0.375]))
        >>> points, _ = merged_points(one, [0.75])
        >>> points[0].tpir, points[0].false_alarms  # above 0.375
        (0.75, 2)
    """
    probes, mated = len(search.rank), search.mated
    if not bool(mated.any()):
        raise ValueError("no probe has a mate in a gallery")
    points, refused = [], []
    for fpir in fpirs:
        count = merged_keep(probes, [fpir])
        if fpir < 3 / probes:
            refused.append(RefusedFpir("merged", fpir, probes, needed_impostors(fpir)))
            continue
        if count > len(search.top):
            raise ValueError(f"{len(search.top)} scores kept where {count} are needed")
        limit = search.top[count - 1]
        accepted = search.mate[mated] > limit
        alarms = int((search.top > limit).sum())
        tpir, first = (float(chosen.double().mean()) for chosen in (accepted, accepted & (search.rank[mated] == 1)))
        threshold = (torch.nextafter(limit, limit.new_tensor(math.inf)).item(),)
        points.append(IdentificationPoint("merged", fpir, tpir, first, threshold, alarms / probes, alarms, probes))
    return points, refused


def merged_keep(probes: int, fpirs: Sequence[float]) -> int:
    """How many of the highest scores with other subjects :func:`merged_points` needs.

    Args:
        probes: Their number.
        fpirs: Wanted FPIRs, each in (0, 1).

    Raises:
        ValueError: An FPIR outside (0, 1).

    Example:
        >>> merged_keep(19593, [0.01, 0.1])
        1960
    """
    if not all(0 < fpir < 1 for fpir in fpirs):
        raise ValueError(f"FPIRs {list(fpirs)} are not between 0 and 1")
    return max((math.ceil(probes * fpir) for fpir in fpirs), default=0)


def _nist_point(search: Search, fpir: float) -> tuple[float, float, float, int, float]:
    """TPIR, TPIR at rank one, attained FPIR, false alarms and threshold in one gallery."""
    mated = search.mated
    (point,), _ = operating_points(search.mate[mated], search.highest[~mated], [fpir])
    accepted = (search.mate[mated] >= point.threshold) & (search.rank[mated] == 1)
    first = float(accepted.double().mean())
    return point.tpr, first, point.attained_fpr, point.false_accepts, point.threshold
