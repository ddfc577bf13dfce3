"""What a model gives for every image of a set, kept on disk in blocks: work that was stopped goes on."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np

from facekd.data.embedding_cache import cache_key, open_cache
from facekd.engine.embed import Passes, embed_images, require_usable
from facekd.engine.resumable import Watched
from facekd.errors import DataError
from facekd.files import value_digest
from facekd.models.embedder import Embedder, precision_of


class Stored(Protocol):
    """Images as they are stored."""

    def __len__(self) -> int: ...

    def encoded(self, index: int) -> bytes:
        """Image ``index`` as stored: the bytes of a JPEG, PNG, BMP or WebP file."""


@dataclass(frozen=True)
class Images:
    """Images as a model is to see them.

    Attributes:
        count: How many.
        read: Gives image i as uint8 RGB (height, width, 3).
        name: Gives the name of image i.
    """

    count: int
    read: Callable[[int], np.ndarray]
    name: Callable[[int], str]


@dataclass(frozen=True)
class Place:
    """Where rows are kept.

    Attributes:
        root: Folder of caches.
        data: What the images are, and how they are read: another text, another place.
        renew: Compute anew what was damaged, rather than refuse it.
    """

    root: Path
    data: str
    renew: bool = False


def rows_between(
    embedder: Embedder, images: Images, passes: Passes, watched: Watched, start: int, stop: int
) -> np.ndarray:
    """What a model gives for images ``start`` to ``stop``, float32 (stop - start, columns).

    Args:
        embedder: The model.
        images: What it sees.
        passes: How.
        watched: Told how many of all images are done, and stopping.
        start: The first of them.
        stop: Behind the last.

    Raises:
        DataError: An image cannot be used; none is ever left out.
    """

    def tell(phase: str, done: int, total: int) -> None:
        if watched.progress:
            watched.progress(phase, start + done, images.count)

    return embed_images(
        embedder,
        lambda index: images.read(start + index),
        stop - start,
        batch_size=passes.batch_size,
        flip=passes.flip,
        progress=tell,
        poll=watched.poll,
    )


def kept_rows(
    embedder: Embedder, images: Images, place: Place, width: int, *, passes: Passes, watched: Watched
) -> np.ndarray:
    """What a model gives for every image, by model, preprocessing, data, flip and batch size.

    Args:
        embedder: The model.
        images: What it sees.
        place: Where the rows are kept.
        width: Columns that are the embedding, and must be usable as one.
        passes: How.
        watched: Progress and stopping.

    Returns:
        float32 (count, columns), memory-mapped.

    Raises:
        DataError: An image cannot be used; none is ever left out.
        NonFiniteError: An embedding cannot be used, told at its block.
        CheckpointError: What was kept is damaged, and not to be renewed.
        UsageError: Another process does this work.
        DeviceError: The disk refused.
    """

    def embed(start: int, stop: int) -> np.ndarray:
        found = rows_between(embedder, images, passes, watched, start, stop)
        require_usable(found[:, :width], embedder.name, lambda index: images.name(start + index))
        return found[:, None]

    key = cache_key(**model_identity(embedder), data=place.data, flip=str(passes.flip), batch=str(passes.batch_size))
    shape, batch = (images.count, 1, embedder.embedding_size), passes.batch_size
    return open_cache(place.root, key, shape=shape, embed=embed, multiple=batch, renew=place.renew)[:, 0]


def model_identity(embedder: Embedder) -> dict[str, str]:
    """What of a model its embeddings depend on, for :func:`facekd.data.embedding_cache.cache_key`."""
    precision = precision_of(embedder)
    identity = {"model": embedder.digest, "preprocessing": value_digest(embedder.preprocessing.to_metadata())}
    return identity if precision == "fp32" else identity | {"precision": precision}


def content_digest(images: Stored, *, missing_counts: bool = False) -> str:
    """SHA-256 over the bytes of every image: a digest of names and sizes would not see a face replaced by another.

    Args:
        images: What is stored.
        missing_counts: Let an image that cannot be read pass; its absence is part of the digest.

    Raises:
        DataError: An image cannot be read.
    """
    digest = hashlib.sha256(f"{len(images)}\n".encode())
    for index in range(len(images)):
        try:
            data = images.encoded(index)
        except DataError:
            if not missing_counts:
                raise
            digest.update(b"missing!")
            continue
        digest.update(len(data).to_bytes(8, "little") + data)
    return digest.hexdigest()
