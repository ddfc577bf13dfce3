"""Intervals of AUC, EER and accuracy against their definition written out, and what thinning changes."""

from __future__ import annotations

import numpy as np
import pytest
from test_intervals import small_pairs

from facekd.metrics.curve_intervals import Side, bootstrap_curve
from facekd.metrics.fold_intervals import bootstrap_kfold
from facekd.metrics.resampling import dense_subjects, multiplicities
from facekd.metrics.roc import auc, eer
from facekd.metrics.verification import kfold_distances

PEOPLE = 8


def copied(scores: np.ndarray, people: np.ndarray, times: np.ndarray) -> np.ndarray:
    """Every pair as often as its people were drawn."""
    return np.repeat(scores, [times[a] if a == b else times[a] * times[b] for a, b in people])


def sides(genuine: np.ndarray, impostor: np.ndarray, subjects: tuple[np.ndarray, np.ndarray]) -> tuple[Side, Side]:
    return Side(genuine, subjects[0].__getitem__), Side(impostor, subjects[1].__getitem__)


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("seed", range(4))
def test_area_and_crossing_are_those_of_pairs_copied_out(seed: int, ties: bool) -> None:
    genuine, impostor, subjects = small_pairs(seed, ties)
    error = eer(genuine, impostor).value
    found = bootstrap_curve(*sides(genuine, impostor, subjects), PEOPLE, error, replicates=80, seed=seed)
    areas, errors = [], []
    for number in range(80):
        times = multiplicities(number, PEOPLE, seed)
        both = [copied(scores, people, times) for scores, people in zip((genuine, impostor), subjects, strict=True)]
        if both[0].size and both[1].size:
            areas.append(auc(*both))
            errors.append(eer(*both).value)
    assert found.auc == pytest.approx(tuple(np.quantile(areas, [0.025, 0.975])), abs=1e-12)
    assert found.eer == pytest.approx(tuple(np.quantile(errors, [0.025, 0.975])), abs=1e-12)
    assert found.auc[0] < found.auc[1] and found.eer[0] < found.eer[1]


@pytest.mark.parametrize("apart", [1.0, 0.1])
def test_thinned_pairs_give_the_interval_of_all(apart: float) -> None:
    """Also where the crossing lies in the middle of both sides."""
    rng = np.random.default_rng(3)
    habit, own = rng.normal(0, 0.3, 60), np.repeat(np.arange(60), 400)
    left, right = rng.integers(0, 60, (2, 60_000))
    right = np.where(left == right, (right + 1) % 60, right)
    genuine = apart + habit[own] + rng.normal(0, 0.5, own.size)
    impostor = 0.3 * (habit[left] + habit[right]) + rng.normal(0, 0.5, left.size)
    given = sides(genuine, impostor, (np.stack([own, own], axis=1), np.stack([left, right], axis=1)))
    error = eer(genuine, impostor).value
    whole, few = (bootstrap_curve(*given, 60, error, replicates=200, most=most) for most in (10**6, 20_000))
    for name in ("auc", "eer"):
        exact, near = (np.array(getattr(found, name)) for found in (whole, few))
        assert (np.abs(near - exact) < 0.12 * np.ptp(exact)).all() and not np.array_equal(near, exact)


def test_curve_edges() -> None:
    alone = np.array([[0, 0]]), np.array([[1, 2]])
    found = bootstrap_curve(*sides(np.array([0.1]), np.array([0.9]), alone), 3, 1.0, replicates=400)
    assert (found.auc, found.eer) == ((0.0, 0.0), (1.0, 1.0))
    nobody = bootstrap_curve(*sides(np.array([0.9]), np.array([0.1]), alone), 1000, 0.0, replicates=1, seed=1)
    assert (nobody.auc, nobody.eer) == ((0.0, 1.0), (0.0, 1.0))
    with pytest.raises(ValueError, match="1 genuine and 0 impostor pairs"):
        bootstrap_curve(*sides(np.array([0.9]), np.zeros(0), alone), 3, 0.0)


def folded(seed: int, pairs: int = 200) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    genuine, folds, left = rng.random(pairs) < 0.5, np.arange(pairs) % 4, rng.integers(0, 12, pairs)
    people = np.stack([left, np.where(genuine, left, (left + rng.integers(1, 12, pairs)) % 12)], axis=1)
    distances = np.clip(np.where(genuine, 1.0, 1.6) + rng.normal(0, 0.25, pairs), 0, 3.99)
    return distances, genuine, folds, people + 5


@pytest.mark.parametrize("known", [True, False])
def test_accuracy_is_that_of_pairs_copied_out(known: bool) -> None:
    distances, genuine, folds, people = folded(2)
    found = bootstrap_kfold(distances, genuine, folds, people if known else None, replicates=60, seed=7)
    dense, count = dense_subjects(people if known else None, genuine.size)
    means = []
    for number in range(60):
        chosen = copied(np.arange(genuine.size), dense, multiplicities(number, count, 7))
        means.append(kfold_distances(distances[chosen], genuine[chosen], folds[chosen]).mean)
    assert found == pytest.approx(tuple(np.quantile(means, [0.025, 0.975])), abs=1e-12)
    assert found[0] < kfold_distances(distances, genuine, folds).mean < found[1]


def test_folds_that_a_draw_leaves_empty_are_no_folds() -> None:
    people = np.array([[0, 0], [0, 0], [1, 1], [1, 1], [2, 2], [2, 2]])
    same, folds = np.array([True, False] * 3), np.repeat([0, 1, 2], 2)
    distances = np.array([0.5, 1.5] * 3)
    assert bootstrap_kfold(distances, same, folds, people, replicates=50) == (1.0, 1.0)
    assert bootstrap_kfold(distances[:4], same[:4], folds[:4], people[:4] * 0, replicates=5) == (1.0, 1.0)
    with pytest.raises(ValueError, match=r"subjects of shape \(3, 2\) for 4 pairs"):
        bootstrap_kfold(distances[:4], same[:4], folds[:4], people[:3])
