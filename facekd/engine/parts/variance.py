"""The variance of the teacher about the student that PAD weighs by."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from facekd.engine.outputs import Sizes, StepOutputs
from facekd.models.heads import VarianceHead
from facekd.recipe.loss_options import Pad

RESIDUAL_MEMORY = 0.9  # share of the old value kept by the running mean squared residual


class Variance(nn.Module):
    """The log variance that PAD weighs by: constant during warm-up, then the head's answer.

    One constant variance makes the term a rescaled L2, so its weight means the same before and after the switch, at
    which the head is set to the residual of each dimension that the warm-up measured.

    Args:
        options: The recipe's PAD term.
        sizes: What the run is for.
    """

    residual: Tensor

    def __init__(self, options: Pad, sizes: Sizes) -> None:
        super().__init__()
        width = sizes.embedding_size
        self.head = VarianceHead(width, 1 if options.variance == "scalar" else width, options.head)
        self.start = round((options.start_epoch + options.warmup_epochs) * sizes.steps_per_epoch)
        self.detached = options.detach_variance
        self.register_buffer("residual", torch.zeros(width))

    def forward(self, outputs: StepOutputs, step: int) -> dict[str, Tensor]:
        """``log_variance`` of the teacher about the student, ``(batch, 1)`` or ``(batch, dim)``."""
        student = outputs.student
        if step < self.start or step == 0:
            self._measure(student.detach(), outputs.of_teacher, first=step == 0)
        if step < self.start:
            return {"log_variance": self.residual.mean().log().expand(len(student), 1)}
        if step == self.start:
            self.head.initialise(self.residual)
        return {"log_variance": self.head(student.detach() if self.detached else student)}

    @torch.no_grad()
    def _measure(self, student: Tensor, teacher: Tensor, first: bool) -> None:
        apart = functional.normalize(teacher.float()) - functional.normalize(student.float())
        now = apart.square().mean(0)
        self.residual.copy_(now if first else self.residual * RESIDUAL_MEMORY + now * (1 - RESIDUAL_MEMORY))
