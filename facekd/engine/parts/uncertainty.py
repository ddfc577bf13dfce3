"""How sure the student may be of an image: a variance read off its embedding, and the noise that goes with it."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from facekd.engine.outputs import Sizes, StepOutputs
from facekd.models.heads import VarianceHead
from facekd.recipe.loss_options import Dul


class Uncertainty(nn.Module):
    """The log variance of the student's own embedding, and a step's standard normal numbers to draw from it with.

    The head starts at variance 1, that of the unit Gaussian, when its term begins. The numbers come from the random
    state that the step sets from the run's seed; outside training they are 0, and the draw is the embedding itself.

    Args:
        options: The recipe's term.
        sizes: What the run is for.
    """

    def __init__(self, options: Dul, sizes: Sizes) -> None:
        super().__init__()
        width = sizes.embedding_size
        self.head = VarianceHead(width, 1 if options.variance == "scalar" else width, options.head)
        self.start = round(options.start_epoch * sizes.steps_per_epoch)
        self.detached = options.detach_variance

    def forward(self, outputs: StepOutputs, step: int) -> dict[str, Tensor]:
        """``log_variance``, ``(batch, 1)`` or ``(batch, dim)``, and ``noise``, ``(batch, dim)``."""
        student = outputs.student
        if step == self.start and self.training:
            self.head.initialise(student.new_ones(self.head.outputs))
        noise = torch.randn_like(student) if self.training else torch.zeros_like(student)
        return {"log_variance": self.head(student.detach() if self.detached else student), "noise": noise}
