"""Does ``facekd train --dry-run`` say what a run will cost: seconds of a step and memory, forecast and measured.

Forecast and run take turns, so that a busy machine slows both; a ratio is of neighbours. What is measured is the run at
its own size: steps with all images read once, as from the second epoch on, and the tensors at the height of one.

    python -m benchmarks.forecasts --out benchmarks/results/forecasts.json
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any

import numpy as np
import torch

from benchmarks.data_loading import spread
from benchmarks.record import hand_over, surroundings
from benchmarks.training_speed import CPU, INHERITED, OWN, WIDTH, RepeatedFaces, drawn_teacher, recipe_of
from facekd.data.identities import IdentitySource
from facekd.engine.allocations import peak_bytes
from facekd.engine.training.build import Caches, make_batches, make_dataset, make_session
from facekd.engine.training.forecast import forecast, held_bytes
from facekd.engine.training.plan import make_plan
from facekd.engine.training.step import take_step
from facekd.models.embedder import TorchEmbedder
from facekd.recipe import Recipe

TARGET = 0.25
"""How far a forecast may lie from what is measured, of it."""
PEOPLE, STEPS = 10_000, 5


@dataclass(frozen=True)
class Case:
    """A run to forecast.

    Attributes:
        student: Its backbone.
        batch: Images in a step.
        losses: As in a recipe.
        view: What the teacher sees: ``clean`` is cached, ``same`` live; None for no teacher.
    """

    student: str
    batch: int
    losses: list[dict[str, Any]]
    view: str | None = None


DISTIL = [INHERITED, {"name": "l2"}]
CASES = {
    "small student alone": Case("resnet_tiny", 128, [OWN]),
    "small student, cached teacher": Case("resnet_tiny", 128, DISTIL, "clean"),
    "small student, live teacher": Case("resnet_tiny", 32, DISTIL, "same"),
    "MobileFaceNet alone": Case("mobilefacenet", 64, [OWN]),
    "MobileFaceNet, cached teacher": Case("mobilefacenet", 64, DISTIL, "clean"),
}


def whole(recipe: Recipe, source: IdentitySource, teacher: TorchEmbedder | None) -> tuple[float, int]:
    """Seconds of a step of the run at its own size, the median of a few, and bytes at the height of one."""
    plan, dataset = make_plan(recipe, source, teacher), make_dataset(recipe, source)
    for index in range(min(len(source), (STEPS + 2) * recipe.train.batch_size)):
        dataset.images.read(index)
    kept = np.random.default_rng(0).normal(size=(len(source), 2, WIDTH)).astype(np.float32)
    live = recipe.teacher is not None and recipe.teacher.view == "same"
    caches = Caches() if teacher is None else Caches(kept, None if live else kept)
    session = make_session(recipe, plan, source, dataset, teacher, caches, CPU, least_agreement=0.0)
    batches, taken = make_batches(session), list[float]()

    def step() -> None:
        take_step(session, session.student, next(batches))

    for _ in range(STEPS + 1):
        began = perf_counter()
        step()
        taken.append(perf_counter() - began)
    return median(taken[1:]), held_bytes(session) + peak_bytes(step) + dataset.images.pixels.nbytes


def measured(case: Case, teacher: str, people: int, repeats: int) -> dict[str, Any]:
    """Forecast and run in turns."""
    source = RepeatedFaces(people)
    asked = drawn_teacher(teacher) if case.view else None
    recipe = recipe_of(case.student, case.batch, case.losses, case.view)
    plan = make_plan(recipe, source, asked)
    told, found = [], []
    for _ in range(repeats):
        told.append(forecast(recipe, plan, source, asked, CPU))
        found.append(whole(recipe, source, asked))
    pairs = list(zip(told, found, strict=True))
    return {
        "student": case.student,
        "batch": case.batch,
        "seconds": {
            "forecast": spread([one.step_seconds for one in told]),
            "measured": spread([seconds for seconds, _ in found]),
            "ratio": spread([one.step_seconds / seconds for one, (seconds, _) in pairs]),
        },
        "mib": {
            "forecast": spread([one.memory_bytes / 2**20 for one in told]),
            "measured": spread([size / 2**20 for _, size in found]),
            "ratio": spread([one.memory_bytes / size for one, (_, size) in pairs]),
        },
    }


def report(cases: Mapping[str, Case], teacher: str, people: int, repeats: int, threads: int) -> dict[str, Any]:
    """Everything measured and everything it depends on."""
    torch.set_num_threads(threads)
    return {
        "benchmark": "forecasts",
        "command": "python -m benchmarks.forecasts --out benchmarks/results/forecasts.json",
        "teacher": teacher,
        "classes": people,
        "repeats": repeats,
        "threads": threads,
        "seeds": [0],
        "device": "cpu",
        "target": TARGET,
        "cases": {name: measured(case, teacher, people, repeats) for name, case in cases.items()},
        **surroundings("torch"),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--teacher", default="iresnet50")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, help="write the JSON object here too")
    given = parser.parse_args()
    hand_over(report(CASES, given.teacher, PEOPLE, given.repeats, given.threads), given.out)


if __name__ == "__main__":
    main()
