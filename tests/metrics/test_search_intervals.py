"""Intervals of searches against probes copied out as often as they were drawn, measured by the plain functions."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from facekd.metrics.gallery_search import Search, search_gallery
from facekd.metrics.identification import merged_keep, merged_points, nist_points, rank_rates
from facekd.metrics.resampling import multiplicities
from facekd.metrics.search_intervals import bootstrap_merged, bootstrap_searches

RANKS, FPIRS = (1, 3), (0.5, 0.2)


def unit(rows: np.ndarray) -> torch.Tensor:
    return torch.nn.functional.normalize(torch.from_numpy(rows), dim=1).float()


def searched(seed: int, lost: int = 0) -> tuple[list[Search], Search, np.ndarray, dict]:
    """Two galleries apart and merged, the subjects of the probes, and what was searched."""
    rng = np.random.default_rng(seed)
    people = rng.normal(size=(24, 6))
    subjects = np.repeat(np.arange(24), rng.integers(1, 5, 24))
    probes = unit(people[subjects] + 0.7 * rng.normal(size=(subjects.size, 6)))
    gallery, whose = unit(people[:20] + 0.4 * rng.normal(size=(20, 6))), np.arange(20)
    probes[rng.permutation(subjects.size)[:lost]] = 0
    sides = [gallery[:10], gallery[10:]], [whose[:10], whose[10:]]
    apart = [_search(probes, subjects, *side) for side in zip(*sides, strict=True)]
    every = {"probes": probes, "gallery": gallery, "whose": whose}
    return apart, _search(probes, subjects, gallery, whose, 10**5), subjects, every


def _search(
    probes: torch.Tensor, subjects: np.ndarray, gallery: torch.Tensor, whose: np.ndarray, keep: int = 0
) -> Search:
    return search_gallery(probes, torch.from_numpy(subjects), gallery, torch.from_numpy(whose), keep=keep)


def copies(subjects: np.ndarray, number: int, seed: int) -> torch.Tensor:
    names, dense = np.unique(subjects, return_inverse=True)
    return torch.from_numpy(np.repeat(np.arange(subjects.size), multiplicities(number, names.size, seed)[dense]))


def taken(search: Search, chosen: torch.Tensor) -> Search:
    return replace(search, mate=search.mate[chosen], rank=search.rank[chosen], highest=search.highest[chosen])


@pytest.mark.parametrize("seed", range(3))
def test_galleries_apart_are_those_of_probes_copied_out(seed: int) -> None:
    apart, _, subjects, _ = searched(seed)
    found = bootstrap_searches(apart, subjects, RANKS, FPIRS, replicates=60, seed=seed)
    ranks, tpirs = [], []
    for number in range(60):
        again = [taken(search, copies(subjects, number, seed)) for search in apart]
        ranks.append(rank_rates(again, RANKS))
        points, refused = nist_points(again, FPIRS)
        assert not refused
        tpirs.append([point.tpir for point in points])
    for intervals, rates in ((found.rank, ranks), (found.tpir, tpirs)):
        want = np.quantile(rates, [0.025, 0.975], axis=0)
        assert np.array(intervals) == pytest.approx(want.T, abs=1e-6)
        assert (want[0] < want[1]).any()


@pytest.mark.parametrize("seed", range(3))
def test_the_merged_gallery_is_that_of_probes_copied_out(seed: int) -> None:
    _, merged, subjects, every = searched(seed)
    found = bootstrap_merged(merged, subjects, RANKS, FPIRS, replicates=40, seed=seed)
    ranks, tpirs = [], []
    for number in range(40):
        chosen = copies(subjects, number, seed)
        keep = merged_keep(len(chosen), FPIRS)
        again = _search(every["probes"][chosen], subjects[chosen.numpy()], every["gallery"], every["whose"], keep)
        ranks.append(rank_rates([again], RANKS))
        tpirs.append([point.tpir for point in merged_points(again, FPIRS)[0]])
    for intervals, rates in ((found.rank, ranks), (found.tpir, tpirs)):
        assert np.array(intervals) == pytest.approx(np.quantile(rates, [0.025, 0.975], axis=0).T, abs=1e-6)


def test_too_few_kept_scores_give_no_interval_of_that_fpir_alone() -> None:
    _, merged, subjects, _ = searched(1)
    short = replace(merged, top=merged.top[:34], top_probes=merged.top_probes[:34])
    found = bootstrap_merged(short, subjects, RANKS, FPIRS, replicates=30)
    whole = bootstrap_merged(merged, subjects, RANKS, FPIRS, replicates=30)
    assert found.tpir == (None, whole.tpir[1]) and found.rank == whole.rank
    with pytest.raises(ValueError, match="no scores were kept"):
        bootstrap_merged(replace(merged, top_probes=None), subjects, RANKS, FPIRS)


def test_failed_probes_can_only_lower_an_interval() -> None:
    for seed in range(3):
        (whole, *_), (apart, _, subjects, _) = searched(seed), searched(seed, lost=4)
        before, after = (bootstrap_searches(some, subjects, RANKS, FPIRS, replicates=60) for some in (whole, apart))
        for one, other in zip((*before.rank, *before.tpir), (*after.rank, *after.tpir), strict=True):
            assert other[0] <= one[0] and other[1] <= one[1]


def test_kept_scores_know_their_probes() -> None:
    _, merged, subjects, every = searched(2)
    scores = every["probes"].double() @ every["gallery"].double().T
    others = torch.from_numpy(subjects)[:, None] != torch.from_numpy(every["whose"])[None]
    want = sorted(((float(s), p) for p, row in enumerate(scores) for s in row[others[p]]), reverse=True)
    assert merged.top.tolist() == pytest.approx([score for score, _ in want], abs=1e-6)
    assert merged.top_probes.tolist()[:50] == [probe for _, probe in want[:50]]


def test_subjects_that_do_not_fit_are_refused() -> None:
    apart, merged, subjects, _ = searched(0)
    for give in (
        lambda: bootstrap_searches(apart, subjects[:-1], RANKS, []),
        lambda: bootstrap_merged(merged, subjects[:-1], RANKS, []),
    ):
        with pytest.raises(ValueError, match="subjects of shape"):
            give()
