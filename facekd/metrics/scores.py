"""Scores as they are handed in: checked, sorted, in one precision; whole, or a stretch of a longer list."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TypeAlias

import numpy as np
import torch
from torch import Tensor

Scores: TypeAlias = Tensor | np.ndarray | Sequence[float]
"""One score per pair: a 1-D tensor or array, or plain numbers (read as float64)."""


@dataclass(frozen=True)
class Stretch:
    """Consecutive scores of an ascending list; those before and after it are counted, not held.

    It holds every score of the list between its first and its last value.

    Attributes:
        values: (k,) ascending.
        below: How many scores of the list come before.
        total: How many scores the list has.
        times: (k,) how often each value occurs, where ``values`` are distinct ones; each stands for itself where None.

    Example:
        >>> part = Stretch(torch.tensor([0.5, 0.5, 0.7]), below=10, total=20)
        >>> part.rank(0.5), part.rank(0.5, right=True), part.at(12).item(), part.end
        (10, 12, 0.699999988079071, 13)
        >>> same = Stretch(torch.tensor([0.5, 0.7]), below=10, total=20, times=torch.tensor([2, 1]))
        >>> same.rank(0.5), same.rank(0.5, right=True), same.at(12).item(), same.end
        (10, 12, 0.699999988079071, 13)
    """

    values: Tensor
    below: int
    total: int
    times: Tensor | None = None

    @cached_property
    def _upto(self) -> Tensor | None:
        """(k,) how many scores of the stretch are not above each value."""
        return None if self.times is None else self.times.cumsum(0)

    @property
    def end(self) -> int:
        """How many scores of the list are not above the last value."""
        return self.below + self._before(self.values.numel())

    @property
    def ends(self) -> bool:
        """Whether it reaches the highest score."""
        return self.end == self.total

    def index(self, place: int) -> int:
        """Where among ``values`` the score at a place of the whole list is."""
        inside = place - self.below
        return inside if self._upto is None else int(torch.searchsorted(self._upto, inside, right=True))

    def at(self, place: int) -> Tensor:
        """The score at a place of the whole list."""
        return self.values[self.index(place)]

    def rank(self, value: Tensor | float, *, right: bool = False) -> int:
        """How many scores of the whole list are below ``value``; not above it where ``right``."""
        return self.below + self._before(rank(self.values, value, right=right))

    def _before(self, index: int) -> int:
        """How many scores of the stretch stand before one of ``values``."""
        if self._upto is None:
            return index
        return int(self._upto[index - 1]) if index else 0


def ascending(scores: Scores, name: str = "scores") -> Tensor:
    """The scores, checked and sorted; already sorted scores cost one pass.

    Args:
        scores: (n,) finite scores; half precision is widened to float32, which is exact.
        name: What to call them in an error.

    Raises:
        ValueError: None at all, not one-dimensional, or NaN or infinite.

    Example:
        >>> ascending([0.5, -1.0, 0.25]).tolist()
        [-1.0, 0.25, 0.5]
    """
    tensor = scores if isinstance(scores, Tensor) else torch.from_numpy(np.array(scores, dtype=_float_type(scores)))
    tensor = tensor.detach()
    if tensor.ndim != 1 or tensor.numel() == 0:
        raise ValueError(f"{name}: shape {tuple(tensor.shape)} where at least one score in one dimension is needed")
    if tensor.dtype not in (torch.float32, torch.float64):
        tensor = tensor.to(torch.float32 if tensor.is_floating_point() else torch.float64)
    bad = int((~torch.isfinite(tensor)).sum())
    if bad:
        raise ValueError(f"{name}: {bad} of {tensor.numel()} are NaN or infinite")
    return tensor if bool((tensor[1:] >= tensor[:-1]).all()) else tensor.sort().values


def rank(scores: Tensor, value: Tensor | float, *, right: bool = False) -> int:
    """How many of ascending scores are below ``value``; not above it where ``right``.

    Args:
        scores: (n,) ascending.
        value: To compare with.
        right: Count those that equal it too.

    Example:
        >>> rank(torch.tensor([0.1, 0.5, 0.5]), 0.5), rank(torch.tensor([0.1, 0.5, 0.5]), 0.5, right=True)
        (1, 3)
    """
    return int(
        torch.searchsorted(scores, torch.as_tensor(value, dtype=scores.dtype, device=scores.device), right=right)
    )


def both_sides(genuine: Scores, impostor: Scores) -> tuple[Tensor, Tensor]:
    """Genuine and impostor scores ascending, in the wider precision of the two.

    Args:
        genuine: (g,) scores.
        impostor: (i,) scores.

    Raises:
        ValueError: As :func:`ascending`.

    Example:
        >>> [side.dtype for side in both_sides(torch.zeros(1), [0.5])]
        [torch.float64, torch.float64]
    """
    left, right = ascending(genuine, "genuine scores"), ascending(impostor, "impostor scores")
    wider = torch.promote_types(left.dtype, right.dtype)
    return left.to(wider), right.to(wider)


def given_precision(genuine: Scores, impostor: Scores) -> torch.dtype:
    """The precision the scores came in, before any widening.

    Args:
        genuine: (g,) scores.
        impostor: (i,) scores.

    Example:
        >>> given_precision(torch.zeros(1, dtype=torch.float16), np.zeros(1, dtype=np.float16))
        torch.float16
    """
    given = []
    for scores in (genuine, impostor):
        dtype = scores.dtype if isinstance(scores, Tensor) else torch.from_numpy(np.empty(0, _float_type(scores))).dtype
        given.append(dtype if dtype.is_floating_point else torch.float64)
    return torch.promote_types(*given)


def above(score: Tensor, precision: torch.dtype) -> Tensor:
    """The next number above ``score`` in a precision, in the precision of ``score``.

    Args:
        score: A number without dimensions.
        precision: In which it is the next one.

    Example:
        >>> above(torch.tensor(1.0, dtype=torch.float64), torch.float32).item()
        1.0000001192092896
    """
    infinity = torch.tensor(math.inf, dtype=precision, device=score.device)
    return torch.nextafter(score.to(precision), infinity).to(score.dtype)


def _float_type(scores: np.ndarray | Sequence[float]) -> np.dtype:
    given = np.asarray(scores).dtype
    return given if given in (np.float16, np.float32) else np.dtype(np.float64)
