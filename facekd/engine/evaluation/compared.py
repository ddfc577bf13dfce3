"""The pairs of a set, whatever scores them: which images they are of, and the intervals of what is measured of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from facekd.data.verification import VerificationSet
from facekd.metrics.all_pairs import AllPairs, impostor_subjects
from facekd.metrics.curve_intervals import CurveIntervals, Side, bootstrap_curve
from facekd.metrics.details import all_pairs_images
from facekd.metrics.intervals import bootstrap_all_pairs, bootstrap_pairs
from facekd.metrics.resampling import Interval, dense_subjects

if TYPE_CHECKING:
    from facekd.engine.evaluation.figures import EvalSettings


@dataclass(frozen=True)
class Compared:
    """The pairs of a set, whatever scores them.

    Attributes:
        genuine: How many are of one person.
        impostor: How many are of two people.
        images: The two images (k, 2) behind chosen places of the genuine pairs, or of the others where False.
        intervals: Of the TPR at each FPR, from genuine scores and impostor scores in the order of the pairs.
        curve: Of AUC and EER, from the same and the equal error rate.
    """

    genuine: int
    impostor: int
    images: Callable[[Tensor, bool], Tensor]
    intervals: Callable[[Tensor, Tensor, Sequence[float]], list[Interval]]
    curve: Callable[[Tensor, Tensor, float], CurveIntervals]


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
        return bootstrap_pairs(genuine, impostor, subjects, fprs, **settings.drawn)

    def curve(genuine: Tensor, impostor: Tensor, error: float) -> CurveIntervals:
        return listed_curve(genuine.cpu().numpy(), impostor.cpu().numpy(), subjects, error, settings)

    counts = len(by_kind[True]), len(by_kind[False])
    return Compared(*counts, lambda places, kind: by_kind[kind][places.cpu()], intervals, curve)


def listed_curve(
    genuine: np.ndarray,
    impostor: np.ndarray,
    subjects: tuple[np.ndarray, np.ndarray] | None,
    error: float,
    settings: EvalSettings,
) -> CurveIntervals:
    """Intervals of AUC and EER of listed pairs.

    Args:
        genuine: (g,) scores.
        impostor: (i,) scores.
        subjects: The two subjects (g, 2) and (i, 2) of every pair; None resamples pairs.
        error: The equal error rate.
        settings: How intervals are drawn.
    """
    sizes = genuine.size, impostor.size
    people, count = dense_subjects(None if subjects is None else np.concatenate(subjects), sum(sizes))
    own, others = people[: sizes[0]], people[sizes[0] :]
    mine, theirs = Side(genuine, own.__getitem__), Side(impostor, others.__getitem__)
    return bootstrap_curve(mine, theirs, count, error, **settings.drawn)


def compared_all_pairs(pairs: AllPairs, labels: np.ndarray, settings: EvalSettings) -> Compared:
    """All pairs of images with identities.

    Args:
        pairs: Their cosines, in whose order other scores are.
        labels: (n,) who each image shows.
        settings: How intervals are drawn.
    """

    def intervals(genuine: Tensor, impostor: Tensor, fprs: Sequence[float]) -> list[Interval]:
        return bootstrap_all_pairs(replace(pairs, genuine=genuine, impostor=impostor), fprs, **settings.drawn)

    def curve(genuine: Tensor, impostor: Tensor, error: float) -> CurveIntervals:
        own, device = pairs.genuine_subjects.cpu().numpy(), pairs.offsets.device
        mine = Side(genuine.cpu().numpy(), lambda places: own[places][:, None].repeat(2, axis=1))
        theirs = Side(
            impostor.cpu().numpy(),
            lambda places: impostor_subjects(pairs, torch.from_numpy(places).to(device)).cpu().numpy(),
        )
        return bootstrap_curve(mine, theirs, int(pairs.image_subjects[-1]) + 1, error, **settings.drawn)

    def images(places: Tensor, kind: bool) -> Tensor:
        return all_pairs_images(pairs, labels, places, genuine=kind)

    return Compared(pairs.genuine.numel(), pairs.impostor.numel(), images, intervals, curve)
