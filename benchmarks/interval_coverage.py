"""Do the 95 % intervals of the TPR hold the truth 95 times in 100? Worlds whose truth is known, each measured.

In a world each person has a habit that moves all of their scores, genuine and impostor, so that pairs which share a
person are not independent; all are normal, so that the true TPR is known in closed form. FPRs go down to the rarest
that is reported at all, where a threshold rests on three false accepts. The intervals of a list of the size of LFW are
timed.

    python -m benchmarks.interval_coverage --out benchmarks/results/interval_coverage.json
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Sequence
from pathlib import Path
from statistics import NormalDist
from time import perf_counter
from typing import Any

import numpy as np
import torch

from benchmarks.data_loading import spread
from benchmarks.measuring_tables import KINDS
from benchmarks.record import hand_over
from facekd.engine.run_folder import environment
from facekd.metrics.intervals import bootstrap_pairs

PEOPLE = (60, 120, 240)
FPR = 0.05
ACCEPTS = (100, 30, 10, 3)
"""Expected false accepts of the other FPRs."""
GENUINE = 6
"""Pairs of each person with themselves."""
LISTED: dict[str, Any] = {"pairs": 6000, "people": 4000, "fprs": (1e-1, 1e-2, 2e-3), "replicates": 1000}
"""A list of pairs whose intervals are timed."""
World = tuple[np.ndarray, np.ndarray, tuple[np.ndarray, np.ndarray]]


def world(rng: np.random.Generator, people: int) -> World:
    """Genuine scores, impostor scores, and who is in each pair.

    Args:
        rng: Draws it.
        people: How many there are; every two of them are one impostor pair.
    """
    habit = rng.normal(0, 1, people)
    own = np.repeat(np.arange(people), GENUINE)
    left, right = np.triu_indices(people, 1)
    genuine = 3.5 + 0.8 * habit[own] + rng.normal(0, 0.8, own.size)
    impostor = 0.4 * (habit[left] + habit[right]) + rng.normal(0, 1, left.size)
    return genuine, impostor, (np.stack([own, own], axis=1), np.stack([left, right], axis=1))


def true_tpr(fpr: float = FPR) -> float:
    """The TPR at an FPR among endlessly many people: both kinds of scores are normal.

    Example:
        >>> round(true_tpr(), 4)
        0.9227
    """
    threshold = NormalDist(0, math.sqrt(2 * 0.4**2 + 1)).inv_cdf(1 - fpr)
    return 1 - NormalDist(3.5, math.hypot(0.8, 0.8)).cdf(threshold)


def coverage(seed: int, people: int, worlds: int, replicates: int, fprs: Sequence[float]) -> list[dict[str, Any]]:
    """How often the interval of each kind holds the truth, at each FPR.

    Args:
        seed: Of the worlds.
        people: In each of them.
        worlds: How many are drawn.
        replicates: Behind each interval.
        fprs: The FPRs.
    """
    truth = np.array([true_tpr(fpr) for fpr in fprs])
    held = {kind: np.zeros(len(fprs)) for kind in KINDS}
    for number in range(worlds):
        genuine, impostor, subjects = world(np.random.default_rng([seed, people, number]), people)
        for kind, known in zip(KINDS, (subjects, None), strict=True):
            found = bootstrap_pairs(genuine, impostor, known, fprs, replicates=replicates, seed=number)
            low, high = np.array(found, float).T
            held[kind] += (low <= truth) & (truth <= high)
    rows = []
    for place, fpr in enumerate(fprs):
        shares = {kind: float(counts[place]) / worlds for kind, counts in held.items()}
        errors = {kind: math.sqrt(share * (1 - share) / worlds) for kind, share in shares.items()}
        sizes = {"people": people, "fpr": fpr, "false_accepts": fpr * people * (people - 1) / 2}
        rows.append(sizes | {"truth": truth[place], "worlds": worlds, "coverage": shares, "standard_error": errors})
    return rows


def seconds_of_a_list(repeats: int = 5) -> list[float]:
    """How long the intervals of :data:`LISTED` take, once after another."""
    draw = np.random.default_rng(0)
    half = LISTED["pairs"] // 2
    genuine, impostor = draw.normal(3, 1, half), draw.normal(0, 1, half)
    own = draw.integers(0, LISTED["people"], half)
    subjects = np.stack([own, own], axis=1), draw.integers(0, LISTED["people"], (half, 2))
    taken = []
    for _ in range(repeats):
        began = perf_counter()
        bootstrap_pairs(genuine, impostor, subjects, LISTED["fprs"], replicates=LISTED["replicates"])
        taken.append(perf_counter() - began)
    return taken


def report(worlds: int, replicates: int, seed: int) -> dict[str, Any]:
    """The record of all sizes."""
    rows = []
    for people in PEOPLE:
        fprs = sorted({FPR, *(count / (people * (people - 1) / 2) for count in ACCEPTS)}, reverse=True)
        rows += coverage(seed, people, worlds, replicates, fprs)
    return {
        "benchmark": "interval_coverage",
        "command": "python -m benchmarks.interval_coverage --out benchmarks/results/interval_coverage.json",
        **environment(torch.device("cpu")),
        "seed": seed,
        "replicates": replicates,
        "rows": rows,
        "list": LISTED | {"seconds": spread(seconds_of_a_list())},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--worlds", type=int, default=500, help="of each size")
    parser.add_argument("--replicates", type=int, default=300, help="behind each interval")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, help="write the JSON object here too")
    given = parser.parse_args()
    hand_over(report(given.worlds, given.replicates, given.seed), given.out)


if __name__ == "__main__":
    main()
