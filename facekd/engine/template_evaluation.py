"""One model on one set of templates, in every way its images are made into templates: figures of ``facekd eval``."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from facekd.data.identities import first_few
from facekd.data.ijb import AlignedCrops, aligned_side
from facekd.data.ijb_protocols import TemplatePairs, TemplateSearch
from facekd.data.lists import FileImages
from facekd.engine.figures import EvalSettings, figures, score_ends
from facekd.engine.fitting import fitting
from facekd.engine.resumable import Watched
from facekd.engine.template_sets import TemplateSet
from facekd.engine.two_views import NamedImages, ViewCache, embed_two_views
from facekd.engine.uncertain_pairs import LIKELIHOOD
from facekd.engine.uncertain_templates import FUSION, Fused, fuse_views, template_likelihoods
from facekd.engine.uncertainty import WithVariance
from facekd.metrics.details import roc_curve, score_histogram
from facekd.metrics.identification import Search, merged_keep, merged_points, nist_points, rank_rates, search_gallery
from facekd.metrics.intervals import Interval, bootstrap_pairs
from facekd.metrics.listed_pairs import bootstrap_listed_pairs
from facekd.metrics.measured import Details, Measured
from facekd.metrics.roc import auc, eer, operating_points
from facekd.metrics.templates import Aggregation, aggregate_templates, template_pair_scores
from facekd.models.embedder import Embedder

IJB_FPRS = (1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1)
IJB_FPIRS = (1e-2, 1e-1)
RANKS = {"ijb-1:n": (1, 5, 10), "tinyface": (1, 5, 20)}

MOST_UNKNOWN_PAIRS = 200_000
"""Pairs of unknown people above which no interval is computed."""


@dataclass(frozen=True)
class TemplateEvaluation:
    """One model on one set in one mode.

    Attributes:
        result: One entry of ``results`` in the JSON of ``facekd eval``.
        measured: What a 1:1 result was written from; None for 1:N.
        notes: What a reader of the result should know.
    """

    result: dict[str, Any]
    measured: Measured | None
    notes: tuple[str, ...]


def evaluate_templates(
    embedder: Embedder,
    opened: TemplateSet,
    settings: EvalSettings,
    modes: Sequence[Aggregation],
    cache: ViewCache,
    watched: Watched,
) -> Iterator[TemplateEvaluation]:
    """Embed the images of a set once and measure it in every mode.

    Args:
        embedder: The model.
        opened: From :func:`facekd.engine.template_sets.open_template_set`.
        settings: How; ``flip`` is that of each mode.
        modes: How images become templates.
        cache: Where embeddings are kept; its digest of the data is filled in here.
        watched: Progress and stopping.

    Yields:
        The figures of each mode.

    Raises:
        FacekdError: As :func:`facekd.engine.two_views.embed_two_views`.
    """
    began = time.perf_counter()
    images, read_as = _fitted(opened, embedder.preprocessing.size, settings.allow_resize)
    cache = replace(cache, data=f"{opened.images_digest} {read_as}")
    views, usable = embed_two_views(embedder, images, cache, watched)
    failed = np.flatnonzero(~usable)
    notes = []
    if failed.size:
        names = first_few([images.sample_name(index) for index in failed[:3].tolist()])
        notes.append(f"{opened.name}: {failed.size:,} of {len(images):,} images failed, the first {names}")
    model = embedder.model if isinstance(embedder, WithVariance) else embedder
    head = {"model": model.name, "model_digest": model.digest, "set": opened.name, "set_digest": opened.digest}
    embedded = time.perf_counter()
    for way, templates, fused in _ways(views, usable, model.embedding_size, opened, modes):
        how = {"protocol": opened.protocol, **way, "resolution": None}
        counted = {"failed_images": int(failed.size), "failed_templates": int((~templates.any(dim=1)).sum())}
        measured = None
        if not isinstance(opened.compared, TemplatePairs):
            found = search_figures(templates, opened.compared, settings.fprs, RANKS[opened.protocol])
        else:
            if fused is None:
                measured = measure_template_pairs(templates, opened.compared, settings)
            else:
                likelihoods = template_likelihoods(fused, opened.compared.left, opened.compared.right)
                measured = measure_template_scores(likelihoods.numpy(), opened.compared, settings)
            found = figures(measured)
        seconds = {"embed": round(embedded - began, 3), "score": round(time.perf_counter() - embedded, 3)}
        yield TemplateEvaluation({**head, **how, **found, **counted, "seconds": seconds}, measured, tuple(notes))
        began = embedded = time.perf_counter()


def _ways(
    views: np.ndarray, usable: np.ndarray, width: int, opened: TemplateSet, modes: Sequence[Aggregation]
) -> Iterator[tuple[dict[str, Any], Tensor, Fused | None]]:
    """Every way of making templates: in words of the JSON, the templates, and with variances if those score them."""
    for mode in modes:
        yield asdict(mode), aggregate_templates(views[:, :, :width], opened.members, mode, usable=usable), None
    if views.shape[2] == width:
        return
    for flip in dict.fromkeys(mode.flip for mode in modes):
        way = {**asdict(Aggregation("unit", False, flip)), "fusion": FUSION}
        fused = fuse_views(views, width, opened.members.rows, usable, flip=flip)
        yield way, fused.embeddings, None
        if isinstance(opened.compared, TemplatePairs):
            yield {**way, "score": LIKELIHOOD}, fused.embeddings, fused


def measure_template_pairs(templates: Tensor, pairs: TemplatePairs, settings: EvalSettings) -> Measured:
    """Measure listed pairs of templates; a failed template is part of every comparison it stands in, and scores -1.

    Args:
        templates: (t, dim) from :func:`facekd.metrics.templates.aggregate_templates`.
        pairs: What is compared.
        settings: How.
    """
    return measure_template_scores(template_pair_scores(templates, pairs.left, pairs.right).numpy(), pairs, settings)


def measure_template_scores(scores: np.ndarray, pairs: TemplatePairs, settings: EvalSettings) -> Measured:
    """Measure scores of listed pairs of templates.

    Args:
        scores: (p,) of each pair.
        pairs: What is compared.
        settings: How.
    """
    unsorted = scores[pairs.genuine], scores[~pairs.genuine]
    del scores
    genuine, impostor = (torch.from_numpy(np.sort(side)) for side in unsorted)
    points, refused = operating_points(genuine, impostor, settings.fprs)
    fprs = [point.fpr for point in points]
    intervals = _intervals(*unsorted, pairs, fprs, settings) if settings.bootstrap else None
    details = None
    if settings.details:
        histogram = score_histogram(genuine, impostor, score_ends(genuine, impostor))
        details = Details(roc_curve(genuine, impostor), histogram, (), ())
    return Measured(
        genuine=genuine.numel(),
        impostor=impostor.numel(),
        points=tuple(points),
        refused=tuple(refused),
        auc=auc(genuine, impostor),
        eer=eer(genuine, impostor),
        intervals=None if intervals is None else tuple(intervals),
        details=details,
    )


def search_figures(
    templates: Tensor, search: TemplateSearch, fpirs: Sequence[float], ranks: Sequence[int]
) -> dict[str, Any]:
    """Figures of searching for probes in galleries, in the order of the JSON.

    Args:
        templates: (t, dim) as above.
        search: Galleries and probes; of one gallery that holds a mate of every probe there is no TPIR to tell.
        fpirs: Wanted FPIRs.
        ranks: Wanted ranks.
    """
    probes = templates[torch.from_numpy(search.probes.rows)]
    people = torch.from_numpy(search.probes.subjects)
    galleries = [(templates[torch.from_numpy(one.rows)], torch.from_numpy(one.subjects)) for one in search.galleries]
    apart = [search_gallery(probes, people, *gallery) for gallery in galleries]
    found: dict[str, Any] = {
        "gallery": {one.name: len(one.rows) for one in search.galleries},
        "probes": len(probes),
        "accuracy": None,
        "auc": None,
        "eer": None,
        "tpr_at_fpr": [],
        "rank": _by_rank(apart, ranks),
    }
    if len(galleries) == 1:
        return {**found, "rank_merged": None, "tpir_at_fpir": [], "refused": []}
    every = torch.cat([rows for rows, _ in galleries]), torch.cat([subjects for _, subjects in galleries])
    merged = search_gallery(probes, people, *every, keep=merged_keep(len(probes), fpirs))
    points, refused = nist_points(apart, fpirs)
    merged_found, merged_refused = merged_points(merged, fpirs)
    return {
        **found,
        "rank_merged": _by_rank([merged], ranks),
        "tpir_at_fpir": [{**asdict(point), "threshold": list(point.threshold)} for point in points + merged_found],
        "refused": [asdict(entry) for entry in refused + merged_refused],
    }


def _fitted(opened: TemplateSet, size: tuple[int, int], allow_resize: bool) -> tuple[NamedImages, str]:
    """The images as a model that takes ``size`` sees them, and in a word how."""
    if isinstance(opened.images, AlignedCrops):
        side = aligned_side(size)
        return replace(opened.images, size=side), f"aligned to {side}"
    if allow_resize:
        return opened.images, "any size"
    return _Fitting(opened.images, size, opened.name), "of the model's cut"


@dataclass(frozen=True)
class _Fitting:
    """Images of the model's cut of the face; others are refused."""

    images: FileImages
    size: tuple[int, int]
    where: str

    def __len__(self) -> int:
        return len(self.images)

    def read(self, index: int) -> np.ndarray:
        return fitting(self.images, self.size, self.where)(index)

    def sample_name(self, index: int) -> str:
        return self.images.sample_name(index)


