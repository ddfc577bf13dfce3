"""How sure the student may be of an image: a variance read off its embedding, and the noise that goes with it."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional

from facekd.engine.training.outputs import Sizes, StepOutputs
from facekd.losses.uncertainty import genuine_pairs
from facekd.models.heads import VarianceHead
from facekd.recipe.loss_options import Dul, DulRegression, Pfe


class Uncertainty(nn.Module):
    """The log variance of the student's own embedding, and for DUL standard normal numbers to draw from it with.

    When its term begins the head starts at what the step shows of its dimensions: variance 1 for DUL, which knows the
    unit Gaussian only; the squared distance from the class's row for DUL's regression; half of that between genuine
    pairs for PFE, where there are any. The numbers come from the random state that the step sets from the run's seed;
    outside training they are 0, and the draw is the embedding itself.

    Args:
        options: The recipe's term.
        sizes: What the run is for.
    """

    def __init__(self, options: Dul | DulRegression | Pfe, sizes: Sizes) -> None:
        super().__init__()
        width = sizes.embedding_size
        self.head = VarianceHead(width, 1 if options.variance == "scalar" else width, options.head)
        self.begin = STARTS[options.name]
        self.draws = options.name == "dul"
        self.start = round(options.start_epoch * sizes.steps_per_epoch)
        self.detached = options.detach_variance

    def forward(self, outputs: StepOutputs, step: int) -> dict[str, Tensor]:
        """``log_variance``, ``(batch, 1)`` or ``(batch, dim)``, and for DUL ``noise``, ``(batch, dim)``."""
        student = outputs.student
        if step == self.start and self.training:
            variance = self.begin(outputs)
            if variance is not None:
                self.head.initialise(variance)
        found = {"log_variance": self.head(student.detach() if self.detached else student)}
        if self.draws:
            found["noise"] = torch.randn_like(student) if self.training else torch.zeros_like(student)
        return found


def unit_variance(outputs: StepOutputs) -> Tensor:
    """1 in each dimension."""
    return outputs.student.new_ones(outputs.student.shape[1])


@torch.no_grad()
def variance_about_classes(outputs: StepOutputs) -> Tensor | None:
    """Mean squared distance of the labelled images from their rows, by dimension; None where there are none."""
    labels = outputs.of_labelled(outputs.labels)
    if outputs.class_weights is None or not len(labels):
        return None
    rows = functional.normalize(outputs.class_weights[labels].float())
    return (functional.normalize(outputs.of_labelled(outputs.student).float()) - rows).square().mean(0)


@torch.no_grad()
def variance_within_pairs(outputs: StepOutputs) -> Tensor | None:
    """Half the mean squared distance of the genuine pairs, by dimension; None where there are none."""
    one, other = genuine_pairs(outputs.of_labelled(outputs.labels))
    mean = functional.normalize(outputs.of_labelled(outputs.student).float())
    return 0.5 * (mean[one] - mean[other]).square().mean(0) if len(one) else None


STARTS: dict[str, Callable[[StepOutputs], Tensor | None]] = {
    "dul": unit_variance,
    "dul_regression": variance_about_classes,
    "pfe": variance_within_pairs,
}
"""The variance of each dimension that the head of a loss starts from; None leaves the head as it is."""
