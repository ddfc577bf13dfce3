"""The variance of the teacher about the student that PAD weighs by."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from facekd.engine.training.outputs import Sizes, StepOutputs
from facekd.losses.logits import logit_divergences
from facekd.losses.relation import similarity_distances
from facekd.models.heads import VarianceHead
from facekd.recipe.loss_options import Pad, PadLogit, PadRelation

RESIDUAL_MEMORY = 0.9  # share of the old value kept by the running mean distance


class Variance(nn.Module):
    """The log variance that PAD weighs by: constant during warm-up, then the head's answer.

    One constant variance makes the term a rescaled distance, so its weight means the same before and after the switch,
    at which the head is set to the mean distance that the warm-up measured: of embeddings in each dimension, of class
    probabilities or of similarities as a whole.

    Args:
        options: The recipe's PAD term.
        sizes: What the run is for.
    """

    residual: Tensor

    def __init__(self, options: Pad | PadLogit | PadRelation, sizes: Sizes) -> None:
        super().__init__()
        self.options = options
        width = sizes.embedding_size
        by_dimension = isinstance(options, Pad) and options.variance == "per_dimension"
        self.head = VarianceHead(width, width if by_dimension else 1, options.head)
        self.start = round((options.start_epoch + options.warmup_epochs) * sizes.steps_per_epoch)
        self.detached = options.detach_variance
        self.register_buffer("residual", torch.zeros(width if isinstance(options, Pad) else 1))

    def forward(self, outputs: StepOutputs, step: int) -> dict[str, Tensor]:
        """``log_variance`` of the teacher about the student, ``(batch, 1)`` or ``(batch, dim)``."""
        student = outputs.student
        if step < self.start or step == 0:
            self._measure(outputs, first=step == 0)
        if step < self.start:
            return {"log_variance": self.residual.mean().log().expand(len(student), 1)}
        if step == self.start:
            self.head.initialise(self.residual)
        return {"log_variance": self.head(student.detach() if self.detached else student)}

    @torch.no_grad()
    def _measure(self, outputs: StepOutputs, first: bool) -> None:
        now = distances(self.options, outputs).mean(0)
        self.residual.copy_(now if first else self.residual * RESIDUAL_MEMORY + now * (1 - RESIDUAL_MEMORY))


def distances(options: Pad | PadLogit | PadRelation, outputs: StepOutputs) -> Tensor:
    """The distances a PAD term weighs: ``(batch, dim)`` between embeddings, else one an image, ``(batch, 1)``.

    Raises:
        ValueError: The step has no teacher, or lacks a classifier the term looks through.
    """
    student, teacher = outputs.student, outputs.of_teacher
    if isinstance(options, Pad):
        return (functional.normalize(teacher.float()) - functional.normalize(student)).square()
    if isinstance(options, PadRelation):
        return similarity_distances(student, teacher)[:, None]
    own, other = outputs.class_weights, outputs.teacher_class_weights
    if own is None or other is None:
        raise ValueError("class_weights or teacher_class_weights is None, expected both classifiers")
    kept = {"scale": options.scale, "temperature": options.temperature}
    return logit_divergences(student, teacher, own, other, **kept)[:, None]
