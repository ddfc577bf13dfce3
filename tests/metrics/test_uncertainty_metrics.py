"""What variances are good for, against closed forms, plain loops and failures."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from facekd.metrics.roc import operating_points
from facekd.metrics.sureness import error_versus_reject, pair_uncertainty, quality_rates, unsure_images
from facekd.metrics.uncertainty import fuse_templates, harmonic_mean_variance, mutual_likelihood, uncertainty_spread

COUNT, DIM = 12, 5
PAIRS = np.array([(i, j) for i in range(COUNT) for j in range(COUNT) if i < j])


def draw(columns: int = DIM) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    return rng.normal(size=(COUNT, DIM)), rng.normal(size=(COUNT, columns)) - 2.0


def test_harmonic_mean__is_that_of_the_variances_and_does_not_overflow() -> None:
    _, log_variance = draw()
    wanted = [DIM / sum(1 / math.exp(v) for v in row) for row in log_variance.tolist()]
    assert harmonic_mean_variance(log_variance).tolist() == pytest.approx(wanted, rel=1e-12)
    assert harmonic_mean_variance(np.array([[-800.0, -800.0]])).tolist() == [math.exp(-800.0)]
    assert harmonic_mean_variance(np.array([[-3.0]])).item() == pytest.approx(math.exp(-3.0))


def test_spread__is_0_where_all_images_are_called_equally_sure() -> None:
    one = np.random.default_rng(1).normal(size=(1, DIM))
    assert uncertainty_spread(np.repeat(one, 9, axis=0)) < 1e-12
    assert uncertainty_spread(np.array([[0.0], [2.0]])) == 1.0
    _, log_variance = draw()
    assert uncertainty_spread(log_variance + 3.0) == pytest.approx(uncertainty_spread(log_variance))


@pytest.mark.parametrize("columns", [DIM, 1])
@pytest.mark.parametrize("block", [7, 1000])
def test_mutual_likelihood__equals_plain_loops_and_is_symmetric(columns: int, block: int) -> None:
    embeddings, log_variance = draw(columns)
    unit = embeddings / np.linalg.norm(embeddings, axis=1, keepdims=True)
    wide = np.broadcast_to(log_variance, (COUNT, DIM))
    wanted = []
    for i, j in PAIRS.tolist():
        total = 0.0
        for a, b, v, w in zip(unit[i], unit[j], wide[i], wide[j], strict=True):
            both = math.exp(v) + math.exp(w)
            total += (a - b) ** 2 / both + math.log(both)
        wanted.append(-0.5 * total - 0.5 * DIM * math.log(2 * math.pi))
    found = mutual_likelihood(embeddings, log_variance, PAIRS, block=block)
    assert found.tolist() == pytest.approx(wanted, rel=1e-10)
    assert torch.equal(found, mutual_likelihood(embeddings, log_variance, PAIRS[:, ::-1].copy(), block=block))


def test_mutual_likelihood__with_one_variance_is_affine_in_the_cosine() -> None:
    embeddings, _ = draw()
    unit = embeddings / np.linalg.norm(embeddings, axis=1, keepdims=True)
    cosines = (unit[PAIRS[:, 0]] * unit[PAIRS[:, 1]]).sum(1)
    variance = 0.37
    scores = mutual_likelihood(embeddings, np.full((COUNT, 1), math.log(variance)), PAIRS).numpy()
    slope, offset = np.polyfit(cosines, scores, 1)
    assert slope == pytest.approx(1 / (2 * variance), rel=1e-9)
    assert np.abs(slope * cosines + offset - scores).max() < 1e-9
    genuine = np.arange(len(PAIRS)) % 3 == 0
    points = [operating_points(s[genuine], s[~genuine], [0.2])[0][0] for s in (cosines, scores)]
    assert points[0].tpr == points[1].tpr and points[0].attained_fpr == points[1].attained_fpr


def test_mutual_likelihood__of_an_image_with_itself_has_no_bound() -> None:
    embeddings, log_variance = draw()
    itself = np.array([[3, 3]])
    wanted = -0.5 * sum(math.log(2 * math.exp(v)) for v in log_variance[3]) - 0.5 * DIM * math.log(2 * math.pi)
    assert mutual_likelihood(embeddings, log_variance, itself).item() == pytest.approx(wanted)
    assert mutual_likelihood(embeddings, log_variance - 50, itself).item() == pytest.approx(wanted + 25 * DIM)


@pytest.mark.parametrize("variance", ["inverse_sum", "least"])
@pytest.mark.parametrize("count", [1, 4])
def test_fusion__of_identical_images_is_that_image(variance: str, count: int) -> None:
    embeddings, log_variance = draw()
    row, values = np.repeat(embeddings[:1], count, 0), np.repeat(log_variance[:1], count, 0)
    fused, fused_variance = fuse_templates(row, values, np.zeros(count, int), variance=variance)
    torch.testing.assert_close(fused[0], torch.from_numpy(embeddings[0] / np.linalg.norm(embeddings[0])))
    shrunk = math.log(count) if variance == "inverse_sum" else 0.0
    torch.testing.assert_close(fused_variance[0], torch.from_numpy(log_variance[0] - shrunk))


@pytest.mark.parametrize("columns", [DIM, 1])
def test_fusion__equals_plain_sums_in_any_order(columns: int) -> None:
    embeddings, log_variance = draw(columns)
    templates = np.arange(COUNT) % 3
    unit = embeddings / np.linalg.norm(embeddings, axis=1, keepdims=True)
    fused, fused_variance = fuse_templates(embeddings, log_variance, templates)
    _, least = fuse_templates(embeddings, log_variance, templates, variance="least")
    for template in range(3):
        weights = 1 / np.exp(log_variance[templates == template])
        mean = (unit[templates == template] * weights).sum(0) / weights.sum(0)
        assert fused[template].tolist() == pytest.approx((mean / np.linalg.norm(mean)).tolist())
        assert fused_variance[template].tolist() == pytest.approx(np.log(1 / weights.sum(0)).tolist())
        assert least[template].tolist() == pytest.approx(log_variance[templates == template].min(0).tolist())
    order = np.random.default_rng(2).permutation(COUNT)
    moved, _ = fuse_templates(embeddings[order], log_variance[order], templates[order])
    torch.testing.assert_close(moved, fused)


def test_fusion__a_very_sure_image_decides_and_nothing_overflows() -> None:
    fused, values = fuse_templates(np.eye(2), np.array([[-2000.0], [5.0]]), np.array([0, 0]))
    assert fused.tolist() == [[1.0, 0.0]] and values.tolist() == [[-2000.0]]


def test_rejecting__by_what_is_wrong_helps_and_by_chance_does_not() -> None:
    rng = np.random.default_rng(3)
    scores = rng.normal(0.6, 0.2, 4000)
    fractions = (0.0, 0.1, 0.2, 0.4)
    helped = error_versus_reject(scores, -scores, threshold=0.4, fractions=fractions)
    missed = float((scores < 0.4).mean())
    assert helped == pytest.approx([max(0.0, (missed - f) / (1 - f)) for f in fractions], abs=1e-9)
    level = error_versus_reject(scores, rng.random(4000), threshold=0.4, fractions=fractions)
    assert level == pytest.approx([missed] * 4, abs=0.02)
    harmed = error_versus_reject(scores, scores, threshold=0.4, fractions=fractions)
    assert harmed == sorted(harmed) and harmed[-1] > 1.5 * missed


def test_a_pair_is_as_unsure_as_its_worse_image() -> None:
    assert pair_uncertainty(np.array([3.0, 1.0, 2.0]), np.array([[0, 1], [1, 2], [2, 2]])).tolist() == [3.0, 2.0, 2.0]


def test_quality__one_threshold_treats_sure_and_unsure_pairs_as_differently_as_they_score() -> None:
    rng = np.random.default_rng(5)
    uncertainty, pairs = rng.random(40), rng.integers(0, 40, (600, 2))
    counts = unsure_images(uncertainty, pairs)
    assert counts.tolist() == [sum(uncertainty[i] > np.median(uncertainty) for i in pair) for pair in pairs.tolist()]
    scores = torch.from_numpy(rng.random(600)) - 0.2 * counts
    own, other = slice(0, 300), slice(300, None)
    found = quality_rates((scores[own], counts[own]), (scores[other], counts[other]), threshold=0.4)
    for count, rates in enumerate(found):
        assert rates.genuine == int((counts[own] == count).sum()) > 0
        assert rates.tpr == pytest.approx(float((scores[own][counts[own] == count] >= 0.4).double().mean()))
    assert found[0].tpr > found[1].tpr > found[2].tpr
    with pytest.raises(ValueError, match="counts of shape"):
        quality_rates((scores[own], counts), (scores[other], counts[other]), threshold=0.4)


@pytest.mark.parametrize("block", [1, 5, 4096])
def test_fusion__does_not_depend_on_the_block(block: int) -> None:
    embeddings, log_variance = draw()
    templates = np.arange(COUNT) % 4
    wanted = fuse_templates(embeddings, log_variance, templates)
    for one, other in zip(fuse_templates(embeddings, log_variance, templates, block=block), wanted, strict=True):
        torch.testing.assert_close(one, other)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda e, v: harmonic_mean_variance(v[0]), "shape"),
        (lambda e, v: harmonic_mean_variance(np.where(v == v[2], np.nan, v)), "1 rows of log_variance .* first is 2"),
        (lambda e, v: mutual_likelihood(e, v[:, :2], PAIRS), "log_variance of shape"),
        (lambda e, v: mutual_likelihood(e, v, PAIRS[:, 0]), "pairs of shape"),
        (lambda e, v: mutual_likelihood(0 * e, v, PAIRS), "12 embeddings are zero"),
        (lambda e, v: fuse_templates(e, v, np.zeros(COUNT, int), variance="mean"), "variance is 'mean'"),
        (lambda e, v: fuse_templates(e, v, np.zeros(3, int)), "templates for 12 embeddings"),
        (lambda e, v: fuse_templates(e, v, np.arange(COUNT) + 1), "not the numbers 0 to 12"),
        (lambda e, v: error_versus_reject([0.5], [0.1, 0.2], threshold=0.5), "uncertainties of shape"),
        (lambda e, v: error_versus_reject([0.5], [0.1], threshold=0.5, fractions=(1.0,)), "fractions are"),
    ],
)
def test_what_cannot_be_used_is_refused(call, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call(*draw())
