"""Defects planted into a run by the process that trains it: of the code, which must show, and of the numbers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from facekd.data import augment
from facekd.data.loading import TrainingImages
from facekd.data.samplers import StepBatches
from facekd.engine.training import build, checkpoint, session, trainer
from facekd.engine.training import step as update
from facekd.engine.training.session import Session


def forgets_the_optimizer() -> None:
    """What the optimizer remembers is left out of a checkpoint taken up."""
    session.restore_optimizer = lambda *_: None


def writes_in_place() -> None:
    """One checkpoint, removed before the next is written where it will stand."""
    plain = checkpoint.save_checkpoint

    def save(folder: Path, held: checkpoint.Checkpoint) -> Path:
        for path in folder.glob("step-*.safetensors"):
            path.unlink()
        return plain(folder, held)

    trainer.save_checkpoint = save


def draws_from_the_process() -> None:
    """Images are augmented from one generator of the process, whose state no checkpoint holds."""
    generator = np.random.default_rng(0)

    def augmented(self: TrainingImages, epoch: int, index: int) -> tuple[np.ndarray, int, bool]:
        image, flipped = augment.augment(self.images.read(index), generator, self.settings)
        return image, int(self.labels[index]), flipped

    TrainingImages.augmented = augmented  # type: ignore[method-assign]


def begins_the_order_again() -> None:
    """A resumed run sees the images in the order of the first epoch, from its start."""

    def batches(draw: Any, per_epoch: int, seed: int, first: int, last: int) -> StepBatches:
        return StepBatches(draw, per_epoch, seed, 0, last - first)

    build.StepBatches = batches  # type: ignore[assignment, misc]


@dataclass(frozen=True)
class Place:
    """Where a value that is not finite turns up.

    Attributes:
        put: Puts it there, before the step is taken; may give the step another network.
        told: Pattern of the line that must tell of it.
    """

    put: Callable[[Session, Any, float], Any]
    told: str


NOT_UPDATED = r"step \d+: (loss term .*|gradient of .*|the learning rate) is not finite; nothing was updated"
NAMED = r"loss term .* is not finite; nothing was updated; the {}'s embedding of p\d/\d\.png is not"
NOT_KEPT = r"is not finite; no checkpoint was written|: \d+ non-finite values"


def _first(tensor: Tensor, value: float) -> Tensor:
    changed = tensor.clone()
    _spoil(changed, value)
    return changed


def _spoil(tensor: Tensor, value: float) -> None:
    tensor[(0,) * tensor.ndim] = value


def _pixel(now: Session, network: Any, value: float) -> Any:
    return lambda pixels: network(_first(pixels, value))


def _embedding(now: Session, network: Any, value: float) -> Any:
    return lambda pixels: _first(network(pixels), value)


def _teacher(now: Session, network: Any, value: float) -> Any:
    now.cached = np.full_like(now.cached, value)
    return network


def _term(name: str) -> Callable[[Session, Any, float], Any]:
    def put(now: Session, network: Any, value: float) -> Any:
        now.objective.register_forward_hook(lambda module, given, terms: terms | {name: terms[name] * value})
        return network

    return put


def _gradient(now: Session, network: Any, value: float) -> Any:
    next(now.student.parameters()).register_hook(lambda gradient: _first(gradient, value))
    return network


def _weight(now: Session, network: Any, value: float) -> Any:
    _spoil(next(now.student.parameters()).data, value)
    return network


def _buffer(now: Session, network: Any, value: float) -> Any:
    _spoil(next(held for held in now.student.buffers() if held.is_floating_point()), value)
    return network


def _class_weight(now: Session, network: Any, value: float) -> Any:
    _spoil(next(held for held in now.objective.inherited.buffers() if held.is_floating_point()), value)
    return network


def _head(now: Session, network: Any, value: float) -> Any:
    _spoil(next(now.objective.head.parameters()).data, value)
    return network


def _average(now: Session, network: Any, value: float) -> Any:
    _spoil(next(now.average.parameters()).data, value)
    return network


def _learning_rate(now: Session, network: Any, value: float) -> Any:
    update.learning_rate_factor = lambda *_, **__: value
    return network


def _momentum(now: Session, network: Any, value: float) -> Any:
    for held in now.optimizer.state.values():
        _spoil(held["momentum_buffer"], value)
        break
    else:
        _weight(now, network, value)
    return network


PLACES = {
    "pixels": Place(_pixel, NAMED.format("student")),
    "student's embedding": Place(_embedding, NAMED.format("student")),
    "teacher's embeddings": Place(_teacher, NAMED.format("teacher")),
    "margin term": Place(_term("margin_softmax"), NOT_UPDATED),
    "l2 term": Place(_term("l2"), NOT_UPDATED),
    "pad term": Place(_term("pad"), NOT_UPDATED),
    "gradient": Place(_gradient, NOT_UPDATED),
    "weights": Place(_weight, NOT_UPDATED),
    "running statistics": Place(_buffer, f"{NOT_UPDATED}|{NOT_KEPT}"),
    "class weights": Place(_class_weight, NOT_UPDATED),
    "variance head": Place(_head, f"{NOT_UPDATED}|{NOT_KEPT}"),
    "average": Place(_average, f"{NOT_UPDATED}|{NOT_KEPT}"),
    "optimizer": Place(_momentum, f"{NOT_UPDATED}|{NOT_KEPT}"),
    "learning rate": Place(_learning_rate, NOT_UPDATED),
}


def poison(place: str, step: int, value: float) -> None:
    """Let the loop of this process meet a value that is not finite at a step, counted from 0."""
    plain = trainer.take_step

    def take(now: Session, network: Any, batch: Any) -> Any:
        if now.step == step:
            network = PLACES[place].put(now, network, value)
        return plain(now, network, batch)

    trainer.take_step = take
