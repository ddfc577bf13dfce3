"""Partial FC: the loss of a step's sample, whose rows alone learn, drawn by the run's seed and the step."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from run_bits import same, steps, stop_at
from torch import Tensor

from facekd.engine.training.build import make_optimizer
from facekd.engine.training.objective import Objective
from facekd.engine.training.outputs import Sizes, StepOutputs
from facekd.engine.training.parts import Sample
from facekd.engine.training.trainer import train
from facekd.errors import Interrupted
from facekd.recipe.loss_options import MarginSoftmax
from facekd.recipe.sections import Optimizer

CLASSES, DIM, BATCH, SCALE, MARGIN = 40, 8, 6, 8.0, 0.35
SIZES = Sizes(classes=CLASSES, embedding_size=DIM, teacher_size=DIM, batch_size=BATCH, steps_per_epoch=4)
LABELS = torch.tensor([31, 2, -1, 2, 17, 0])
SECTIONS = {
    "sgd": Optimizer(name="sgd", learning_rate=0.1, momentum=0.9, weight_decay=0.05),
    "sgd without momentum": Optimizer(name="sgd", learning_rate=0.1, momentum=0.0, weight_decay=0.05),
    "adamw": Optimizer(name="adamw", learning_rate=0.1, momentum=0.9, weight_decay=0.05),
}


def term(**options: float) -> MarginSoftmax:
    return MarginSoftmax(name="margin_softmax", kind="cosface", margin=MARGIN, scale=SCALE, **options)


def objective(seed: int = 0, **options: float) -> Objective:
    torch.manual_seed(0)
    return Objective([term(**({"sample_rate": 0.25} | options))], replace(SIZES, seed=seed)).double()


def batch(step: int) -> StepOutputs:
    generator = torch.Generator().manual_seed(step)
    student = torch.randn(BATCH, DIM, generator=generator, dtype=torch.float64)
    return StepOutputs(student.requires_grad_(), None, LABELS.roll(step))


def places(held: Objective) -> Tensor:
    (part,) = (part for part in held.parts.values() if isinstance(part, Sample))
    assert part.drawn is not None
    return part.drawn[1]


def slowly(student: Tensor, rows: Tensor, labels: Tensor, among: list[int]) -> Tensor:
    """Cross-entropy of the labelled images over some classes, image by image and class by class."""
    losses = []
    for embedding, label in zip(student, labels.tolist(), strict=True):
        if label < 0:
            continue
        logits = {c: SCALE * torch.cosine_similarity(embedding, rows[c], dim=0) for c in among}
        logits[label] = logits[label] - SCALE * MARGIN
        losses.append(-(logits[label] - torch.stack(list(logits.values())).exp().sum().log()))
    return torch.stack(losses).mean()


@pytest.mark.parametrize("rate", [0.02, 0.25, 0.9])
def test_loss_and_gradients__are_those_of_the_softmax_over_the_sample(rate: float) -> None:
    held, outputs = objective(sample_rate=rate), batch(0)
    loss = held(outputs, 0)["margin_softmax"]
    loss.backward()
    among = places(held).tolist()
    assert set(outputs.labels[outputs.labels >= 0].tolist()) <= set(among)
    assert len(among) == max(4, round(rate * CLASSES))
    student = outputs.student.detach().requires_grad_()
    rows = held.own.class_weights.detach().clone().requires_grad_()
    wanted = slowly(student, rows, outputs.labels, among)
    wanted.backward()
    torch.testing.assert_close(loss, wanted)
    torch.testing.assert_close(outputs.student.grad, student.grad)
    torch.testing.assert_close(held.gradients()["own.class_weights"], rows.grad[among])
    assert held.own.class_weights.grad is None


def step_by_hand(kind: str, rows: Tensor, gradient: Tensor, memory: dict[str, Tensor], count: int) -> Tensor:
    """The rows after a step, by the formulas of SGD with momentum and of AdamW."""
    section = SECTIONS[kind]
    rate, decay, first = section.learning_rate, section.weight_decay, section.momentum
    if section.name == "sgd":
        memory["one"] = first * memory["one"] + gradient + decay * rows
        return rows - rate * memory["one"]
    memory["one"] = first * memory["one"] + (1 - first) * gradient
    memory["two"] = 0.999 * memory["two"] + 0.001 * gradient**2
    mean, square = memory["one"] / (1 - first**count), memory["two"] / (1 - 0.999**count)
    return rows * (1 - rate * decay) - rate * mean / (square.sqrt() + 1e-8)


def takes_a_step(held: Objective, optimizer: torch.optim.Optimizer, step: int) -> None:
    optimizer.zero_grad(set_to_none=True)
    held(batch(step), step)["margin_softmax"].backward()
    with held.among_learning(optimizer):
        optimizer.step()


@pytest.mark.parametrize("kind", SECTIONS)
def test_rows_drawn__learn_as_if_alone_and_the_others_stand_still(kind: str) -> None:
    held = objective()
    table = held.own.class_weights
    optimizer = make_optimizer(SECTIONS[kind], torch.nn.Module(), held)
    rows = table.detach().clone()
    memory = [{"one": torch.zeros(DIM).double(), "two": torch.zeros(DIM).double()} for _ in range(CLASSES)]
    ever: set[int] = set()
    for step in range(6):
        before = table.detach().clone()
        remembered = {key: kept.clone() for key, kept in optimizer.state[table].items() if torch.is_tensor(kept)}
        optimizer.zero_grad(set_to_none=True)
        held(batch(step), step)["margin_softmax"].backward()
        drawn, gradient = places(held), held.gradients()["own.class_weights"].clone()
        ever |= set(drawn.tolist())
        with held.among_learning(optimizer):
            optimizer.step()
        still = torch.ones(CLASSES, dtype=torch.bool).index_fill(0, drawn, False)
        assert torch.equal(table[still], before[still]) and not (table[drawn] == before[drawn]).all(dim=1).any()
        for key, kept in remembered.items():
            now = optimizer.state[table][key]
            assert kept.dim() == 0 or torch.equal(now[still], kept[still])
        for place, of_row in zip(drawn.tolist(), gradient, strict=True):
            rows[place] = step_by_hand(kind, rows[place], of_row, memory[place], step + 1)
    torch.testing.assert_close(table.detach(), rows)
    assert len(ever) > 20
    for key, kept in optimizer.state[table].items():
        if torch.is_tensor(kept) and kept.dim():
            assert kept.shape == table.shape, key
            never = [place for place in range(CLASSES) if place not in ever]
            assert (kept[never] == 0).all() and (kept[sorted(ever)] != 0).any(dim=1).all()


def test_without_a_sample__every_row_moves() -> None:
    """Weight decay reaches them all: what stands still above does so because of the sample."""
    held = objective(sample_rate=1.0)
    assert not any(isinstance(part, Sample) for part in held.parts.values())
    table = held.own.class_weights
    before = table.detach().clone()
    takes_a_step(held, make_optimizer(SECTIONS["sgd"], torch.nn.Module(), held), 0)
    assert not (table == before).all(dim=1).any()


def test_draws__are_of_the_seed_and_the_step_and_of_no_global_state() -> None:
    def drawn(seed: int, step: int, state: int) -> list[int]:
        held = objective(seed)
        torch.manual_seed(state)
        held(batch(0), step)
        assert torch.equal(torch.rand(3), torch.rand(3, generator=torch.Generator().manual_seed(state)))
        return places(held).tolist()

    assert drawn(0, 5, 1) == drawn(0, 5, 2)
    assert drawn(0, 5, 1) != drawn(0, 6, 1) != drawn(1, 6, 1)


def test_a_term_that_has_not_begun__moves_nothing() -> None:
    held = objective(start_epoch=1.0)
    optimizer = make_optimizer(SECTIONS["sgd"], torch.nn.Module(), held)
    before = held.own.class_weights.detach().clone()
    assert held(batch(0), 0) == {}
    with held.among_learning(optimizer):
        optimizer.step()
    assert torch.equal(held.own.class_weights, before) and held.gradients() == {}


def test_an_optimizer_that_fails__leaves_the_classifier_whole() -> None:
    held = objective()
    optimizer = make_optimizer(SECTIONS["sgd"], torch.nn.Module(), held)
    takes_a_step(held, optimizer, 0)
    table = held.own.class_weights
    before, memory = table.detach().clone(), optimizer.state[table]["momentum_buffer"].clone()
    held(batch(1), 1)["margin_softmax"].backward()
    with pytest.raises(RuntimeError, match="no more"), held.among_learning(optimizer):
        raise RuntimeError("no more")
    assert torch.equal(table, before) and torch.equal(optimizer.state[table]["momentum_buffer"], memory)


SAMPLED = [{"name": "margin_softmax", "scale": 8.0, "margin": 0.2, "sample_rate": 0.5}]


@pytest.mark.parametrize("name", ["sgd", "adamw"])
def test_a_run__broken_off_and_resumed_ends_with_the_bits_of_the_unbroken_one(
    name: str, make_recipe, tmp_path: Path
) -> None:
    short = ("train.batch_size=2", "train.epochs=2", "train.max_steps=5", "train.checkpoint_every=2")
    optimizer = {"name": name, "learning_rate": 0.01}
    recipe = make_recipe(short, losses=SAMPLED, optimizer=optimizer)
    train(recipe, tmp_path / "whole", device="cpu")
    with pytest.raises(Interrupted):
        train(recipe, tmp_path / "broken", device="cpu", listener=stop_at(2))
    train(recipe, tmp_path / "broken", device="cpu", resume=True)
    assert same(tmp_path / "whole", tmp_path / "broken")
    assert steps(tmp_path / "whole") == steps(tmp_path / "broken")
    plain = make_recipe((*short, "train.max_steps=1"), losses=[{**SAMPLED[0], "sample_rate": 1.0}], optimizer=optimizer)
    train(plain, tmp_path / "plain", device="cpu")
    first, other = steps(tmp_path / "whole")[0], steps(tmp_path / "plain")[0]
    assert first["loss"] < other["loss"] and math.isfinite(first["gradient_norm"])
