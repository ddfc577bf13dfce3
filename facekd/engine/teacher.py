"""What a run takes from its teacher: embeddings of every training image, and a classifier that is proved to fit."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from facekd.data.embedding_cache import cache_key, open_cache
from facekd.data.identities import IdentitySource
from facekd.data.images import resize
from facekd.engine.progress import Progress
from facekd.engine.signals import Poll
from facekd.errors import InputError, UsageError
from facekd.files import value_digest
from facekd.models.embedder import Embedder
from facekd.models.weights import load_classifier

LEAST_AGREEMENT = 0.5
CHECKED_IMAGES = 2048
EMBED_BATCH = 64


@dataclass(frozen=True)
class Classifier:
    """A teacher's class weights and where they came from.

    Attributes:
        class_weights: ``(classes, dim)`` float32, in the order of the data set's labels.
        source: ``trained`` with the teacher, or ``class means of the teacher's embeddings``.
        agreement: Share of checked training images whose nearest row is their own class.
        checked: Images the agreement was measured on.
    """

    class_weights: Tensor
    source: str
    agreement: float
    checked: int


def embed_views(embedder: Embedder, source: IdentitySource, indices: np.ndarray) -> np.ndarray:
    """Raw embeddings of images and of their mirrors.

    Args:
        embedder: The teacher.
        source: The images.
        indices: Which of them, ``(count,)``.

    Returns:
        float32 ``(count, 2, dim)``: view 0 the image, view 1 its mirror.
    """
    found = np.empty((len(indices), 2, embedder.embedding_size), np.float32)
    for start in range(0, len(indices), EMBED_BATCH):
        chosen = indices[start : start + EMBED_BATCH]
        images = np.stack([resize(source.read(int(index)), embedder.preprocessing.size) for index in chosen])
        pixels = torch.from_numpy(np.ascontiguousarray(images.transpose(0, 3, 1, 2)))
        for view, seen in enumerate((pixels, pixels.flip(-1))):
            found[start : start + len(chosen), view] = embedder.embed(seen).cpu().numpy()
    return found


def teacher_cache(
    embedder: Embedder,
    source: IdentitySource,
    root: Path,
    *,
    progress: Progress | None = None,
    poll: Poll | None = None,
) -> np.ndarray:
    """Teacher embeddings of every training image and its mirror, ``(count, 2, dim)``, memory-mapped.

    Computed once per teacher, preprocessing and data set, and shared by every run whose folder has the same parent.

    Args:
        embedder: The teacher.
        source: The training images.
        root: Folder of caches.
        progress: Told the images done.
        poll: Asked between blocks whether to stop.

    Raises:
        InputError: The teacher gives a NaN or infinity.
    """

    def embed(start: int, stop: int) -> np.ndarray:
        if poll:
            poll()
        rows = embed_views(embedder, source, np.arange(start, stop))
        bad = np.flatnonzero(~np.isfinite(rows).all(axis=(1, 2)))
        if len(bad):
            name = source.sample_name(start + int(bad[0]))
            raise InputError(embedder.name, f"gives a non-finite embedding for {name}", "check the teacher's weights")
        return rows

    preprocessing = value_digest(embedder.preprocessing.to_metadata())
    key = cache_key(teacher=embedder.digest, preprocessing=preprocessing, data=source.digest)
    report = (lambda done, total: progress("teacher embeddings", done, total)) if progress else None
    return open_cache(root, key, count=len(source), dim=embedder.embedding_size, embed=embed, report=report)


def class_means(embeddings: np.ndarray, labels: np.ndarray, classes: int) -> Tensor:
    """The mean direction of each class: a classifier for a teacher that came without one.

    Args:
        embeddings: Teacher embeddings ``(count, views, dim)``; each is normalised, all views count alike.
        labels: Class of each image, ``(count,)``.
        classes: Number of classes; each must have an image.

    Returns:
        Unit rows, float32 ``(classes, dim)``.

    Example:
        >>> x = np.array([[[2.0, 0.0]], [[0.0, 3.0]]], np.float32)
        >>> class_means(x, np.array([1, 0]), 2)
        tensor([[0., 1.],
                [1., 0.]])
    """
    sums = torch.zeros(classes, embeddings.shape[2])
    for view in range(embeddings.shape[1]):
        rows = functional.normalize(torch.from_numpy(np.array(embeddings[:, view])))
        sums.index_add_(0, torch.from_numpy(labels), rows)
    return functional.normalize(sums)


def nearest_centre_agreement(embeddings: Tensor, labels: Tensor, class_weights: Tensor) -> float:
    """Share of embeddings whose most similar class weight is their own class.

    Args:
        embeddings: ``(count, dim)``.
        labels: ``(count,)``.
        class_weights: ``(classes, dim)``.

    Example:
        >>> nearest_centre_agreement(torch.eye(2), torch.tensor([0, 0]), torch.eye(2))
        0.5
    """
    similar = functional.normalize(embeddings) @ functional.normalize(class_weights).T
    return float((similar.argmax(1) == labels).double().mean())


def stored_classifier(run: Path, source: IdentitySource) -> tuple[Tensor, str] | None:
    """The classifier stored in a teacher's run folder, its rows put in the order of this data set's labels.

    Returns:
        Class weights and their source, or None where the teacher has none.

    Raises:
        InputError: Its identities are not those of the training data.
    """
    path = run / "classifier.safetensors"
    if not path.is_file():
        return None
    class_weights, names, origin = load_classifier(path)
    if set(names) != set(source.names):
        strangers = sorted(set(source.names) - set(names))[:3]
        what = f"has {len(names)} classes, the data {len(source.names)} identities"
        what += f"; not among them: {', '.join(strangers)}" if strangers else ""
        raise InputError(str(path), what, "train on the teacher's data, or set teacher.classifier=class_means")
    place = {name: row for row, name in enumerate(names)}
    return class_weights[torch.tensor([place[name] for name in source.names])], origin


def inherit_classifier(
    class_weights: Tensor, origin: str, embedder: Embedder, source: IdentitySource, cached: np.ndarray | None
) -> Classifier:
    """Prove on real training images that a classifier belongs to this teacher and these labels.

    Args:
        class_weights: ``(classes, dim)``.
        origin: Where they came from.
        embedder: The teacher.
        source: The training data.
        cached: Its teacher embeddings, where they are already there.

    Raises:
        UsageError: Fewer than half of the images are nearest to their own class.
        InputError: The classifier and the teacher differ in width.
    """
    if class_weights.shape[1] != embedder.embedding_size:
        what = f"its classifier has {class_weights.shape[1]} columns, its embedding {embedder.embedding_size}"
        raise InputError(embedder.name, what, "give the classifier that was trained with it")
    chosen = np.random.default_rng(0).permutation(len(source))[:CHECKED_IMAGES]
    rows = embed_views(embedder, source, chosen)[:, 0] if cached is None else np.array(cached[chosen, 0])
    labels = torch.from_numpy(source.labels[chosen])
    agreement = nearest_centre_agreement(torch.from_numpy(rows), labels, class_weights)
    if agreement < LEAST_AGREEMENT:
        what = f"only {agreement:.1%} of {len(chosen)} training images are nearest to their own class in its classifier"
        fix = "labels in another order, another teacher's classifier, or wrong colour order or scaling"
        raise UsageError(embedder.name, what, fix)
    return Classifier(class_weights, origin, agreement, len(chosen))
