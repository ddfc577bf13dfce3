"""Scores that crowd: exact figures where more pairs lie around a rank than can be held; and the deepest FPRs."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Sequence

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from facekd.metrics import pair_tiles, score_counts, swept_stretches
from facekd.metrics.all_pairs import all_pair_scores
from facekd.metrics.allowed import allowed_accepts
from facekd.metrics.pair_tiles import Kept, Rows, sweep
from facekd.metrics.roc import eer, operating_points
from facekd.metrics.score_bins import EDGE
from facekd.metrics.score_counts import CELLS, Span, count_scores, key_of, score_of, span
from facekd.metrics.scores import Stretch
from facekd.metrics.swept_details import swept_details
from facekd.metrics.swept_intervals import bootstrap_swept_pairs
from facekd.metrics.swept_pairs import SweptPairs, sorted_rows, sweep_all_pairs
from facekd.metrics.swept_stretches import crossing_at, rank_at

FPRS = [0.7, 0.2, 1e-2, 1e-4, 2e-6]
Faces = tuple[np.ndarray, np.ndarray]


class Alive(TorchDispatchMode):
    """Counts the bytes of tensors that live at once."""

    def __init__(self) -> None:
        super().__init__()
        self.now = self.most = 0
        self.known: set[int] = set()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        found = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(found):
            if isinstance(tensor, Tensor) and id(tensor.untyped_storage()) not in self.known:
                storage = tensor.untyped_storage()
                self.known.add(id(storage))
                self.now += storage.nbytes()
                weakref.finalize(storage, self.gone, id(storage), storage.nbytes())
        self.most = max(self.most, self.now)
        return found

    def gone(self, key: int, size: int) -> None:
        self.known.discard(key)
        self.now -= size


def alive(work: Callable[[], object]) -> int:
    """The most bytes of tensors that a piece of work had at once."""
    with Alive() as seen:
        work()
    return seen.most


def people(rng: np.random.Generator, images: int) -> np.ndarray:
    return rng.permutation(np.arange(images) // 10)


def identical(images: int) -> Faces:
    """What a collapsed model gives: one embedding for all."""
    return np.ones((images, 8)), people(np.random.default_rng(0), images)


def nearly_identical(images: int) -> Faces:
    rng = np.random.default_rng(1)
    return 1 + 3e-4 * rng.normal(size=(images, 8)), people(rng, images)


def two_clusters(images: int) -> Faces:
    """Scores around 1 and, of half of all pairs, around 0.2, in a few bins each."""
    rng = np.random.default_rng(2)
    centres = np.array([[1.0, 0, 0, 0], [0.2, np.sqrt(0.96), 0, 0]])
    return centres[rng.integers(0, 2, images)] + 1e-5 * rng.normal(size=(images, 4)), people(rng, images)


def around_zero(images: int) -> Faces:
    """Directions at right angles, but for little: numbers close to zero are too many to be counted one by one."""
    rng = np.random.default_rng(3)
    return np.eye(6)[rng.integers(0, 6, images)] + 1e-7 * rng.normal(size=(images, 6)), people(rng, images)


def on_an_edge(images: int) -> Faces:
    """Scores of exactly 0, where two bins meet, 0.5 and 1."""
    rng = np.random.default_rng(4)
    return np.array([[2.0, 0, 0, 0], [0, 2, 0, 0], [1, 1, 1, 1]])[rng.integers(0, 3, images)], people(rng, images)


def few_directions(images: int) -> Faces:
    """Every rank lies in a block of equal scores."""
    rng = np.random.default_rng(5)
    return rng.integers(-1, 2, (images, 3)) + np.array([0, 0, 3]), people(rng, images)


CROWDS = [identical, nearly_identical, two_clusters, around_zero, on_an_edge, few_directions]


def same_figures(found: SweptPairs, faces: Faces, fprs: list[float]) -> None:
    pairs = all_pair_scores(*faces)
    assert (found.points, found.refused) == operating_points(pairs.genuine, pairs.impostor, fprs)
    assert found.eer == eer(pairs.genuine, pairs.impostor)


@pytest.mark.parametrize("rounded", [False, True])
@pytest.mark.parametrize("faces", CROWDS)
def test_crowded_scores_have_the_figures_of_the_whole_list(faces: Callable[[int], Faces], rounded: bool) -> None:
    crowd = faces(900)
    found = sweep_all_pairs(*crowd, FPRS, tile=100, most_kept=500, rounded=rounded)
    same_figures(found, crowd, FPRS)
    assert found.highest.scores.numel() <= 2 * 2 * 500 + 2 * 100**2 < found.impostors


@pytest.mark.slow
@pytest.mark.parametrize("faces", [identical, two_clusters, around_zero])
def test_memory_does_not_grow_however_scores_crowd(faces: Callable[[int], Faces]) -> None:
    """A few tiles, the counts and what may be kept: far less than the pairs, of which each would take 12 bytes."""
    crowd, found = faces(3300), []
    most = alive(lambda: found.append(sweep_all_pairs(*crowd, FPRS, tile=256, most_kept=2000)))
    same_figures(found[0], crowd, FPRS)
    assert found[0].impostors > 5_400_000 and most < 12 * 5_400_000 / 3
    assert alive(lambda: [torch.zeros(1 << 20), torch.ones(1 << 20)]) == 8 << 20, "what is held is not seen"


@pytest.mark.parametrize("faces", CROWDS)
def test_a_sweep_keeps_no_more_than_it_may_and_says_what_is_missing(faces: Callable[[int], Faces]) -> None:
    crowd = faces(600)
    rows, _ = sorted_rows(*crowd)
    counts, kept = sweep(rows, 300, tile=50)
    every = sweep(rows, 600**2, tile=600)[1].scores
    assert 300 <= kept.scores.numel() <= 2 * 300 + 50**2
    assert torch.equal(kept.scores.sort().values, every.sort().values[-kept.scores.numel() :])
    assert kept.within(kept.first, kept.last).scores.numel() == int(counts[kept.first :].sum())


def test_what_is_few_enough_is_held_and_only_the_rest_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    held: list[int] = []

    def gather(rows: Rows, windows: Sequence[tuple[int, int]], tile: int) -> list[Kept]:
        found = pair_tiles.gather(rows, windows, tile)
        held.extend(kept.scores.numel() for kept in found)
        return found

    monkeypatch.setattr(swept_stretches, "gather", gather)
    crowd = two_clusters(300)
    sweep_all_pairs(*crowd, [0.6, 0.3], tile=64, most_kept=2000)
    assert not held
    sweep_all_pairs(*crowd, [0.6, 0.3], tile=64, most_kept=50_000)
    assert held and max(held) > 10_000


@pytest.mark.parametrize("cells", [1 << 9, 1 << 16])
@pytest.mark.parametrize("faces", [two_clusters, around_zero, few_directions])
def test_counts_are_those_of_distinct_scores(
    faces: Callable[[int], Faces], cells: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In parts of tiles, and whether scores are computed one by one or all of a part."""
    crowd = faces(200)
    rows, _ = sorted_rows(*crowd)
    scores = all_pair_scores(*crowd).impostor
    monkeypatch.setattr(score_counts, "CELLS", cells)
    for block, sparse in ((300, 1), (1 << 22, 10**9)):
        monkeypatch.setattr(score_counts, "BLOCK", block)
        monkeypatch.setattr(score_counts, "SPARSE", sparse)
        one = span(1, (1 << 16) - 2, 0.1, 0.7)
        (told,) = count_scores(rows, [one], 64)
        inside = scores[(scores.double() >= 0.1) & (scores.double() < 0.7)]
        want, times = torch.unique(key_of(inside).long() - one.low >> one.shift, return_counts=True)
        assert one.shift and torch.equal(told.keys, (want << one.shift) + one.low) and torch.equal(told.times, times)
        assert told.below == int((scores.double() < 0.1).sum())