def _by_rank(searches: Sequence[Search], ranks: Sequence[int]) -> dict[str, float]:
    return {str(rank): rate for rank, rate in zip(ranks, rank_rates(searches, ranks), strict=True)}


def _intervals(
    genuine: np.ndarray, impostor: np.ndarray, pairs: TemplatePairs, fprs: Sequence[float], settings: EvalSettings
) -> list[Interval] | None:
    """Of people where they are known; of pairs where they are not and the pairs are few; else None."""
    replicates, seed = settings.bootstrap, settings.seed
    if pairs.subjects is None:
        few = len(pairs.genuine) <= MOST_UNKNOWN_PAIRS
        return bootstrap_pairs(genuine, impostor, None, fprs, replicates=replicates, seed=seed) if few else None
    people = _subjects_of_pairs(pairs, pairs.subjects)
    return bootstrap_listed_pairs(genuine, impostor, people, fprs, replicates=replicates, seed=seed)


def _subjects_of_pairs(pairs: TemplatePairs, subjects: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The subject of each genuine pair and the two of each impostor pair, in as few bytes as they fit in."""
    narrow = subjects.astype(np.uint16) if subjects.max() < 2**16 else subjects
    other = ~pairs.genuine
    return narrow[pairs.left[pairs.genuine]], narrow[pairs.left][other], narrow[pairs.right][other]
