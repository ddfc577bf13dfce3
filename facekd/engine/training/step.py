"""One update of the student: forward, losses, backward, optimizer, which updates nothing unless all is finite.

A step never waits for the device, so that an accelerator is given the next one while it works: what was not finite is
noticed there, holds back every update from that step on, and is told when the numbers are read (see
:mod:`facekd.engine.training.told`). What has to wait are losses that look for pairs of one class, a variance head in
its first step, a sample of classes, live teachers of subsets, and steps of which some images have no label. Several
processes wait for each other.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from math import isfinite
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from facekd.data.images import shown
from facekd.data.loading import Batch
from facekd.engine.training.compiled import Network
from facekd.engine.training.distributed import World
from facekd.engine.training.outputs import PER_IMAGE, StepOutputs
from facekd.engine.training.schedule import learning_rate_factor
from facekd.engine.training.session import Session
from facekd.engine.training.split import norm_of_all
from facekd.engine.training.subset import Subset
from facekd.engine.training.told import LOWER, Told
from facekd.engine.training.virtual import virtual_fields
from facekd.errors import NonFiniteError
from facekd.models.embedder import Embedder
from facekd.recipe.loss_options import any_needs


def take_step(session: Session, network: Network, batch: Batch) -> Told:
    """One update.

    Args:
        session: The run; its weights and ``step`` change.
        network: The student, compiled or not.
        batch: The step's images, on the run's device.

    Returns:
        What the step tells. If a loss term or the gradient is not finite, no trained weight was updated nor will be.

    Raises:
        NonFiniteError: The learning rate is not finite; nothing was updated.
    """
    recipe, plan, step = session.recipe, session.plan, session.step
    seed = (recipe.train.seed * 1_000_003 + step) % 2**63
    torch.manual_seed(seed)
    factor = learning_rate_factor(
        step, steps_per_epoch=plan.steps_per_epoch, total_steps=plan.total_steps, schedule=recipe.schedule
    )
    rate = recipe.optimizer.learning_rate * factor
    if not isfinite(rate):
        raise NonFiniteError(f"step {step}", "the learning rate is not finite; nothing was updated", LOWER)
    for group in session.optimizer.param_groups:
        group["lr"] = rate
    _set_modes(session)
    teacher = teacher_embeddings(session, batch)
    embed, live = partial(student_embeddings, session, network, seed), partial(live_embeddings, session)
    student, assistant = embed(batch.images)
    asked = tuple(subset_embeddings(session, subset, batch) for subset in session.subsets)
    labelled = session.all_labelled
    share = StepOutputs(
        student, teacher, batch.labels, assistant=assistant, subset_teachers=asked, all_labelled=labelled
    )
    outputs = joined_outputs(session.world, share)
    virtual: dict[str, Any] = virtual_fields(session, batch, lambda images: embed(images)[0], live)
    outputs = replace(outputs, **virtual)
    terms = session.objective(outputs, step)
    loss = torch.stack(list(terms.values())).sum()
    session.optimizer.zero_grad(set_to_none=True)
    if loss.requires_grad:  # a frozen student's does not before its variance head has begun
        loss.backward()
    session.world.sum_gradients(session.student)
    values = torch.stack([*(term.detach() for term in terms.values()), _gradient_norm(session)])
    torch.maximum(session.halted, (~torch.isfinite(values).all()).to(session.halted), out=session.halted)
    with session.objective.among_learning(session.optimizer):
        session.optimizer.step()
    session.step += 1
    if session.average is not None and recipe.train.ema is not None:
        update_average(session.average, session.student, recipe.train.ema, session.step)
        if session.average_head is not None and session.objective.head is not None:
            update_average(session.average_head, session.objective.head, recipe.train.ema, session.step)
    return Told(
        step=step,
        facts={"epoch": round(session.step / plan.steps_per_epoch, 4), "learning_rate": rate},
        terms=tuple(terms),
        values=values,
        images=_told_of_images(session, batch, share),
        gradients=partial(_told_of_gradients, session, step),
        beside=session.objective.told,
    )


def joined_outputs(world: World, share: StepOutputs) -> StepOutputs:
    """What the step's networks gave for the images of all processes, every field that has a row per image.

    Args:
        world: The processes.
        share: What they gave for the images of this one.
    """
    held = {name: getattr(share, name) for name in PER_IMAGE}
    joined: dict[str, Any] = {name: world.gather(rows) for name, rows in held.items() if rows is not None}
    asked = tuple(world.gather(rows) for rows in share.subset_teachers)
    return replace(share, **joined, subset_teachers=asked, class_share=world.class_share)


def student_embeddings(session: Session, network: Network, seed: int, images: Tensor) -> tuple[Tensor, Tensor | None]:
    """Raw embeddings of some images by the student, and by its assistant where it has one.

    Args:
        session: The run.
        network: The student, compiled or not.
        seed: What PyTorch's generator was seeded with for the step.
        images: uint8 RGB ``(batch, 3, height, width)``.

    Returns:
        float32 ``(batch, dim)`` each.
    """
    pixels = session.preprocessing.apply(images)
    if session.recipe.train.channels_last:
        pixels = pixels.contiguous(memory_format=torch.channels_last)
    bf16 = torch.autocast(session.device.type, torch.bfloat16, enabled=_uses_bf16(session))
    with bf16, session.world.own_draws(seed):
        found = network(pixels)
    return (found[0].float(), found[1].float()) if isinstance(found, tuple) else (found.float(), None)


def _set_modes(session: Session) -> None:
    """Training mode; BatchNorm in evaluation mode during the last epochs where the recipe says so, or a frozen student.

    In a batch of n a value cannot lie further than sqrt(n) deviations from the batch's own mean, however rare what
    it stands for; with running statistics it can, and embeddings of rare images then share one long direction. The
    last epochs let the student learn under the statistics it will be used with.
    """
    session.student.train(not session.recipe.student.frozen)
    session.objective.train()
    plan = session.plan
    frozen = round(session.recipe.train.freeze_norm_epochs * plan.steps_per_epoch)
    if session.step >= plan.total_steps - frozen:
        for module in session.student.modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm):
                module.eval()


def _uses_bf16(session: Session) -> bool:
    """bf16 where asked for; ``auto`` takes it only on an accelerator that computes in it natively."""
    wanted = session.recipe.train.precision
    native = session.device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)
    return wanted == "bf16" or (wanted == "auto" and native)


def _told_of_images(session: Session, batch: Batch, share: StepOutputs) -> Callable[[], str]:
    """Says the first image of a step whose embedding is not finite; nothing where all are."""
    seen = {"teacher": share.teacher, "student": share.student}
    flags = {whose: ~torch.isfinite(rows.detach()).all(dim=1) for whose, rows in seen.items() if rows is not None}

    def told() -> str:
        for whose, flagged in flags.items():
            bad = flagged.nonzero().flatten().tolist()
            if bad:
                name = session.source.sample_name(int(batch.indices[bad[0]]))
                return f"; the {whose}'s embedding of {shown(name)} is not, {len(bad)} of {len(batch.indices)}"
        return ""

    return told


def _gradient_norm(session: Session) -> Tensor:
    """The norm of the whole gradient; the backbone's is clipped where the recipe says so."""
    student, objective = list(session.student.parameters()), session.objective
    clip = session.recipe.optimizer.clip_gradient
    limit = float("inf") if clip is None else clip
    backbone = nn.utils.clip_grad_norm_(student, limit)
    rest = objective.gradients()
    split = rest.pop(objective.split, None) if objective.split else None
    beside = nn.utils.get_total_norm(list(rest.values())).to(backbone)
    apart = norm_of_all(session.world, split).to(backbone) if split is not None else torch.zeros_like(backbone)
    return torch.hypot(backbone, torch.hypot(beside, apart))


