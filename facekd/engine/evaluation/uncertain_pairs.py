"""What a model's own uncertainty tells of pairs: their mutual likelihood, their quality, and whom to turn away."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor

from facekd.data.verification import VerificationSet
from facekd.engine.evaluation.compared import Compared, compared_all_pairs, compared_pairs
from facekd.engine.evaluation.figures import HELD_PAIRS, EvalSettings, measure_scores, pair_cosines
from facekd.errors import UsageError
from facekd.metrics.all_pairs import all_pair_scores, count_pairs
from facekd.metrics.measured import Measured
from facekd.metrics.sureness import (
    REJECTED,
    Sureness,
    error_versus_reject,
    pair_uncertainty,
    quality_rates,
    unsure_images,
)
from facekd.metrics.uncertainty import harmonic_mean_variance, mutual_likelihood

LIKELIHOOD = "mutual-likelihood"
"""How the JSON calls a result whose scores are no cosines."""
BLOCK = 8192


@dataclass(frozen=True, eq=False)
class Seen:
    """What a model gave for the images of a set.

    Attributes:
        embeddings: (n, dim).
        log_variance: (n, dim) or (n, 1), natural log of sigma squared; None where the model was not asked.
    """

    embeddings: np.ndarray
    log_variance: np.ndarray | None = None

    def part(self, chosen: np.ndarray) -> Seen:
        """Of some of the images."""
        return Seen(self.embeddings[chosen], None if self.log_variance is None else self.log_variance[chosen])


@dataclass(frozen=True, eq=False)
class _Sides:
    """Probes and galleries one below the other, so that a pair of images is a pair of rows."""

    embeddings: np.ndarray
    log_variance: np.ndarray
    shift: int

    @cached_property
    def uncertainty(self) -> Tensor:
        return harmonic_mean_variance(self.log_variance)

    def rows(self, images: Tensor) -> np.ndarray:
        return images.cpu().numpy() + np.array([0, self.shift])


def require_held(name: str, labels: np.ndarray) -> None:
    """Refuse a set whose likelihoods would be too many to hold.

    Args:
        name: What to call it.
        labels: (n,) who each image shows.

    Raises:
        UsageError: It has more than :data:`facekd.engine.evaluation.figures.HELD_PAIRS` impostor pairs.
    """
    impostors = count_pairs(labels)[1]
    if impostors > HELD_PAIRS:
        what = f"{name} has {impostors:,} impostor pairs, at most {HELD_PAIRS:,} are told apart by their uncertainty"
        raise UsageError("--uncertainty", what, "leave it out, or give a shorter list")


def measure_with_uncertainty(
    probe: Seen, gallery: Seen, data: VerificationSet | np.ndarray, settings: EvalSettings
) -> tuple[Measured, Measured]:
    """Measure pairs by their cosines, with what the uncertainty of their images tells, and by their likelihood.

    Args:
        probe: What the first image of each pair is looked up in; with variances.
        gallery: What the second is looked up in; with variances.
        data: Pairs, or (n,) who each image shows, for all pairs.
        settings: How.

    Returns:
        By cosine, as :func:`facekd.engine.evaluation.figures.measure_pairs` and ``measure_all_pairs`` with
        ``sureness``; and by mutual likelihood (Shi and Jain, "Probabilistic Face Embeddings", ICCV 2019, arXiv
        1904.09658).

    Raises:
        ValueError: A side without variances.
    """
    sides, accuracy = _joined(probe, gallery), None
    if isinstance(data, VerificationSet):
        compared = compared_pairs(data, settings)
        genuine, impostor, accuracy = pair_cosines(probe.embeddings, gallery.embeddings, data, settings)
    else:
        pairs = all_pair_scores(probe.embeddings, data, gallery=gallery.embeddings)
        compared, genuine, impostor = compared_all_pairs(pairs, data, settings), pairs.genuine, pairs.impostor
    images = {kind: sides.rows(compared.images(torch.arange(count), kind)) for kind, count in _kinds(compared).items()}
    by_cosine = measure_scores(compared, genuine, impostor, settings)
    sureness = _sureness(sides.uncertainty, images, {True: genuine, False: impostor}, by_cosine)
    own, other = (
        mutual_likelihood(sides.embeddings, sides.log_variance, images[kind], block=BLOCK) for kind in (True, False)
    )
    by_likelihood = measure_scores(compared, own, other, settings)
    return replace(by_cosine, accuracy=accuracy, sureness=sureness), by_likelihood


def sureness_figures(measured: Measured) -> dict[str, Any]:
    """What the uncertainty tells, in the order of the JSON; nothing where it was not asked for.

    Args:
        measured: By cosine.
    """
    told = [
        {
            "fpr": point.fpr,
            "threshold": point.threshold,
            "quality": [asdict(rates) for rates in point.quality],
            "reject": [{"turned_away": s, "missed": m} for s, m in zip(REJECTED, point.reject, strict=True)],
        }
        for point in measured.sureness
    ]
    return {"by_uncertainty": told} if told else {}


def _kinds(compared: Compared) -> dict[bool, int]:
    return {True: compared.genuine, False: compared.impostor}


def _joined(probe: Seen, gallery: Seen) -> _Sides:
    if probe.log_variance is None or gallery.log_variance is None:
        raise ValueError("no variances; embed with a model that has them")
    if probe is gallery:
        return _Sides(probe.embeddings, probe.log_variance, 0)
    embeddings = np.concatenate([probe.embeddings, gallery.embeddings])
    return _Sides(embeddings, np.concatenate([probe.log_variance, gallery.log_variance]), len(probe.embeddings))


def _sureness(
    uncertainty: Tensor, images: Mapping[bool, np.ndarray], scores: Mapping[bool, Tensor], measured: Measured
) -> tuple[Sureness, ...]:
    """At every operating point: rates by quality, and misses as the least sure genuine pairs are turned away."""
    counts = {kind: unsure_images(uncertainty, rows) for kind, rows in images.items()}
    doubt = pair_uncertainty(uncertainty, images[True])
    return tuple(
        Sureness(
            point.fpr,
            point.threshold,
            quality_rates((scores[True], counts[True]), (scores[False], counts[False]), threshold=point.threshold),
            tuple(error_versus_reject(scores[True], doubt, threshold=point.threshold, fractions=REJECTED)),
        )
        for point in measured.points
    )
