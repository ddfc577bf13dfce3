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
from facekd.engine.evaluation.figures import EvalSettings, figures
from facekd.engine.evaluation.template_pairs import measure_template_scores
from facekd.engine.evaluation.template_search import RANKS, measure_search
from facekd.engine.evaluation.template_sets import TemplateSet
from facekd.engine.evaluation.two_views import NamedImages, ViewCache, embed_two_views
from facekd.engine.evaluation.uncertain_pairs import LIKELIHOOD
from facekd.engine.evaluation.uncertain_templates import FUSION, Fused, fuse_views, template_likelihoods
from facekd.engine.fitting import fitting
from facekd.engine.kept_rows import content_digest
from facekd.engine.precision import precision_told
from facekd.engine.resumable import Watched
from facekd.engine.uncertainty import bare
from facekd.metrics.failures import as_non_matches
from facekd.metrics.measured import Measured, SearchDetails
from facekd.metrics.templates import Aggregation, aggregate_templates, spoiled_templates, template_pair_scores
from facekd.models.embedder import Embedder

IJB_FPRS = (1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1)
IJB_FPIRS = (1e-2, 1e-1)


@dataclass(frozen=True)
class TemplateEvaluation:
    """One model on one set in one mode.

    Attributes:
        result: One entry of ``results`` in the JSON of ``facekd eval``.
        measured: What a 1:1 result was written from; None for 1:N.
        search_details: What is drawn of a 1:N result; None for 1:1, and unless the settings asked for it.
        notes: What a reader of the result should know.
    """

    result: dict[str, Any]
    measured: Measured | None
    search_details: SearchDetails | None
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

    A template with an image that failed has failed, and every comparison with it is an error, so that no failure can
    raise a figure; see :mod:`facekd.metrics.failures`. What the figures would be with failed images left out of their
    templates and failed templates as mere non-matches is told beside them, for comparison only.

    Args:
        embedder: The model.
        opened: From :func:`facekd.engine.evaluation.template_sets.open_template_set`.
        settings: How; ``flip`` is that of each mode.
        modes: How images become templates.
        cache: Where embeddings are kept; its digest of the data is filled in here.
        watched: Progress and stopping.

    Yields:
        The figures of each mode.

    Raises:
        FacekdError: As :func:`facekd.engine.evaluation.two_views.embed_two_views`.
    """
    began = time.perf_counter()
    images, read_as = _fitted(opened, embedder.preprocessing.size, settings.allow_resize)
    content = content_digest(opened.images, missing_counts=cache.count_failures)
    cache = replace(cache, data=f"{opened.images_digest} {content} {read_as}")
    views, usable = embed_two_views(embedder, images, cache, watched)
    failed = np.flatnonzero(~usable)
    notes = []
    if failed.size:
        names = first_few([images.sample_name(index) for index in failed[:3].tolist()])
        notes.append(f"{opened.name}: {failed.size:,} of {len(images):,} images failed, the first {names}")
    model = bare(embedder)
    head = {"model": model.name, "model_digest": model.digest, "set": opened.name, "set_digest": opened.digest}
    seen = np.flatnonzero(usable).tolist()
    head |= precision_told(model, lambda place: images.read(seen[place]), len(seen))
    embedded = time.perf_counter()
    spoiled = torch.from_numpy(spoiled_templates(opened.members, usable))
    for way, made in _ways(views, usable, model.embedding_size, opened, modes):
        how = {"protocol": opened.protocol, **way, "resolution": None}
        lost = spoiled | ~made.embeddings.any(dim=1)
        counted: dict[str, Any] = {"failed_images": int(failed.size), "failed_templates": int(lost.sum())}
        whole = made.without(lost)
        if isinstance(opened.compared, TemplatePairs):
            measured, drawn = measure_template_scores(whole.scores(opened.compared), opened.compared, settings), None
            found = figures(measured)
        else:
            ranks = RANKS[opened.protocol]
            measured, (found, drawn) = None, measure_search(whole.embeddings, opened.compared, settings, ranks)
        if counted["failed_templates"]:
            counted |= _failed_comparisons(lost.numpy(), opened.compared)
            counted |= {"failed_as_non_matches": _as_non_matches(made, opened, settings)}
        seconds = {"embed": round(embedded - began, 3), "score": round(time.perf_counter() - embedded, 3)}
        result = {**head, **how, **found, **counted, "seconds": seconds}
        yield TemplateEvaluation(result, measured, drawn, tuple(notes))
        began = embedded = time.perf_counter()


@dataclass(frozen=True, eq=False)
class _Made:
    """Templates, with their variances if those score them."""

    embeddings: Tensor
    fused: Fused | None = None

    def without(self, lost: Tensor) -> _Made:
        """The same with some of them failed."""
        if not bool(lost.any()):
            return self
        left = self.embeddings.masked_fill(lost[:, None], 0.0)
        return _Made(left, self.fused and replace(self.fused, embeddings=left))

    def scores(self, pairs: TemplatePairs) -> np.ndarray:
        """(p,) of listed pairs, NaN where one failed."""
        if self.fused is None:
            return template_pair_scores(self.embeddings, pairs.left, pairs.right).numpy()
        return template_likelihoods(self.fused, pairs.left, pairs.right).numpy()


def _ways(
    views: np.ndarray, usable: np.ndarray, width: int, opened: TemplateSet, modes: Sequence[Aggregation]
) -> Iterator[tuple[dict[str, Any], _Made]]:
    """Every way of making templates, in words of the JSON, and the templates of the images that are usable."""
    for mode in modes:
        yield asdict(mode), _Made(aggregate_templates(views[:, :, :width], opened.members, mode, usable=usable))
    if views.shape[2] == width:
        return
    for flip in dict.fromkeys(mode.flip for mode in modes):
        way = {**asdict(Aggregation("unit", False, flip)), "fusion": FUSION}
        fused = fuse_views(views, width, opened.members.rows, usable, flip=flip)
        yield way, _Made(fused.embeddings)
        if isinstance(opened.compared, TemplatePairs):
            yield {**way, "score": LIKELIHOOD}, _Made(fused.embeddings, fused)


def _failed_comparisons(lost: np.ndarray, compared: TemplatePairs | TemplateSearch) -> dict[str, Any]:
    """How many comparisons failed, or probes and templates of galleries, in words of the JSON."""
    if isinstance(compared, TemplatePairs):
        failed = lost[compared.left] | lost[compared.right]
        genuine = int((failed & compared.genuine).sum())
        return {"failed_comparisons": {"genuine": genuine, "impostor": int(failed.sum()) - genuine}}
    galleries = {one.name: int(lost[one.rows].sum()) for one in compared.galleries}
    return {"failed_probes": int(lost[compared.probes.rows].sum()), "failed_gallery": galleries}


def _as_non_matches(made: _Made, opened: TemplateSet, settings: EvalSettings) -> dict[str, Any]:
    """The figures by the other convention: failed images left out of their templates, failed templates below all."""
    plain = replace(settings, bootstrap=0, details=False)
    if isinstance(opened.compared, TemplatePairs):
        scores = as_non_matches(made.scores(opened.compared))
        found = figures(measure_template_scores(scores, opened.compared, plain))
        return {key: found[key] for key in ("auc", "eer", "tpr_at_fpr", "refused")}
    found, _ = measure_search(made.embeddings, opened.compared, plain, RANKS[opened.protocol], errors=False)
    return {key: found[key] for key in ("rank", "rank_merged", "tpir_at_fpir", "refused")}


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
