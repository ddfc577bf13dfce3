"""One model, one set, one result: the figures of ``facekd eval``."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from facekd.data.verification import VerificationSet, some_pairs
from facekd.engine.embed import StoredEmbeddings
from facekd.engine.evaluation.evaluation_sets import Groups, OpenedSet, require_countable
from facekd.engine.evaluation.figures import EvalSettings, figures, measure_all_pairs, measure_pairs
from facekd.engine.evaluation.resolution_modes import FULL, Resolution
from facekd.engine.evaluation.seeing import see_set
from facekd.engine.evaluation.uncertain_pairs import (
    LIKELIHOOD,
    Seen,
    measure_with_uncertainty,
    require_held,
    sureness_figures,
)
from facekd.engine.precision import precision_told
from facekd.engine.progress import Progress
from facekd.engine.signals import Poll
from facekd.engine.uncertainty import bare
from facekd.errors import UsageError
from facekd.metrics.measured import Measured, SearchDetails, with_images
from facekd.models.embedder import Embedder


@dataclass(frozen=True)
class Evaluation:
    """One model on one set in one mode.

    Attributes:
        result: One entry of ``results`` in the JSON of ``facekd eval``.
        measured: What it was written from, with what pictures need where the settings asked for it.
    """

    result: dict[str, Any]
    measured: Measured

    @property
    def search_details(self) -> SearchDetails | None:
        """Nothing: pairs are compared."""
        return None


def evaluate_set(embedder: Embedder, opened: OpenedSet, settings: EvalSettings) -> Evaluation:
    """Embed a set with a model and measure it; as :func:`evaluate_resolutions`, its images as they are."""
    return next(evaluate_resolutions(embedder, opened, settings, [FULL]))


def evaluate_resolutions(
    embedder: Embedder,
    opened: OpenedSet,
    settings: EvalSettings,
    modes: Sequence[Resolution],
    *,
    progress: Progress | None = None,
    poll: Poll | None = None,
) -> Iterator[Evaluation]:
    """Embed a set with a model at every resolution wanted, once each, and measure it in every mode.

    Args:
        embedder: The model.
        opened: From ``open_set`` or ``identity_set`` of :mod:`facekd.engine.evaluation.evaluation_sets`.
        settings: How.
        modes: Which resolutions are compared with which.
        progress: Told how many images are done.
        poll: Called between batches; may raise to stop.

    Returns:
        The figures of each mode, and after them those of each group in that mode where the set has groups.

    Raises:
        DataError: An image that cannot be read, is of a size that is not allowed, or smaller than it is to be brought
            down to; none is ever left out.
        NonFiniteError: An embedding that is zero or not finite.
    """
    see = partial(see_set, embedder, opened, settings, progress=progress, poll=poll)
    return measure_resolutions(embedder, opened, settings, modes, see)


def measure_resolutions(
    embedder: Embedder,
    opened: OpenedSet,
    settings: EvalSettings,
    modes: Sequence[Resolution],
    see: Callable[[int | None], Seen],
) -> Iterator[Evaluation]:
    """:func:`evaluate_resolutions`, what the model gives for the set coming from elsewhere.

    Args:
        embedder: The model.
        opened: The set.
        settings: How.
        modes: Which resolutions are compared with which.
        see: Gives it at each side of :func:`~facekd.engine.evaluation.resolution_modes.sides_of`; asked once for each.
    """
    seen: dict[int | None, Seen] = {}
    told = _precision(embedder, opened)
    for mode in modes:
        began = time.perf_counter()
        for side in (mode.probe, mode.gallery):
            if side not in seen:
                seen[side] = see(side)
        embedded = time.perf_counter()
        head = _head(embedder, opened, settings, mode) | told
        for part, measured in _parts(seen[mode.probe], seen[mode.gallery], _compared(opened), opened.groups, settings):
            yield _evaluation(head | part, measured, began, embedded)


def evaluate_cross(
    models: tuple[Embedder, Embedder],
    opened: OpenedSet,
    settings: EvalSettings,
    *,
    progress: Progress | None = None,
    poll: Poll | None = None,
) -> Iterator[Evaluation]:
    """Compare faces as two models see them: can one search what the other enrolled?

    Args:
        models: Two models of one embedding space, such as a teacher and the student that inherited its classifier.
        opened: The set; each model sees it once.
        settings: How.
        progress: Told how many images are done.
        poll: Called between batches; may raise to stop.

    Yields:
        The figures of each model alone, then of probes of the first against the gallery of the second, then the other
        way round; the latter two name the second as ``gallery_model``.

    Raises:
        UsageError: Their embeddings are of different length.
        DataError: As :func:`evaluate_resolutions`.
        NonFiniteError: As there.
    """
    began = time.perf_counter()
    seen = [see_set(model, opened, settings, progress=progress, poll=poll) for model in models]
    widths = [one.embeddings.shape[1] for one in seen]
    if widths[0] != widths[1]:
        what = " and ".join(f"{model.name} gives {width}" for model, width in zip(models, widths, strict=True))
        raise UsageError("--cross", f"{what} numbers a face", "only models of one embedding space can be compared")
    precisions = [_precision(model, opened) for model in models]
    embedded = time.perf_counter()
    for probe, gallery in ((0, 0), (1, 1), (0, 1), (1, 0)):
        head = _head(models[probe], opened, settings, FULL) | precisions[probe]
        if probe != gallery:
            head |= {"gallery_model": models[gallery].name, "gallery_model_digest": models[gallery].digest}
        for part, measured in _parts(seen[probe], seen[gallery], _compared(opened), opened.groups, settings):
            yield _evaluation(head | part, measured, began, embedded)


def _compared(opened: OpenedSet) -> VerificationSet | np.ndarray:
    """The pairs of a set, or who each image shows, for all pairs."""
    return opened.data if isinstance(opened.data, VerificationSet) else opened.data.labels


def _parts(
    probe: Seen, gallery: Seen, data: VerificationSet | np.ndarray, groups: Groups | None, settings: EvalSettings
) -> Iterator[tuple[dict[str, Any], Measured]]:
    """What is measured of the whole set, and of each of its groups under its name."""
    everything = [(None, None)] if groups is None else [(None, None), *((n, groups.values == n) for n in groups.names)]
    for name, chosen in everything:
        part = {} if groups is None or name is None else {"group": {"column": groups.column, "value": name}}
        if isinstance(data, VerificationSet):
            some = data if chosen is None else some_pairs(data, chosen)
            for kind, measured in _scored(probe, gallery, some, settings):
                yield part | kind, measured
        elif chosen is None:
            for kind, measured in _scored(probe, gallery, data, settings):
                yield part | kind, measured
        else:
            sides = probe.part(chosen), gallery.part(chosen)
            for kind, measured in _scored(*sides, data[chosen], settings):
                yield part | kind, with_images(measured, np.flatnonzero(chosen))


def _scored(
    probe: Seen, gallery: Seen, data: VerificationSet | np.ndarray, settings: EvalSettings
) -> Iterator[tuple[dict[str, Any], Measured]]:
    """What is measured by cosine and, where there are variances, by mutual likelihood."""
    if probe.log_variance is not None:
        by_cosine, by_likelihood = measure_with_uncertainty(probe, gallery, data, settings)
        yield {}, by_cosine
        yield {"score": LIKELIHOOD}, by_likelihood
    elif isinstance(data, VerificationSet):
        yield {}, measure_pairs(probe.embeddings, gallery.embeddings, data, settings)
    else:
        yield {}, measure_all_pairs(probe.embeddings, gallery.embeddings, data, settings)


def _precision(embedder: Embedder, opened: OpenedSet) -> dict[str, Any]:
    return precision_told(bare(embedder), opened.images.read, len(opened.images))


def _head(embedder: Embedder, opened: OpenedSet, settings: EvalSettings, mode: Resolution) -> dict[str, Any]:
    model = bare(embedder)
    who = {"model": model.name, "model_digest": model.digest, "set": opened.name}
    who |= {"set_digest": opened.data.digest, "protocol": opened.protocol}
    return who | {"flip": settings.flip, "resolution": mode.as_dict()}


def evaluate_stored(
    stored: StoredEmbeddings,
    name: str,
    settings: EvalSettings,
    *,
    uncertainty: bool = False,
    groups: Groups | None = None,
) -> Iterator[Evaluation]:
    """All pairs of stored embeddings; as :func:`evaluate_set`, with ``flip`` as the file says or None.

    Args:
        stored: The embeddings.
        name: What to call them.
        settings: How.
        uncertainty: Heed the variances beside them.
        groups: What parts of them are measured by as well, all pairs within each.

    Yields:
        The figures by cosine and, with variances, those by mutual likelihood; then those of each group.

    Raises:
        InputError: No genuine pair, no impostor pair, or too many.
        UsageError: No variances in the file, or too many pairs for them.
    """
    require_countable(name, stored.labels)
    seen = Seen(stored.embeddings)
    if uncertainty:
        if stored.log_variance is None:
            raise UsageError(name, "holds no log_variance", "write it with facekd embed --uncertainty")
        require_held(name, stored.labels)
        seen = Seen(stored.embeddings, stored.log_variance)
    head: dict[str, Any] = {"model": stored.model, "model_digest": stored.model_digest, "set": name}
    head |= {"set_digest": _stored_digest(stored), "protocol": "all-pairs"}
    head |= {"flip": stored.flip, "resolution": None, "precision": stored.precision}
    began = time.perf_counter()
    for part, measured in _parts(seen, seen, stored.labels, groups, settings):
        yield _evaluation(head | part, measured, began, began)


def _stored_digest(stored: StoredEmbeddings) -> str:
    digest = hashlib.sha256("\0".join(stored.names).encode("utf-8", "surrogatepass"))
    digest.update(np.ascontiguousarray(stored.embeddings, "<f4").tobytes())
    digest.update(np.ascontiguousarray(stored.labels, "<i8").tobytes())
    return digest.hexdigest()


def _evaluation(head: dict[str, Any], measured: Measured, began: float, embedded: float) -> Evaluation:
    seconds = {"embed": round(embedded - began, 3), "score": round(time.perf_counter() - embedded, 3)}
    return Evaluation({**head, **figures(measured), **sureness_figures(measured), "seconds": seconds}, measured)
