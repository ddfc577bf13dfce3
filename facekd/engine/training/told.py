"""What a step tells of itself; read from the device only when somebody wants to know."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import isfinite
from typing import Any

import torch
from torch import Tensor

from facekd.errors import NonFiniteError

LOWER = "lower optimizer.learning_rate, or set optimizer.clip_gradient"
"""What to do where numbers are no longer finite."""


@dataclass(frozen=True)
class Told:
    """What a step tells, its numbers still on the device.

    Attributes:
        step: 0-based.
        facts: What is known without asking the device.
        terms: Names of the loss terms.
        values: Their values, and the norm of the whole gradient, ``(terms + 1,)``.
        images: Says of which image the embedding is not finite, as the end of a message.
        gradients: Says of what the gradient is not finite.
        beside: What the losses' parts have measured beside them.
    """

    step: int
    facts: Mapping[str, float]
    terms: tuple[str, ...]
    values: Tensor
    images: Callable[[], str]
    gradients: Callable[[], str]
    beside: Callable[[], Mapping[str, Any]]

    def record(self, values: Sequence[float]) -> dict[str, Any]:
        """What ``metrics.jsonl`` records of the step, given its numbers.

        Raises:
            NonFiniteError: A loss term or the gradient is not finite.
        """
        *terms, norm = values
        bad = [name for name, value in zip(self.terms, terms, strict=True) if not isfinite(value)]
        if bad:
            what = f"loss term {', '.join(bad)} is not finite; nothing was updated{self.images()}"
            raise NonFiniteError(f"step {self.step}", what, LOWER)
        if not isfinite(norm):
            what = f"gradient of {self.gradients()} is not finite; nothing was updated"
            raise NonFiniteError(f"step {self.step}", what, LOWER)
        beside = self.beside()
        return {
            "step": self.step + 1,
            "epoch": self.facts["epoch"],
            "loss": sum(terms),
            "terms": dict(zip(self.terms, terms, strict=True)),
            "learning_rate": self.facts["learning_rate"],
            "gradient_norm": norm,
            **({"candidates": beside} if beside else {}),
        }


def read(told: Sequence[Told]) -> dict[str, Any]:
    """Wait for the device once, and say what the last of some steps tells.

    Args:
        told: Of steps that followed each other, at least one.

    Returns:
        The record of the last.

    Raises:
        NonFiniteError: Of the first that had a number which is not finite. It updated nothing, nor did any after it.

    Example:
        >>> nothing = lambda: ""
        >>> one = Told(6, {"epoch": 0.5, "learning_rate": 0.1}, ("l2",), torch.tensor([0.25, 2.0]), *[nothing] * 3)
        >>> read([one])["step"], read([one])["terms"]
        (7, {'l2': 0.25})
    """
    values = iter(torch.cat([one.values for one in told]).tolist())
    return [one.record([next(values) for _ in one.values]) for one in told][-1]
