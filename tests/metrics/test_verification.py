"""k-fold accuracy against the plain loops, bit for bit."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.model_selection import KFold as SklearnKFold

from facekd.metrics.verification import (
    contiguous_folds,
    kfold_accuracy,
    kfold_distances,
    pair_scores,
    unit,
)


def kfold_accuracy_slow(distances: np.ndarray, genuine: np.ndarray, folds: np.ndarray) -> tuple[list[float], list[int]]:
    """Every threshold tried on every training set."""
    thresholds = np.arange(0, 4, 0.01)
    accuracies, chosen = [], []
    for fold in np.unique(folds):
        train, test = folds != fold, folds == fold
        training = np.array([((distances[train] < t) == genuine[train]).sum() / train.sum() for t in thresholds])
        best = int(np.argmax(training))
        accuracies.append(((distances[test] < thresholds[best]) == genuine[test]).sum() / test.sum())
        chosen.append(best)
    return accuracies, chosen


@pytest.mark.parametrize("seed", range(12))
def test_fast_form_is_the_slow_form_bit_for_bit(seed: int) -> None:
    rng = np.random.default_rng(seed)
    count, folds = int(rng.integers(20, 400)), int(rng.integers(2, 11))
    genuine = rng.random(count) < 0.5
    distances = np.clip(rng.normal(np.where(genuine, 1.0, 1.8), 0.4), 0, 4)
    if seed % 2:  # on the grid itself, where strict and not strict differ
        distances = np.arange(0, 4, 0.01)[(distances / 0.01).astype(int).clip(0, 399)]
    numbers = contiguous_folds(count, folds) if seed % 3 else rng.permutation(contiguous_folds(count, folds)) * 7
    accuracies, chosen = kfold_accuracy_slow(distances, genuine, numbers)
    found = kfold_distances(distances, genuine, numbers)
    assert list(found.per_fold) == accuracies
    assert found.mean == np.mean(accuracies) and found.std == np.std(accuracies)
    assert found.threshold == pytest.approx(1 - np.mean(np.arange(0, 4, 0.01)[chosen]) / 2, abs=1e-15)


@pytest.mark.parametrize(("count", "folds"), [(6000, 10), (23, 10), (10, 10), (7, 3)])
def test_contiguous_folds_are_those_of_scikit_learn(count: int, folds: int) -> None:
    numbers = contiguous_folds(count, folds)
    for number, (_, test) in enumerate(SklearnKFold(folds).split(np.zeros(count))):
        assert np.flatnonzero(numbers == number).tolist() == test.tolist()


def test_from_embeddings_of_any_length() -> None:
    rng = np.random.default_rng(3)
    a, b = rng.normal(size=(60, 8)), rng.normal(size=(60, 8))
    genuine = np.arange(60) % 2 == 0
    b[genuine] = a[genuine] + 0.4 * b[genuine]
    folds = contiguous_folds(60)
    distances = ((unit(a) - unit(b)) ** 2).sum(dim=1)
    want = kfold_distances(distances, genuine, folds)
    assert kfold_accuracy(a, b, genuine, folds) == want
    assert (
        kfold_accuracy(torch.tensor(a) * 7, 0.2 * torch.tensor(b), torch.tensor(genuine), torch.tensor(folds)) == want
    )


def test_pair_scores_in_blocks() -> None:
    rng = np.random.default_rng(0)
    embeddings, pairs = rng.normal(size=(9, 5)).astype(np.float32), rng.integers(0, 9, (50, 2))
    cosine, distance = pair_scores(embeddings, pairs)
    rows = embeddings.astype(np.float64)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    np.testing.assert_allclose(cosine, [rows[i] @ rows[j] for i, j in pairs], atol=1e-15)
    np.testing.assert_allclose(distance, 2 - 2 * cosine, atol=1e-14)
    blocked = pair_scores(embeddings, pairs, block=7)
    assert torch.equal(blocked[0], cosine) and torch.equal(blocked[1], distance)


def test_bad_embeddings_are_refused() -> None:
    for bad in (0.0, np.nan, np.inf):
        embeddings = np.ones((4, 3))
        embeddings[2] = bad
        with pytest.raises(ValueError, match="1 embeddings are zero or not finite, the first in row 2"):
            pair_scores(embeddings, np.array([[0, 1]]))
    with pytest.raises(ValueError, match=r"\(n, dim\)"):
        unit(np.ones(3))


def test_unusable_folds_and_distances_are_refused() -> None:
    distances, genuine = np.ones(4), np.array([True, False, True, False])
    with pytest.raises(ValueError, match="1 folds"):
        kfold_distances(distances, genuine, np.zeros(4))
    with pytest.raises(ValueError, match="shapes differ"):
        kfold_distances(distances, genuine[:3], np.arange(4))
    with pytest.raises(ValueError, match="1 of 4 distances"):
        kfold_distances(np.array([1.0, np.nan, 1.0, 1.0]), genuine, np.arange(4))
    with pytest.raises(ValueError, match="paired with"):
        kfold_accuracy(np.ones((4, 3)), np.ones((4, 2)), genuine, np.arange(4))


def test_gallery__is_what_the_second_image_of_a_pair_is_looked_up_in() -> None:
    rng = np.random.default_rng(5)
    probe, gallery, pairs = rng.normal(size=(9, 4)), rng.normal(size=(9, 4)), rng.integers(0, 9, (20, 2))
    cosine, distance = pair_scores(probe, pairs, gallery=gallery, block=7)
    for row, (i, j) in enumerate(pairs):
        wanted = probe[i] @ gallery[j] / np.linalg.norm(probe[i]) / np.linalg.norm(gallery[j])
        assert float(cosine[row]) == pytest.approx(wanted) and float(distance[row]) == pytest.approx(2 - 2 * wanted)
    assert torch.equal(pair_scores(probe, pairs, gallery=probe)[0], pair_scores(probe, pairs)[0])
    with pytest.raises(ValueError, match="gallery of"):
        pair_scores(probe, pairs, gallery=gallery[:, :3])
