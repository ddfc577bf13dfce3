"""Calibration against closed forms and scikit-learn on the uncounted scores."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.isotonic import IsotonicRegression
from sklearn.linear_model import LogisticRegression

from facekd.metrics.calibration import KNOTS, calibrate, distance_of, percent_of
from facekd.metrics.resampling import multiplicities


def normal_scores(seed: int, genuine: int = 6000, impostor: int = 9000) -> tuple[np.ndarray, np.ndarray]:
    draw = np.random.default_rng(seed)
    sides = draw.normal(0.5, 0.12, genuine), draw.normal(0.05, 0.12, impostor)
    return tuple(np.clip(side, -1, 1) for side in sides)


def test_two_normal_sides__have_the_log_odds_of_the_textbook() -> None:
    """Equal variances make the log-odds a line: slope (m1 - m0) / s^2, zero half-way."""
    found = calibrate(*normal_scores(0, 40_000, 40_000), replicates=0)
    assert found.slope == pytest.approx(0.45 / 0.12**2, rel=0.05)
    assert -found.intercept / found.slope == pytest.approx(0.275, abs=0.005)


def test_both_fits__are_those_of_scikit_learn_on_the_scores_themselves() -> None:
    genuine, impostor = normal_scores(1)
    scores, truth = np.concatenate([genuine, impostor]), np.repeat([1, 0], [genuine.size, impostor.size])
    weights = np.where(truth, 1000 / genuine.size, 1000 / impostor.size)
    line = LogisticRegression(C=1e4, tol=1e-8, max_iter=500).fit(scores[:, None], truth, sample_weight=weights)
    steps = IsotonicRegression().fit(scores, truth, sample_weight=weights)
    found, at = calibrate(genuine, impostor, replicates=0), np.linspace(-0.1, 0.7, 50)
    np.testing.assert_allclose(found.probability(at), line.predict_proba(at[:, None])[:, 1], atol=2e-3)
    np.testing.assert_allclose(found.isotonic(at), steps.predict(at), atol=0.05)
    assert (np.diff(found.isotonic(np.linspace(-1, 1, 999))) >= 0).all()


def test_numbers_of_pairs__change_nothing_but_the_noise() -> None:
    few, many = (calibrate(*normal_scores(2, 5000, count), replicates=0) for count in (5000, 80_000))
    np.testing.assert_allclose(few.probability(KNOTS), many.probability(KNOTS), atol=0.03)


def test_another_prior__moves_the_odds_by_its_own() -> None:
    found = calibrate(*normal_scores(3), replicates=0)
    even, rare = (found.probability(np.array([0.3]), prior)[0] for prior in (0.5, 0.01))
    assert rare / (1 - rare) == pytest.approx(even / (1 - even) / 99)


@pytest.mark.slow
def test_interval__holds_the_truth_and_is_wider_for_few_people() -> None:
    truth = 1 / (1 + np.exp(-(KNOTS - 0.275) * 0.45 / 0.12**2))
    covered = []
    for seed in range(12):
        found = calibrate(*normal_scores(seed, 2000, 4000), replicates=100, seed=seed)
        covered.append(((found.low <= truth) & (truth <= found.high)).mean())
    assert 0.9 < np.mean(covered) <= 1
    genuine, impostor = normal_scores(5, 400, 800)
    people = np.repeat(np.arange(20), 20), np.arange(800) % 20
    subjects = np.stack([people[0]] * 2, axis=1), np.stack([people[1], (people[1] + 1) % 20], axis=1)
    by_people, by_pairs = (calibrate(genuine, impostor, s, replicates=100) for s in (subjects, None))
    assert (by_people.low <= by_people.high).all() and not np.array_equal(by_people.low, by_pairs.low)


@pytest.mark.parametrize(
    ("genuine", "impostor", "message"),
    [([], [0.1], "genuine: shape"), ([0.1], [[0.1]], "impostor: shape"), ([0.1], [1.2], "no cosines")],
)
def test_what_cannot_be_calibrated_is_refused(genuine: list, impostor: list, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        calibrate(np.array(genuine), np.array(impostor))


def test_a_threshold_written_in_other_ways() -> None:
    one, other = np.array([1.0, 0.0]), np.array([0.6, 0.8])
    assert distance_of(float(one @ other)) == pytest.approx(np.linalg.norm(one - other))
    assert (percent_of(-1.0), percent_of(0.6)) == (0.0, 80.0)


def test_both_intervals__are_those_of_pairs_copied_out() -> None:
    """scikit-learn on the scores of every replicate, each pair as often as its people were drawn."""
    draw, people = np.random.default_rng(4), 12
    own, left = np.repeat(np.arange(people), 5), draw.integers(0, people, 150)
    right = (left + draw.integers(1, people, 150)) % people
    sides = draw.normal(0.4, 0.2, own.size).clip(-1, 1), draw.normal(0.1, 0.2, 150).clip(-1, 1)
    sides = tuple((np.floor((side + 1) * 5000) + 0.5) / 5000 - 1 for side in sides)  # where cells have their middle
    subjects = np.stack([own, own], axis=1), np.stack([left, right], axis=1)
    found = calibrate(*sides, subjects, replicates=25, seed=3)
    lines, steps = [], []
    for number in range(25):
        times = multiplicities(number, people, 3)
        both = [np.repeat(sides[0], times[own]), np.repeat(sides[1], times[left] * times[right])]
        scores, truth = np.concatenate(both), np.repeat([1, 0], [both[0].size, both[1].size])
        weights = np.where(truth, 1000 / both[0].size, 1000 / both[1].size)
        line = LogisticRegression(C=1e4, tol=1e-8, max_iter=500).fit(scores[:, None], truth, sample_weight=weights)
        lines.append(line.predict_proba(KNOTS[:, None])[:, 1])
        times = multiplicities(number, people, 3, draws=5)  # 12 to the power of two thirds
        both = [np.repeat(sides[0], times[own]), np.repeat(sides[1], times[left] * times[right])]
        if both[0].size and both[1].size:
            steps.append(_isotonic_at_knots(*both))
    np.testing.assert_allclose((found.low, found.high), np.quantile(lines, [0.025, 0.975], axis=0), atol=2e-4)
    middle = _isotonic_at_knots(*sides)
    wanted = middle + (5 / 12) ** (1 / 3) * (np.quantile(steps, [0.025, 0.975], axis=0) - middle)
    np.testing.assert_allclose((found.isotonic_low, found.isotonic_high), wanted.clip(0, 1), atol=1e-9)
    assert (found.isotonic_low < found.isotonic_high).sum() > 10


def _isotonic_at_knots(genuine: np.ndarray, impostor: np.ndarray) -> np.ndarray:
    scores, truth = np.concatenate([genuine, impostor]), np.repeat([1, 0], [genuine.size, impostor.size])
    weights = np.where(truth, 1000 / genuine.size, 1000 / impostor.size)
    return IsotonicRegression(out_of_bounds="clip").fit(scores, truth, sample_weight=weights).predict(KNOTS)


def test_the_isotonic_interval__has_no_end_without_replicates() -> None:
    found = calibrate(*normal_scores(1), replicates=0)
    assert (found.isotonic_low == 0).all() and (found.isotonic_high == 1).all()
