"""One pass over the images of a set that keeps what every way to aggregate them is made from: e and e' of each."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import torch

from facekd.data.embedding_cache import cache_key, open_cache
from facekd.data.images import resize, to_chw
from facekd.engine.embed import require_usable
from facekd.engine.resumable import Watched
from facekd.engine.uncertainty import embedding_width
from facekd.errors import DataError, NonFiniteError
from facekd.files import value_digest
from facekd.models.embedder import Embedder

SCAN = 8192


class NamedImages(Protocol):
    """Images that can be embedded."""

    def __len__(self) -> int: ...

    def read(self, index: int) -> np.ndarray:
        """Image ``index``, uint8 RGB (height, width, 3)."""

    def sample_name(self, index: int) -> str:
        """Name of image ``index`` for messages."""


@dataclass(frozen=True)
class ViewCache:
    """Where the embeddings of a set are kept, and what becomes of images that have none.

    Attributes:
        root: Folder of caches.
        data: Digest of what the images are.
        batch_size: Images per forward pass.
        count_failures: Keep an image that cannot be read, or whose embedding cannot be used, as one that failed.
    """

    root: Path
    data: str
    batch_size: int = 128
    count_failures: bool = False


def embed_two_views(
    embedder: Embedder, images: NamedImages, cache: ViewCache, watched: Watched
) -> tuple[np.ndarray, np.ndarray]:
    """Raw embeddings of every image and of its mirror, computed once; a pass that was stopped goes on.

    Args:
        embedder: The model.
        images: Of the model's size, or resized to it.
        cache: Where, by model, preprocessing and data.
        watched: Progress and stopping.

    Returns:
        float32 (n, 2, dim), memory-mapped, not normalised; and (n,) which images have an embedding.

    Raises:
        DataError: An image that cannot be used, unless failures count; or all of them.
        NonFiniteError: An embedding that is zero or not finite, unless failures count.
        CheckpointError: The cache was damaged.
        UsageError: Another process fills this cache.
        DeviceError: The disk refused.
    """
    key = cache_key(
        model=embedder.digest,
        preprocessing=value_digest(embedder.preprocessing.to_metadata()),
        data=cache.data,
        views="image and mirror",
        failures=str(cache.count_failures),
    )

    def embed(start: int, stop: int) -> np.ndarray:
        parts = []
        for first in range(start, stop, cache.batch_size):
            if watched.poll:
                watched.poll()
            last = min(first + cache.batch_size, stop)
            parts.append(_batch(embedder, images, range(first, last), cache.count_failures))
            if watched.progress:
                watched.progress("embed", last, len(images))
        return np.concatenate(parts)

    shape = (len(images), 2, embedder.embedding_size)
    views = open_cache(cache.root, key, shape=shape, embed=embed, multiple=cache.batch_size)
    width = embedding_width(embedder)
    usable = np.concatenate([_usable(views[start : start + SCAN], width) for start in range(0, len(views), SCAN)])
    if not usable.any():
        raise DataError(embedder.name, f"none of {len(images)} images has an embedding", "look at one of them")
    return views, usable


def _batch(embedder: Embedder, images: NamedImages, indices: range, count_failures: bool) -> np.ndarray:
    """Embeddings of consecutive images, NaN where one failed."""
    found = np.full((len(indices), 2, embedder.embedding_size), np.nan, np.float32)
    pixels, places = [], []
    for place, index in enumerate(indices):
        try:
            pixels.append(to_chw(resize(images.read(index), embedder.preprocessing.size)))
        except DataError:
            if not count_failures:
                raise
            continue
        places.append(place)
    if pixels:
        batch = torch.from_numpy(np.stack(pixels))
        for view, shown in enumerate((batch, batch.flip(3))):
            found[places, view] = embedder.embed(shown).cpu().numpy()
    for view in range(2):
        try:
            require_usable(
                found[:, view, : embedding_width(embedder)],
                embedder.name,
                lambda place: images.sample_name(indices[place]),
            )
        except NonFiniteError:
            if not count_failures:
                raise
    return found


def _usable(views: np.ndarray, width: int) -> np.ndarray:
    return np.isfinite(views).all(axis=(1, 2)) & (np.abs(views[:, :, :width]).max(axis=2) > 0).all(axis=1)
