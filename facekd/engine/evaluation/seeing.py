"""What a model gives for the images of a set, at one resolution, before anything is compared."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np

from facekd.data.resolution import reader_at
from facekd.data.verification import VerificationSet
from facekd.engine.embed import Passes, require_usable
from facekd.engine.evaluation.evaluation_sets import OpenedSet
from facekd.engine.evaluation.figures import EvalSettings
from facekd.engine.evaluation.uncertain_pairs import Seen, require_held
from facekd.engine.fitting import fitting
from facekd.engine.kept_rows import Images, Place, content_digest, kept_rows, rows_between
from facekd.engine.progress import Progress
from facekd.engine.resumable import Watched
from facekd.engine.signals import Poll
from facekd.engine.uncertainty import WithVariance, bare, parted
from facekd.models.embedder import Embedder


def see_set(
    embedder: Embedder,
    opened: OpenedSet,
    settings: EvalSettings,
    side: int | None = None,
    *,
    progress: Progress | None = None,
    poll: Poll | None = None,
) -> Seen:
    """What a model gives for every image of a set, brought down to ``side`` pixels where that is given.

    Variances come with it where the model is one with its head.

    Args:
        embedder: The model.
        opened: The set.
        settings: How.
        side: Longer side in pixels; None leaves images as they are.
        progress: Told how many images are done.
        poll: Called between batches; may raise to stop.

    Raises:
        DataError: An image that cannot be read, is of a size that is not allowed, or smaller than ``side``; none is
            ever left out.
        NonFiniteError: An embedding that is zero or not finite.
        UsageError: Variances of a set with more pairs than are held.
    """
    if isinstance(embedder, WithVariance) and not isinstance(opened.data, VerificationSet):
        require_held(opened.name, opened.data.labels)
    watched, source = Watched(progress, poll), opened.images
    if settings.cache is None:
        rows = rows_of_set(embedder, opened, settings, side, watched)(0, len(source))
        return as_seen(embedder, opened, settings, rows)
    told = f"{content_digest(source)}, side {side}, {'any size' if settings.allow_resize else 'of its cut'}"
    place, width = Place(settings.cache, told, renew=True), bare(embedder).embedding_size
    images, passes = _shown(embedder, opened, settings, side), _passes(settings)
    rows = np.array(kept_rows(embedder, images, place, width, passes=passes, watched=watched))
    return _parted(embedder, opened, settings, rows)


def rows_of_set(
    embedder: Embedder, opened: OpenedSet, settings: EvalSettings, side: int | None, watched: Watched
) -> Callable[[int, int], np.ndarray]:
    """Gives what a model makes of images ``start`` to ``stop`` of a set, float32 (stop - start, columns).

    From a multiple of the batch size on, they are to the bit what they are among all images of the set.

    Args:
        embedder: The model.
        opened: The set.
        settings: How; where embeddings are kept does not matter.
        side: Longer side in pixels; None leaves images as they are.
        watched: Progress and stopping.
    """
    images = _shown(embedder, opened, settings, side)
    return partial(rows_between, embedder, images, _passes(settings), watched)


def as_seen(embedder: Embedder, opened: OpenedSet, settings: EvalSettings, rows: np.ndarray) -> Seen:
    """What a model gave for every image of a set, fit to be compared.

    Args:
        embedder: The model.
        opened: The set.
        settings: How the rows came about.
        rows: (n, columns), from :func:`rows_of_set`.

    Raises:
        NonFiniteError: One that is zero or not finite.
    """
    require_usable(rows[:, : bare(embedder).embedding_size], embedder.name, opened.images.sample_name)
    return _parted(embedder, opened, settings, rows)


def _shown(embedder: Embedder, opened: OpenedSet, settings: EvalSettings, side: int | None) -> Images:
    source = opened.images
    whole = source.read if settings.allow_resize else fitting(source, embedder.preprocessing.size, opened.name)
    read = whole if side is None else reader_at(whole, source.sample_name, side)
    return Images(len(source), read, source.sample_name)


def _passes(settings: EvalSettings) -> Passes:
    return Passes(settings.batch_size, settings.flip, settings.allow_resize)


def _parted(embedder: Embedder, opened: OpenedSet, settings: EvalSettings, rows: np.ndarray) -> Seen:
    if not isinstance(embedder, WithVariance):
        return Seen(rows)
    return parted(embedder, rows, opened.images.sample_name, flip=settings.flip)
