"""95 % intervals of what searches find, by resampling the people who are searched for; the galleries stay as they are.

A probe counts as often as its subject was drawn, and thresholds are found anew in every replicate.

Paper: Bolle, Ratha and Pankanti, "Error analysis of pattern recognition systems: the subsets bootstrap", 2004.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from facekd.metrics.allowed import allowed_accepts
from facekd.metrics.gallery_search import Search
from facekd.metrics.resampling import Interval, multiplicities, quantiles


@dataclass(frozen=True)
class SearchIntervals:
    """Intervals of the figures of one set of searches.

    Attributes:
        rank: Of the share found at each rank.
        tpir: Of the TPIR at each FPIR; None for one that some replicate would have needed more scores for than were
            kept.

    Example:
        >>> SearchIntervals(((0.5, 0.75),), ()).rank
        ((0.5, 0.75),)
    """

    rank: tuple[Interval, ...]
    tpir: tuple[Interval | None, ...]


def bootstrap_searches(
    searches: Sequence[Search],
    subjects: np.ndarray,
    ranks: Sequence[int],
    fpirs: Sequence[float],
    *,
    replicates: int = 1000,
    seed: int = 0,
) -> SearchIntervals:
    """Intervals of :func:`facekd.metrics.identification.rank_rates` and ``nist_points``.

    Args:
        searches: One a gallery, of the same probes.
        subjects: (p,) the subject of each probe, as integers.
        ranks: Values of k.
        fpirs: FPIRs that can be shown, each in (0, 1).
        replicates: Samples drawn, at least 1.
        seed: Of the draws.

    Returns:
        The 2.5 % and 97.5 % quantiles over the replicates. Those in which a gallery has no probe with a mate, or for
        TPIR none without, are passed over; with none left the interval is (0, 1). Where failures alone are more false
        alarms than a replicate allows, its TPIR is 0.

    Raises:
        ValueError: Subjects that do not fit the probes.

    Example:
        >>> import torch
        >>> found = Search(torch.tensor([0.9, 0.8]), torch.tensor([1, 2]), torch.zeros(2), torch.zeros(0))
        >>> bootstrap_searches([found], np.array([4, 4]), [1, 2], [], replicates=20).rank
        ((0.5, 0.5), (1.0, 1.0))
    """
    people, count = _dense(searches[0], subjects)
    hits = [_hits(search, ranks) for search in searches]
    sides = [_Sides.of(search) for search in searches] if fpirs else []
    rates = np.full((replicates, len(searches), len(ranks)), np.nan)
    tpirs = np.full((replicates, len(sides), len(fpirs)), np.nan)
    for replicate in range(replicates):
        drawn = multiplicities(replicate, count, seed)[people]
        for at, (mated, hit) in enumerate(hits):
            weights = drawn[mated]
            if weights.sum():
                rates[replicate, at] = weights @ hit / weights.sum()
        for at, side in enumerate(sides):
            tpirs[replicate, at] = side.tpirs(drawn, fpirs)
    told = quantiles(tpirs.mean(axis=1)) if sides else []
    return SearchIntervals(tuple(quantiles(rates.mean(axis=1))), tuple(told))


def bootstrap_merged(
    search: Search,
    subjects: np.ndarray,
    ranks: Sequence[int],
    fpirs: Sequence[float],
    *,
    replicates: int = 1000,
    seed: int = 0,
) -> SearchIntervals:
    """Intervals of ranks, and of :func:`facekd.metrics.identification.merged_points`, in the gallery of all.

    Args:
        search: With more scores kept than :func:`facekd.metrics.identification.merged_keep` says, for replicates that
            look deeper.
        subjects: (p,) the subject of each probe, as integers.
        ranks: Values of k.
        fpirs: FPIRs that can be shown, each in (0, 1).
        replicates: Samples drawn, at least 1.
        seed: Of the draws.

    Returns:
        As :func:`bootstrap_searches`.

    Raises:
        ValueError: Subjects that do not fit the probes, or FPIRs and no scores kept.

    Example:
        >>> import torch
        >>> mate, top = torch.tensor([0.875, 0.75, 0.25, 0.75]), torch.tensor([0.5, 0.5, 0.375, 0.125])
        >>> one = Search(mate, torch.tensor([1, 1, 2, 1]), torch.zeros(4), top, 0, torch.tensor([0, 1, 2, 3]))
        >>> bootstrap_merged(one, np.array([7, 7, 7, 7]), [1], [0.5], replicates=20)
        SearchIntervals(rank=((0.75, 0.75),), tpir=((0.75, 0.75),))
    """
    if fpirs and search.top_probes is None:
        raise ValueError("no scores were kept")
    people, count = _dense(search, subjects)
    mated, hit = _hits(search, ranks)
    order = np.argsort(search.mate.numpy()[mated], kind="stable")
    mates, owners = search.mate.numpy()[mated][order], np.flatnonzero(mated)[order]
    whose = np.zeros(0, int) if search.top_probes is None else search.top_probes.numpy()
    below = np.searchsorted(mates, search.top.numpy(), side="right")
    rates, tpirs = np.full((replicates, len(ranks)), np.nan), np.full((replicates, len(fpirs)), np.nan)
    deep = np.zeros(len(fpirs), bool)
    for replicate in range(replicates):
        drawn = multiplicities(replicate, count, seed)[people]
        weights = drawn[mated]
        if not weights.sum():
            continue
        rates[replicate] = weights @ hit / weights.sum()
        lost, reached = np.append(0, drawn[owners].cumsum()), drawn[whose].cumsum()
        for at, fpir in enumerate(fpirs):
            place = int(np.searchsorted(reached, math.ceil(int(drawn.sum()) * fpir)))
            deep[at] |= place == reached.size
            if place < reached.size:
                tpirs[replicate, at] = 1 - lost[below[place]] / lost[-1]
    told = [None if lacks else quantiles(column[:, None])[0] for column, lacks in zip(tpirs.T, deep, strict=True)]
    return SearchIntervals(tuple(quantiles(rates)), tuple(told))


@dataclass(frozen=True, eq=False)
class _Sides:
    """Mated probes by ascending score of their mate, the others from the highest score down, and what lies between."""

    mated: np.ndarray
    nonmated: np.ndarray
    below: np.ndarray

    @classmethod
    def of(cls, search: Search) -> _Sides:
        mate, highest, mated = search.mate.numpy(), search.highest.numpy(), search.mated.numpy()
        own, others = np.flatnonzero(mated), np.flatnonzero(~mated)
        own, others = own[np.argsort(mate[own], kind="stable")], others[np.argsort(-highest[others], kind="stable")]
        return cls(own, others, np.searchsorted(mate[own], highest[others], side="right"))

    def tpirs(self, drawn: np.ndarray, fpirs: Sequence[float]) -> np.ndarray:
        """TPIR of a replicate at each FPIR, NaN where it has no probe with, or none without a mate."""
        lost, alarms = np.append(0, drawn[self.mated].cumsum()), drawn[self.nonmated].cumsum()
        if not (lost[-1] and alarms.size and alarms[-1]):
            return np.full(len(fpirs), np.nan)
        allowed = [allowed_accepts(fpir, int(alarms[-1])) for fpir in fpirs]
        rejected = np.searchsorted(alarms, allowed, side="right")
        return np.asarray(1 - lost[self.below[rejected]] / lost[-1])


def _dense(search: Search, subjects: np.ndarray) -> tuple[np.ndarray, int]:
    if subjects.shape != tuple(search.rank.shape):
        raise ValueError(f"subjects of shape {subjects.shape} for {len(search.rank)} probes")
    names, dense = np.unique(subjects, return_inverse=True)
    return dense, names.size


def _hits(search: Search, ranks: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
    """Which probes have a mate, and (mated, ranks) whether it ranks so well."""
    mated = search.mated.numpy()
    return mated, search.rank.numpy()[mated][:, None] <= np.asarray(ranks)
