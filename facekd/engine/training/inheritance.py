"""The classifier a student inherits from its teacher: where it lies, and the proof on real faces that it fits."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from facekd.data.identities import IdentitySource
from facekd.engine.probe import LEAST_PEOPLE, advice, people_by_label, probe_preprocessing
from facekd.engine.progress import Progress
from facekd.engine.signals import Poll
from facekd.engine.training.teacher import EMBED_BATCH, embed_views, mirror_views, plain_views
from facekd.errors import UsageError
from facekd.models.classifier_files import CLASSIFIER_FILE, class_rows
from facekd.models.embedder import Embedder
from facekd.models.preprocessing_ways import all_ways, scaling_name

LEAST_AGREEMENT = 0.5
CHECKED_IMAGES = 2048
CLASS_MEANS = "class means of the teacher's embeddings"
HELD = "classifier"
"""Key of an embedder's metadata that is there when a classifier lies beside the backbone in its checkpoint."""


@dataclass(frozen=True)
class Classifier:
    """A teacher's class weights and where they came from.

    Attributes:
        class_weights: ``(classes, dim)`` float32, in the order of the data set's labels.
        source: ``trained`` with the teacher, the foreign files they lay in, or :data:`CLASS_MEANS`.
        agreement: Share of checked training images whose nearest row is their own class. Under class means each image
            is part of its own row: low values still tell a wrong label or a useless teacher, high ones little.
        checked: Images the agreement was measured on.
        notes: What a user should know of the files.
        digest: SHA-256 of the rows where they lay in files; empty for class means, which follow from teacher and data.
    """

    class_weights: Tensor
    source: str
    agreement: float
    checked: int
    notes: tuple[str, ...] = ()
    digest: str = ""


def classifier_place(weights: Path, metadata: Mapping[str, str], class_weights: Path | None = None) -> Path | None:
    """Where a teacher's class weights lie: given, in its run folder, in its checkpoint; None for nowhere.

    Args:
        weights: The teacher: a run folder or file.
        metadata: Of its embedder.
        class_weights: Where a user says they lie.

    Example:
        >>> classifier_place(Path("r50.pt"), {}), classifier_place(Path("r50.pt"), {"classifier": "93431 x 512"}).name
        (None, 'r50.pt')
        >>> classifier_place(Path("checkpoint_gpu_0.pt"), {}, Path("head")).name
        'head'
    """
    if class_weights is not None:
        return class_weights
    own = weights / CLASSIFIER_FILE
    if own.is_file():
        return own
    return weights if HELD in metadata else None


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
    for start in range(0, len(labels), CHECKED_IMAGES):
        _add_directions(sums, embeddings[start : start + CHECKED_IMAGES], labels[start : start + CHECKED_IMAGES])
    return functional.normalize(sums)


def _add_directions(sums: Tensor, embeddings: np.ndarray, labels: np.ndarray) -> None:
    rows = functional.normalize(torch.from_numpy(np.array(embeddings)), dim=2)
    sums.index_add_(0, torch.from_numpy(labels), rows.sum(dim=1))


def embedded_class_means(
    embedder: Embedder, source: IdentitySource, *, progress: Progress | None = None, poll: Poll | None = None
) -> Tensor:
    """:func:`class_means` of every image and its mirror, embedded now and held by nobody.

    Args:
        embedder: The teacher.
        source: The images.
        progress: Told how many images are done.
        poll: Called between batches; may raise to stop.
    """
    sums = torch.zeros(len(source.names), embedder.embedding_size)
    views = mirror_views(source)
    for start in range(0, len(source), EMBED_BATCH):
        if poll:
            poll()
        indices = np.arange(start, min(start + EMBED_BATCH, len(source)))
        _add_directions(sums, embed_views(embedder, views, indices), source.labels[indices])
        if progress:
            progress("class means", int(indices[-1]) + 1, len(source))
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


def inherit_classifier(
    place: Path | None,
    embedder: Embedder,
    source: IdentitySource,
    cached: np.ndarray | None = None,
    *,
    least: float = LEAST_AGREEMENT,
    progress: Progress | None = None,
    poll: Poll | None = None,
) -> Classifier:
    """A teacher's class weights for these identities, proved on real training images to belong to both.

    Args:
        place: The file or folder they lie in; None for class means.
        embedder: The teacher.
        source: The training data.
        cached: Teacher embeddings of the images as they are and mirrored, where they are already there.
        least: Share of the images that must be nearest to their own class.
        progress: Told how many images are done.
        poll: Called between batches; may raise to stop.

    Raises:
        UsageError: Fewer of the images are nearest to their own class; says which other colour order or
            scaling would do better, where one does.
        InputError: Files that cannot be used, of another width, or that lack an identity.
        NonFiniteError: A class weight is NaN or infinite.
    """
    notes: tuple[str, ...] = ()
    if place is not None:
        found = class_rows(place, embedder.embedding_size, source.names)
        class_weights, origin, notes = found.class_weights, found.source, found.notes
        if found.teacher_digest not in ("", embedder.digest):
            notes += (f"{place}: was made for another model file than {embedder.name}",)
    else:
        origin = CLASS_MEANS
        if cached is None:
            class_weights = embedded_class_means(embedder, source, progress=progress, poll=poll)
        else:
            class_weights = class_means(cached, source.labels, len(source.names))
    chosen = np.random.default_rng(0).permutation(len(source))[:CHECKED_IMAGES]
    agreement = _agreement(class_weights, embedder, source, chosen, cached)
    if agreement < least:
        what = f"only {agreement:.1%} of {len(chosen)} training images are nearest to their own class in its classifier"
        raise UsageError(embedder.name, f"{what} ({origin})", _causes(class_weights, embedder, source, poll))
    digest = "" if place is None else hashlib.sha256(class_weights.contiguous().numpy().data).hexdigest()
    return Classifier(class_weights, origin, agreement, len(chosen), notes, digest)


def _agreement(
    class_weights: Tensor, embedder: Embedder, source: IdentitySource, chosen: np.ndarray, cached: np.ndarray | None
) -> float:
    rows = embed_views(embedder, plain_views(source), chosen) if cached is None else cached[chosen]
    labels = torch.from_numpy(source.labels[chosen])
    return nearest_centre_agreement(torch.from_numpy(np.array(rows[:, 0])), labels, class_weights)


def _causes(class_weights: Tensor, embedder: Embedder, source: IdentitySource, poll: Poll | None) -> str:
    """Why the images are not nearest to their own class, as far as other ways to see them tell."""
    pairs = people_by_label(source.labels)
    if len(pairs) < LEAST_PEOPLE:
        return "labels in another order, another teacher's classifier, or wrong colour order or scaling"
    images = np.unique(pairs)
    shares = []
    for way in [way for way in all_ways(embedder.preprocessing) if way != embedder.preprocessing]:
        seen = replace(embedder, preprocessing=way)  # type: ignore[type-var]
        shares.append((_agreement(class_weights, seen, source, images, None), way.color, scaling_name(way)))
    share, color, normalize = max(shares)
    if share >= LEAST_AGREEMENT:
        return f"seen as {color} with {normalize}, {share:.1%} of {len(images)} are: set its color and normalize"
    probe = probe_preprocessing(embedder, source.read, pairs, poll=poll)
    others = (
        f"labels in another order, or another teacher's classifier: at most {share:.1%} are in any other colour order"
    )
    return f"{others} and scaling, though {told}" if (told := advice(probe)) else f"{others} and scaling"
