"""What the scores of one model on one set are measured to be, and how the JSON of ``facekd eval`` says it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from facekd.data.verification import VerificationSet
from facekd.engine.evaluation.compared import Compared, compared_all_pairs, compared_pairs
from facekd.metrics.all_pairs import all_pair_scores, count_pairs
from facekd.metrics.details import extreme_places, hard_pairs, roc_curve, score_histogram
from facekd.metrics.fold_intervals import bootstrap_kfold
from facekd.metrics.identification import RefusedFpir
from facekd.metrics.measured import Details, HardPair, Measured
from facekd.metrics.roc import Refused, auc, eer, operating_points
from facekd.metrics.scores import ascending
from facekd.metrics.swept_details import swept_details
from facekd.metrics.swept_intervals import bootstrap_swept_pairs
from facekd.metrics.swept_pairs import SweptPairs, sweep_all_pairs
from facekd.metrics.verification import KFold, kfold_distances, pair_scores

DEFAULT_FPRS = (1e-2, 1e-3, 1e-4)
ROUNDING = 1e-5
"""By how much rounding may take a cosine beyond 1."""
HELD_PAIRS = 5_000_000
"""Of all pairs, impostor scores up to so many are held, 4 bytes each; of more, what decides is swept together."""
NOT_ASKED = "no replicates were asked for"
TOO_DEEP = "a TPR with more false accepts than are kept is not resampled"


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
        cache: Folder the embeddings are kept in, by what is in the images; computed anew where None.
        device: Where all pairs of more images than :data:`HELD_PAIRS` allows are compared.
    """

    fprs: tuple[float, ...] = DEFAULT_FPRS
    flip: bool = True
    batch_size: int = 128
    bootstrap: int = 1000
    seed: int = 0
    allow_resize: bool = False
    details: bool = False
    device: str = "cpu"
    cache: Path | None = None

    @property
    def drawn(self) -> dict[str, int]:
        """How intervals are drawn, as the functions that draw them take it."""
        return {"replicates": self.bootstrap, "seed": self.seed}


def pair_cosines(
    probe: np.ndarray, gallery: np.ndarray, data: VerificationSet, settings: EvalSettings
) -> tuple[Tensor, Tensor, KFold | None]:
    """Cosines of the genuine and of the impostor pairs of a set, and its accuracy where its pairs lie in folds.

    Args:
        probe: (n, dim) embeddings that the first image of each pair is looked up in.
        gallery: (n, dim) embeddings that the second is looked up in.
        data: The set.
        settings: How the interval of the accuracy is drawn.
    """
    scores, distances = pair_scores(probe, data.pairs, gallery=gallery)
    genuine = torch.from_numpy(np.asarray(data.genuine, dtype=bool))
    accuracy = None
    if np.unique(data.folds).size > 1:
        accuracy = kfold_distances(distances, data.genuine, data.folds)
        if settings.bootstrap:
            people = None if data.subjects is None else data.subjects[data.pairs]
            found = bootstrap_kfold(distances.numpy(), data.genuine, data.folds, people, **settings.drawn)
            accuracy = replace(accuracy, interval=found)
    return scores[genuine], scores[~genuine], accuracy


def measure_pairs(probe: np.ndarray, gallery: np.ndarray, data: VerificationSet, settings: EvalSettings) -> Measured:
    """Measure the pairs of a set.

    Args:
        probe: (n, dim) embeddings that the first image of each pair is looked up in.
        gallery: (n, dim) embeddings that the second is looked up in.
        data: The set.
        settings: How.
    """
    genuine, impostor, accuracy = pair_cosines(probe, gallery, data, settings)
    return replace(measure_scores(compared_pairs(data, settings), genuine, impostor, settings), accuracy=accuracy)


def measure_all_pairs(probe: np.ndarray, gallery: np.ndarray, labels: np.ndarray, settings: EvalSettings) -> Measured:
    """Measure all pairs of images with identities.

    Args:
        probe: (n, dim) embeddings that the first image of each pair, by label and then by place, is looked up in.
        gallery: (n, dim) embeddings that the second is looked up in.
        labels: (n,) who each image shows.
        settings: How.
    """
    if count_pairs(labels)[1] > HELD_PAIRS:
        first = torch.as_tensor(probe, device=settings.device)
        second = None if gallery is probe else torch.as_tensor(gallery, device=settings.device)
        return _measure_swept(sweep_all_pairs(first, labels, settings.fprs, gallery=second), settings)
    pairs = all_pair_scores(probe, labels, gallery=gallery)
    return measure_scores(compared_all_pairs(pairs, labels, settings), pairs.genuine, pairs.impostor, settings)


