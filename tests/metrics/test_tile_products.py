"""Tiles of rounded numbers: how far off they can be, and that no figure shows it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from facekd.metrics.all_pairs import all_pair_scores
from facekd.metrics.intervals import bootstrap_all_pairs
from facekd.metrics.pair_tiles import Rows, sweep
from facekd.metrics.roc import auc, eer, operating_points
from facekd.metrics.score_bins import BINS
from facekd.metrics.swept_intervals import bootstrap_swept_pairs
from facekd.metrics.swept_pairs import MOST_KEPT, SweptPairs, sorted_rows, sweep_all_pairs
from facekd.metrics.tile_products import LARGEST_ERROR, arithmetic, factors, to_tf32

FPRS = [0.5, 0.2, 1e-1, 1e-2, 1e-3, 1e-4, 1e-5]
gpu = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here")]


def faces(seed: int, images: int, subjects: int, dim: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, subjects, images)
    return rng.normal(size=(subjects, dim))[labels] + 0.8 * rng.normal(size=(images, dim)), labels


def crowded(count: int, step: float, repeats: int = 1) -> tuple[np.ndarray, np.ndarray]:
    """One person whose scores with all others lie ``step`` apart around 0.5, far closer than TF32 can tell."""
    cosines = 0.5 + step * (np.arange(count) // repeats - count / (2 * repeats))
    others = np.concatenate([cosines[:, None], np.diag(np.sqrt(1 - cosines**2))], axis=1)
    one = np.eye(1, count + 1)
    return np.concatenate([one, one, others]), np.concatenate([[0, 0], np.arange(1, count + 1)])


def shortened() -> tuple[np.ndarray, np.ndarray]:
    """People of one direction: that of many which rounding shortens most."""
    angles = torch.linspace(0.1, 1.4, 20_001, dtype=torch.float64)
    rows = torch.stack([angles.cos(), angles.sin()], dim=1)
    lost = ((rows - to_tf32(rows).double()) * rows).sum(dim=1)
    return rows[lost.argmax()].repeat(6, 1).numpy(), np.arange(6) // 2


def same_figures(found: SweptPairs, embeddings: np.ndarray, labels: np.ndarray) -> None:
    pairs = all_pair_scores(embeddings, labels)
    assert found.rows.factors.tf32
    assert (found.points, found.refused) == operating_points(pairs.genuine, pairs.impostor, FPRS)
    assert found.eer == eer(pairs.genuine, pairs.impostor)
    assert found.impostors == int(found.bins.sum())
    assert abs(found.auc - auc(pairs.genuine, pairs.impostor)) <= found.auc_error


@pytest.mark.parametrize("most_kept", [10, MOST_KEPT])
@pytest.mark.parametrize(("seed", "dim"), list(enumerate([2, 3, 16, 64, 512, 3000])))
def test_figures_of_rounded_tiles_are_those_of_the_whole_list(seed: int, dim: int, most_kept: int) -> None:
    embeddings, labels = faces(seed, 130 + 20 * seed, 12 + 5 * seed, dim)
    found = sweep_all_pairs(embeddings, labels, FPRS, tile=64, most_kept=most_kept, rounded=True)
    same_figures(found, embeddings, labels)


@pytest.mark.parametrize(("step", "repeats"), [(2.0**-24, 1), (3e-7, 1), (2.0**-23, 5), (5e-4, 2)])
def test_scores_too_close_for_tf32_are_told_apart(step: float, repeats: int) -> None:
    embeddings, labels = crowded(120, step, repeats)
    found = sweep_all_pairs(embeddings, labels, FPRS, tile=50, most_kept=10, rounded=True)
    same_figures(found, embeddings, labels)


@pytest.mark.parametrize("seed", range(4))
def test_ties_are_accepted_or_rejected_together(seed: int) -> None:
    rng = np.random.default_rng(seed)
    embeddings = rng.integers(-1, 2, (20 + 3 * seed, 3)) + np.array([0, 0, 3])
    labels = rng.integers(0, 2 + seed % 7, len(embeddings))
    same_figures(sweep_all_pairs(embeddings, labels, FPRS, tile=33, rounded=True), embeddings, labels)


def products(rows: Rows) -> tuple[Tensor, Tensor]:
    """Every impostor pair's product and cosine."""
    kept = sweep(rows, len(rows.ends) ** 2)[1]
    return kept.scores, rows.exact(kept.left, kept.right)


def rounded_rows(embeddings: np.ndarray, labels: np.ndarray) -> Rows:
    return replace(sorted_rows(embeddings, labels)[0], rounded=True)


def test_without_the_second_look_the_figures_would_be_wrong() -> None:
    """The products alone: hundreds of scores fall together, and the threshold with them."""
    embeddings, labels = crowded(240, 3e-7)
    found, exact = products(rounded_rows(embeddings, labels))
    genuine = torch.ones(1)
    assert found.unique().numel() < 10 < 480 <= exact.numel()
    assert operating_points(genuine, found, [1e-2])[0] != operating_points(genuine, exact, [1e-2])[0]


