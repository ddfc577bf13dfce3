"""Ranks and TPIR against the two published rules written out over the whole matrix of scores."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from facekd.metrics import gallery_search, templates
from facekd.metrics.allowed import allowed_accepts
from facekd.metrics.gallery_search import FAILED_MATE, FAILED_OTHER, UNRANKED, Search, search_gallery
from facekd.metrics.identification import merged_keep, merged_points, nist_points, rank_rates

FPIRS = [0.5, 0.2, 0.1, 0.05]


def unit(rows: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(rows / np.linalg.norm(rows, axis=1, keepdims=True)).float()


def searched(seed: int, galleries: int = 2, failed: bool = False, enrolled: bool = True) -> tuple:
    """Probes, galleries and their subjects; few distinct directions, so that scores tie often."""
    rng = np.random.default_rng(seed)
    people = rng.permutation(100)[:30]
    base = rng.integers(-2, 3, (30, 4)) + 0.01
    shown = rng.integers(0, 30, 160)
    probes = unit((base[shown] + rng.integers(-1, 2, (160, 4))).astype(float) + 0.01)
    if failed:
        probes[::7] = 0
    parts = []
    for part in range(galleries):
        own = np.concatenate([np.arange(part, 30, galleries), rng.integers(0, 30, 3)])
        parts.append((unit((base[own] + rng.integers(-1, 2, (len(own), 4))).astype(float) + 0.01), people[own]))
    if failed and enrolled:
        parts[0][0][3] = 0
    return probes, people[shown], parts


def matrix(probes: torch.Tensor, people: np.ndarray, part: tuple, errors: bool = True) -> np.ndarray:
    """All scores; failed ones below all with mates, and above or below all with others."""
    scores = (probes.double() @ part[0].double().T).float().clamp(-1, 1).numpy()
    lost = ~probes.any(1).numpy()[:, None] | ~part[0].any(1).numpy()
    own = people[:, None] == part[1]
    scores[lost & own] = FAILED_MATE
    scores[lost & ~own] = FAILED_OTHER if errors else FAILED_MATE
    return scores


def search(probes: torch.Tensor, people: np.ndarray, part: tuple, keep: int = 0, errors: bool = True) -> Search:
    subjects = torch.from_numpy(people), torch.from_numpy(part[1])
    return search_gallery(probes, subjects[0], part[0], subjects[1], keep=keep, errors=errors)


@pytest.mark.parametrize("failed", [False, True])
@pytest.mark.parametrize(("scores", "rows"), [(2**23, 4096), (100, 7), (1, 1)])
def test_ranks_count_ties_against_the_mate(
    scores: int, rows: int, failed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gallery_search, "BLOCK_SCORES", scores)
    monkeypatch.setattr(templates, "GALLERY_ROWS", rows)
    for seed in range(6):
        probes, people, parts = searched(seed, failed=failed)
        for part in parts:
            found = search(probes, people, part, keep=25)
            every = matrix(probes, people, part)
            negatives = []
            assert found.failed == int((every == FAILED_OTHER).sum()) and (found.failed > 0) == (
                failed and (part is parts[0] or not probes.any(1).all())
            )
            for probe in range(len(people)):
                own = part[1] == people[probe]
                others = every[probe][~own]
                negatives += others.tolist()
                assert found.highest[probe] == others.max()
                if not own.any():
                    assert found.rank[probe] == 0 and not found.mated[probe]
                    continue
                best = every[probe][own].max()
                assert found.mate[probe] == best
                ahead = sum(float(score) >= best for score in others)
                assert found.rank[probe] == (UNRANKED if best == FAILED_MATE else 1 + ahead)
            assert found.top.tolist() == sorted(negatives, reverse=True)[:25]


def test_a_gallery_of_one_picture_of_everybody_identifies_nobody() -> None:
    rows = unit(np.ones((9, 3)))
    found = search_gallery(rows, torch.arange(9), rows, torch.arange(9))
    assert found.rank.tolist() == [9] * 9
    assert rank_rates([found], [1, 8, 9]) == [0.0, 0.0, 1.0]


def test_rank_rates_are_the_mean_over_galleries_and_not_over_probes() -> None:
    none = torch.empty(0)
    few, many = torch.tensor([1, 0, 0]), torch.tensor([2, 5, 5])
    searches = [Search(none, rank, none, none) for rank in (few, many)]
    assert rank_rates(searches, [1, 2, 5]) == [0.5, pytest.approx((1 + 1 / 3) / 2), 1.0]
    with pytest.raises(ValueError, match="no probe has a mate"):
        rank_rates([Search(none, torch.zeros(3, dtype=torch.int64), none, none)], [1])


def nist_by_trying(every: np.ndarray, own: np.ndarray, fpir: float) -> float:
    """The best TPIR among all thresholds that keep the FPIR, in one gallery."""
    mated = own.any(axis=1)
    highest = np.where(own, -2, every).max(axis=1)[~mated]
    mates = np.where(own, every, -2).max(axis=1)[mated]
    allowed = [t for t in np.append(np.unique(every), np.inf) if (highest >= t).mean() <= fpir]
    return max(float((mates >= t).mean()) for t in allowed)


@pytest.mark.parametrize("failed", [False, True])
def test_nist_points_are_the_best_of_all_thresholds_in_each_gallery(failed: bool) -> None:
    for seed in range(8):
        probes, people, parts = searched(seed, failed=failed, enrolled=False)
        searches = [search(probes, people, part) for part in parts]
        points, refused = nist_points(searches, [0.4, 0.3, *FPIRS])
        assert len(points) + len(refused) == 6 and len(points) >= (3 if failed else 5)
        matrices = [(matrix(probes, people, part), people[:, None] == part[1]) for part in parts]
        alive = probes.any(1).numpy()
        for entry in refused:
            counts = [(int((~own.any(1)).sum()), int((~own.any(1) & ~alive).sum())) for _, own in matrices]
            allowed = [allowed_accepts(entry.fpir, nonmated) - lost for nonmated, lost in counts]
            assert (entry.failed > 0) == (min(nonmated for nonmated, _ in counts) * entry.fpir >= 3)
            assert entry.failed == 0 or min(allowed) < 0
        for point in points:
            assert point.definition == "nist" and point.attained_fpir <= point.fpir
            wanted = [nist_by_trying(every, own, point.fpir) for every, own in matrices]
            assert point.tpir == pytest.approx(np.mean(wanted), abs=1e-12)
            alarms, first, shares = 0, [], []
            for (every, own), threshold, found in zip(matrices, point.threshold, searches, strict=True):
                mated = own.any(axis=1)
                false = np.where(own, -2, every).max(axis=1)[~mated] >= np.float32(threshold)
                false &= alive[~mated]
                alarms += int(false.sum())
                shares.append(false.mean())
                first.append(((found.mate >= threshold) & (found.rank == 1))[torch.from_numpy(mated)].double().mean())
            assert (point.false_alarms, point.attained_fpir) == (alarms, pytest.approx(np.mean(shares)))
            assert point.tpir_rank1 == pytest.approx(float(np.mean(first))) and point.tpir_rank1 <= point.tpir
            assert point.nonmated == sum(int((~own.any(axis=1)).sum()) for _, own in matrices)


def field_script(every: np.ndarray, own: np.ndarray, fpir: float) -> float:
    """The rule of the field's script, with a mate for every probe."""
    mates = np.where(own, every, -2).max(axis=1)
    negatives = np.sort(every[~own])[::-1]
    return float((mates > negatives[math.ceil(len(every) * fpir) - 1]).mean())