def _measure_swept(swept: SweptPairs, settings: EvalSettings) -> Measured:
    fprs = [point.fpr for point in swept.points]
    intervals = tuple(bootstrap_swept_pairs(swept, fprs, **settings.drawn)) if settings.bootstrap else None
    lacking = [curve_too_long()] + ([TOO_DEEP] if None in (intervals or ()) else [])
    return Measured(
        genuine=swept.genuine.scores.numel(),
        impostor=swept.impostors,
        points=tuple(swept.points),
        refused=tuple(swept.refused),
        auc=swept.auc,
        auc_error=swept.auc_error,
        eer=swept.eer,
        intervals=intervals,
        no_interval=tuple(lacking) if settings.bootstrap else (NOT_ASKED,),
        details=swept_details(swept) if settings.details else None,
    )


def curve_too_long() -> str:
    """Why AUC and EER have no interval."""
    return f"AUC and EER of more than {HELD_PAIRS:,} impostor pairs are not resampled"


def measure_scores(compared: Compared, genuine: Tensor, impostor: Tensor, settings: EvalSettings) -> Measured:
    """Measure scores, of whatever kind: the larger, the more alike.

    Args:
        compared: The pairs they are of.
        genuine: (g,) scores of the genuine pairs, in their order.
        impostor: (i,) scores of the others.
        settings: How.
    """
    own, other = ascending(genuine), ascending(impostor)
    points, refused = operating_points(own, other, settings.fprs)
    crossing, intervals, curve = eer(own, other), None, None
    if settings.bootstrap:
        intervals = tuple(compared.intervals(genuine, impostor, [point.fpr for point in points]))
        curve = compared.curve(genuine, impostor, crossing.value) if other.numel() <= HELD_PAIRS else None
    details = None
    if settings.details:
        details = Details(
            curve=roc_curve(own, other),
            histogram=score_histogram(own, other, score_ends(own, other)),
            hardest_impostor=_hardest(compared, impostor, False),
            hardest_genuine=_hardest(compared, genuine, True),
        )
    return Measured(
        genuine=own.numel(),
        impostor=other.numel(),
        points=tuple(points),
        refused=tuple(refused),
        auc=auc(own, other),
        eer=crossing,
        intervals=intervals,
        curve=curve,
        no_interval=() if curve else (curve_too_long() if settings.bootstrap else NOT_ASKED,),
        details=details,
    )


def score_ends(genuine: Tensor, impostor: Tensor) -> tuple[float, float]:
    """Between which values scores are drawn: -1 and 1 for cosines, else the least and the largest of them.

    Args:
        genuine: (g,) ascending.
        impostor: (i,) ascending.
    """
    least, most = (float(choose(genuine[at], impostor[at])) for choose, at in ((torch.minimum, 0), (torch.maximum, -1)))
    cosines = least >= -1 - ROUNDING and most <= 1 + ROUNDING
    return (-1.0, 1.0) if cosines else (least, most)


def _hardest(compared: Compared, among: Tensor, genuine: bool) -> tuple[HardPair, ...]:
    places = extreme_places(among, highest=not genuine)
    return hard_pairs(among, places, compared.images(places, genuine))


def figures(measured: Measured) -> dict[str, Any]:
    """Counts and figures of a result, in the order of the JSON.

    Args:
        measured: What was found; its details are left out.
    """
    accuracy, curve = measured.accuracy, measured.curve
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
        "accuracy": accuracy
        and {
            "mean": accuracy.mean,
            "std": accuracy.std,
            "threshold": accuracy.threshold,
            "ci95": accuracy.interval and list(accuracy.interval),
        },
        "auc": measured.auc,
        "auc_ci95": curve and list(curve.auc),
        **({"auc_error": measured.auc_error} if measured.auc_error else {}),
        "eer": {**asdict(measured.eer), "ci95": curve and list(curve.eer)},
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
                "supported": point.supported,
            }
            for point, interval in zip(measured.points, intervals, strict=True)
        ],
        "refused": refusals(measured.refused),
        **why_no_interval(measured.no_interval),
    }


def why_no_interval(reasons: Sequence[str]) -> dict[str, str]:
    """The reasons for which some figures have no interval, as in the JSON; nothing where all have one.

    Args:
        reasons: Clauses.

    Example:
        >>> why_no_interval(["a", "b"]), why_no_interval([])
        ({'no_interval': 'a; b'}, {})
    """
    return {"no_interval": "; ".join(reasons)} if reasons else {}


def refusals(entries: Sequence[Refused | RefusedFpir]) -> list[dict[str, Any]]:
    """Refused operating points, as in the JSON; failures are told where they are the reason.

    Args:
        entries: Of verification or of identification.
    """
    told = map(asdict, entries)
    return [{key: value for key, value in entry.items() if key != "failed" or value} for entry in told]
