"""Do the 95 % intervals of the TPR hold the truth 95 times in 100? Worlds whose truth is known, each measured.

In a world each person has a habit that moves all of their scores, genuine and impostor, so that pairs which share a
person are not independent; all are normal, so that the true TPR is known in closed form.

    python -m benchmarks.interval_coverage --out benchmarks/results/interval_coverage.json
"""

from __future__ import annotations

import argparse
import math
from pathlib import Path
from statistics import NormalDist
from typing import Any

import numpy as np
import torch

from benchmarks.record import hand_over
from facekd.engine.run_folder import environment
from facekd.metrics.intervals import bootstrap_pairs

PEOPLE = (60, 120, 240)
FPR = 0.05
GENUINE = 6
"""Pairs of each person with themselves."""
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


def true_tpr() -> float:
    """The TPR at :data:`FPR` among endlessly many people: both kinds of scores are normal.

    Example:
        >>> round(true_tpr(), 4)
        0.9227
    """
    threshold = NormalDist(0, math.sqrt(2 * 0.4**2 + 1)).inv_cdf(1 - FPR)
    return 1 - NormalDist(3.5, math.hypot(0.8, 0.8)).cdf(threshold)


def coverage(seed: int, people: int, worlds: int, replicates: int, truth: float) -> dict[str, Any]:
    """How often the interval of each kind holds the truth.

    Args:
        seed: Of the worlds.
        people: In each of them.
        worlds: How many are drawn.
        replicates: Behind each interval.
        truth: The TPR to be held.
    """
    held = {"people": 0, "pairs": 0}
    for number in range(worlds):
        genuine, impostor, subjects = world(np.random.default_rng([seed, people, number]), people)
        for kind, known in (("people", subjects), ("pairs", None)):
            (found,) = bootstrap_pairs(genuine, impostor, known, [FPR], replicates=replicates, seed=number)
            held[kind] += found is not None and found[0] <= truth <= found[1]
    shares = {kind: count / worlds for kind, count in held.items()}
    errors = {kind: math.sqrt(share * (1 - share) / worlds) for kind, share in shares.items()}
    return {"people": people, "worlds": worlds, "coverage": shares, "standard_error": errors}


def report(worlds: int, replicates: int, seed: int) -> dict[str, Any]:
    """The record of all sizes."""
    truth = true_tpr()
    return {
        "benchmark": "interval_coverage",
        "command": "python -m benchmarks.interval_coverage --out benchmarks/results/interval_coverage.json",
        **environment(torch.device("cpu")),
        "seed": seed,
        "fpr": FPR,
        "truth": truth,
        "replicates": replicates,
        "rows": [coverage(seed, people, worlds, replicates, truth) for people in PEOPLE],
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
