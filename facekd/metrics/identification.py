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

Comparisons with failed templates are errors, see :mod:`facekd.metrics.failures`: a probe whose mate, or which itself,
failed is missed at every threshold and rank; a failed template of another person ranks before every mate; and when a
threshold is chosen, a failed probe, and any probe in a gallery with a failed template of another person, is a false
alarm at each. An FPIR that allows fewer false alarms than that is refused. Those that are told are of scores.

Papers: Grother, Ngan and Hanaoka, "Face Recognition Vendor Test Part 2: Identification", NISTIR 8271, 2019; Maze et
al., "IARPA Janus Benchmark-C: Face Dataset and Protocol", ICB 2018.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from facekd.metrics.allowed import allowed_accepts, enough_to_allow, needed_impostors
from facekd.metrics.gallery_search import FAILED_OTHER, Search
from facekd.metrics.roc import operating_points


@dataclass(frozen=True)
class IdentificationPoint:
    """The share of mated probes identified at a share of false alarms.

    Attributes:
        definition: ``nist`` or ``merged``.
        fpir: The share of false alarms asked for.
        tpir: Share of mated probes whose mate scores at least the threshold, whatever its rank.
        tpir_rank1: Share of those that also rank first.
        threshold: Of each gallery: the lowest accepted score.
        attained_fpir: False alarms by probes without mate; of ``merged``, by all probes. Failures raise none.
        false_alarms: Their number, over all galleries.
        nonmated: Probes without mate, over all galleries; of ``merged``, all probes.
        supported: Whether at least 30 false alarms may stand behind the threshold of each gallery.

    Example:
        >>> IdentificationPoint("nist", 0.1, 0.9, 0.9, (0.3, 0.4), 0.05, 4, 80, False).attained_fpir
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
    supported: bool


@dataclass(frozen=True)
class RefusedFpir:
    """An FPIR that is too small for the probes there are.

    Attributes:
        definition: ``nist`` or ``merged``.
        fpir: The share asked for.
        nonmated: Probes that could show it, in the gallery that has fewest.
        needed: Probes that would do.
        failed: False alarms of failed comparisons, where those are more than the FPIR allows.

    Example:
        >>> RefusedFpir("nist", 0.01, 20, 300).needed
        300
    """

    definition: str
    fpir: float
    nonmated: int
    needed: int
    failed: int = 0


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
        A point for each FPIR of at least 3 / non-mated probes in every gallery, and a refusal for each below, or for
        one that allows fewer false alarms in a gallery than failures may have raised.

    Raises:
        ValueError: A gallery in which no probe has a mate, or an FPIR outside (0, 1).

    Example:
        >>> mate, rank = torch.tensor([0.875, 0.5, -2, -2, -2, -2]), torch.tensor([1, 2, 0, 0, 0, 0])
        >>> one = Search(mate, rank, torch.tensor([0.125, 0.75, 0.625, 0.25, 0.25, 0.125]), torch.empty(0))
        >>> points, refused = nist_points([one], [0.75, 0.5])
        >>> points[0].tpir, points[0].tpir_rank1, points[0].threshold, points[0].false_alarms
        (1.0, 0.5, (0.25,), 3)
        >>> refused
        [RefusedFpir(definition='nist', fpir=0.5, nonmated=4, needed=6, failed=0)]
    """
    points, refused = [], []
    for fpir in fpirs:
        fewest = min(int((~search.mated).sum()) for search in searches)
        if not 0 < fpir < 1:
            raise ValueError(f"FPIR {fpir} is not between 0 and 1")
        if fewest == 0 or fpir < 3 / fewest:
            refused.append(RefusedFpir("nist", fpir, fewest, needed_impostors(fpir)))
            continue
        lost = [(int((~search.mated).sum()), _alarms_of_failures(search)) for search in searches]
        beyond = [(failed, nonmated) for nonmated, failed in lost if allowed_accepts(fpir, nonmated) < failed]
        if beyond:
            failed, nonmated = max(beyond)
            refused.append(RefusedFpir("nist", fpir, nonmated, enough_to_allow(failed, fpir), failed))
            continue
        found = [_nist_point(search, fpir) for search in searches]
        tpir, first, attained = (sum(one[at] for one in found) / len(found) for at in range(3))
        alarms, thresholds = sum(one[3] for one in found), tuple(one[4] for one in found)
        nonmated = sum(int((~search.mated).sum()) for search in searches)
        told = (tpir, first, thresholds, attained, alarms, nonmated)
        points.append(IdentificationPoint("nist", fpir, *told, supported=fpir >= 30 / fewest))
    return points, refused


def merged_points(search: Search, fpirs: Sequence[float]) -> tuple[list[IdentificationPoint], list[RefusedFpir]]:
    """TPIR by the rule of the field's script: the threshold is the k-th highest score with any other subject.

    Args:
        search: In the gallery of all templates, with :func:`merged_keep` scores kept.
        fpirs: Wanted FPIRs, each in (0, 1).

    Returns:
        A point for each FPIR of at least 3 / probes, and a refusal for each below, or for one by which a failed
        comparison would be the threshold.

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
        if search.failed >= count and search.top[count - 1] == FAILED_OTHER:
            needed = enough_to_allow(search.failed, fpir) + 1
            refused.append(RefusedFpir("merged", fpir, probes, needed, search.failed))
            continue
        limit = search.top[count - 1]
        accepted = search.mate[mated] > limit
        alarms = int(((search.top > limit) & (search.top < FAILED_OTHER)).sum())
        tpir, first = (float(chosen.double().mean()) for chosen in (accepted, accepted & (search.rank[mated] == 1)))
        threshold = (torch.nextafter(limit, limit.new_tensor(math.inf)).item(),)
        told = (tpir, first, threshold, alarms / probes, alarms, probes)
        points.append(IdentificationPoint("merged", fpir, *told, supported=fpir >= 30 / probes))
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
    failed = _alarms_of_failures(search)
    (point,), _ = operating_points(search.mate[mated], search.highest[~mated], [fpir], failed=failed)
    accepted = (search.mate[mated] >= point.threshold) & (search.rank[mated] == 1)
    first = float(accepted.double().mean())
    return point.tpr, first, point.attained_fpr, point.false_accepts, point.threshold


def _alarms_of_failures(search: Search) -> int:
    """Probes without a mate that failed, or met a failed template: false alarms when a threshold is chosen."""
    return int((search.highest[~search.mated] == FAILED_OTHER).sum())