def _told_of_gradients(session: Session, step: int) -> str:
    """The first parameters whose gradient is not finite, while it is still that of the step."""
    named = [*session.student.named_parameters(), *session.objective.named_parameters()]
    still = session.step == step + 1
    bad = [name for name, p in named if still and p.grad is not None and not torch.isfinite(p.grad).all()]
    return ", ".join(bad[:3]) or session.objective.split or "the student"


def teacher_embeddings(session: Session, batch: Batch) -> Tensor | None:
    """The teacher's embeddings for a step: from the cache, or live on the student's pixels.

    Args:
        session: The run.
        batch: The step's images.
    """
    if session.teacher is None or not any_needs(session.recipe.losses, "teacher_embeddings"):
        return None
    if session.cached is not None:
        return _sent(session.cached[batch.indices.numpy(), batch.views.numpy()], session.device)
    return live_embeddings(session, batch.images)


def live_embeddings(session: Session, images: Tensor) -> Tensor:
    """The teacher's embeddings of uint8 RGB images as the student sees them, brought to the teacher's own size.

    Raises:
        ValueError: The run has no teacher.
    """
    teacher = session.teacher_now
    if teacher is None:
        raise ValueError("the run has no teacher")
    return _embedded(teacher, images).to(session.device)


def subset_embeddings(session: Session, subset: Subset, batch: Batch) -> Tensor:
    """What a teacher of a subset says of a step's images, ``(batch, teacher_dim)``; zeros for those of other people.

    Args:
        session: The run.
        subset: The teacher.
        batch: The step's images.
    """
    places = subset.source.places[batch.indices.numpy()]
    labelled = session.all_labelled or (batch.labels >= 0).cpu().numpy()
    inside = np.flatnonzero((places >= 0) & labelled)
    if subset.cached is not None:
        rows = np.zeros((len(places), subset.teacher.embedding_size), np.float32)
        rows[inside] = subset.cached[places[inside], batch.views.numpy()[inside]]
        return _sent(rows, session.device)
    found = torch.zeros(len(places), subset.teacher.embedding_size, device=session.device)
    if len(inside):
        found[inside] = _embedded(subset.teacher, batch.images[inside]).to(session.device)
    return found


def _sent(rows: np.ndarray, device: torch.device) -> Tensor:
    """Rows on their way to a device; to CUDA they leave from page-locked memory, from any other it would be waited."""
    held = torch.from_numpy(rows)
    return (held.pin_memory() if device.type == "cuda" else held).to(device, non_blocking=True)


def _embedded(teacher: Embedder, images: Tensor) -> Tensor:
    size = teacher.preprocessing.size
    if images.shape[-2:] != size:
        wide = nn.functional.interpolate(images.float(), size=size, mode="bilinear", antialias=True)
        images = wide.round().clamp(0, 255).to(torch.uint8)
    return teacher.embed(images)


@torch.no_grad()
def update_average(average: nn.Module, student: nn.Module, decay: float, step: int) -> None:
    """Move the average towards the student; young averages move faster, buffers are copied.

    Args:
        average: Changed in place.
        student: The weights after step ``step``.
        decay: Share of the old value kept, in (0, 1); at most ``(1 + step) / (10 + step)``.
        step: Steps taken.
    """
    share = 1 - min(decay, (1 + step) / (10 + step))
    for old, new in zip(average.parameters(), student.parameters(), strict=True):
        old.lerp_(new, share)
    for held, now in zip(average.buffers(), student.buffers(), strict=True):
        held.copy_(now)
