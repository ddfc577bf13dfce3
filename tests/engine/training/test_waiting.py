"""A step asks the device for nothing, and what it found not to be finite holds everything back until it is read."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from run_bits import steps
from test_shipped_training import every_recipe, smaller, teachers  # noqa: F401 - a fixture
from waiting import waits

from facekd.engine.training import trainer
from facekd.engine.training.told import Told, read
from facekd.engine.training.trainer import train
from facekd.errors import Interrupted, NonFiniteError
from facekd.losses import classifier, mixup

TINY = (
    "student.backbone=resnet_tiny",
    "student.options={channels: '4,8', blocks: '1,1'}",
    "student.input_size=32",
    "data.augment.mix=0",
    "train.max_steps=3",
)
LOOKING = {"ekd", "pfe"}
"""Losses that look for pairs of one class."""


@pytest.mark.slow
@every_recipe
def test_shipped_recipe__no_step_waits_for_the_device(
    path: Path,
    faces: Path,
    teachers: dict[int, Path],  # noqa: F811
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    take, places = trainer.take_step, list[str]()
    for module in (classifier, mixup):
        monkeypatch.setattr(module, "on_the_machine", lambda labels: False)

    def watched(session, network, batch):
        with waits(batch.indices, batch.views) as found:
            told = take(session, network, batch)
        places.extend(found if session.step == 3 else [])  # a head that begins asks for a variance to begin with
        return told

    monkeypatch.setattr(trainer, "take_step", watched)
    recipe = smaller(path, faces, teachers, *TINY)
    train(recipe, tmp_path / "run", device="cpu")
    assert bool(places) == any(loss.name in LOOKING for loss in recipe.losses), places


def test_waits__every_way_of_asking_is_found() -> None:
    values, kept = torch.arange(3.0), np.zeros(3, int)
    asking = [
        lambda: float(values[0]),
        lambda: bool(values.sum() > 1),
        lambda: values.tolist(),
        lambda: kept[values.long().numpy()],
        lambda: values.cpu(),
        lambda: values[values > 1],
        lambda: values.masked_fill(values > 1, 0).nonzero(),
        lambda: values.unique(),
        lambda: values.clone().__setitem__(values > 1, torch.zeros(1)),
    ]
    for ask in asking:
        with waits() as found:
            ask()
        assert len(found) == 1
    with waits(values) as found:
        values.numpy(), torch.where(values > 1, values, 0).sum()
    assert not found


@pytest.fixture
def unread(make_recipe, monkeypatch: pytest.MonkeyPatch):
    """A run of 12 steps that reads its numbers at every eighth only, as on an accelerator."""
    monkeypatch.setattr(trainer, "on_the_machine", lambda values: False)
    return make_recipe(("train.log_every=8", "train.checkpoint_every=3", "train.ema=0.9"))


def poison(monkeypatch: pytest.MonkeyPatch, at: int, **raising: Exception) -> list:
    """Let the student's embeddings of one step overflow; the sessions before each step are noted from then on."""
    take, seen = trainer.take_step, []

    def poisoned(session, network, batch):
        if session.step >= at:
            seen.append([tensor.clone() for tensor in held(session)])
        if f"at_{session.step}" in raising:
            raise raising[f"at_{session.step}"]
        if session.step == at:
            return take(session, lambda pixels: network(pixels) * float("inf"), batch)
        return take(session, network, batch)

    monkeypatch.setattr(trainer, "take_step", poisoned)
    return seen


def held(session) -> list[torch.Tensor]:
    """What an update changes."""
    trained = [*session.student.parameters(), *session.objective.parameters()]
    return [*trained, *(state["momentum_buffer"] for state in session.optimizer.state.values())]


def test_a_step_that_is_not_finite__updates_nothing_and_nothing_after_it_does(
    unread, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = poison(monkeypatch, at=5)
    with pytest.raises(
        NonFiniteError, match="step 5: loss term margin_softmax is not finite; nothing was updated; the"
    ):
        train(unread, tmp_path / "run", device="cpu")
    assert len(seen) == 3
    assert all(torch.equal(one, other) for now in seen[1:] for one, other in zip(seen[0], now, strict=True))
    assert not list((tmp_path / "run" / "checkpoints").glob("step-*"))


def test_a_signal_after_a_step_that_is_not_finite__saves_nothing(
    unread, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    poison(monkeypatch, at=5, at_6=Interrupted(15, "run", "stopped"))
    with pytest.raises(NonFiniteError, match="step 5"):
        train(unread, tmp_path / "run", device="cpu")
    assert not list((tmp_path / "run" / "checkpoints").glob("step-*"))


def test_an_overflowing_gradient__is_told_though_it_is_read_late(
    unread, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    take = trainer.take_step

    def hook(session, network, batch):
        if session.step == 3:
            next(session.student.parameters()).register_hook(lambda gradient: gradient * float("inf"))
        return take(session, network, batch)

    monkeypatch.setattr(trainer, "take_step", hook)
    with pytest.raises(NonFiniteError, match="step 3: gradient of the student is not finite; nothing was updated"):
        train(unread, tmp_path / "run", device="cpu")


def test_what_is_read_late__is_what_is_read_at_once(make_recipe, unread, tmp_path: Path, monkeypatch) -> None:
    train(unread, tmp_path / "late", device="cpu")
    monkeypatch.setattr(trainer, "on_the_machine", lambda values: True)
    train(make_recipe(("train.checkpoint_every=3", "train.ema=0.9")), tmp_path / "once", device="cpu")
    once = steps(tmp_path / "once")
    assert steps(tmp_path / "late") == [once[7], once[11]]


def test_read__tells_the_first_of_several_that_were_not_finite() -> None:
    def told(step: int, *values: float) -> Told:
        facts = {"epoch": 0.0, "learning_rate": 0.1}
        return Told(step, facts, ("l2",), torch.tensor(values), lambda: "", lambda: "x", dict)

    assert read([told(1, 2.0, 3.0), told(2, 4.0, 5.0)])["gradient_norm"] == 5.0
    with pytest.raises(NonFiniteError, match="step 2: gradient of x"):
        read([told(1, 2.0, 3.0), told(2, 4.0, float("nan")), told(3, float("inf"), 1.0)])
