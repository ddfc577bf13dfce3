"""Listed pairs of templates measured: figures, intervals and the hardest pairs."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from facekd.data.ijb_protocols import TemplatePairs
from facekd.engine.evaluation.compared import listed_curve
from facekd.engine.evaluation.figures import HELD_PAIRS, NOT_ASKED, EvalSettings, curve_too_long, score_ends
from facekd.metrics.curve_intervals import CurveIntervals
from facekd.metrics.details import HARDEST, extreme_places, hard_pairs, roc_curve, score_histogram
from facekd.metrics.failures import as_errors
from facekd.metrics.intervals import bootstrap_pairs
from facekd.metrics.listed_pairs import MOST_SUBJECTS, bootstrap_listed_pairs
from facekd.metrics.measured import Details, HardPair, Measured
from facekd.metrics.resampling import Interval
from facekd.metrics.roc import auc, eer, operating_points
from facekd.metrics.templates import template_pair_scores

MOST_UNKNOWN_PAIRS = 200_000
"""Pairs of unknown people above which no interval is computed."""


def measure_template_pairs(templates: Tensor, pairs: TemplatePairs, settings: EvalSettings) -> Measured:
    """Measure listed pairs of templates; a failed template is part of every comparison it stands in.

    Args:
        templates: (t, dim) from :func:`facekd.metrics.templates.aggregate_templates`, zero where one failed.
        pairs: What is compared.
        settings: How.
    """
    return measure_template_scores(template_pair_scores(templates, pairs.left, pairs.right).numpy(), pairs, settings)


def measure_template_scores(scores: np.ndarray, pairs: TemplatePairs, settings: EvalSettings) -> Measured:
    """Measure scores of listed pairs of templates; a comparison that failed is an error at every threshold.

    Args:
        scores: (p,) of each pair, NaN where a template failed; see :mod:`facekd.metrics.failures`.
        pairs: What is compared.
        settings: How.
    """
    unsorted = scores[pairs.genuine], scores[~pairs.genuine]
    del scores
    failed = as_errors(*unsorted)
    genuine, impostor = (torch.from_numpy(np.sort(side)) for side in unsorted)
    points, refused = operating_points(genuine, impostor, settings.fprs, failed=failed[1])
    fprs = [point.fpr for point in points]
    crossing = eer(genuine, impostor)
    intervals, curve, lacking = _intervals(*unsorted, pairs, fprs, crossing.value, settings)
    details = None
    if settings.details:
        details = Details(
            curve=roc_curve(genuine, impostor),
            histogram=score_histogram(genuine, impostor, score_ends(genuine, impostor)),
            hardest_impostor=_hardest(pairs, unsorted[1], impostor[: len(impostor) - failed[1]], False),
            hardest_genuine=_hardest(pairs, unsorted[0], genuine[failed[0] :], True),
        )
    return Measured(
        genuine=genuine.numel(),
        impostor=impostor.numel(),
        points=tuple(points),
        refused=tuple(refused),
        auc=auc(genuine, impostor),
        eer=crossing,
        intervals=None if intervals is None else tuple(intervals),
        curve=curve,
        no_interval=lacking,
        details=details,
    )


def _hardest(pairs: TemplatePairs, scores: np.ndarray, living: Tensor, genuine: bool) -> tuple[HardPair, ...]:
    """The worst of one kind of pairs, of scores in the order of the list, and of those that did not fail ascending."""
    if not living.numel():
        return ()
    worst = living[:HARDEST] if genuine else living[-HARDEST:]
    candidates = np.flatnonzero((scores >= float(worst[0])) & (scores <= float(worst[-1])))
    hard = torch.from_numpy(scores[candidates])
    chosen = candidates[extreme_places(hard, highest=not genuine).numpy()]
    sides = [side[pairs.genuine == genuine][chosen] for side in (pairs.left, pairs.right)]
    return hard_pairs(torch.from_numpy(scores), torch.from_numpy(chosen), np.stack(sides, axis=1))


def _intervals(
    genuine: np.ndarray,
    impostor: np.ndarray,
    pairs: TemplatePairs,
    fprs: Sequence[float],
    error: float,
    settings: EvalSettings,
) -> tuple[list[Interval] | None, CurveIntervals | None, tuple[str, ...]]:
    """Of TPRs, and of AUC and EER, and why there are none.

    People are resampled where they are known; pairs where they are not and the pairs are few.
    """
    if not settings.bootstrap:
        return None, None, (NOT_ASKED,)
    if pairs.subjects is None:
        if len(pairs.genuine) > MOST_UNKNOWN_PAIRS:
            return None, None, (f"people are unknown, and more than {MOST_UNKNOWN_PAIRS:,} pairs are not resampled",)
        tprs = bootstrap_pairs(genuine, impostor, None, fprs, **settings.drawn)
        return tprs, listed_curve(genuine, impostor, None, error, settings), ()
    own, left, right = _subjects_of_pairs(pairs, pairs.subjects)
    found = bootstrap_listed_pairs(genuine, impostor, (own, left, right), fprs, **settings.drawn)
    lacking = () if found else (f"TPRs of so many pairs of more than {MOST_SUBJECTS:,} people are not resampled",)
    if impostor.size > HELD_PAIRS:
        return found, None, (*lacking, curve_too_long())
    people = np.stack([own, own], axis=1), np.stack([left, right], axis=1)
    return found, listed_curve(genuine, impostor, people, error, settings), lacking


def _subjects_of_pairs(pairs: TemplatePairs, subjects: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The subject of each genuine pair and the two of each impostor pair, in as few bytes as they fit in."""
    narrow = subjects.astype(np.uint16) if subjects.max() < 2**16 else subjects
    other = ~pairs.genuine
    return narrow[pairs.left[pairs.genuine]], narrow[pairs.left][other], narrow[pairs.right][other]