def test_merged_points_are_those_of_the_fields_script() -> None:
    for seed in range(8):
        probes, people, parts = searched(seed)
        merged = torch.cat([part[0] for part in parts]), np.concatenate([part[1] for part in parts])
        found = search(probes, people, merged, keep=merged_keep(len(people), FPIRS))
        every, own = matrix(probes, people, merged), people[:, None] == merged[1]
        assert own.any(axis=1).all()
        points, refused = merged_points(found, [*FPIRS, 0.01])
        assert [entry.fpir for entry in refused] == [0.01] and refused[0].needed == 300
        for point in points:
            assert point.definition == "merged" and point.tpir == field_script(every, own, point.fpir)
            threshold = np.float32(point.threshold[0])
            assert point.tpir == (np.where(own, every, -2).max(axis=1) >= threshold).mean()
            assert point.false_alarms == int((every[~own] >= threshold).sum())
            assert point.attained_fpir == point.false_alarms / len(people) < point.fpir + 1 / len(people)


def test_the_two_definitions_differ_on_the_same_scores() -> None:
    probes, people, parts = searched(1)
    merged = torch.cat([part[0] for part in parts]), np.concatenate([part[1] for part in parts])
    apart = nist_points([search(probes, people, part) for part in parts], [0.1])[0][0]
    together = merged_points(search(probes, people, merged, keep=100), [0.1])[0][0]
    assert apart.tpir != together.tpir


def test_too_few_probes_are_refused_with_the_number_needed() -> None:
    probes, people, parts = searched(0)
    points, refused = nist_points([search(probes, people, part) for part in parts], [0.3, 0.001])
    assert [point.fpir for point in points] == [0.3]
    assert (refused[0].definition, refused[0].fpir, refused[0].needed) == ("nist", 0.001, 3000)
    everybody = parts[0][0][:1].repeat(100, 1), np.arange(100)
    assert nist_points([search(probes, people, everybody)], [0.5])[1][0].nonmated == 0


def test_what_does_not_fit_is_refused() -> None:
    rows, people = torch.eye(3), torch.arange(3)
    with pytest.raises(ValueError, match="3 probes, 3 templates, subjects of 2 and 3"):
        search_gallery(rows, people[:2], rows, people)
    with pytest.raises(ValueError, match="0 probes"):
        search_gallery(rows[:0], people[:0], rows, people)
    found = search_gallery(rows, people, rows, people, keep=1)
    for bad in (0.0, 1.0, math.nan):
        with pytest.raises(ValueError, match="not between 0 and 1"):
            nist_points([found], [bad])
        with pytest.raises(ValueError, match="not between 0 and 1"):
            merged_keep(3, [bad])
    probes, subjects, parts = searched(0)
    with pytest.raises(ValueError, match="7 scores kept where 16 are needed"):
        merged_points(search(probes, subjects, parts[0], keep=7), [0.1])
    nobody = Search(found.mate, torch.zeros(3, dtype=torch.int64), found.highest, found.top)
    with pytest.raises(ValueError, match="no probe has a mate"):
        merged_points(nobody, [0.5])
