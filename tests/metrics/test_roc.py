"""Operating points against an oracle that tries every threshold; AUC and ROC against scikit-learn."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score, roc_curve

from facekd.metrics.allowed import allowed_accepts, needed_impostors
from facekd.metrics.roc import auc, eer, operating_points
from facekd.metrics.scores import ascending

FPRS = [0.5, 0.2, 0.1, 0.03, 0.01]


def tied_scores(seed: int, dtype: type = np.float64) -> tuple[np.ndarray, np.ndarray]:
    """Few distinct values, random sizes."""
    rng = np.random.default_rng(seed)
    levels = rng.integers(2, 40)
    genuine = rng.integers(0, levels, rng.integers(1, 60)) + rng.integers(0, levels)
    impostor = rng.integers(0, levels, rng.integers(3, 400))
    return (genuine / levels - 0.5).astype(dtype), (impostor / levels - 0.5).astype(dtype)


def oracle(genuine: np.ndarray, impostor: np.ndarray, fpr: float) -> tuple[float, float]:
    """TPR and FPR of the most accepting threshold among all that keep the rule."""
    best = (0.0, 0.0)
    for threshold in np.concatenate([genuine, impostor]):
        attained = float((impostor >= threshold).mean())
        if attained <= fpr:
            best = max(best, (float((genuine >= threshold).mean()), attained))
    return best


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_points_equal_the_oracle_and_survive_json(dtype: type) -> None:
    for seed in range(150):
        genuine, impostor = tied_scores(seed, dtype)
        points, refused = operating_points(genuine, impostor, FPRS)
        assert [p.fpr for p in points] + [r.fpr for r in refused] == FPRS
        for point in points:
            tpr, attained = oracle(genuine, impostor, point.fpr)
            assert point.tpr == tpr
            threshold = dtype(json.loads(json.dumps(point.threshold)))
            assert float((genuine >= threshold).mean()) == point.tpr
            assert float((impostor >= threshold).mean()) == point.attained_fpr <= point.fpr
            assert int((impostor >= threshold).sum()) == point.false_accepts
            scores = np.concatenate([genuine, impostor])
            assert point.threshold in scores or threshold > scores.max()
            assert point.attained_fpr >= attained


@pytest.mark.slow
def test_ten_thousand_sets_full_of_ties_without_one_error() -> None:
    """Every distinct score and none at all are tried as thresholds; the most accepting one that keeps the rule wins."""
    wrong = 0
    for seed in range(10_000):
        rng = np.random.default_rng([7, seed])
        levels = int(rng.integers(1, 12))
        genuine, impostor = (rng.integers(0, levels, size) / 16 for size in rng.integers([1, 6], [30, 90]))
        fpr = float(rng.uniform(3 / impostor.size, 0.95))
        tried = np.append(np.unique(np.concatenate([genuine, impostor])), np.inf)
        rates = [(side >= tried[:, None]).mean(axis=1) for side in (genuine, impostor)]
        kept = rates[1] <= fpr
        best = rates[0][kept].max()
        (point,), _ = operating_points(genuine, impostor, [fpr])
        attained = float((impostor >= point.threshold).mean())
        holds = float((genuine >= point.threshold).mean()) == point.tpr and attained == point.attained_fpr <= fpr
        wrong += not (point.tpr == best and holds)
    assert wrong == 0


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_nothing_accepted_gives_a_threshold_above_every_score(dtype: torch.dtype) -> None:
    genuine, impostor = torch.full((4,), 0.5, dtype=dtype), torch.full((40,), 0.5, dtype=dtype)
    point = operating_points(genuine, impostor, [0.1])[0][0]
    assert (point.tpr, point.attained_fpr, point.false_accepts) == (0.0, 0.0, 0)
    assert not (genuine >= torch.tensor(point.threshold, dtype=dtype)).any()
    assert eer(genuine, impostor).value == 0.5


def test_lower_target_never_raises_the_tpr() -> None:
    for seed in range(50):
        points = operating_points(*tied_scores(seed), FPRS)[0]
        assert sorted(points, key=lambda p: (-p.fpr, -p.tpr)) == points
        assert all(a.threshold <= b.threshold for a, b in zip(points, points[1:], strict=False))


def test_order_and_container_do_not_matter() -> None:
    genuine, impostor = tied_scores(5)
    rng = np.random.default_rng(0)
    want = operating_points(genuine, impostor, FPRS)
    assert operating_points(rng.permutation(genuine), rng.permutation(impostor), FPRS) == want
    assert operating_points(torch.tensor(genuine), torch.tensor(impostor), FPRS) == want
    assert operating_points(genuine.tolist(), impostor.tolist(), FPRS) == want
    assert operating_points(np.sort(genuine)[::-1], np.sort(impostor), FPRS) == want


def test_nearest_point_is_that_of_the_roc_curve() -> None:
    for seed in range(100):
        genuine, impostor = tied_scores(seed)
        labels = np.r_[np.ones_like(genuine), np.zeros_like(impostor)]
        rates, tprs, _ = roc_curve(labels, np.r_[genuine, impostor], drop_intermediate=False)
        for point in operating_points(genuine, impostor, FPRS)[0]:
            distance = np.abs(rates - point.fpr)
            near = np.flatnonzero(distance <= distance.min() + 1e-12)
            equally_near = {tprs[rates == rate].max() for rate in rates[near]}
            assert point.nearest_fpr_tpr in equally_near
            assert point.nearest_fpr_tpr >= point.tpr


def test_auc_equals_scikit_learn_under_ties() -> None:
    for seed in range(100):
        genuine, impostor = tied_scores(seed)
        labels = np.r_[np.ones_like(genuine), np.zeros_like(impostor)]
        assert abs(auc(genuine, impostor) - roc_auc_score(labels, np.r_[genuine, impostor])) < 1e-12
        assert auc(impostor, genuine) == pytest.approx(1 - auc(genuine, impostor), abs=1e-12)


def slow_eer(genuine: np.ndarray, impostor: np.ndarray) -> tuple[float, float]:
    thresholds = np.append(np.unique(np.r_[genuine, impostor]), np.inf)
    missed = np.array([(genuine < t).mean() for t in thresholds])
    accepted = np.array([(impostor >= t).mean() for t in thresholds])
    missed_counts, accepted_counts = missed * len(genuine), accepted * len(impostor)
    excess = np.rint(missed_counts) * len(impostor) - np.rint(accepted_counts) * len(genuine)
    sides = [np.flatnonzero(excess <= 0)[-1], np.flatnonzero(excess >= 0)[0]]
    at = min(sides, key=lambda i: (missed[i] + accepted[i], thresholds[i]))
    return tuple(sorted([float(missed[at]), float(accepted[at])]))


def test_eer_brackets_as_the_definition_does() -> None:
    for seed in range(200):
        genuine, impostor = tied_scores(seed)
        found = eer(genuine, impostor)
        assert (found.low, found.high) == slow_eer(genuine, impostor)
        assert found.value == (found.low + found.high) / 2
        rates = float((genuine < found.threshold).mean()), float((impostor >= found.threshold).mean())
        assert sorted(rates) == [found.low, found.high]


def test_eer_of_separated_and_swapped_scores() -> None:
    assert eer([0.9, 0.8], [0.2, 0.1]).value == 0.0
    assert eer([0.2, 0.1], [0.9, 0.8]).value == 1.0


def test_refusal_names_the_impostors_needed() -> None:
    points, refused = operating_points(np.ones(5), np.linspace(0, 0.5, 3000), [1e-2, 1e-3, 1e-6])
    assert [point.supported for point in points] == [True, False]
    assert [(r.fpr, r.impostors, r.needed) for r in refused] == [(1e-6, 3000, 3_000_000)]


@pytest.mark.parametrize("count", [*range(3, 60), 2999, 3000, 3001, 2_654_831])
def test_needed_and_allowed_are_sharp(count: int) -> None:
    for fpr in (1e-1, 1e-2, 3e-2, 1e-3, 7e-4, 1e-4, 1 / 3, 3 / count):
        if not fpr < 1:
            continue
        allowed = allowed_accepts(fpr, count)
        assert allowed / count <= fpr < (allowed + 1) / count
        needed = needed_impostors(fpr)
        assert 3 / needed <= fpr < 3 / (needed - 1)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("measure", [auc, eer, lambda g, i: operating_points(g, i, [0.5])])
def test_bad_scores_are_refused_and_counted(measure, bad: float) -> None:
    good, spoilt = np.linspace(0, 1, 20), np.r_[np.linspace(0, 1, 19), bad]
    with pytest.raises(ValueError, match="genuine scores: 1 of 20 are NaN or infinite"):
        measure(spoilt, good)
    with pytest.raises(ValueError, match="impostor scores: 1 of 20"):
        measure(good, spoilt)
    with pytest.raises(ValueError, match="impostor scores: shape"):
        measure(good, [])


@pytest.mark.parametrize("fpr", [0.0, 1.0, -0.1, math.nan])
def test_impossible_fpr_is_refused(fpr: float) -> None:
    with pytest.raises(ValueError, match="not between 0 and 1"):
        operating_points([1.0], [0.0] * 10, [fpr])


def test_half_precision_widens_exactly() -> None:
    scores = torch.tensor([0.3, 0.1], dtype=torch.float16)
    assert ascending(scores).tolist() == [scores[1].item(), scores[0].item()]