def test_keys_are_in_the_order_of_scores() -> None:
    scores = torch.cat([torch.linspace(-1, 1, 999), torch.logspace(-44, 0, 500), -torch.logspace(-44, 0, 500)]).sort()
    keys = key_of(scores.values)
    assert bool(((keys.diff() > 0) == (scores.values.diff() > 0)).all()) and torch.equal(score_of(keys), scores.values)
    nearest = torch.nextafter(scores.values, torch.tensor(2.0))
    assert (key_of(nearest) - keys).unique().tolist() == [1]


def test_a_span_holds_the_numbers_between_two_scores() -> None:
    for low in (0.3, -0.3, 1e-9, 0.0, 0.5):
        one = span(1, 2, low, low + 1e-3)
        first, last, beyond = score_of(torch.tensor([one.low, one.high - 1, one.high])).double().tolist()
        assert float(score_of(torch.tensor([one.low - 1])).double()) < low <= first < last < low + 1e-3 <= beyond
    assert span(1, 2, -torch.inf, torch.inf) == span(1, 2, -EDGE, EDGE)
    widest = span(1, 2, -EDGE, EDGE)
    assert widest.cells <= CELLS < widest.high - widest.low <= widest.cells << widest.shift
    assert Span(1, 2, 5, 5 + CELLS).shift == 0


