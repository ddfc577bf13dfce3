"""Aggregation of templates against the rule written out in loops, and scores of listed pairs."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from facekd.metrics.templates import (
    AGGREGATIONS,
    Aggregation,
    Membership,
    aggregate_templates,
    membership,
    template_pair_scores,
)


def slow_template(views: np.ndarray, media: np.ndarray, scores: np.ndarray, how: Aggregation) -> np.ndarray:
    """One template, step by step as the rule is told."""
    by_medium: dict[int, list[np.ndarray]] = {}
    for (own, mirrored), medium, score in zip(views, media, scores, strict=True):
        vector = own + mirrored if how.flip else own
        if how.norm == "unit":
            vector = vector / np.sqrt((vector**2).sum())
        if how.det:
            vector = vector * score
        by_medium.setdefault(int(medium), []).append(vector)
    total = sum(np.mean(vectors, axis=0) for vectors in by_medium.values())
    return total / np.sqrt((total**2).sum())


def some_images(seed: int, width: int = 7) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Views, templates, media and scores of images in no order; media numbers are shared between templates."""
    rng = np.random.default_rng(seed)
    templates = rng.choice([3, 10**12, 77, 1, 2_000_000], 90)
    return rng.normal(1, 3, (90, 2, width)), templates, rng.integers(0, 6, 90), rng.uniform(0.1, 1, 90)


@pytest.mark.parametrize("how", AGGREGATIONS, ids=lambda how: how.told)
def test_aggregation_is_the_rule_written_out(how: Aggregation) -> None:
    views, templates, media, scores = some_images(1)
    members = membership(templates, media, scores)
    found = aggregate_templates(views, members, how, block=13)
    assert members.ids.tolist() == sorted(set(templates.tolist())) and found.dtype == torch.float32
    for row, template in enumerate(members.ids):
        own = templates == template
        want = slow_template(views[own], media[own], scores[own], how)
        assert np.abs(found[row].numpy() - want).max() < 1e-6


def test_the_eight_ways_are_eight_and_differ() -> None:
    views, templates, media, scores = some_images(2)
    members = membership(templates, media, scores)
    found = [aggregate_templates(views, members, how) for how in AGGREGATIONS]
    assert AGGREGATIONS[0] == Aggregation("keep", True, True) and len(set(AGGREGATIONS)) == 8
    assert all(not torch.allclose(a, b, atol=1e-4) for i, a in enumerate(found) for b in found[:i])


def test_keep_means_keep_and_unit_divides_out() -> None:
    """Two of the field's scripts call the same switch by the opposite name."""
    views = np.array([[[9.0, 0.0], [0.0, 0.0]], [[0.0, 1.0], [0.0, 0.0]]])
    two = membership(np.zeros(2, int), np.array([0, 1]), np.ones(2))
    keep, unit = (aggregate_templates(views, two, Aggregation(norm, False, False))[0] for norm in ("keep", "unit"))
    assert keep.tolist() == pytest.approx([9 / 82**0.5, 1 / 82**0.5], abs=1e-7)
    assert unit.tolist() == pytest.approx([0.5**0.5, 0.5**0.5], abs=1e-7)


def test_a_video_weighs_what_a_still_does() -> None:
    video, still = np.array([[1.0, 0.0]] * 2), np.array([[0.0, 1.0]] * 2)
    views = np.stack([video] * 1000 + [still])
    members = membership(np.zeros(1001, int), np.array([5] * 1000 + [6]), np.ones(1001))
    assert aggregate_templates(views, members, Aggregation())[0].tolist() == pytest.approx([0.5**0.5] * 2, abs=1e-7)


@pytest.mark.parametrize("width", [1, 64, 128, 512, 513])
def test_any_width_serves(width: int) -> None:
    """The field's script knows only embeddings of 512."""
    views, templates, media, scores = some_images(3, width)
    found = aggregate_templates(views.astype(np.float32), membership(templates, media, scores), Aggregation())
    assert found.shape == (5, width) and torch.allclose(found.norm(dim=1), torch.ones(5))


