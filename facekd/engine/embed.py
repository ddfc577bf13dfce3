"""Embeddings of many images, and the file they are stored in."""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from facekd.data.images import resize, to_chw
from facekd.engine.ahead import made_ahead
from facekd.engine.progress import Progress
from facekd.engine.signals import Poll
from facekd.errors import InputError, NonFiniteError
from facekd.files import write_atomic
from facekd.metrics.uncertainty import harmonic_mean_variance
from facekd.models.embedder import Embedder

MOST_EXPANSION = 20


@dataclass(frozen=True)
class Passes:
    """How images go through a model.

    Attributes:
        batch_size: Images per forward pass; it does not change the result beyond rounding.
        flip: Add the mirrored image's embedding.
        allow_resize: Take images that show another cut of the face than the model was trained on.
    """

    batch_size: int = 128
    flip: bool = True
    allow_resize: bool = False


PASSES = Passes()
"""As they go where nobody says otherwise."""


@dataclass(frozen=True)
class StoredEmbeddings:
    """Embeddings with their labels, as an ``.npz`` file keeps them.

    Attributes:
        embeddings: float32 (n, dim), not normalised.
        labels: int64 (n,) identity of each image.
        names: (n,) what each image is called.
        identities: Names of the identities, by label; empty when unknown.
        model: What the model is called.
        model_digest: SHA-256 of the model file, or an empty string.
        flip: Whether the mirrored image's embedding was added; None when unknown.
        log_variance: Natural log of sigma squared, float32 (n, dim) or (n, 1), where the model says how sure it is.
        precision: What the model computed in; None when unknown.
    """

    embeddings: np.ndarray
    labels: np.ndarray
    names: list[str]
    identities: list[str]
    model: str
    model_digest: str
    flip: bool | None
    log_variance: np.ndarray | None = None
    precision: str | None = None


def embed_images(
    embedder: Embedder,
    read: Callable[[int], np.ndarray],
    count: int,
    *,
    batch_size: int = 128,
    flip: bool = True,
    progress: Progress | None = None,
    poll: Poll | None = None,
) -> np.ndarray:
    """Raw embeddings of images 0..count-1; with ``flip``, each plus the embedding of the mirrored image.

    A batch is read while the one before goes through the model.

    Images of another size than the model's are resized. Call :func:`require_usable` before comparing the result.

    Args:
        embedder: The model.
        read: Gives image i as uint8 RGB (height, width, 3); called by a thread of its own, one image after the other.
        count: Images in all.
        batch_size: Images per forward pass; it does not change the result beyond rounding.
        flip: Add the mirrored image's embedding.
        progress: Told how many images are done.
        poll: Called between batches; may raise to stop.

    Returns:
        float32 (count, dim), not normalised.

    Raises:
        DataError: From ``read``, for an image that cannot be used; no image is ever left out.
    """

    def pixels(start: int) -> torch.Tensor:
        indices = range(start, min(start + batch_size, count))
        images = [to_chw(resize(read(index), embedder.preprocessing.size)) for index in indices]
        return torch.from_numpy(np.stack(images))

    embeddings, starts = np.empty((count, embedder.embedding_size), np.float32), range(0, count, batch_size)
    if poll:
        poll()
    with closing(made_ahead(pixels, starts)) as batches:
        for start, batch in zip(starts, batches, strict=True):
            stop = start + len(batch)
            found = embedder.embed(batch)
            if flip:
                found = found + embedder.embed(batch.flip(3))
            embeddings[start:stop] = found.cpu().numpy()
            if progress:
                progress("embed", stop, count)
            if poll and stop < count:
                poll()
    return embeddings


def require_usable(embeddings: np.ndarray, model: str, name: Callable[[int], str]) -> None:
    """Refuse embeddings that no cosine can be taken of.

    Args:
        embeddings: (n, dim).
        model: Where they came from, for the message.
        name: Gives the name of image i.

    Raises:
        NonFiniteError: An embedding holds a NaN or infinity, or is zero; names the model and the first image.

    Example:
        >>> require_usable(np.array([[1.0, 2.0], [0.0, 0.0]]), "student", ["a.jpg", "b.jpg"].__getitem__)
        Traceback (most recent call last):
        facekd.errors.NonFiniteError: student: the embedding of b.jpg is zero, 1 of 2 (check the weights)
    """
    finite = np.isfinite(embeddings).all(axis=1)
    for bad, what in ((~finite, "not finite"), (~embeddings.any(axis=1), "zero")):
        if bad.any():
            first = name(int(np.flatnonzero(bad)[0]))
            count = f"{int(bad.sum())} of {len(embeddings)}"
            raise NonFiniteError(model, f"the embedding of {first} is {what}, {count}", "check the weights")


