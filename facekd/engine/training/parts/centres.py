"""The class centres AdaDistill moves."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from facekd.engine.training.outputs import Sizes, StepOutputs
from facekd.losses.adaptive import moved_centres
from facekd.recipe.loss_options import AdaDistill

CENTRE_SPREAD = 0.01  # of the random centres before their first image, as published


class Centres(nn.Module):
    """AdaDistill's class centres, moved by each step before its loss.

    Args:
        options: The recipe's AdaDistill term.
        sizes: What the run is for.
    """

    centres: Tensor

    def __init__(self, options: AdaDistill, sizes: Sizes) -> None:
        super().__init__()
        self.weighted = options.weighted
        self.register_buffer("centres", CENTRE_SPREAD * torch.randn(sizes.classes, sizes.embedding_size))

    @torch.no_grad()
    def forward(self, outputs: StepOutputs, step: int) -> dict[str, Tensor]:
        """``centres``, ``(classes, dim)``, after this step's images; those without a label move none."""
        seen = [outputs.of_labelled(rows) for rows in (outputs.student, outputs.of_teacher, outputs.labels)]
        if len(seen[0]):
            self.centres.copy_(moved_centres(self.centres, *seen, weighted=self.weighted))
        return {"centres": self.centres}
