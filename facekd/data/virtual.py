"""Virtual samples: weighted means of two images of a batch, as a function of the seed and the step."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

VIRTUAL_STREAM = 4  # first word of the seed: keeps these draws apart from those of orders and augmentations
SHARE_STEPS = 1024
"""Shares are multiples of one over this: every sum below is exact in integers, hence the same on every device."""


@dataclass(frozen=True)
class Mixture:
    """Which images make up which virtual sample.

    Attributes:
        first: Rows of the batch, int64 ``(virtual,)``.
        second: The rows they are mixed with.
        shares: Share of the first, in [0, 1], float32 ``(virtual,)``.
    """

    first: Tensor
    second: Tensor
    shares: Tensor

    def rows(self, start: int, stop: int) -> Mixture:
        """Some of the virtual samples."""
        return Mixture(*(held[start:stop] for held in (self.first, self.second, self.shares)))


def draw_mixture(rows: Tensor, *, seed: int, step: int, alpha: float) -> Mixture:
    """A partner and a share for each of some rows of a batch.

    The partners follow one random cycle through all rows, so that with two rows or more none is its own partner and
    each is a partner once. Two images of one identity may meet: their mixture has one label, and is as good a sample.

    Args:
        rows: Which images of the batch to mix, int64 ``(count,)``.
        seed: The run's seed.
        step: 0-based step.
        alpha: The shares are drawn from Beta(alpha, alpha), above 0.

    Example:
        >>> found = draw_mixture(torch.arange(4), seed=0, step=0, alpha=1.0)
        >>> sorted(found.second.tolist()), bool((found.first == found.second).any())
        ([0, 1, 2, 3], False)
    """
    generator = np.random.default_rng([VIRTUAL_STREAM, seed, step])
    order = generator.permutation(len(rows))
    partners = np.empty_like(order)
    partners[order] = np.roll(order, -1)
    shares = np.round(generator.beta(alpha, alpha, len(rows)) * SHARE_STEPS) / SHARE_STEPS
    second = rows[torch.from_numpy(partners).to(rows.device)]
    return Mixture(rows, second, torch.from_numpy(shares).float().to(rows.device))


def mix_images(images: Tensor, mixture: Mixture) -> Tensor:
    """The pixels of the virtual samples, rounded, so that teacher and student are shown the same.

    Args:
        images: uint8 ``(batch, 3, height, width)``.
        mixture: What to make of them.

    Returns:
        uint8 ``(virtual, 3, height, width)``: ``share first + (1 - share) second``, halves rounded up.

    Example:
        >>> black_and_white = torch.tensor([0, 255], dtype=torch.uint8).reshape(2, 1, 1, 1)
        >>> shown = Mixture(torch.tensor([0]), torch.tensor([1]), torch.tensor([0.25]))
        >>> mix_images(black_and_white, shown).flatten().tolist()
        [191]
    """
    parts = (mixture.shares * SHARE_STEPS).round().to(torch.int32)[:, None, None, None]
    one, other = images[mixture.first].to(torch.int32), images[mixture.second].to(torch.int32)
    summed = parts * one + (SHARE_STEPS - parts) * other
    return ((summed + SHARE_STEPS // 2) // SHARE_STEPS).to(torch.uint8)