@pytest.mark.parametrize("seed", range(5))
def test_counted_stretches_say_what_repeated_ones_do(seed: int) -> None:
    draw = torch.Generator().manual_seed(seed)
    values = torch.randint(0, 9, (40,), generator=draw).float().sort().values
    genuine = torch.randint(0, 9, (15,), generator=draw).float().sort().values
    distinct, times = values.unique(return_counts=True)
    for below, total in ((0, 40), (7, 47), (0, 90), (20, 90)):
        plain, counted = Stretch(values, below, total), Stretch(distinct, below, total, times)
        assert (plain.end, plain.ends) == (counted.end, counted.ends) == (below + 40, below + 40 == total)
        for place in range(below, below + 40):
            assert plain.at(place) == counted.at(place)
        for score in range(-1, 11):
            assert [plain.rank(score, right=side) for side in (False, True)] == [
                counted.rank(score, right=side) for side in (False, True)
            ]
        for asked in [crossing_at(0, genuine), *(rank_at(place) for place in range(0, total, 5))]:
            assert asked.held(plain) == asked.held(counted)


def test_of_pairs_that_crowd_none_is_told_and_no_interval_is_guessed() -> None:
    crowd = nearly_identical(400)
    swept = sweep_all_pairs(*crowd, [1e-1, 1e-3], tile=50, most_kept=1000)
    assert swept.highest.scores.numel() == 0 and swept_details(swept).hardest_impostor == ()
    assert bootstrap_swept_pairs(swept, [1e-1, 1e-3], replicates=20) == [None, None]


@pytest.mark.slow
@pytest.mark.parametrize("shared", [3, 4])
def test_the_deepest_fprs_are_those_of_a_plain_sort(shared: int) -> None:
    """32 million impostors, of which the highest tie: images that two people share, as many as are allowed and more."""
    rng = np.random.default_rng(7)
    labels = np.arange(8000) // 5
    faces = rng.normal(size=(1600, 8))[labels] + 0.3 * rng.normal(size=(8000, 8))
    faces[[11, 2222, 3333, 7000][:shared]] = faces[[44, 5000, 6000, 7990][:shared]]
    fprs = [1e-4, 1e-5, 1e-6, 4e-7, 1.6e-7, 1e-7, 9.3e-8, 1e-8, 1e-9]
    found = sweep_all_pairs(faces, labels, fprs)
    unit = torch.from_numpy(faces / np.linalg.norm(faces, axis=1, keepdims=True))
    who = torch.from_numpy(labels)
    highest, genuine = torch.empty(0), []
    for top in range(0, 8000, 500):
        scores = (unit[top : top + 500] @ unit.T).float()
        later = torch.arange(8000) > torch.arange(top, top + 500)[:, None]
        same = who[top : top + 500, None] == who
        genuine.append(scores[later & same])
        highest = torch.cat([highest, scores[later & ~same]]).topk(3300).values
    own, total = torch.cat(genuine), 8000 * 7999 // 2 - 8000 * 2
    assert found.impostors == total and [one.fpr for one in found.refused] == [9.3e-8, 1e-8, 1e-9]
    assert found.refused[-1].needed == 3_000_000_000
    assert [one.fpr for one in found.points] == fprs[:6]
    for point in found.points:
        rejected = highest[allowed_accepts(point.fpr, total)]
        accepted = highest[highest > rejected]
        lowest = torch.cat([accepted, own[own > rejected]])
        above = torch.nextafter(rejected, torch.tensor(2.0))
        assert point.tpr == int((own > rejected).sum()) / own.numel()
        assert point.threshold == (float(lowest.min()) if lowest.numel() else float(above))
        assert point.false_accepts == accepted.numel() <= point.fpr * total
    assert highest[shared - 1] == highest[0] > highest[shared]
    assert found.points[-1].false_accepts == (3 if shared == 3 else 0)


def test_only_crowded_pairs_cost_a_second_look() -> None:
    rng = np.random.default_rng(8)
    scattered = rng.normal(size=(900, 16)), people(rng, 900)
    assert not sweep_all_pairs(*scattered, FPRS, tile=100, most_kept=2000).highest.crowded
    assert sweep_all_pairs(*nearly_identical(900), FPRS, tile=100, most_kept=2000).highest.crowded
