"""Curves, histograms and hardest pairs against plain loops over scores full of ties."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from facekd.metrics.all_pairs import all_pair_scores
from facekd.metrics.details import (
    all_pairs_images,
    curve_fprs,
    extreme_places,
    hard_pairs,
    roc_curve,
    score_histogram,
)
from facekd.metrics.roc import operating_points


@pytest.mark.parametrize("impostors", [1, 2, 3, 4, 30, 31, 400, 3000, 99_999])
def test_fprs_of_a_curve_ascend_from_the_least_that_can_be_shown_to_one(impostors: int) -> None:
    fprs = curve_fprs(impostors)
    assert fprs[0] == min(3 / impostors, 1) and fprs[-1] == 1 and (np.diff(fprs) > 0).all()
    assert len(fprs) >= 40 * np.log10(1 / fprs[0])
    assert all(operating_points([1.0], np.zeros(impostors), [fpr])[1] == [] for fpr in fprs[:-1].tolist())


@pytest.mark.parametrize("seed", range(30))
def test_the_curve_holds_the_operating_points_of_scores_with_ties(seed: int) -> None:
    rng = np.random.default_rng(seed)
    genuine, impostor = rng.integers(0, 8, rng.integers(1, 40)) / 8, rng.integers(0, 6, rng.integers(1, 200)) / 8
    curve = roc_curve(genuine, impostor)
    assert curve.tpr[-1] == 1 and (np.diff(curve.tpr) >= 0).all()
    for fpr, tpr in zip(curve.fpr[:-1].tolist(), curve.tpr[:-1].tolist(), strict=True):
        allowed = [t for t in (*genuine, *impostor, 2.0) if (impostor >= t).mean() <= fpr]
        assert tpr == max((genuine >= t).mean() for t in allowed)
        assert tpr == operating_points(genuine, impostor, [fpr])[0][0].tpr


def test_a_curve_of_scores_in_two_precisions_is_read_in_the_wider() -> None:
    genuine = torch.tensor([0.1, 0.6], dtype=torch.float64)
    impostor = torch.linspace(0, 0.1, 30, dtype=torch.float32)
    assert roc_curve(genuine, impostor).tpr[0] == operating_points(genuine, impostor, [0.1])[0][0].tpr


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_histogram_counts_every_score_once_the_ends_included(dtype: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(0)
    genuine = torch.cat([torch.rand(500, generator=generator) * 2 - 1, torch.tensor([1.0, 1.0000001, -1.0])]).to(dtype)
    impostor = torch.arange(-100, 101).to(dtype) / 100
    found = score_histogram(genuine, impostor)
    edges = torch.as_tensor(found.edges).to(dtype)
    for scores, counts in ((genuine, found.genuine), (impostor, found.impostor)):
        slow = [int(((scores >= low) & (scores < high)).sum()) for low, high in zip(edges, edges[1:], strict=False)]
        slow[-1] += int((scores >= edges[-1]).sum())
        assert counts.tolist() == slow and counts.sum() == len(scores)
    assert found.impostor[:-1].tolist() == [1] * 199 and found.impostor[-1] == 2


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("highest", [False, True])
def test_the_most_extreme_come_first_and_of_equals_the_first(seed: int, highest: bool) -> None:
    rng = np.random.default_rng(seed)
    scores = rng.integers(0, 6, rng.integers(1, 60)) / 4
    order = np.argsort(-scores if highest else scores, kind="stable")[:12]
    assert extreme_places(torch.as_tensor(scores), highest=highest).tolist() == order.tolist()


@pytest.mark.parametrize("seed", range(10))
def test_the_images_of_all_pairs_are_those_whose_cosine_the_score_is(seed: int) -> None:
    rng = np.random.default_rng(seed)
    labels, rows, gallery = rng.integers(3, 9, 20), rng.normal(size=(20, 5)), rng.normal(size=(20, 5))
    pairs = all_pair_scores(rows, labels, gallery=gallery)
    unit, other = (side / np.linalg.norm(side, axis=1, keepdims=True) for side in (rows, gallery))
    for genuine, scores in ((True, pairs.genuine), (False, pairs.impostor)):
        images = all_pairs_images(pairs, labels, torch.arange(len(scores)), genuine=genuine)
        left, right = images.numpy().T
        assert ((labels[left] == labels[right]) == genuine).all()
        np.testing.assert_allclose(scores.numpy(), (unit[left] * other[right]).sum(axis=1), atol=1e-6)
        assert len({tuple(sorted(row)) for row in images.tolist()}) == len(scores)
        found = hard_pairs(scores, torch.tensor([1]), images[1:2])[0]
        assert (found.first, found.second, found.score) == (*images[1].tolist(), scores[1].item())
