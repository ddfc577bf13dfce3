"""The benchmark of intervals: its truths are those of many people, and its intervals hold them."""

from __future__ import annotations

import json
from collections.abc import Callable

import numpy as np
import pytest

from benchmarks import figure_coverage
from benchmarks.interval_coverage import world
from benchmarks.measuring_tables import figure_coverage as table
from facekd.metrics.curve_intervals import CurveIntervals, Side
from facekd.metrics.roc import auc, eer


def test_the_truths_are_those_of_very_many_people() -> None:
    genuine, impostor, _ = world(np.random.default_rng(2), 2500)
    truth = figure_coverage.true_curve()
    assert truth["AUC"] == pytest.approx(auc(genuine, impostor), abs=0.003)
    assert truth["EER"] == pytest.approx(eer(genuine, impostor).value, abs=0.006)
    rng = np.random.default_rng(3)
    for name, people in (("accuracy", 20_000), ("searches", 20_000)):
        for (low, high), value in figure_coverage.WORLDS[name](rng, people, 20, 0).values():
            assert low - 0.01 < value < high + 0.01 and high - low < 0.02


@pytest.mark.slow
@pytest.mark.parametrize("kind", figure_coverage.WORLDS)
def test_intervals_hold_the_truth(kind: str) -> None:
    worlds, replicates = (20, 40) if kind == "probabilities" else (120, 120)
    people = 240 if kind == "searches" else 60
    rows = figure_coverage.coverage(kind, people, worlds=worlds, replicates=replicates, seed=5)
    on_few_misses = ("easy", "at 0.1")
    inner = [row for row in rows if not row["figure"].endswith(on_few_misses)]
    assert len(inner) >= 1 and all(0.88 <= row["coverage"] <= 1 for row in inner), rows
    assert all(row["width"] < 0.5 for row in rows)
    told = table(json.loads(json.dumps({"rows": rows, "replicates": replicates})))
    assert all(f"| {row['figure']} |" in told for row in rows) and f"{worlds} worlds of each size" in told


@pytest.mark.slow
def test_pairs_that_are_taken_for_independent_hold_it_too_seldom(monkeypatch: pytest.MonkeyPatch) -> None:
    """With every pair a person of its own the interval is too narrow, and the count tells it."""
    drawn = world

    def unknown(rng: np.random.Generator, people: int) -> tuple[np.ndarray, np.ndarray, tuple[np.ndarray, np.ndarray]]:
        genuine, impostor, _ = drawn(rng, people)
        alone = np.arange(genuine.size + impostor.size)[:, None].repeat(2, axis=1)
        return genuine, impostor, (alone[: genuine.size], alone[genuine.size :])

    monkeypatch.setattr(figure_coverage, "world", unknown)
    monkeypatch.setattr(figure_coverage, "bootstrap_curve", _whoever(figure_coverage.bootstrap_curve))
    rows = figure_coverage.coverage("curve", 60, worlds=120, replicates=120, seed=5)
    assert all(row["coverage"] < 0.88 for row in rows), rows


def _whoever(bootstrap: Callable[..., CurveIntervals]) -> Callable[..., CurveIntervals]:
    def each_pair_alone(genuine: Side, impostor: Side, people: int, error: float, **drawn: int) -> CurveIntervals:
        count = genuine.scores.size + impostor.scores.size
        return bootstrap(genuine, impostor, count, error, **drawn)

    return each_pair_alone
