"""The classes each class can be confused with, of a classifier that never moves."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from facekd.engine.training.outputs import Sizes, StepOutputs
from facekd.losses import ClassShare, Neighbours, apply_margin
from facekd.losses.candidates import entropy_left_out, ignored_at_most, nearest_classes, own_and_candidates
from facekd.losses.class_blocks import entropy_against, own_and_others
from facekd.recipe.loss_options import MarginSoftmax


class Candidates(nn.Module):
    """The candidates of a margin softmax, looked for before its first step, and what they leave out.

    They are found again when a run is resumed, and are no part of its checkpoint. At the first step of each epoch the
    loss over all classes is computed beside the one that is trained on.

    Args:
        options: The recipe's term; how many candidates is said there.
        sizes: What the run is for.
    """

    measured: Tensor

    def __init__(self, options: MarginSoftmax, sizes: Sizes) -> None:
        super().__init__()
        self.count = options.candidates or sizes.classes
        self.options = options
        self.steps_per_epoch = sizes.steps_per_epoch
        self.found: Neighbours | None = None
        self.register_buffer("measured", torch.full((2,), torch.nan))

    @torch.no_grad()
    def forward(self, outputs: StepOutputs, step: int) -> dict[str, Neighbours]:
        """``neighbours`` of all classes.

        Raises:
            ValueError: The step has no classifier.
        """
        rows = outputs.class_weights
        if rows is None:
            raise ValueError("class_weights is None, expected a classifier")
        if self.found is None:
            self.found = nearest_classes(rows, self.count)
        if step % self.steps_per_epoch == 0:
            student, labels = outputs.of_labelled(outputs.student), outputs.of_labelled(outputs.labels)
            if len(labels):
                self.measured.copy_(self._left_out(student, rows, labels, self.found, outputs.class_share))
        return {"neighbours": self.found}

    def _left_out(
        self, student: Tensor, rows: Tensor, labels: Tensor, found: Neighbours, share: ClassShare | None
    ) -> Tensor:
        """What the ignored classes would add to the loss, and a bound on it that needs none of them."""
        options = self.options
        own, near = own_and_candidates(student, rows, labels, found, scale=options.scale)
        _, others = own_and_others(student, rows, labels, scale=options.scale, share=share)
        logits = options.scale * apply_margin(
            own,
            margin=options.margin,
            kind=options.kind,
            past_pi=options.past_pi,
            margin_cosine=options.margin_cosine,
            margin_multiplier=options.margin_multiplier,
        )
        bound = entropy_left_out(near, ignored_at_most(own, labels, found, scale=options.scale), logits)
        return torch.stack([entropy_against(others, logits) - entropy_against(near, logits), bound])

    def told(self) -> dict[str, float]:
        """What the ignored classes would have added to the loss at the last measured step, and a bound on it, in nats.

        Nothing before the first.

        Example:
            >>> sizes = Sizes(classes=9, embedding_size=4, teacher_size=4, batch_size=2, steps_per_epoch=1)
            >>> options = MarginSoftmax(name="margin_softmax", class_weights="teacher", candidates=3)
            >>> Candidates(options, sizes).told()
            {}
        """
        if self.measured.isnan().any():
            return {}
        return dict(zip(("left_out", "at_most"), self.measured.tolist(), strict=True))
