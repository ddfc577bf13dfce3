"""Intervals for long lists of pairs: those of the general form, whichever way the impostors are counted."""

from __future__ import annotations

import numpy as np
import pytest

from facekd.metrics import listed_pairs
from facekd.metrics.intervals import bootstrap_pairs
from facekd.metrics.listed_pairs import bootstrap_listed_pairs

FPRS = [0.3, 0.05, 0.01]


def some_pairs(seed: int, ties: bool) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    people = 3 * np.arange(15) + 2
    own, left = rng.choice(people, 60), rng.choice(people, 900)
    right = people[(np.searchsorted(people, left) + rng.integers(1, 15, 900)) % 15]
    genuine, impostor = rng.normal(0.5, 0.2, 60), rng.normal(0.1, 0.2, 900)
    if ties:
        genuine, impostor = genuine.round(1), impostor.round(1)
    return genuine, impostor, own, left, right


@pytest.mark.parametrize("counted", [False, True])
@pytest.mark.parametrize("ties", [False, True])
def test_listed_pairs_equal_the_general_form(counted: bool, ties: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if counted:
        monkeypatch.setattr(listed_pairs, "MOST_WEIGHTS", 0)
        monkeypatch.setattr(listed_pairs, "CHUNK", 70)
        monkeypatch.setattr(listed_pairs, "ROWS", 4)
    for seed in range(4):
        genuine, impostor, own, left, right = some_pairs(seed, ties)
        subjects = np.stack([own, own], axis=1), np.stack([left, right], axis=1)
        want = bootstrap_pairs(genuine, impostor, subjects, FPRS, replicates=60, seed=seed)
        small = tuple(side.astype(np.uint8) for side in (own, left, right))
        assert bootstrap_listed_pairs(genuine, impostor, small, FPRS, replicates=60, seed=seed) == want
        assert want[1][0] < want[1][1]


def test_too_many_pairs_of_too_many_people_have_no_interval(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listed_pairs, "MOST_WEIGHTS", 10)
    monkeypatch.setattr(listed_pairs, "MOST_SUBJECTS", 14)
    genuine, impostor, *subjects = some_pairs(0, False)
    assert bootstrap_listed_pairs(genuine, impostor, tuple(subjects), FPRS, replicates=5) is None
    monkeypatch.setattr(listed_pairs, "MOST_SUBJECTS", 15)
    assert bootstrap_listed_pairs(genuine, impostor, tuple(subjects), FPRS, replicates=5) is not None


def test_subjects_must_fit_the_pairs() -> None:
    genuine, impostor, own, left, right = some_pairs(0, False)
    with pytest.raises(ValueError, match=r"subjects of \(60, 899, 900\) for 60 genuine and 900 impostor pairs"):
        bootstrap_listed_pairs(genuine, impostor, (own, left[1:], right), FPRS)
    with pytest.raises(ValueError, match="0 genuine"):
        bootstrap_listed_pairs(genuine[:0], impostor, (own[:0], left, right), FPRS)
