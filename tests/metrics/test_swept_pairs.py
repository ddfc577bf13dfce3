"""Swept pairs against the whole sorted list: the same figures, whatever the tile and the memory."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score

from facekd.metrics.all_pairs import all_pair_scores
from facekd.metrics.details import roc_curve, score_histogram
from facekd.metrics.genuine_pairs import genuine_pairs
from facekd.metrics.intervals import bootstrap_all_pairs
from facekd.metrics.pair_tiles import Rows, sweep
from facekd.metrics.roc import auc, eer, operating_points
from facekd.metrics.score_bins import BINS, EDGE
from facekd.metrics.swept_details import swept_details
from facekd.metrics.swept_intervals import bootstrap_swept_pairs
from facekd.metrics.swept_pairs import MOST_KEPT, SweptPairs, sorted_rows, sweep_all_pairs

FPRS = [0.5, 0.2, 1e-1, 1e-2, 1e-3, 1e-4, 1e-5]


def faces(
    seed: int, images: int, subjects: int, *, dim: int = 16, spread: float = 0.6
) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, subjects, images) * 7 - 3
    centres = rng.normal(size=(7 * subjects, dim))
    return centres[labels + 3] + spread * rng.normal(size=(images, dim)), labels


def tied_faces(seed: int, images: int, subjects: int) -> tuple[np.ndarray, np.ndarray]:
    """Vectors of few directions: most scores occur many times, and every rank lies in a block of equal ones."""
    rng = np.random.default_rng(seed)
    return rng.integers(-1, 2, (images, 3)) + np.array([0, 0, 3]), rng.integers(0, subjects, images)


def check(found: SweptPairs, embeddings: np.ndarray, labels: np.ndarray, gallery: np.ndarray | None = None) -> None:
    """Every figure against the whole list."""
    pairs = all_pair_scores(embeddings, labels, gallery=gallery)
    points, refused = operating_points(pairs.genuine, pairs.impostor, FPRS)
    assert (found.points, found.refused) == (points, refused)
    assert found.eer == eer(pairs.genuine, pairs.impostor)
    assert found.impostors == pairs.impostor.numel() == int(found.bins.sum())
    assert torch.equal(found.genuine.scores.sort().values, pairs.genuine.sort().values)
    area = auc(pairs.genuine, pairs.impostor)
    assert abs(found.auc - area) <= found.auc_error < 2e-3


@pytest.mark.parametrize("most_kept", [10, 500, MOST_KEPT])
@pytest.mark.parametrize("tile", [7, 64, 1024])
@pytest.mark.parametrize("seed", range(6))
def test_figures_are_those_of_the_whole_list(seed: int, tile: int, most_kept: int) -> None:
    embeddings, labels = faces(seed, 150 + 37 * seed, 12 + 5 * seed, spread=0.3 + 0.3 * seed)
    check(sweep_all_pairs(embeddings, labels, FPRS, tile=tile, most_kept=most_kept), embeddings, labels)


@pytest.mark.parametrize("most_kept", [10, MOST_KEPT])
@pytest.mark.parametrize("seed", range(40))
def test_ties_are_accepted_or_rejected_together(seed: int, most_kept: int) -> None:
    embeddings, labels = tied_faces(seed, 20 + 3 * seed, 2 + seed % 7)
    found = sweep_all_pairs(embeddings, labels, FPRS, tile=33, most_kept=most_kept)
    pairs = all_pair_scores(embeddings, labels)
    assert (found.points, found.refused) == operating_points(pairs.genuine, pairs.impostor, FPRS)
    assert found.eer == eer(pairs.genuine, pairs.impostor)


def test_perfectly_told_apart_and_not_at_all() -> None:
    labels = np.arange(60) // 3
    apart = np.eye(20)[labels]
    check(sweep_all_pairs(apart, labels, FPRS), apart, labels)
    assert sweep_all_pairs(apart, labels, FPRS).eer.value == 0
    same = np.ones((60, 4))
    found = sweep_all_pairs(same, labels, FPRS)
    assert (found.eer.value, found.points[0].tpr, found.auc) == (0.5, 0.0, 0.5)


def test_probe_and_gallery_may_come_from_different_models() -> None:
    embeddings, labels = faces(3, 200, 20)
    gallery = embeddings + 0.5 * np.random.default_rng(1).normal(size=embeddings.shape)
    check(sweep_all_pairs(embeddings, labels, FPRS, gallery=gallery, tile=50), embeddings, labels, gallery)


def test_area_is_that_of_scikit_learn() -> None:
    embeddings, labels = faces(5, 400, 30, spread=1.5)
    pairs = all_pair_scores(embeddings, labels)
    truth = np.repeat([1, 0], [pairs.genuine.numel(), pairs.impostor.numel()])
    area = roc_auc_score(truth, torch.cat([pairs.genuine, pairs.impostor]).numpy())
    found = sweep_all_pairs(embeddings, labels, FPRS)
    assert abs(found.auc - area) <= found.auc_error < 1e-3


def test_highest_pairs_are_all_kept_with_their_images() -> None:
    embeddings, labels = faces(2, 300, 25)
    found = sweep_all_pairs(embeddings, labels, [1e-2], tile=41, most_kept=2000)
    unit = embeddings / np.linalg.norm(embeddings, axis=1, keepdims=True)
    left, right = (found.order[side.long()].numpy() for side in (found.highest.left, found.highest.right))
    assert (labels[left] < labels[right]).all()
    np.testing.assert_allclose(found.highest.scores, (unit[left] * unit[right]).sum(axis=1), atol=found.rows.error)
    every = all_pair_scores(embeddings, labels).impostor.sort(descending=True).values
    count = found.highest.scores.numel()
    np.testing.assert_allclose(found.highest.scores.sort(descending=True).values, every[:count], atol=found.rows.error)


def test_products_stay_within_the_stated_error() -> None:
    """Vectors of which the products are as hard to sum as float32 allows: all of one sign, and of many sizes."""
    rng = np.random.default_rng(0)
    for dim in (2, 64, 512, 4096):
        vectors = np.abs(rng.normal(size=(64, dim))) ** rng.integers(1, 8, (64, 1))
        rows, _ = sorted_rows(vectors, np.arange(64))
        _, kept = sweep(rows, 64 * 63)
        exact = rows.exact(kept.left, kept.right)
        assert float((kept.scores - exact).abs().max()) <= rows.error


def test_genuine_pairs_of_every_group_size() -> None:
    embeddings, labels = faces(8, 90, 40)
    rows, order = sorted_rows(embeddings, labels)
    found = genuine_pairs(rows, block=50)
    places = sorted(zip(found.left.tolist(), found.right.tolist(), strict=True))
    want = [(i, j) for i in range(90) for j in range(i + 1, 90) if rows.subjects[i] == rows.subjects[j]]
    assert places == want and torch.equal(torch.as_tensor(labels)[order].sort().values, torch.as_tensor(labels)[order])
    torch.testing.assert_close(found.scores, rows.exact(found.left, found.right), rtol=0, atol=1e-7)


@pytest.mark.parametrize(
    ("labels", "message"),
    [(np.zeros(4), "6 genuine and 0 impostor pairs"), (np.arange(4), "0 genuine and 6"), (np.zeros(3), "labels for 4")],
)
def test_what_cannot_be_measured_is_refused(labels: np.ndarray, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        sweep_all_pairs(np.eye(4), labels, [0.5])


def test_memory_does_not_grow_with_the_number_of_pairs() -> None:
    """The most that is alive at once: a few tiles and what is kept, for 40 times the pairs."""
    rows = {n: sorted_rows(*faces(1, n, n // 3))[0] for n in (300, 1900)}
    assert isinstance(rows[300], Rows)
    kept = {n: sweep(rows[n], 1000, tile=64)[1].scores.numel() for n in rows}
    assert max(kept.values()) <= 1300


def test_intervals_are_those_of_all_pairs() -> None:
    embeddings, labels = faces(4, 300, 30, spread=1.0)
    swept = sweep_all_pairs(embeddings, labels, [1e-1, 1e-2])
    want = bootstrap_all_pairs(all_pair_scores(embeddings, labels), [1e-1], replicates=100)
    assert bootstrap_swept_pairs(swept, [1e-1], replicates=100) == want


def test_thinned_intervals_are_close_to_those_of_all_pairs() -> None:
    embeddings, labels = faces(4, 500, 40, spread=1.0)
    swept = sweep_all_pairs(embeddings, labels, [1e-1])
    ((low, high),) = bootstrap_swept_pairs(swept, [1e-1], replicates=200)
    ((thin_low, thin_high),) = bootstrap_swept_pairs(swept, [1e-1], replicates=200, most=6000)
    assert abs(low - thin_low) < 0.003 > abs(high - thin_high) and (low, high) != (thin_low, thin_high)


def test_intervals_of_what_was_not_kept_are_not_guessed() -> None:
    embeddings, labels = faces(4, 300, 30, spread=1.0)
    swept = sweep_all_pairs(embeddings, labels, [2e-1, 1e-3], tile=64, most_kept=200)
    found = bootstrap_swept_pairs(swept, [2e-1, 1e-3], replicates=20)
    assert found[0] is None


def test_curve_histogram_and_hardest_pairs_are_those_of_the_whole_list() -> None:
    embeddings, labels = faces(6, 350, 30, spread=1.0)
    pairs = all_pair_scores(embeddings, labels)
    found = swept_details(sweep_all_pairs(embeddings, labels, [1e-2], tile=100))
    curve, histogram = roc_curve(pairs.genuine, pairs.impostor), score_histogram(pairs.genuine, pairs.impostor)
    np.testing.assert_array_equal(found.curve.fpr, curve.fpr)
    assert (found.curve.tpr <= curve.tpr).all() and (curve.tpr - found.curve.tpr).max() < 0.005
    np.testing.assert_array_equal(found.histogram.genuine, histogram.genuine)
    assert found.histogram.impostor.sum() == histogram.impostor.sum()
    apart = np.abs(np.cumsum(found.histogram.impostor) - np.cumsum(histogram.impostor))[:-1]
    width, scores = 2 * EDGE / BINS + 1e-6, pairs.impostor.numpy().astype(float)
    near = [int((np.abs(scores - edge) <= width).sum()) for edge in histogram.edges[1:-1]]
    assert (apart <= near).all() and sum(near) < 0.01 * scores.size
    unit = embeddings / np.linalg.norm(embeddings, axis=1, keepdims=True)
    for kind, same in ((found.hardest_impostor, False), (found.hardest_genuine, True)):
        assert all((labels[pair.first] == labels[pair.second]) == same for pair in kind)
        assert all(abs(unit[pair.first] @ unit[pair.second] - pair.score) < 1e-5 for pair in kind)
    assert found.hardest_impostor[0].score == pytest.approx(float(pairs.impostor.max()), abs=1e-5)
    assert found.hardest_genuine[0].score == float(pairs.genuine.min())
