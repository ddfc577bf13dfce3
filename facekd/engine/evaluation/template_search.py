"""Probes of a set of templates searched for in its galleries: figures, the whole CMC curve and the hardest probes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
import torch
from torch import Tensor

from facekd.data.ijb_protocols import TemplateList, TemplateSearch
from facekd.engine.evaluation.figures import NOT_ASKED, EvalSettings, refusals, why_no_interval
from facekd.metrics.gallery_search import Search, search_gallery
from facekd.metrics.hard_probes import best_matches, hard_probes
from facekd.metrics.identification import merged_keep, merged_points, nist_points, rank_rates
from facekd.metrics.measured import HardProbe, SearchDetails
from facekd.metrics.search_intervals import SearchIntervals, bootstrap_merged, bootstrap_searches

RANKS = {"ijb-1:n": (1, 5, 10), "tinyface": (1, 5, 20)}
DEEPER = 5000
"""Of the scores with others, how many beyond twice those that decide are kept for the replicates of an interval."""
MOST_RANKS = 1000
"""The CMC curve goes to the last rank of the largest gallery, and no further than this."""


def measure_search(
    templates: Tensor, search: TemplateSearch, settings: EvalSettings, ranks: Sequence[int], *, errors: bool = True
) -> tuple[dict[str, Any], SearchDetails | None]:
    """Figures of searching for probes in galleries, in the order of the JSON, and what is drawn of them.

    Args:
        templates: (t, dim) from :func:`facekd.metrics.templates.aggregate_templates`, zero where one failed.
        search: Galleries and probes; of one gallery that holds a mate of every probe there is no TPIR to tell.
        settings: How; its FPRs are the FPIRs wanted.
        ranks: Wanted ranks.
        errors: Whether a comparison that failed is an error, see :mod:`facekd.metrics.failures`, or a non-match.
    """
    apart = [_searched(templates, search.probes, gallery, errors=errors) for gallery in search.galleries]
    every, merged = search.galleries[0], apart[0]
    if len(apart) > 1:
        every = _merged(search.galleries)
        keep = 2 * merged_keep(len(search.probes.rows), settings.fprs) + DEEPER
        merged = _searched(templates, search.probes, every, keep, errors=errors)
    found = {
        "gallery": {one.name: len(one.rows) for one in search.galleries},
        "probes": len(search.probes.rows),
        "accuracy": None,
        "auc": None,
        "eer": None,
        "tpr_at_fpr": [],
        "rank": _by_rank(apart, ranks),
        **_identified(apart, merged, search.probes.subjects, settings, ranks),
    }
    if not settings.details:
        return found, None
    most = max(*ranks, min(MOST_RANKS, max(len(one.rows) for one in search.galleries)))
    alive = _searched(templates, search.probes, every, errors=False) if merged.failed else merged
    hardest = [_hardest(templates, search.probes, every, alive, genuine) for genuine in (False, True)]
    return found, SearchDetails(np.array(rank_rates(apart, range(1, most + 1))), *hardest)


def _identified(
    apart: Sequence[Search], merged: Search, subjects: np.ndarray, settings: EvalSettings, ranks: Sequence[int]
) -> dict[str, Any]:
    """What is found by false alarms, and the intervals of all."""
    several, drawn = len(apart) > 1, settings.drawn
    points, refused = nist_points(apart, settings.fprs) if several else ([], [])
    merged_found, merged_refused = merged_points(merged, settings.fprs) if several else ([], [])
    intervals = merged_intervals = None
    if settings.bootstrap:
        intervals = bootstrap_searches(apart, subjects, ranks, [point.fpir for point in points], **drawn)
    if settings.bootstrap and several:
        merged_intervals = bootstrap_merged(merged, subjects, ranks, [point.fpir for point in merged_found], **drawn)
    tpirs = [found for side in (intervals, merged_intervals) if side for found in side.tpir]
    tpirs = tpirs or [None] * len(points + merged_found)
    lacking = [] if settings.bootstrap else [NOT_ASKED]
    lacking += ["a TPIR with more false alarms than are kept is not resampled"] if intervals and None in tpirs else []
    return {
        "rank_ci95": _intervals_by_rank(intervals, ranks),
        "rank_merged": _by_rank([merged], ranks) if several else None,
        "rank_merged_ci95": _intervals_by_rank(merged_intervals, ranks),
        "tpir_at_fpir": [
            {**asdict(point), "threshold": list(point.threshold), "ci95": interval and list(interval)}
            for point, interval in zip(points + merged_found, tpirs, strict=True)
        ],
        "refused": refusals([*refused, *merged_refused]),
        **why_no_interval(lacking),
    }


def _intervals_by_rank(found: SearchIntervals | None, ranks: Sequence[int]) -> dict[str, list[float]] | None:
    if found is None:
        return None
    return {str(rank): list(interval) for rank, interval in zip(ranks, found.rank, strict=True)}


def _by_rank(searches: Sequence[Search], ranks: Sequence[int]) -> dict[str, float]:
    return {str(rank): rate for rank, rate in zip(ranks, rank_rates(searches, ranks), strict=True)}


def _merged(galleries: Sequence[TemplateList]) -> TemplateList:
    rows, subjects = (np.concatenate([getattr(one, name) for one in galleries]) for name in ("rows", "subjects"))
    return TemplateList("merged", rows, subjects)


def _listed(templates: Tensor, chosen: TemplateList) -> tuple[Tensor, Tensor]:
    return templates[torch.from_numpy(chosen.rows)], torch.from_numpy(chosen.subjects)


def _searched(templates: Tensor, probes: TemplateList, gallery: TemplateList, keep: int = 0, *, errors: bool) -> Search:
    return search_gallery(*_listed(templates, probes), *_listed(templates, gallery), keep=keep, errors=errors)


def _hardest(
    templates: Tensor, probes: TemplateList, gallery: TemplateList, found: Search, genuine: bool
) -> tuple[HardProbe, ...]:
    places = hard_probes(found, genuine=genuine)
    if not places.numel():
        return ()
    rows, people = (side[places] for side in _listed(templates, probes))
    others = gallery.rows[best_matches(rows, people, *_listed(templates, gallery), genuine=genuine).numpy()]
    scores = (found.mate if genuine else found.highest)[places]
    columns = probes.rows[places.numpy()].tolist(), others.tolist(), scores.tolist(), found.rank[places].tolist()
    return tuple(HardProbe(*one) for one in zip(*columns, strict=True))
