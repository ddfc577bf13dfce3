"""What a run takes from its teacher: embeddings of every training image, and a classifier that is proved to fit."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from facekd.data.embedding_cache import cache_key, open_cache
from facekd.data.identities import IdentitySource
from facekd.data.images import resize
from facekd.data.loading import TrainingImages
from facekd.engine.progress import Progress
from facekd.engine.signals import Poll
from facekd.errors import InputError, UsageError
from facekd.files import value_digest
from facekd.models.embedder import Embedder
from facekd.models.weights import load_classifier

LEAST_AGREEMENT = 0.5
CHECKED_IMAGES = 2048
EMBED_BATCH = 64
CLASS_MEANS = "class means of the teacher's embeddings"


@dataclass(frozen=True)
class Classifier:
    """A teacher's class weights and where they came from.

    Attributes:
        class_weights: ``(classes, dim)`` float32, in the order of the data set's labels.
        source: ``trained`` with the teacher, or :data:`CLASS_MEANS`.
        agreement: Share of checked training images whose nearest row is their own class. Under class means each image
            is part of its own row: low values still tell a wrong label or a useless teacher, high ones little.
        checked: Images the agreement was measured on.
    """

    class_weights: Tensor
    source: str
    agreement: float
    checked: int


Views = Callable[[int], Sequence[np.ndarray]]
"""The images, uint8 RGB, that stand for training image ``index`` in a cache."""


def mirror_views(source: IdentitySource) -> Views:
    """The image as it is, and its mirror."""

    def views(index: int) -> list[np.ndarray]:
        image = source.read(index)
        return [image, image[:, ::-1]]

    return views


def version_views(dataset: TrainingImages, versions: int) -> Views:
    """The augmented versions the steps will show, at the size they are stored in."""
    return lambda index: [dataset.augmented(version, index)[0] for version in range(versions)]


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
    embedder: Embedder,
    source: IdentitySource,
    root: Path,
    views: Views,
    *,
    kind: str,
    count: int,
    progress: Progress | None = None,
    poll: Poll | None = None,
) -> np.ndarray:
    """Teacher embeddings of every view of every training image, ``(images, count, dim)``, memory-mapped.

    Computed once per teacher, preprocessing, data set and kind of view, and shared by every run whose folder has the
    same parent.

    Args:
        embedder: The teacher.
        source: The training images.
        root: Folder of caches.
        views: What to embed of each.
        kind: What the views are, as a digest or name: part of the key.
        count: Views of each image.
        progress: Told the images done.
        poll: Asked between blocks whether to stop.

    Raises:
        InputError: The teacher gives a NaN or infinity.
    """

    def embed(start: int, stop: int) -> np.ndarray:
        if poll:
            poll()
        rows = embed_views(embedder, views, np.arange(start, stop))
        bad = np.flatnonzero(~np.isfinite(rows).all(axis=(1, 2)))
        if len(bad):
            name = source.sample_name(start + int(bad[0]))
            raise InputError(embedder.name, f"gives a non-finite embedding for {name}", "check the teacher's weights")
        return rows

    preprocessing = value_digest(embedder.preprocessing.to_metadata())
    key = cache_key(teacher=embedder.digest, preprocessing=preprocessing, data=source.digest, views=kind)
    report = (lambda done, total: progress("teacher embeddings", done, total)) if progress else None
    return open_cache(root, key, shape=(len(source), count, embedder.embedding_size), embed=embed, report=report)


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
    """The classifier stored in a teacher's run folder: the rows of this data set's identities, in their order.

    The data may hold fewer identities than the teacher was trained on, not others.

    Returns:
        Class weights and their source, or None where the teacher has none.

    Raises:
        InputError: It lacks an identity of the training data.
    """
    path = run / "classifier.safetensors"
    if not path.is_file():
        return None
    class_weights, names, origin = load_classifier(path)
    place = {name: row for row, name in enumerate(names)}
    strangers = [name for name in source.names if name not in place]
    if strangers:
        what = f"lacks {len(strangers)} of the data's {len(source.names)} identities: {', '.join(strangers[:3])}"
        raise InputError(str(path), what, "train on the teacher's identities, or set teacher.classifier=class_means")
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
        cached: Teacher embeddings of the images as they are (view 0), where they are already there.

    Raises:
        UsageError: Fewer than half of the images are nearest to their own class.
        InputError: The classifier and the teacher differ in width.
    """
    if class_weights.shape[1] != embedder.embedding_size:
        what = f"its classifier has {class_weights.shape[1]} columns, its embedding {embedder.embedding_size}"
        raise InputError(embedder.name, what, "give the classifier that was trained with it")
    chosen = np.random.default_rng(0).permutation(len(source))[:CHECKED_IMAGES]
    rows = embed_views(embedder, mirror_views(source), chosen) if cached is None else cached[chosen]
    labels = torch.from_numpy(source.labels[chosen])
    agreement = nearest_centre_agreement(torch.from_numpy(np.array(rows[:, 0])), labels, class_weights)
    if agreement < LEAST_AGREEMENT:
        what = f"only {agreement:.1%} of {len(chosen)} training images are nearest to their own class in its classifier"
        fix = "labels in another order, another teacher's classifier, or wrong colour order or scaling"
        raise UsageError(embedder.name, what, fix)
    return Classifier(class_weights, origin, agreement, len(chosen))
