"""The bootstrap against its definition written out, and what its intervals hold."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from benchmarks.interval_coverage import FPR, coverage, true_tpr, world
from facekd.metrics import intervals
from facekd.metrics.all_pairs import all_pair_scores, impostor_subjects
from facekd.metrics.intervals import bootstrap_all_pairs, bootstrap_pairs
from facekd.metrics.resampling import multiplicities
from facekd.metrics.roc import operating_points


def replicate_by_copying(genuine, impostor, subjects, fpr: float, times: np.ndarray) -> float:
    """TPR of a replicate: pairs repeated as often as their people were drawn, then the plain rule."""
    sides = []
    for scores, people in zip((genuine, impostor), subjects, strict=True):
        weights = [times[a] if a == b else times[a] * times[b] for a, b in people]
        sides.append(np.repeat(scores, weights))
    if not sides[0].size or not sides[1].size:
        return np.nan
    thresholds = np.append(np.unique(np.r_[sides[0], sides[1]]), np.inf)
    return max(float((sides[0] >= t).mean()) for t in thresholds if (sides[1] >= t).mean() <= fpr)


def small_pairs(seed: int, ties: bool) -> tuple[np.ndarray, np.ndarray, tuple[np.ndarray, np.ndarray]]:
    rng = np.random.default_rng(seed)
    people = rng.integers(0, 8, 30)
    strangers = rng.integers(0, 8, 70)
    other = (strangers + rng.integers(1, 8, 70)) % 8
    genuine, impostor = rng.normal(0.5, 0.2, 30), rng.normal(0.2, 0.2, 70)
    if ties:
        genuine, impostor = genuine.round(1), impostor.round(1)
    return genuine, impostor, (np.stack([people, people], axis=1), np.stack([strangers, other], axis=1))


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("seed", range(4))
def test_interval_of_pairs_is_that_of_the_definition(seed: int, ties: bool) -> None:
    genuine, impostor, subjects = small_pairs(seed, ties)
    fprs = [0.3, 0.05]
    found = bootstrap_pairs(genuine, impostor, subjects, fprs, replicates=60, seed=seed)
    for fpr, interval in zip(fprs, found, strict=True):
        rates = [
            replicate_by_copying(genuine, impostor, subjects, fpr, multiplicities(number, 8, seed))
            for number in range(60)
        ]
        assert interval == pytest.approx(tuple(np.nanquantile(rates, [0.025, 0.975])), abs=1e-12)


def test_interval_without_known_people_resamples_the_pairs() -> None:
    genuine, impostor, _ = small_pairs(1, False)
    alone = np.arange(100)[:, None].repeat(2, axis=1)
    want = bootstrap_pairs(genuine, impostor, (alone[:30], alone[30:]), [0.1], replicates=80)
    assert bootstrap_pairs(genuine, impostor, None, [0.1], replicates=80) == want


@pytest.mark.parametrize("weighed", [5000, 3])
def test_all_pairs_equals_the_general_form(weighed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where far too few impostor scores are weighed at first."""
    rng = np.random.default_rng(0)
    labels = rng.permutation(np.repeat(np.arange(12), rng.integers(1, 5, 12)))
    embeddings = rng.normal(size=(labels.size, 4)) + 1.2 * rng.normal(size=(12, 4))[labels]
    pairs = all_pair_scores(embeddings, labels)
    people = pairs.genuine_subjects.numpy()[:, None].repeat(2, axis=1)
    strangers = impostor_subjects(pairs, torch.arange(pairs.impostor.numel())).numpy()
    fprs = [0.2, 0.02]
    want = bootstrap_pairs(pairs.genuine, pairs.impostor, (people, strangers), fprs, replicates=70)
    if weighed == 3:
        monkeypatch.setattr(intervals, "allowed_accepts", lambda fpr, total: _few(fpr, total, pairs.impostor.numel()))
    assert bootstrap_all_pairs(pairs, fprs, replicates=70) == want


def _few(fpr: float, total: int, impostors: int) -> int:
    """The true count, but -2,498 for the whole set: so that 2 x it + 5,000 is 4."""
    return -2498 if total == impostors else int(np.floor(fpr * total + 1e-9))


def test_same_seed_same_interval_and_order_of_pairs_is_nothing() -> None:
    genuine, impostor, subjects = small_pairs(2, True)
    one = bootstrap_pairs(genuine, impostor, subjects, [0.1], replicates=50, seed=4)
    order = np.random.default_rng(0).permutation(30)
    shuffled = genuine[order], impostor, (subjects[0][order], subjects[1])
    assert bootstrap_pairs(*shuffled, [0.1], replicates=50, seed=4) == one
    assert bootstrap_pairs(genuine, impostor, subjects, [0.1], replicates=50, seed=5) != one


def test_edges() -> None:
    assert bootstrap_pairs([0.9], [0.1], (np.array([[0, 0]]), np.array([[1, 2]])), []) == []
    alone = np.array([[0, 0]]), np.array([[1, 2]])
    assert bootstrap_pairs([0.9], [0.1], alone, [0.5], replicates=1, seed=1) in ([(0.0, 1.0)], [(1.0, 1.0)])
    with pytest.raises(ValueError, match="subjects of 1 and 1 pairs for 2 and 1"):
        bootstrap_pairs([0.9, 0.8], [0.1], alone, [0.5])
    with pytest.raises(ValueError, match="1 of 2 are NaN"):
        bootstrap_pairs([0.9, np.nan], [0.1], None, [0.5])
    with pytest.raises(ValueError, match="0 genuine"):
        bootstrap_all_pairs(all_pair_scores(np.eye(3), np.arange(3)), [0.5])


@pytest.mark.slow
def test_subject_intervals_cover_and_pair_intervals_do_not() -> None:
    found = coverage(8, people=60, worlds=240, replicates=200, fprs=[FPR])[0]["coverage"]
    assert 0.92 <= found["people"] <= 0.98
    assert found["pairs"] < 0.88


def test_the_truth_of_the_simulation_is_that_of_many_people() -> None:
    genuine, impostor, _ = world(np.random.default_rng(1), 2500)
    assert operating_points(genuine, impostor, [FPR])[0][0].tpr == pytest.approx(true_tpr(), abs=0.015)
