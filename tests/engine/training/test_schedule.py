"""Learning-rate factors at points that can be computed by hand."""

from __future__ import annotations

import pytest

from facekd.engine.training.schedule import learning_rate_factor
from facekd.recipe.sections import Schedule


def factor(step: int, schedule: Schedule) -> float:
    return learning_rate_factor(step, steps_per_epoch=10, total_steps=100, schedule=schedule)


def test_constant() -> None:
    assert [factor(step, Schedule(name="constant")) for step in (0, 99)] == [1, 1]


def test_warmup__rises_linearly_to_one() -> None:
    schedule = Schedule(name="constant", warmup_epochs=0.5)
    assert [factor(step, schedule) for step in range(6)] == pytest.approx([0.2, 0.4, 0.6, 0.8, 1, 1])


def test_cosine__one_half_final() -> None:
    schedule = Schedule(name="cosine", final=0.2)
    assert factor(0, schedule) == 1
    assert factor(50, schedule) == pytest.approx(0.6)
    assert factor(99, schedule) == pytest.approx(0.2, abs=1e-3)


def test_step__drops_at_the_start_of_each_milestone_epoch() -> None:
    schedule = Schedule(name="step", milestones=(3, 7), gamma=0.1)
    assert [factor(step, schedule) for step in (29, 30, 69, 70)] == pytest.approx([1, 0.1, 0.1, 0.01])


def test_poly__power_two() -> None:
    schedule = Schedule(name="poly", power=2.0)
    assert factor(50, schedule) == pytest.approx(0.25)
