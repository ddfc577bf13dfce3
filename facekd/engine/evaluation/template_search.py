"""Probes of a set of templates searched for in its galleries: figures, the whole CMC curve and the hardest probes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
import torch
from torch import Tensor

from facekd.data.ijb_protocols import TemplateList, TemplateSearch
from facekd.engine.evaluation.figures import EvalSettings, refusals
from facekd.metrics.gallery_search import Search, search_gallery
from facekd.metrics.hard_probes import best_matches, hard_probes
from facekd.metrics.identification import merged_keep, merged_points, nist_points, rank_rates
from facekd.metrics.measured import HardProbe, SearchDetails

RANKS = {"ijb-1:n": (1, 5, 10), "tinyface": (1, 5, 20)}
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
        keep = merged_keep(len(search.probes.rows), settings.fprs)
        merged = _searched(templates, search.probes, every, keep, errors=errors)
    found = {
        "gallery": {one.name: len(one.rows) for one in search.galleries},
        "probes": len(search.probes.rows),
        "accuracy": None,
        "auc": None,
        "eer": None,
        "tpr_at_fpr": [],
        "rank": _by_rank(apart, ranks),
        **_identified(apart, merged, settings.fprs, ranks),
    }
    if not settings.details:
        return found, None
    most = max(*ranks, min(MOST_RANKS, max(len(one.rows) for one in search.galleries)))
    alive = _searched(templates, search.probes, every, errors=False) if merged.failed else merged
    hardest = [_hardest(templates, search.probes, every, alive, genuine) for genuine in (False, True)]
    return found, SearchDetails(np.array(rank_rates(apart, range(1, most + 1))), *hardest)


def _identified(
    apart: Sequence[Search], merged: Search, fpirs: Sequence[float], ranks: Sequence[int]
) -> dict[str, Any]:
    if len(apart) == 1:
        return {"rank_merged": None, "tpir_at_fpir": [], "refused": []}
    points, refused = nist_points(apart, fpirs)
    merged_found, merged_refused = merged_points(merged, fpirs)
    return {
        "rank_merged": _by_rank([merged], ranks),
        "tpir_at_fpir": [{**asdict(point), "threshold": list(point.threshold)} for point in points + merged_found],
        "refused": refusals([*refused, *merged_refused]),
    }


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
