"""What a run takes from its teacher: embeddings of every training image, asked for by all of its processes."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch

from facekd.data.embedding_cache import BLOCK, Embed, cache_key, open_cache
from facekd.data.identities import IdentitySource
from facekd.data.images import resize
from facekd.data.loading import TrainingImages
from facekd.engine.resumable import Watched
from facekd.engine.training.distributed import ALONE, World
from facekd.engine.training.shares import Rows, led
from facekd.errors import InputError
from facekd.files import value_digest
from facekd.models.embedder import Embedder

EMBED_BATCH = 64


@dataclass(frozen=True)
class Asking:
    """How teachers are asked beforehand what a run will want to know of them.

    Attributes:
        root: Folder of caches.
        watched: Progress and stopping.
        world: The processes that ask, each with a model of its own.
    """

    root: Path
    watched: Watched
    world: World = ALONE


Views = Callable[[int], Sequence[np.ndarray]]
"""The images, uint8 RGB, that stand for training image ``index`` in a cache."""


def mirror_views(source: IdentitySource) -> Views:
    """The image as it is, and its mirror."""

    def views(index: int) -> list[np.ndarray]:
        image = source.read(index)
        return [image, image[:, ::-1]]

    return views


def plain_views(source: IdentitySource) -> Views:
    """The image as it is."""
    return lambda index: [source.read(index)]


def version_views(dataset: TrainingImages, versions: int, rows: np.ndarray) -> Views:
    """The augmented versions the steps will show of the images at ``rows``, at the size they are stored in."""
    return lambda index: [dataset.augmented(version, int(rows[index]))[0] for version in range(versions)]


def embed_views(embedder: Embedder, views: Views, indices: np.ndarray) -> np.ndarray:
    """Raw embeddings of every view of some images.

    Args:
        embedder: The teacher.
        views: The same number for every image.
        indices: Which images, ``(count,)``.

    Returns:
        float32 ``(count, views, dim)``.
    """
    rows, waiting = [], []
    for index in indices.tolist():
        waiting += [resize(image, embedder.preprocessing.size) for image in views(index)]
        if len(waiting) >= EMBED_BATCH or index == indices[-1]:
            pixels = np.ascontiguousarray(np.stack(waiting).transpose(0, 3, 1, 2))
            rows.append(embedder.embed(torch.from_numpy(pixels)).cpu().numpy())
            waiting = []
    return np.concatenate(rows).reshape(len(indices), -1, embedder.embedding_size)


def teacher_cache(
    embedder: Embedder, source: IdentitySource, views: Views, asking: Asking, *, kind: str, count: int
) -> np.ndarray:
    """Teacher embeddings of every view of every training image, ``(images, count, dim)``, memory-mapped.

    Computed once per teacher, preprocessing, data set and kind of view, and shared by every run whose folder has the
    same parent. Of several processes each asks about its share of every block, and rank 0 writes; what was stopped goes
    on with any number of them, and they leave the bytes that one does.

    Args:
        embedder: The teacher.
        source: The training images.
        views: What to embed of each.
        asking: Where the answers are kept, and who watches; stopping is asked for between blocks.
        kind: What the views are, as a digest or name: part of the key.
        count: Views of each image.

    Raises:
        InputError: The teacher gives a NaN or infinity.
    """
    watched, world = asking.watched, asking.world
    at_once, shape = math.ceil(EMBED_BATCH / count), (count, embedder.embedding_size)

    def embed(start: int, stop: int) -> np.ndarray:
        if watched.poll:
            watched.poll()
        rows = embed_views(embedder, views, np.arange(start, stop))
        bad = np.flatnonzero(~np.isfinite(rows).all(axis=(1, 2)))
        if len(bad):
            name = source.sample_name(start + int(bad[0]))
            raise InputError(embedder.name, f"gives a non-finite embedding for {name}", "check the teacher's weights")
        return rows

    def kept(rows: Embed) -> np.ndarray:
        preprocessing = value_digest(embedder.preprocessing.to_metadata())
        key = cache_key(teacher=embedder.digest, preprocessing=preprocessing, data=source.digest, views=kind)
        report = partial(watched.progress, "teacher embeddings") if watched.progress else None
        block = world.size * at_once * math.ceil(BLOCK / at_once)
        return open_cache(asking.root, key, shape=(len(source), *shape), embed=rows, report=report, multiple=block)

    found = led(world, lambda made: kept(made[0]), [Rows(embed, at_once, shape)])
    with world.together():
        return kept(embed) if found is None else found
