"""What the losses of several teachers hold: classifiers, projectors, and the part of each teacher."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from facekd.engine.training.outputs import Sizes, StepOutputs
from facekd.losses import SubsetTeacher
from facekd.models.heads import FrozenClassifier, linear_projector
from facekd.recipe.loss_options import SubsetKD, SubsetL2


class Subsets(nn.Module):
    """The teachers of subsets, as a loss is given them.

    Their classifiers are buffers that nothing trains. A projector to each is trained with the student and is no part
    of it. Shares sum to 1.

    Args:
        options: The recipe's term.
        sizes: What the run is for.
    """

    shares: Tensor

    def __init__(self, options: SubsetKD | SubsetL2, sizes: Sizes) -> None:
        super().__init__()
        own = {
            "equal": [1.0 for _ in sizes.subsets],
            "images": [1.0 / one.images for one in sizes.subsets],
            "given": [one.share or 0.0 for one in sizes.subsets],
        }[options.shares]
        shares = [value / sum(own) for value in own]
        self.register_buffer("shares", torch.tensor(shares))
        self.classifiers, self.projectors = nn.ModuleList(), nn.ModuleList()
        for number, one in enumerate(sizes.subsets):
            self.register_buffer(f"columns_{number}", one.columns.clone())
            if isinstance(options, SubsetKD) and one.class_weights is not None:
                self.classifiers.append(FrozenClassifier(one.class_weights))
            if isinstance(options, SubsetL2):
                self.projectors.append(linear_projector(sizes.embedding_size, one.teacher_size))
        told = [f"{one.name} {share:.4g}" for one, share in zip(sizes.subsets, shares, strict=True)]
        self.notes = [f"{options.name}: shares {', '.join(told)}"]

    def forward(self, outputs: StepOutputs, step: int) -> dict[str, tuple[SubsetTeacher, ...]]:
        """``subsets``, one for each teacher."""
        return {"subsets": tuple(self._one(number, rows) for number, rows in enumerate(outputs.subset_teachers))}

    def _one(self, number: int, teacher: Tensor) -> SubsetTeacher:
        columns, share = self.get_buffer(f"columns_{number}"), self.shares[number]
        if self.classifiers:
            held = self.classifiers[number].get_buffer("class_weights")
            return SubsetTeacher(teacher, columns, share, class_weights=held)
        matrix = self.projectors[number].get_parameter("weight") if self.projectors else None
        return SubsetTeacher(teacher, columns, share, projector=matrix)
