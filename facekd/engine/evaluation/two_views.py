"""One pass over the images of a set that keeps what every way to aggregate them is made from: e and e' of each."""

from __future__ import annotations

from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import torch

from facekd.data.embedding_cache import cache_key, open_cache
from facekd.data.images import resize, to_chw
from facekd.engine.ahead import made_ahead
from facekd.engine.embed import require_usable
from facekd.engine.kept_rows import model_identity
from facekd.engine.resumable import Watched
from facekd.engine.uncertainty import bare
from facekd.errors import DataError
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
        **model_identity(embedder),
        data=cache.data,
        views="image and mirror",
        failures=str(cache.count_failures),
    )

    def embed(start: int, stop: int) -> np.ndarray:
        def read(first: int) -> tuple[range, list[np.ndarray], list[int]]:
            indices = range(first, min(first + cache.batch_size, stop))
            return indices, *_pixels(images, indices, embedder.preprocessing.size, cache.count_failures)

        parts = []
        with closing(made_ahead(read, range(start, stop, cache.batch_size))) as batches:
            for indices, pixels, places in batches:
                if watched.poll:
                    watched.poll()
                found = _views(embedder, pixels, places, len(indices))
                if not cache.count_failures:
                    _require_usable(embedder, found, images, indices)
                parts.append(found)
                if watched.progress:
                    watched.progress("embed", indices.stop, len(images))
        return np.concatenate(parts)

    shape = (len(images), 2, embedder.embedding_size)
    views = open_cache(cache.root, key, shape=shape, embed=embed, multiple=cache.batch_size)
    width = bare(embedder).embedding_size
    usable = np.concatenate([_usable(views[start : start + SCAN], width) for start in range(0, len(views), SCAN)])
    if not usable.any():
        raise DataError(embedder.name, f"none of {len(images)} images has an embedding", "look at one of them")
    return views, usable


def _pixels(
    images: NamedImages, indices: range, size: tuple[int, int], count_failures: bool
) -> tuple[list[np.ndarray], list[int]]:
    """Consecutive images, and which places among them they have: one that failed is left out."""
    pixels, places = [], []
    for place, index in enumerate(indices):
        try:
            pixels.append(to_chw(resize(images.read(index), size)))
        except DataError:
            if not count_failures:
                raise
            continue
        places.append(place)
    return pixels, places


def _views(embedder: Embedder, pixels: list[np.ndarray], places: list[int], count: int) -> np.ndarray:
    """Embeddings of images and their mirrors, NaN where one failed."""
    found = np.full((count, 2, embedder.embedding_size), np.nan, np.float32)
    if pixels:
        batch = torch.from_numpy(np.stack(pixels))
        for view, shown in enumerate((batch, batch.flip(3))):
            found[places, view] = embedder.embed(shown).cpu().numpy()
    return found


def _require_usable(embedder: Embedder, found: np.ndarray, images: NamedImages, indices: range) -> None:
    for view in range(2):
        rows = found[:, view, : bare(embedder).embedding_size]
        require_usable(rows, embedder.name, lambda place: images.sample_name(indices[place]))


def _usable(views: np.ndarray, width: int) -> np.ndarray:
    return np.isfinite(views).all(axis=(1, 2)) & (np.abs(views[:, :, :width]).max(axis=2) > 0).all(axis=1)
