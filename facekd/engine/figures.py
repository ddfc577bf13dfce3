"""What the scores of one model on one set are measured to be, and how the JSON of ``facekd eval`` says it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from facekd.data.verification import VerificationSet
from facekd.metrics.all_pairs import all_pair_scores, count_pairs
from facekd.metrics.details import all_pairs_images, extreme_places, hard_pairs, roc_curve, score_histogram
from facekd.metrics.intervals import Interval, bootstrap_all_pairs, bootstrap_pairs
from facekd.metrics.measured import Details, HardPair, Measured
from facekd.metrics.roc import auc, eer, operating_points
from facekd.metrics.scores import ascending
from facekd.metrics.swept_details import swept_details
from facekd.metrics.swept_intervals import bootstrap_swept_pairs
from facekd.metrics.swept_pairs import SweptPairs, sweep_all_pairs
from facekd.metrics.verification import KFold, kfold_distances, pair_scores

DEFAULT_FPRS = (1e-2, 1e-3, 1e-4)
HELD_PAIRS = 5_000_000
"""Of all pairs, impostor scores up to so many are held, 4 bytes each; of more, what decides is swept together."""


@dataclass(frozen=True)
class EvalSettings:
    """How to evaluate.

    Attributes:
        fprs: Operating points, each in (0, 1).
        flip: Add the mirrored image's embedding.
        batch_size: Images per forward pass.
        bootstrap: Replicates behind each interval; 0 leaves intervals out.
        seed: Of the bootstrap.
        allow_resize: Take images that show another cut of the face than the model was trained on.
        details: Keep what pictures are drawn from.
    """

    fprs: tuple[float, ...] = DEFAULT_FPRS
    flip: bool = True
    batch_size: int = 128
    bootstrap: int = 1000
    seed: int = 0
    allow_resize: bool = False
    details: bool = False


@dataclass(frozen=True)
class _Scored:
    """Scores of one model on one set, and what depends on more than the scores.

    ``hardest`` takes scores and whether they are the genuine ones.
    """

    genuine: Tensor
    impostor: Tensor
    accuracy: KFold | None
    intervals: Callable[[Sequence[float]], list[Interval]]
    hardest: Callable[[Tensor, bool], tuple[HardPair, ...]]


def measure_pairs(probe: np.ndarray, gallery: np.ndarray, data: VerificationSet, settings: EvalSettings) -> Measured:
    """Measure the pairs of a set.

    Args:
        probe: (n, dim) embeddings that the first image of each pair is looked up in.
        gallery: (n, dim) embeddings that the second is looked up in.
        data: The set.
        settings: How.
    """
    scores, distances = pair_scores(probe, data.pairs, gallery=gallery)
    genuine = torch.from_numpy(np.asarray(data.genuine, dtype=bool))
    positive, negative = scores[genuine], scores[~genuine]
    subjects = None
    if data.subjects is not None:
        people = data.subjects[data.pairs]
        subjects = people[data.genuine], people[~data.genuine]

    def intervals(fprs: Sequence[float]) -> list[Interval]:
        replicates, seed = settings.bootstrap, settings.seed
        return bootstrap_pairs(positive, negative, subjects, fprs, replicates=replicates, seed=seed)

    def hardest(among: Tensor, is_genuine: bool) -> tuple[HardPair, ...]:
        places = extreme_places(among, highest=not is_genuine)
        images = data.pairs[data.genuine if is_genuine else ~data.genuine]
        return hard_pairs(among, places, images[places.numpy()])

    folded = np.unique(data.folds).size > 1
    accuracy = kfold_distances(distances, data.genuine, data.folds) if folded else None
    return _measure(_Scored(positive, negative, accuracy, intervals, hardest), settings)


def measure_all_pairs(probe: np.ndarray, gallery: np.ndarray, labels: np.ndarray, settings: EvalSettings) -> Measured:
    """Measure all pairs of images with identities.

    Args:
        probe: (n, dim) embeddings that the first image of each pair, by label and then by place, is looked up in.
        gallery: (n, dim) embeddings that the second is looked up in.
        labels: (n,) who each image shows.
        settings: How.
    """
    if count_pairs(labels)[1] > HELD_PAIRS:
        return _measure_swept(sweep_all_pairs(probe, labels, settings.fprs, gallery=gallery), settings)
    pairs = all_pair_scores(probe, labels, gallery=gallery)

    def intervals(fprs: Sequence[float]) -> list[Interval]:
        return bootstrap_all_pairs(pairs, fprs, replicates=settings.bootstrap, seed=settings.seed)

    def hardest(among: Tensor, is_genuine: bool) -> tuple[HardPair, ...]:
        places = extreme_places(among, highest=not is_genuine)
        return hard_pairs(among, places, all_pairs_images(pairs, labels, places, genuine=is_genuine))

    return _measure(_Scored(pairs.genuine, pairs.impostor, None, intervals, hardest), settings)


def _measure_swept(swept: SweptPairs, settings: EvalSettings) -> Measured:
    fprs = [point.fpr for point in swept.points]
    drawn = {"replicates": settings.bootstrap, "seed": settings.seed}
    return Measured(
        genuine=swept.genuine.scores.numel(),
        impostor=swept.impostors,
        points=tuple(swept.points),
        refused=tuple(swept.refused),
        auc=swept.auc,
        auc_error=swept.auc_error,
        eer=swept.eer,
        intervals=tuple(bootstrap_swept_pairs(swept, fprs, **drawn)) if settings.bootstrap else None,
        details=swept_details(swept) if settings.details else None,
    )


def _measure(scored: _Scored, settings: EvalSettings) -> Measured:
    genuine, impostor = ascending(scored.genuine), ascending(scored.impostor)
    points, refused = operating_points(genuine, impostor, settings.fprs)
    intervals = tuple(scored.intervals([point.fpr for point in points])) if settings.bootstrap else None
    details = None
    if settings.details:
        details = Details(
            curve=roc_curve(genuine, impostor),
            histogram=score_histogram(genuine, impostor),
            hardest_impostor=scored.hardest(scored.impostor, False),
            hardest_genuine=scored.hardest(scored.genuine, True),
        )
    return Measured(
        genuine=genuine.numel(),
        impostor=impostor.numel(),
        points=tuple(points),
        refused=tuple(refused),
        auc=auc(genuine, impostor),
        eer=eer(genuine, impostor),
        accuracy=scored.accuracy,
        intervals=intervals,
        details=details,
    )


def figures(measured: Measured) -> dict[str, Any]:
    """Counts and figures of a result, in the order of the JSON.

    Args:
        measured: What was found; its details are left out.
    """
    accuracy = measured.accuracy
    intervals = (
        [None] * len(measured.points)
        if measured.intervals is None
        else [found and list(found) for found in measured.intervals]
    )
    return {
        "pairs": measured.genuine + measured.impostor,
        "genuine": measured.genuine,
        "impostor": measured.impostor,
        "failed_images": 0,
        "accuracy": accuracy and {"mean": accuracy.mean, "std": accuracy.std, "threshold": accuracy.threshold},
        "auc": measured.auc,
        **({"auc_error": measured.auc_error} if measured.auc_error else {}),
        "eer": asdict(measured.eer),
        "tpr_at_fpr": [
            {
                "fpr": point.fpr,
                "tpr": point.tpr,
                "threshold": point.threshold,
                "attained_fpr": point.attained_fpr,
                "false_accepts": point.false_accepts,
                "impostors": point.impostors,
                "ci95": interval,
                "nearest_fpr_tpr": point.nearest_fpr_tpr,
            }
            for point, interval in zip(measured.points, intervals, strict=True)
        ],
        "refused": [asdict(entry) for entry in measured.refused],
    }
