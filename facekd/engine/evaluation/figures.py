"""What the scores of one model on one set are measured to be, and how the JSON of ``facekd eval`` says it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from facekd.data.verification import VerificationSet
from facekd.metrics.all_pairs import AllPairs, all_pair_scores, count_pairs
from facekd.metrics.details import all_pairs_images, extreme_places, hard_pairs, roc_curve, score_histogram
from facekd.metrics.identification import RefusedFpir
from facekd.metrics.intervals import Interval, bootstrap_all_pairs, bootstrap_pairs
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


@dataclass(frozen=True)
class Compared:
    """The pairs of a set, whatever scores them.

    Attributes:
        genuine: How many are of one person.
        impostor: How many are of two people.
        images: The two images (k, 2) behind chosen places of the genuine pairs, or of the others where False.
        intervals: Of the TPR at each FPR, from genuine scores and impostor scores in the order of the pairs.
    """

    genuine: int
    impostor: int
    images: Callable[[Tensor, bool], Tensor]
    intervals: Callable[[Tensor, Tensor, Sequence[float]], list[Interval]]


def compared_pairs(data: VerificationSet, settings: EvalSettings) -> Compared:
    """The listed pairs of a set.

    Args:
        data: The set.
        settings: How intervals are drawn.
    """
    by_kind = {kind: torch.from_numpy(np.ascontiguousarray(data.pairs[data.genuine == kind])) for kind in (True, False)}
    subjects = None
    if data.subjects is not None:
        people = data.subjects[data.pairs]
        subjects = people[data.genuine], people[~data.genuine]

    def intervals(genuine: Tensor, impostor: Tensor, fprs: Sequence[float]) -> list[Interval]:
        replicates, seed = settings.bootstrap, settings.seed
        return bootstrap_pairs(genuine, impostor, subjects, fprs, replicates=replicates, seed=seed)

    counts = len(by_kind[True]), len(by_kind[False])
    return Compared(*counts, lambda places, kind: by_kind[kind][places.cpu()], intervals)


def compared_all_pairs(pairs: AllPairs, labels: np.ndarray, settings: EvalSettings) -> Compared:
    """All pairs of images with identities.

    Args:
        pairs: Their cosines, in whose order other scores are.
        labels: (n,) who each image shows.
        settings: How intervals are drawn.
    """

    def intervals(genuine: Tensor, impostor: Tensor, fprs: Sequence[float]) -> list[Interval]:
        scored = replace(pairs, genuine=genuine, impostor=impostor)
        return bootstrap_all_pairs(scored, fprs, replicates=settings.bootstrap, seed=settings.seed)

    def images(places: Tensor, kind: bool) -> Tensor:
        return all_pairs_images(pairs, labels, places, genuine=kind)

    return Compared(pairs.genuine.numel(), pairs.impostor.numel(), images, intervals)


def pair_cosines(probe: np.ndarray, gallery: np.ndarray, data: VerificationSet) -> tuple[Tensor, Tensor, KFold | None]:
    """Cosines of the genuine and of the impostor pairs of a set, and its accuracy where its pairs lie in folds.

    Args:
        probe: (n, dim) embeddings that the first image of each pair is looked up in.
        gallery: (n, dim) embeddings that the second is looked up in.
        data: The set.
    """
    scores, distances = pair_scores(probe, data.pairs, gallery=gallery)
    genuine = torch.from_numpy(np.asarray(data.genuine, dtype=bool))
    folded = np.unique(data.folds).size > 1
    accuracy = kfold_distances(distances, data.genuine, data.folds) if folded else None
    return scores[genuine], scores[~genuine], accuracy


def measure_pairs(probe: np.ndarray, gallery: np.ndarray, data: VerificationSet, settings: EvalSettings) -> Measured:
    """Measure the pairs of a set.

    Args:
        probe: (n, dim) embeddings that the first image of each pair is looked up in.
        gallery: (n, dim) embeddings that the second is looked up in.
        data: The set.
        settings: How.
    """
    genuine, impostor, accuracy = pair_cosines(probe, gallery, data)
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
    intervals = None
    if settings.bootstrap:
        intervals = tuple(compared.intervals(genuine, impostor, [point.fpr for point in points]))
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
        eer=eer(own, other),
        intervals=intervals,
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
                "supported": point.supported,
            }
            for point, interval in zip(measured.points, intervals, strict=True)
        ],
        "refused": refusals(measured.refused),
    }


def refusals(entries: Sequence[Refused | RefusedFpir]) -> list[dict[str, Any]]:
    """Refused operating points, as in the JSON; failures are told where they are the reason.

    Args:
        entries: Of verification or of identification.
    """
    told = map(asdict, entries)
    return [{key: value for key, value in entry.items() if key != "failed" or value} for entry in told]
