"""What a step learns from virtual samples, where a loss asks for them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from facekd.data.loading import Batch
from facekd.data.virtual import draw_mixture, mix_images
from facekd.engine.training.session import Session
from facekd.errors import DataError
from facekd.recipe.loss_options import Stkd, StkdSimilarity

Embed = Callable[[Tensor], Tensor]
"""uint8 RGB images to raw embeddings."""


def virtual_fields(session: Session, batch: Batch, student: Embed, teacher: Embed) -> dict[str, Tensor]:
    """The fields of ``StepOutputs`` on virtual samples; none where no loss of this step asks for them.

    Each labelled image of the batch is mixed with another. The student sees the mixtures in a pass of their own, in
    which BatchNorm normalises by the mixtures' own statistics and its running statistics stand still: mixed into the
    clean batch they would shift the statistics of both, and in the running ones they would stay in the student that is
    deployed, which never meets a mixture. The teacher runs live on the same pixels, whatever is cached of the clean
    ones.

    The mixtures are drawn for the images of all processes, each of which embeds its share of them; the few that do not
    divide among the processes are left out.

    Args:
        session: The run.
        batch: The images of this process.
        student: The student in training.
        teacher: The teacher, live.

    Raises:
        DataError: Fewer than two labelled images for each process in the batch.
    """
    begun = session.objective.begun(session.step)
    alpha = next((loss.alpha for loss in begun if isinstance(loss, Stkd | StkdSimilarity)), None)
    if alpha is None:
        return {}
    world = session.world
    images, labels = world.gather(batch.images), world.gather(batch.labels)
    rows = torch.arange(len(labels), device=labels.device)
    labelled = rows if session.all_labelled else rows[labels >= 0]
    each = len(labelled) // world.size
    if each < 2:
        what = f"{len(labelled)} labelled images in the batch, virtual samples are mixtures of two"
        raise DataError(f"step {session.step}", what, "raise train.batch_size, or lower data.augment.mix")
    mixture = draw_mixture(labelled, seed=session.recipe.train.seed, step=session.step, alpha=alpha)
    mixture = mixture.rows(0, each * world.size)
    shown = mix_images(images, mixture.rows(world.rank * each, (world.rank + 1) * each))
    with running_statistics_kept(session.student):
        embeddings = student(shown)
    return {
        "virtual_student": world.gather(embeddings),
        "virtual_teacher": world.gather(teacher(shown)),
        "virtual_labels": torch.stack([labels[mixture.first], labels[mixture.second]], dim=1),
        "virtual_shares": mixture.shares,
    }


@contextmanager
def running_statistics_kept(module: nn.Module) -> Iterator[None]:
    """Let BatchNorm in training mode leave its running statistics alone."""
    norms = [m for m in module.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm) and m.track_running_stats]
    for norm in norms:
        norm.track_running_stats = False
    try:
        yield
    finally:
        for norm in norms:
            norm.track_running_stats = True
