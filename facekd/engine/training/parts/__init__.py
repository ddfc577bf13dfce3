"""What a loss needs beside a step's embeddings and keeps from step to step: variances, thresholds, centres.

A part is built from the options of its loss and the sizes of the run. It is called before the losses of a step with
all that the step has so far and answers with further fields of ``StepOutputs``. Its tensors are saved with the run, so
a resumed run goes on as the unbroken one; its ``notes``, where it has any, are told to the user.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import nn

from facekd.engine.training.outputs import Sizes
from facekd.engine.training.parts.candidates import Candidates
from facekd.engine.training.parts.centres import Centres
from facekd.engine.training.parts.sample import Sample
from facekd.engine.training.parts.subsets import Subsets
from facekd.engine.training.parts.thresholds import Thresholds
from facekd.engine.training.parts.uncertainty import Uncertainty
from facekd.engine.training.parts.variance import Variance
from facekd.recipe.loss_options import Loss, MarginSoftmax

__all__ = ["PARTS", "Candidates", "Centres", "Sample", "Subsets", "Thresholds", "Uncertainty", "Variance"]


def _of_some_classes(loss: MarginSoftmax, sizes: Sizes) -> nn.Module | None:
    if loss.candidates is not None:
        return Candidates(loss, sizes)
    return Sample(loss, sizes) if loss.sample_rate < 1 else None


PARTS: dict[str, Callable[[Any, Any], nn.Module | None]] = {
    "margin_softmax": _of_some_classes,
    "pad": Variance,
    "adadistill": Centres,
    "ekd": Thresholds,
    "pad_logit": Variance,
    "pad_relation": Variance,
    "dul": Uncertainty,
    "dul_regression": Uncertainty,
    "pfe": Uncertainty,
    "subset_kd": Subsets,
    "subset_l2": Subsets,
}
"""What builds the part of each loss that can have one, by the loss's name."""


def part_of(loss: Loss, sizes: Sizes) -> nn.Module | None:
    """The part of a loss as it is set, None where it has none.

    Args:
        loss: The recipe's term.
        sizes: What the run is for.
    """
    return PARTS[loss.name](loss, sizes) if loss.name in PARTS else None