@pytest.mark.parametrize("dim", [1, 2, 64, 512, 3000])
def test_products_stay_within_the_stated_error(dim: int) -> None:
    rng = np.random.default_rng(dim)
    vectors = np.abs(rng.normal(size=(64, dim))) ** rng.integers(1, 8, (64, 1))
    rows = rounded_rows(vectors, np.arange(64))
    found, exact = products(rows)
    assert float((found - exact).abs().max()) <= rows.error < LARGEST_ERROR


def test_the_stated_error_is_not_larger_than_need_be() -> None:
    rows = rounded_rows(*shortened())
    found, exact = products(rows)
    worst = float((found - exact).abs().max())
    assert 0.8 * rows.error < worst <= rows.error and worst > 2.0**-12


def test_the_error_is_taken_from_the_rows_themselves() -> None:
    """Rows that TF32 holds exactly leave the error of the sum only; a gallery counts with its own residue."""
    exact = torch.eye(4, dtype=torch.float64)
    third = torch.full((4, 3), 3**-0.5, dtype=torch.float64)
    assert factors(exact, exact, rounded=True).error == 68 * 2.0**-22
    lost = float(torch.linalg.vector_norm(third - to_tf32(third).double(), dim=1).max())
    held = torch.eye(3, dtype=torch.float64)[[0, 1, 2, 0]]
    assert factors(third, held, rounded=True).error == pytest.approx(lost + 67 * 2.0**-22, rel=1e-12)
    assert factors(third, third, rounded=True).error == pytest.approx(2 * lost + lost**2 + 67 * 2.0**-22, rel=1e-12)


def test_tf32_numbers_are_the_nearest_with_eleven_bits() -> None:
    values = torch.cat([torch.randn(4000, generator=torch.Generator().manual_seed(0)), torch.tensor([1.0, -1.0, 0.0])])
    found = to_tf32(values)
    assert (found.view(torch.int32) % (1 << 13)).unique().tolist() == [0]
    assert float(((found - values).abs() / values.abs().clamp(min=1e-30)).max()) <= 2.0**-11
    assert torch.equal(to_tf32(found), found) and torch.equal(to_tf32(-values), -found)


def test_rows_too_long_for_a_first_look_are_not_rounded() -> None:
    embeddings, labels = faces(0, 20, 5, 9000)
    found = sweep_all_pairs(embeddings, labels, [0.5], rounded=True)
    assert not found.rows.factors.tf32
    assert found.points == sweep_all_pairs(embeddings, labels, [0.5], rounded=False).points


def test_on_a_cpu_tiles_are_not_rounded_unless_asked() -> None:
    embeddings, labels = faces(1, 60, 8, 16)
    assert not sweep_all_pairs(embeddings, labels, [0.5]).rows.factors.tf32


def test_intervals_are_those_of_all_pairs() -> None:
    embeddings, labels = faces(4, 300, 30, 16)
    swept = sweep_all_pairs(embeddings, labels, [1e-1, 1e-2], rounded=True)
    want = bootstrap_all_pairs(all_pair_scores(embeddings, labels), [1e-1], replicates=100)
    assert bootstrap_swept_pairs(swept, [1e-1], replicates=100) == want


def test_the_highest_pairs_are_all_there_with_their_cosines() -> None:
    embeddings, labels = faces(2, 300, 25, 32)
    found = sweep_all_pairs(embeddings, labels, [1e-2], tile=41, most_kept=2000, rounded=True)
    every = all_pair_scores(embeddings, labels).impostor.sort(descending=True).values
    count = found.highest.scores.numel()
    assert 1000 < count < found.impostors
    assert torch.equal(found.highest.scores.sort(descending=True).values, every[:count])


def test_the_arithmetic_asked_for_elsewhere_comes_back() -> None:
    settings = torch.backends.cuda.matmul
    before = settings.fp32_precision
    with pytest.raises(KeyError), arithmetic(True):
        assert settings.fp32_precision == "tf32"
        with arithmetic(False):
            assert settings.fp32_precision == "ieee"
        raise KeyError
    assert settings.fp32_precision == before


def test_a_bin_reaches_as_far_as_its_products_can_err() -> None:
    embeddings, labels = faces(3, 60, 8, 64)
    plain, coarse = (replace(sorted_rows(embeddings, labels)[0], rounded=way) for way in (False, True))
    assert plain.reach == 2 and coarse.reach == 1 + int(np.ceil(coarse.error * BINS / (1 + 2.0**-8)))


@pytest.mark.parametrize("dim", [pytest.param(64, marks=gpu), pytest.param(512, marks=gpu)])
def test_cuda__gives_the_figures_of_the_cpu_and_stays_within_the_stated_error(dim: int) -> None:
    embeddings, labels = faces(7, 3000, 300, dim)
    here = sweep_all_pairs(embeddings, labels, FPRS)
    there = sweep_all_pairs(torch.as_tensor(embeddings, device="cuda"), labels, FPRS, tile=512)
    assert there.rows.factors.tf32 and (there.points, there.eer) == (here.points, here.eer)
    found, exact = products(there.rows)
    assert 0 < float((found - exact).abs().max()) <= there.rows.error
    plain = replace(there.rows, rounded=False)
    with arithmetic(True):  # what a user may have asked for must not reach products that are said to be float32
        found, exact = products(plain)
    assert float((found - exact).abs().max()) <= plain.error
