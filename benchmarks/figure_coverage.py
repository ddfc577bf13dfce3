"""Do the 95 % intervals of AUC, EER, accuracy, ranks, TPIR and probabilities hold the truth 95 times in 100?

As :mod:`benchmarks.interval_coverage`: worlds of normal scores in which each person has a habit that moves all of their
scores, and whose truth is known. Every two people are an impostor pair; for the accuracy the people lie in ten folds,
with as many impostor as genuine pairs in each; for searches half of the people have a mate in the gallery, and the
highest score of a probe with others is normal too.

    python -m benchmarks.figure_coverage --out benchmarks/results/figure_coverage.json
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from statistics import NormalDist
from typing import Any

import numpy as np
import torch

from benchmarks.interval_coverage import GENUINE, world
from benchmarks.record import hand_over
from facekd.engine.run_folder import environment
from facekd.metrics.calibration import KNOTS, calibrate
from facekd.metrics.curve_intervals import Side, bootstrap_curve
from facekd.metrics.fold_intervals import bootstrap_kfold
from facekd.metrics.gallery_search import NOBODY, Search
from facekd.metrics.resampling import Interval
from facekd.metrics.roc import eer
from facekd.metrics.search_intervals import SearchIntervals, bootstrap_searches

PEOPLE = (60, 120, 240)
FOLDS = 10
PROBES = 4
"""Of each person."""
FPIR = 0.1
SCALE = 0.1
"""From a score of a world to a cosine, where one is needed."""
GENUINE_SCORES, IMPOSTOR_SCORES = NormalDist(3.5, math.hypot(0.8, 0.8)), NormalDist(0, math.sqrt(2 * 0.4**2 + 1))
"""Of the worlds, among endlessly many people."""
MATES = {"": 1.2, ", easy": 1.8}
"""Mean score of mates, of usual and of easy searches, in which few probes are missed."""
OTHERS = NormalDist(0, math.hypot(0.3, 0.5))
EVEN = NormalDist(3.5, 1.0), NormalDist(0.0, 1.0)
"""Genuine and impostor scores whose log-odds are a line."""

Told = dict[str, tuple[Interval, float]]
"""By figure: an interval and the truth."""


def true_curve() -> dict[str, float]:
    """AUC and EER.

    Example:
        >>> {name: round(value, 4) for name, value in true_curve().items()}
        {'AUC': 0.985, 'EER': 0.0625}
    """
    apart = GENUINE_SCORES.mean - IMPOSTOR_SCORES.mean
    area = NormalDist().cdf(apart / math.hypot(GENUINE_SCORES.stdev, IMPOSTOR_SCORES.stdev))
    return {"AUC": area, "EER": NormalDist().cdf(-apart / (GENUINE_SCORES.stdev + IMPOSTOR_SCORES.stdev))}


def true_accuracy() -> float:
    """Of the best threshold, for as many genuine as impostor pairs."""
    return max((1 - GENUINE_SCORES.cdf(t) + IMPOSTOR_SCORES.cdf(t)) / 2 for t in np.linspace(1, 3, 4001))


def curve(rng: np.random.Generator, people: int, replicates: int, seed: int) -> Told:
    """AUC and EER of a world."""
    genuine, impostor, subjects = world(rng, people)
    sides = (Side(scores, who.__getitem__) for scores, who in zip((genuine, impostor), subjects, strict=True))
    found = bootstrap_curve(*sides, people, eer(genuine, impostor).value, replicates=replicates, seed=seed)
    truth = true_curve()
    return {"AUC": (found.auc, truth["AUC"]), "EER": (found.eer, truth["EER"])}


def accuracy(rng: np.random.Generator, people: int, replicates: int, seed: int) -> Told:
    """Cross-validated accuracy of a world in folds."""
    size = people // FOLDS
    habit, own = rng.normal(0, 1, people), np.repeat(np.arange(people), GENUINE)
    other = own // size * size + (own + rng.integers(1, size, own.size)) % size
    genuine = 3.5 + 0.8 * habit[own] + rng.normal(0, 0.8, own.size)
    impostor = 0.4 * (habit[own] + habit[other]) + rng.normal(0, 1, own.size)
    distances = 2 - 2 * np.clip(SCALE * np.concatenate([genuine, impostor]), -1, 1)
    subjects = np.stack([np.tile(own, 2), np.concatenate([own, other])], axis=1)
    same, folds = np.repeat([True, False], own.size), np.tile(own // size, 2)
    found = bootstrap_kfold(distances, same, folds, subjects, replicates=replicates, seed=seed)
    return {"accuracy": (found, true_accuracy())}


def searches(rng: np.random.Generator, people: int, replicates: int, seed: int) -> Told:
    """Rank 1 and TPIR of searches in one gallery, usual and easy ones."""
    told: Told = {}
    for name, mean in MATES.items():
        found = searched(rng, people, mean, replicates, seed)
        apart = NormalDist(mean - OTHERS.mean, math.sqrt(0.3**2 + 0.6**2 + 0.5**2))
        mates = NormalDist(mean, math.hypot(0.6, 0.6))
        told[f"rank 1{name}"] = found.rank[0], 1 - apart.cdf(0)
        (tpir,) = (interval for interval in found.tpir if interval is not None)
        told[f"TPIR{name}"] = tpir, 1 - mates.cdf(OTHERS.inv_cdf(1 - FPIR))
    return told


def searched(rng: np.random.Generator, people: int, mean: float, replicates: int, seed: int) -> SearchIntervals:
    """Intervals of the searches of a world, whose mates score so high on average."""
    own = np.repeat(np.arange(people), PROBES)
    habit, mated = rng.normal(0, 1, people)[own], own % 2 == 0
    mate = mean + 0.6 * habit + rng.normal(0, 0.6, own.size)
    highest = 0.3 * habit + rng.normal(0, 0.5, own.size)
    rank = np.where(mated, np.where(mate > highest, 1, 2), 0)
    scores = (torch.from_numpy(side).float() for side in (np.where(mated, mate, NOBODY), highest))
    first, second = scores
    search = Search(first, torch.from_numpy(rank), second, torch.empty(0))
    return bootstrap_searches([search], own, [1], [FPIR], replicates=replicates, seed=seed)


def probabilities(rng: np.random.Generator, people: int, replicates: int, seed: int) -> Told:
    """Both calibrations where one person is neither sure nor ruled out; habits move genuine and impostor scores."""
    own = np.repeat(np.arange(people), GENUINE)
    left, right = np.triu_indices(people, 1)
    habit = rng.normal(0, 1, people)
    genuine = 3.5 + 0.6 * habit[own] + rng.normal(0, 0.8, own.size)
    impostor = 0.3 * (habit[left] + habit[right]) + rng.normal(0, math.sqrt(1 - 2 * 0.3**2), left.size)
    sides = [np.clip(SCALE * side, -1, 1) for side in (genuine, impostor)]
    subjects = np.stack([own, own], axis=1), np.stack([left, right], axis=1)
    found = calibrate(*sides, subjects, replicates=replicates, seed=seed)
    told: Told = {}
    for at, knot in enumerate(KNOTS.tolist()):
        truth = 1 / (1 + EVEN[1].pdf(knot / SCALE) / EVEN[0].pdf(knot / SCALE))
        if 0.05 < truth < 0.95:
            told[f"logistic at {knot:g}"] = (float(found.low[at]), float(found.high[at])), truth
            told[f"isotonic at {knot:g}"] = (float(found.isotonic_low[at]), float(found.isotonic_high[at])), truth
    return told


WORLDS: Mapping[str, Callable[[np.random.Generator, int, int, int], Told]] = {
    "curve": curve,
    "accuracy": accuracy,
    "searches": searches,
    "probabilities": probabilities,
}


def coverage(kind: str, people: int, worlds: int, replicates: int, seed: int) -> list[dict[str, Any]]:
    """How often the intervals of one kind of world hold the truth, figure by figure.

    Args:
        kind: One of :data:`WORLDS`.
        people: In each world.
        worlds: How many are drawn.
        replicates: Behind each interval.
        seed: Of the worlds.
    """
    held: dict[str, list[bool]] = {}
    truths, widths = {}, {}
    for number in range(worlds):
        rng = np.random.default_rng([seed, people, number])
        for name, ((low, high), truth) in WORLDS[kind](rng, people, replicates, number).items():
            held.setdefault(name, []).append(low <= truth <= high)
            widths.setdefault(name, []).append(high - low)
            truths[name] = truth
    rows = []
    for name, found in held.items():
        share = sum(found) / worlds
        error = math.sqrt(share * (1 - share) / worlds)
        sizes = {"figure": name, "people": people, "truth": truths[name], "worlds": worlds}
        rows.append(sizes | {"width": float(np.mean(widths[name])), "coverage": share, "standard_error": error})
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--worlds", type=int, default=300, help="of each kind and size")
    parser.add_argument("--replicates", type=int, default=200, help="behind each interval")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, help="write the JSON object here too")
    given = parser.parse_args()
    how = given.worlds, given.replicates, given.seed
    record = {
        "benchmark": "figure_coverage",
        "command": "python -m benchmarks.figure_coverage --out benchmarks/results/figure_coverage.json",
        **environment(torch.device("cpu")),
        "seed": given.seed,
        "replicates": given.replicates,
        "rows": [row for kind in WORLDS for people in PEOPLE for row in coverage(kind, people, *how)],
    }
    hand_over(record, given.out)


if __name__ == "__main__":
    main()
