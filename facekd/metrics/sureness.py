"""What an uncertainty beside each image tells of pairs: how good they are, and whom to turn away."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

QUALITIES = ("high", "mixed", "low")
"""Of a pair: two images surer than the median image, one, none."""
REJECTED = tuple(step / 20 for step in range(11))
"""Shares of the pairs that are turned away: 0 to one half."""


@dataclass(frozen=True)
class QualityRates:
    """Pairs of one quality at a threshold that was found on all of them.

    Attributes:
        quality: One of :data:`QUALITIES`.
        genuine: Pairs of one person.
        impostor: Pairs of two people.
        tpr: Share of the genuine pairs that is accepted; None where there is none.
        fpr: Share of the impostor pairs that is; None where there is none.

    Example:
        >>> QualityRates("low", 0, 4, None, 0.25).fpr
        0.25
    """

    quality: str
    genuine: int
    impostor: int
    tpr: float | None
    fpr: float | None


@dataclass(frozen=True)
class Sureness:
    """What an uncertainty of images tells at one operating point.

    Attributes:
        fpr: The target FPR.
        threshold: Lowest accepted score.
        quality: Rates of the pairs of each quality.
        reject: For each of :data:`REJECTED`, the share of genuine pairs missed among those that are not turned away.

    Example:
        >>> Sureness(0.01, 0.3, (), (0.25, 0.0)).reject[0]
        0.25
    """

    fpr: float
    threshold: float
    quality: tuple[QualityRates, ...]
    reject: tuple[float, ...]


def pair_uncertainty(uncertainty: Tensor | np.ndarray, pairs: np.ndarray) -> Tensor:
    """How unsure a comparison is: as its less sure image.

    Args:
        uncertainty: (n,) of each image.
        pairs: (p, 2) rows.

    Example:
        >>> pair_uncertainty(np.array([1.0, 5.0, 2.0]), np.array([[0, 1], [0, 2]])).tolist()
        [5.0, 2.0]
    """
    return torch.as_tensor(uncertainty)[torch.as_tensor(np.asarray(pairs))].amax(dim=1)


def unsure_images(uncertainty: Tensor | np.ndarray, pairs: Tensor | np.ndarray) -> Tensor:
    """How many images of each pair are less sure than the median image: 0, 1 or 2.

    Args:
        uncertainty: (n,) of each image.
        pairs: (p, 2) rows.

    Example:
        >>> unsure_images(np.array([1.0, 5.0, 2.0]), np.array([[0, 1], [0, 2]])).tolist()
        [1, 0]
    """
    values = torch.as_tensor(uncertainty)
    unsure = values > values.quantile(0.5)
    return unsure[torch.as_tensor(np.asarray(pairs))].sum(dim=1)


def quality_rates(
    genuine: tuple[Tensor, Tensor], impostor: tuple[Tensor, Tensor], *, threshold: float
) -> tuple[QualityRates, ...]:
    """TPR and FPR of the pairs of each quality at one threshold.

    Where the rates of sure and unsure pairs lie apart, one threshold does not treat all images alike.

    Args:
        genuine: (g,) scores of genuine pairs and, of each, its :func:`unsure_images`.
        impostor: (i,) the same of the others.
        threshold: Lowest accepted score.

    Returns:
        One entry for each of :data:`QUALITIES`.

    Raises:
        ValueError: Not one count a score.

    Example:
        >>> counts = torch.tensor([0, 2])
        >>> high, mixed, low = quality_rates((torch.tensor([0.9, 0.2]), counts), (torch.tensor([0.1, 0.6]), counts),
        ...                                  threshold=0.5)
        >>> (high.tpr, high.fpr), (mixed.genuine, mixed.tpr), (low.tpr, low.fpr)
        ((1.0, 0.0), (0, None), (0.0, 1.0))
    """
    found = []
    for count, quality in enumerate(QUALITIES):
        sizes, rates = [], []
        for scores, unsure in (genuine, impostor):
            if scores.shape != unsure.shape or scores.ndim != 1:
                raise ValueError(f"scores of shape {tuple(scores.shape)} and counts of shape {tuple(unsure.shape)}")
            among = scores[unsure == count]
            sizes.append(among.numel())
            rates.append(float((among >= threshold).double().mean()) if among.numel() else None)
        found.append(QualityRates(quality, *sizes, *rates))
    return tuple(found)


def error_versus_reject(
    genuine: Tensor | np.ndarray,
    uncertainty: Tensor | np.ndarray,
    *,
    threshold: float,
    fractions: Sequence[float] = (0.0, 0.05, 0.1, 0.15, 0.2, 0.25, 0.3),
) -> list[float]:
    """Share of genuine pairs missed at a fixed threshold, as the least sure pairs are turned away.

    A good uncertainty turns away the misses first and the curve falls; an arbitrary one leaves it level. Grother and
    Tabassi, "Performance of Biometric Quality Measures", IEEE TPAMI 2007.

    Args:
        genuine: (p,) scores of genuine pairs; accepted when score >= threshold.
        uncertainty: (p,) of each pair, see :func:`pair_uncertainty`; of equals the first is turned away first.
        threshold: Lowest accepted score.
        fractions: Shares of the pairs turned away, in [0, 1); ``floor(share * p)`` are.

    Returns:
        The false non-match rate of the pairs that stay, for each share.

    Raises:
        ValueError: Not one uncertainty a score, no score, or a share out of range.

    Example:
        The miss at score 0.1 is also the least sure pair.

        >>> error_versus_reject([0.9, 0.1, 0.8, 0.7], [1.0, 9.0, 2.0, 3.0], threshold=0.5, fractions=(0.0, 0.25))
        [0.25, 0.0]
    """
    missed = torch.as_tensor(genuine, dtype=torch.float64) < threshold
    unsure = torch.as_tensor(uncertainty, dtype=torch.float64)
    if missed.ndim != 1 or missed.shape != unsure.shape or len(missed) == 0:
        raise ValueError(f"scores of shape {tuple(missed.shape)} and uncertainties of shape {tuple(unsure.shape)}")
    if not all(0 <= fraction < 1 for fraction in fractions):
        raise ValueError(f"fractions are {tuple(fractions)}, expected shares from 0 to below 1")
    ordered = missed[torch.argsort(unsure, descending=True, stable=True)].double()
    return [float(ordered[math.floor(fraction * len(ordered)) :].mean()) for fraction in fractions]
