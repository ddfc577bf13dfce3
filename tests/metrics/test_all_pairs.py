"""All pairs in tiles against two plain loops."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from facekd.metrics import all_pairs
from facekd.metrics.all_pairs import all_pair_scores, count_pairs, impostor_subjects
from facekd.metrics.roc import operating_points


def identity_list(seed: int, images: int, subjects: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, subjects, images) * 3 - 5
    return rng.normal(size=(images, 16)).astype(np.float32) + 0.5 * rng.normal(size=(200, 16))[labels], labels


def brute_force(embeddings: np.ndarray, labels: np.ndarray) -> tuple[list, list]:
    """(score, subject, subject) of every genuine and every impostor pair."""
    rows = embeddings.astype(np.float64)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    subject = np.unique(labels, return_inverse=True)[1]
    sides: tuple[list, list] = ([], [])
    for i in range(len(rows)):
        for j in range(i + 1, len(rows)):
            one, other = sorted((subject[i], subject[j]))
            sides[int(one != other)].append((float(rows[i] @ rows[j]), int(one), int(other)))
    return sides


@pytest.mark.parametrize(("images", "subjects", "block"), [(60, 9, 2048), (61, 9, 7), (50, 30, 16), (33, 2, 1)])
def test_every_pair_once_with_its_subjects(images: int, subjects: int, block: int) -> None:
    embeddings, labels = identity_list(images, images, subjects)
    genuine, impostor = brute_force(embeddings, labels)
    pairs = all_pair_scores(embeddings, labels, block=block)
    found = [(s, a, a) for s, a in zip(pairs.genuine.tolist(), pairs.genuine_subjects.tolist(), strict=True)]
    people = impostor_subjects(pairs, torch.arange(pairs.impostor.numel())).tolist()
    others = [(s, a, b) for s, (a, b) in zip(pairs.impostor.tolist(), people, strict=True)]
    for got, want in ((found, genuine), (others, impostor)):
        got, want = (sorted(side, key=lambda row: (row[1], row[2], row[0])) for side in (got, want))
        assert [row[1:] for row in got] == [row[1:] for row in want]
        np.testing.assert_allclose([row[0] for row in got], [row[0] for row in want], atol=1e-7)
    assert count_pairs(labels) == (len(genuine), len(impostor))


def test_operating_points_equal_brute_force_on_500_images() -> None:
    embeddings, labels = identity_list(1, 500, 60)
    genuine, impostor = ([np.float32(row[0]) for row in side] for side in brute_force(embeddings, labels))
    pairs = all_pair_scores(embeddings, labels, block=128)
    fprs = [1e-1, 1e-2, 1e-3, 1e-4]
    want = operating_points(np.array(genuine), np.array(impostor), fprs)
    assert operating_points(pairs.genuine, pairs.impostor, fprs) == want


def test_order_block_and_length_do_not_matter() -> None:
    embeddings, labels = identity_list(2, 80, 12)
    order = np.random.default_rng(0).permutation(80)
    one, other = all_pair_scores(embeddings, labels), all_pair_scores(4 * embeddings[order], labels[order], block=9)
    assert torch.equal(one.genuine.sort().values, other.genuine.sort().values)
    assert torch.equal(one.impostor.sort().values, other.impostor.sort().values)


def test_lists_without_one_kind_of_pair() -> None:
    assert all_pair_scores(np.eye(3), np.zeros(3)).impostor.numel() == 0
    assert all_pair_scores(np.eye(3), np.arange(3)).genuine.numel() == 0


def test_too_many_pairs_are_refused_before_any_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(all_pairs, "MOST_PAIRS", 9)
    with pytest.raises(
        ValueError, match="10 pairs of 5 images, above the limit of 9; sweep_all_pairs holds none of them"
    ):
        all_pair_scores(np.eye(5), np.arange(5))


def test_bad_input_is_refused() -> None:
    with pytest.raises(ValueError, match="labels for 3 embeddings"):
        all_pair_scores(np.eye(3), np.arange(2))
    with pytest.raises(ValueError, match="first in row 1"):
        all_pair_scores(np.array([[1.0], [np.nan]]), np.arange(2))


@pytest.mark.parametrize("block", [2048, 7])
def test_gallery__holds_the_image_that_comes_later_by_label_then_place(block: int) -> None:
    embeddings, labels = identity_list(4, 40, 6)
    gallery = np.random.default_rng(9).normal(size=embeddings.shape)
    probes, others = (rows / np.linalg.norm(rows, axis=1, keepdims=True) for rows in (embeddings, gallery))
    order = np.argsort(labels, kind="stable")
    genuine, impostor = [], []
    for place, i in enumerate(order):
        for j in order[place + 1 :]:
            (genuine if labels[i] == labels[j] else impostor).append(float(probes[i] @ others[j]))
    pairs = all_pair_scores(embeddings, labels, gallery=gallery, block=block)
    np.testing.assert_allclose(pairs.genuine.numpy(), genuine, atol=1e-6)
    np.testing.assert_allclose(pairs.impostor.numpy(), impostor, atol=1e-6)
    same = all_pair_scores(embeddings, labels, gallery=embeddings)
    assert torch.equal(same.impostor, all_pair_scores(embeddings, labels).impostor)
    with pytest.raises(ValueError, match="gallery of"):
        all_pair_scores(embeddings, labels, gallery=gallery[:-1])