def save_embeddings(path: Path, stored: StoredEmbeddings) -> None:
    """Write an ``.npz`` file, whole or not at all.

    Raises:
        DeviceError: The disk refused.
    """
    arrays = {
        "embeddings": np.asarray(stored.embeddings, np.float32),
        "labels": stored.labels.astype(np.int64),
        "names": np.array(stored.names, dtype=str),
        "identities": np.array(stored.identities, dtype=str),
        "model": np.array(stored.model),
        "model_digest": np.array(stored.model_digest),
    }
    if stored.flip is not None:
        arrays["flip"] = np.array(stored.flip)
    if stored.precision is not None:
        arrays["precision"] = np.array(stored.precision)
    if stored.log_variance is not None:
        arrays["log_variance"] = np.asarray(stored.log_variance, np.float32)
        arrays["uncertainty"] = harmonic_mean_variance(stored.log_variance).numpy().astype(np.float32)

    def write(temporary: Path) -> None:
        with open(temporary, "wb") as stream:
            np.savez(stream, **arrays)  # type: ignore[arg-type]

    write_atomic(path, write)


def load_embeddings(path: Path) -> StoredEmbeddings:
    """Read embeddings written by :func:`save_embeddings` or by anybody else.

    The arrays ``embeddings`` (n, dim), ``labels`` (n,) of integers or strings and ``names`` (n,) must be there.

    Raises:
        InputError: No such file, damaged, pickled, unpacking to far more than its size, arrays missing or not
            fitting each other.
        NonFiniteError: An embedding is zero or not finite.
    """
    arrays = _arrays(path)
    missing = [name for name in ("embeddings", "labels", "names") if name not in arrays]
    if missing:
        raise InputError(str(path), f"array {missing[0]} is missing", "embeddings, labels and names are needed")
    embeddings, labels, names = (arrays[name] for name in ("embeddings", "labels", "names"))
    if embeddings.ndim != 2 or embeddings.dtype.kind != "f":
        raise InputError(str(path), f"embeddings are {embeddings.dtype} of shape {embeddings.shape}", "float (n, dim)")
    for kind, array, kinds in (("labels", labels, "iuU"), ("names", names, "U")):
        if array.shape != embeddings.shape[:1] or array.dtype.kind not in kinds:
            what = f"{kind} are {array.dtype} of shape {array.shape} for {len(embeddings)} embeddings"
            raise InputError(str(path), what, "one per embedding: integers or strings, names strings")
    called = [str(name) for name in names]
    require_usable(embeddings, str(path), called.__getitem__)
    identities = [str(name) for name in arrays.get("identities", [])]
    if labels.dtype.kind == "U":
        found, labels = np.unique(labels, return_inverse=True)
        identities = [str(name) for name in found]
    return StoredEmbeddings(
        embeddings=embeddings.astype(np.float32),
        labels=labels.astype(np.int64),
        names=called,
        identities=identities,
        model=str(arrays.get("model", path.name)),
        model_digest=str(arrays.get("model_digest", "")),
        flip=bool(arrays["flip"]) if "flip" in arrays else None,
        log_variance=_log_variance(arrays, path),
        precision=str(arrays["precision"]) if "precision" in arrays else None,
    )


def _log_variance(arrays: dict[str, np.ndarray], path: Path) -> np.ndarray | None:
    found, (count, dim) = arrays.get("log_variance"), arrays["embeddings"].shape
    if found is None:
        return None
    if found.shape not in {(count, dim), (count, 1)} or found.dtype.kind != "f" or not np.isfinite(found).all():
        what = f"log_variance is {found.dtype} of shape {found.shape} for embeddings of shape {(count, dim)}"
        raise InputError(str(path), what, f"finite floats, {(count, dim)} or {(count, 1)}")
    return found.astype(np.float32)


def _arrays(path: Path) -> dict[str, np.ndarray]:
    """Every array of an ``.npz`` file, checksums verified, nothing unpickled."""
    if not path.is_file():
        raise InputError(str(path), "no such file", "check the path")
    try:
        with zipfile.ZipFile(path) as archive:
            unpacked = sum(entry.file_size for entry in archive.infolist())
        if unpacked > MOST_EXPANSION * path.stat().st_size:
            raise InputError(str(path), f"unpacks to {unpacked:,} bytes", "store it with numpy.savez")
        with np.load(path, allow_pickle=False) as file:
            return {name: file[name] for name in file.files}
    except (zipfile.BadZipFile, zlib.error, ValueError, EOFError, OSError, RuntimeError, MemoryError) as error:
        short = " ".join(str(error).split())[:120]
        raise InputError(str(path), f"no readable .npz file: {short}", "write it again with facekd embed") from None
