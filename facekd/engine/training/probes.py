"""Which small runs a forecast is drawn from, and how it is drawn."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from facekd.recipe import Recipe


def probed_batches(batch: int, each: int, largest: int) -> tuple[int, ...]:
    """The sizes of two small batches, or the one size there can be.

    Args:
        batch: Of the run.
        each: Images of an identity in it.
        largest: More are not needed to keep the device busy.

    Example:
        >>> probed_batches(128, 1, 16), probed_batches(128, 4, 16), probed_batches(2, 1, 16)
        ((4, 16), (8, 16), (2,))
    """
    least = max(2, 2 * each)
    large = max(least, min(batch, largest) // each * each)
    small = max(least, large // 4 // each * each)
    return (small, large) if small < large else (large,)


def line(at: float, points: Sequence[tuple[int, float]]) -> float:
    """The value at a place of the line through two points, which does not fall; in proportion to a single one.

    Example:
        >>> line(10, [(2, 3.0), (4, 4.0)]), line(10, [(2, 3.0)]), line(10, [(2, 3.0), (4, 2.0)])
        (7.0, 15.0, 2.0)
    """
    if len(points) == 1:
        return points[0][1] * at / points[0][0]
    (one, low), (other, high) = points
    return high + max(0.0, (high - low) / (other - one)) * (at - other)


def smaller(recipe: Recipe, batch: int, epochs: int) -> Recipe:
    """The recipe with a small batch and so many epochs, and without what only a long run can have."""
    train: dict[str, Any] = {"batch_size": batch, "epochs": epochs, "max_steps": None, "workers": 0}
    train |= {"superclasses": None, "freeze_norm_epochs": 0.0}
    labelled = recipe.data.augment.model_copy(update={"mix": 0.0})  # so few images might all be blends, without a label
    versions = None if recipe.data.versions is None else 1
    data = recipe.data.model_copy(update={"versions": versions, "augment": labelled})
    return recipe.model_copy(update={"train": recipe.train.model_copy(update=train), "data": data})


def some_rows(labels: np.ndarray, count: int, each: int) -> np.ndarray:
    """Images of several identities, ascending.

    Args:
        labels: Class of each image, ``(images,)``.
        count: How many images, fewer where there are no more.
        each: How many of an identity, more only where there are too few identities.

    Example:
        >>> some_rows(np.array([0, 0, 0, 0, 1, 1, 2]), 4, 2), some_rows(np.array([0, 0, 0, 0, 1, 1, 2]), 6, 2)
        (array([0, 1, 4, 5]), array([0, 1, 2, 3, 4, 5]))
    """
    order = np.argsort(labels, kind="stable")
    _, starts, counts = np.unique(labels[order], return_index=True, return_counts=True)
    place = np.arange(len(order)) - np.repeat(starts, counts)
    while np.count_nonzero(place < each) < min(count, len(order)):
        each *= 2
    return np.sort(order[place < each][:count])
