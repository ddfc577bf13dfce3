"""The classes that a margin softmax runs over in a step, where the recipe has it run over a sample of them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from facekd.engine.training.outputs import Sizes, StepOutputs
from facekd.losses.sampling import sample_classes
from facekd.recipe.loss_options import MarginSoftmax

SAMPLE_STREAM = 0x5A3F
"""Tells these draws from those of images and their order."""


class Sample(nn.Module):
    """The classes of a step drawn by the run's seed and the step, and their rows, which alone learn from it.

    The sample is the same however many processes hold the classes. Rows that are not drawn keep their values and all an
    optimizer remembers of them: no momentum moves them and no decay. What it counts of steps it counts for all rows.

    Args:
        options: The recipe's term; the rate is said there.
        sizes: What the run is for.

    Attributes:
        drawn: The rows of the step under way, a leaf, and their places among those this process holds.
    """

    def __init__(self, options: MarginSoftmax, sizes: Sizes) -> None:
        super().__init__()
        self.rate, self.seed = options.sample_rate, sizes.seed
        self.drawn: tuple[Tensor, Tensor] | None = None

    def forward(self, outputs: StepOutputs, step: int) -> dict[str, Any]:
        """``class_weights`` of the sample, the ``labels`` within it, and for several processes its ``class_share``.

        Raises:
            ValueError: The step has no classifier.
        """
        held, share = outputs.class_weights, outputs.class_share
        if held is None:
            raise ValueError("class_weights is None, expected a classifier")
        classes = len(held) if share is None or share.classes is None else share.classes
        found = sample_classes(outputs.labels, self._scores(classes, step, held.device), round(self.rate * classes))
        places = found.classes
        if share is not None:
            part = share.of(classes)
            first, end = torch.searchsorted(places, places.new_tensor([part.start, part.stop])).tolist()
            share = share._replace(classes=len(places), first=first)
            places = places[first:end] - part.start
        rows = held.detach()[places].requires_grad_()
        self.drawn = rows, places
        return {"class_weights": rows, "labels": found.labels, "class_share": share}

    def _scores(self, classes: int, step: int, device: torch.device) -> Tensor:
        seed = int(np.random.default_rng([SAMPLE_STREAM, self.seed, step]).integers(2**63))
        generator = torch.Generator(device).manual_seed(seed)
        return torch.rand(classes, generator=generator, device=device)

    @property
    def gradient(self) -> Tensor | None:
        """Of the rows drawn, where the step had one."""
        return None if self.drawn is None else self.drawn[0].grad

    @contextmanager
    def among_drawn(self, optimizer: torch.optim.Optimizer, table: nn.Parameter) -> Iterator[None]:
        """A block in which the classifier is the rows drawn, for its optimizer too; they are let go after it.

        Args:
            optimizer: Whose step is taken in the block.
            table: The classifier, as this process holds it.
        """
        drawn, self.drawn = self.drawn, None
        if drawn is None or drawn[0].grad is None:
            yield
            return
        rows, places = drawn
        whole, memory = table.data, optimizer.state[table]
        tables = {key: kept for key, kept in memory.items() if torch.is_tensor(kept) and kept.shape == whole.shape}
        memory |= {key: kept[places] for key, kept in tables.items()}
        table.data, table.grad = rows.detach(), rows.grad
        try:
            yield
        finally:
            for key, kept in memory.items():
                if torch.is_tensor(kept) and kept.shape == rows.shape:
                    known = tables[key] if key in tables else torch.zeros_like(whole, dtype=kept.dtype)
                    memory[key] = known.index_copy_(0, places, kept)
            table.grad, table.data = None, whole.index_copy_(0, places, rows.detach())
