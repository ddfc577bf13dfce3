"""Embedding a data set into a file, in blocks that are kept: work that was stopped goes on."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np

from facekd.data.identities import IdentitySource
from facekd.engine.embed import PASSES, Passes, StoredEmbeddings, save_embeddings
from facekd.engine.fitting import fitting
from facekd.engine.kept_rows import Images, Place, kept_rows
from facekd.engine.progress import Progress
from facekd.engine.resumable import Watched
from facekd.engine.signals import Poll
from facekd.models.embedder import Embedder, precision_of


def partial_folder(output: Path) -> Path:
    """Where :func:`embed_to_file` keeps what is done of ``output``.

    Example:
        >>> partial_folder(Path("faces.npz")).name
        'faces.npz.partial'
    """
    return output.with_name(f"{output.name}.partial")


def embed_to_file(
    embedder: Embedder,
    source: IdentitySource,
    output: Path,
    *,
    passes: Passes = PASSES,
    progress: Progress | None = None,
    poll: Poll | None = None,
) -> None:
    """Embed a data set into an ``.npz`` file; work that was stopped goes on and gives the same bytes.

    Blocks of finished embeddings lie in :func:`partial_folder` until the file is there. They are kept by model,
    preprocessing, data, flip and batch size: where one of these changed, the work starts anew.

    Args:
        embedder: The model.
        source: The data set.
        output: The file; see :func:`facekd.engine.embed.save_embeddings`.
        passes: How.
        progress: Told how many images are done.
        poll: Called between batches; may raise to stop.

    Raises:
        DataError: An image cannot be used, or is of a size that ``passes`` does not allow; none is ever left out.
        NonFiniteError: An embedding cannot be used, told at its block.
        CheckpointError: The partial work was damaged.
        UsageError: Another process does this work.
        DeviceError: The disk refused.
    """
    watched, width = Watched(progress, poll), embedder.embedding_size
    found = embed_rows(embedder, source, output, width, passes=passes, watched=watched)
    names = [source.sample_name(index) for index in range(len(source))]
    who = (embedder.name, embedder.digest, passes.flip)
    stored = StoredEmbeddings(found, source.labels, names, source.names, *who, precision=precision_of(embedder))
    save_embeddings(output, stored)
    shutil.rmtree(partial_folder(output), ignore_errors=True)


def embed_rows(
    embedder: Embedder,
    source: IdentitySource,
    output: Path,
    width: int,
    *,
    passes: Passes,
    watched: Watched,
) -> np.ndarray:
    """What a model gives for every image of a data set, kept in :func:`partial_folder` block by block.

    Args:
        embedder: The model.
        source: The data set.
        output: The file the rows are for.
        width: Columns that are the embedding, and must be usable as one.
        passes: How.
        watched: Progress and stopping.

    Returns:
        float32 (count, columns), memory-mapped.

    Raises:
        FacekdError: As :func:`embed_to_file`.
    """
    read = source.read if passes.allow_resize else fitting(source, embedder.preprocessing.size)
    images, place = Images(len(source), read, source.sample_name), Place(partial_folder(output), source.digest)
    return kept_rows(embedder, images, place, width, passes=passes, watched=watched)