@pytest.mark.parametrize("block", [1, 7, 90, 1000])
def test_order_and_blocks_of_images_change_nothing(block: int) -> None:
    views, templates, media, scores = some_images(4)
    want = aggregate_templates(views, membership(templates, media, scores), Aggregation())
    order = np.random.default_rng(0).permutation(90)
    shuffled = membership(templates[order], media[order], scores[order])
    assert torch.allclose(aggregate_templates(views[order], shuffled, Aggregation(), block=block), want, atol=1e-6)


def test_images_without_an_embedding_are_left_out_of_the_means_and_may_take_the_template_with_them() -> None:
    views, templates, media, scores = some_images(5)
    usable = np.random.default_rng(1).random(90) < 0.6
    usable[templates == 77] = False
    views[~usable] = np.nan
    members = membership(templates, media, scores)
    found = aggregate_templates(views, members, Aggregation(), usable=usable)
    for row, template in enumerate(members.ids):
        own = (templates == template) & usable
        if template == 77:
            assert not found[row].any()
        else:
            want = slow_template(views[own], media[own], scores[own], Aggregation())
            assert np.abs(found[row].numpy() - want).max() < 1e-6
    with pytest.raises(ValueError, match="an embedding is not finite"):
        aggregate_templates(views, members, Aggregation())


def test_a_template_whose_detector_saw_nothing_fails_only_where_that_counts() -> None:
    one = membership(np.zeros(2, int), np.zeros(2, int), np.zeros(2))
    views = np.ones((2, 2, 3))
    assert not aggregate_templates(views, one, Aggregation()).any()
    assert aggregate_templates(views, one, Aggregation(det=False)).any()


@pytest.mark.parametrize("block", [1, 3, 1000])
def test_scores_are_the_cosines_of_the_pairs(block: int) -> None:
    rng = np.random.default_rng(6)
    rows = torch.nn.functional.normalize(torch.from_numpy(rng.normal(size=(20, 9))), dim=1).float()
    left, right = rng.integers(0, 20, (2, 200))
    want = (rows.double().numpy() @ rows.double().numpy().T)[left, right].clip(-1, 1)
    for dtype in (np.int32, np.int64):
        found = template_pair_scores(rows, left.astype(dtype), right.astype(dtype), block=block)
        assert found.dtype == torch.float32 and np.abs(found.numpy() - want).max() < 1e-6
        assert found.abs().max() <= 1


def test_a_failed_template_has_no_score_and_is_not_dropped() -> None:
    rows = torch.tensor([[1.0, 0.0], [0.0, 0.0], [-1.0, 0.0]])
    found = template_pair_scores(rows, np.array([0, 0, 1, 1]), np.array([1, 2, 1, 2]))
    assert found.isnan().tolist() == [True, False, True, True] and found[1] == -1


def test_what_does_not_fit_is_refused() -> None:
    rows, one = torch.eye(3), np.array([0])
    for left, right in ((one, np.array([3])), (np.array([-1]), one)):
        with pytest.raises(ValueError, match="of 3 templates"):
            template_pair_scores(rows, left, right)
    with pytest.raises(ValueError, match="first and"):
        template_pair_scores(rows, one, np.array([0, 1]))
    with pytest.raises(ValueError, match="shapes differ"):
        membership(np.arange(2), np.arange(3), np.ones(2))
    for bad in (-0.1, np.nan, np.inf):
        with pytest.raises(ValueError, match="a detector score"):
            membership(np.arange(2), np.arange(2), np.array([1.0, bad]))
    members: Membership = membership(np.arange(2), np.arange(2), np.ones(2))
    with pytest.raises(ValueError, match="for 2 images with two views each"):
        aggregate_templates(np.ones((2, 3)), members, Aggregation())
