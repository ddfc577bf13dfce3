"""Superclasses are the clusters the identities were drawn from, and none is too small for a batch."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import adjusted_rand_score

from facekd.data.superclasses import group_identities


def clustered(sizes: list[int], dim: int = 16, spread: float = 0.1) -> tuple[np.ndarray, np.ndarray]:
    """Directions around as many random ones as there are sizes, of any length, and which belongs where."""
    draw = np.random.default_rng(0)
    truth = np.repeat(np.arange(len(sizes)), sizes)
    directions = np.linalg.qr(draw.normal(size=(dim, dim)))[0][truth]
    rows = directions + spread * draw.normal(size=directions.shape) / np.sqrt(dim)
    return rows * draw.uniform(0.1, 10.0, (len(rows), 1)), truth


def test_group_identities__finds_the_clusters_whatever_the_lengths() -> None:
    rows, truth = clustered([12, 9, 20, 15])
    groups = group_identities(rows, 4, least=5, seed=0)
    assert adjusted_rand_score(truth, groups) == 1.0
    assert np.array_equal(group_identities(rows, 4, least=5, seed=0), groups)


def test_group_identities__a_small_cluster_joins_its_nearest() -> None:
    rows, truth = clustered([12, 3, 10])
    rows[truth == 1] += (
        0.6
        * np.linalg.norm(rows[truth == 1], axis=1, keepdims=True)
        * (rows[truth == 2].mean(0) / np.linalg.norm(rows[truth == 2].mean(0)))
    )
    groups = group_identities(rows, 3, least=5, seed=0)
    assert sorted(np.bincount(groups).tolist()) == [12, 13]
    assert len(set(groups[truth != 0].tolist())) == 1


def test_group_identities__refuses_what_the_identities_are_too_few_for() -> None:
    rows, _ = clustered([4, 4])
    with pytest.raises(ValueError, match="8 identities cannot make 9 groups"):
        group_identities(rows, 9, least=1, seed=0)
    with pytest.raises(ValueError, match="8 identities do not fall into groups of at least 5 that look alike"):
        group_identities(rows, 2, least=5, seed=0)
