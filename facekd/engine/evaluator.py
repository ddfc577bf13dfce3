"""One model, one set, one result: the figures of ``facekd eval``."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from facekd.data.align import size_doubt
from facekd.data.identities import IdentitySource
from facekd.data.open_source import IDENTITY_SUFFIXES, open_identities
from facekd.data.resolution import reader_at
from facekd.data.verification import ImageSource, VerificationSet, distinct_pairs, open_verification_set, sniff_list
from facekd.engine.embed import StoredEmbeddings, embed_images, require_usable
from facekd.engine.fitting import fitting
from facekd.engine.progress import Progress
from facekd.engine.resolution_modes import FULL, Resolution
from facekd.engine.signals import Poll
from facekd.errors import DataError, InputError, UsageError
from facekd.metrics.all_pairs import MOST_PAIRS, all_pair_scores, count_pairs
from facekd.metrics.intervals import Interval, bootstrap_all_pairs, bootstrap_pairs
from facekd.metrics.roc import auc, eer, operating_points
from facekd.metrics.scores import ascending
from facekd.metrics.verification import KFold, kfold_distances, pair_scores
from facekd.models.embedder import Embedder

PROTOCOLS = ("auto", "lfw", "pairs", "all-pairs")
DEFAULT_FPRS = (1e-2, 1e-3, 1e-4)


@dataclass(frozen=True)
class OpenedSet:
    """Images with a protocol, checked as far as that goes without a model.

    Attributes:
        name: What reports call it.
        protocol: ``lfw`` (pairs in folds), ``pairs`` or ``all-pairs``.
        data: A verification set for the first two, images with identities for the third.
        warnings: What a user should know and nothing refuses.
    """

    name: str
    protocol: str
    data: VerificationSet | IdentitySource
    warnings: tuple[str, ...] = ()

    @property
    def subjects_known(self) -> bool:
        """Whether the people in the images are known, so that intervals can resample people."""
        return not isinstance(self.data, VerificationSet) or self.data.subjects is not None


@dataclass(frozen=True)
class EvalSettings:
    """How to evaluate.

    Attributes:
        fprs: Operating points, each in (0, 1).
        flip: Add the mirrored image's embedding.
        batch_size: Images per forward pass.
        bootstrap: Replicates behind each interval; 0 leaves intervals out.
        seed: Of the bootstrap.
        allow_resize: Take images that show another cut of the face than the model was trained on.
    """

    fprs: tuple[float, ...] = DEFAULT_FPRS
    flip: bool = True
    batch_size: int = 128
    bootstrap: int = 1000
    seed: int = 0
    allow_resize: bool = False


@dataclass(frozen=True)
class _Scored:
    """Scores of one model on one set, and what depends on more than the scores."""

    genuine: Tensor
    impostor: Tensor
    accuracy: KFold | None
    intervals: Callable[[Sequence[float]], list[Interval]]


def open_set(path: Path, *, images: Path | None = None, protocol: str = "auto", drop_same: bool = False) -> OpenedSet:
    """Open what ``--on`` names: a ``.bin``, a pairs file, or identities in whatever ``open_identities`` takes.

    Args:
        path: The file or folder.
        images: Root of the paths in a pairs file or list; the folder of that file when None.
        protocol: One of :data:`PROTOCOLS`; ``auto`` takes ``lfw`` for ``.bin`` and LFW's ``.txt``, ``pairs`` for
            other pairs files and ``all-pairs`` for identities.
        drop_same: Leave out pairs of an image with itself.

    Raises:
        InputError: A set that cannot be used, lacks genuine or impostor pairs, or has too many pairs.
        UsageError: A protocol the set cannot serve.
    """
    stored = path.is_dir() or not path.exists() or path.suffix.lower() in IDENTITY_SUFFIXES
    if stored or sniff_list(path) == "identities":
        source = open_identities(path, images)
        return _size_doubted(identity_set(path.name, source, protocol, source.warnings))
    if protocol == "all-pairs":
        raise UsageError(str(path), "holds pairs, not identities", "use --protocol auto, or an identity list")
    found = open_verification_set(path, images=images)
    found = distinct_pairs(found) if drop_same else found
    natural = "lfw" if path.suffix.lower() in (".bin", ".txt") else "pairs"
    opened = OpenedSet(path.name, natural if protocol == "auto" else protocol, found, tuple(found.warnings))
    if opened.protocol == "lfw" and np.unique(found.folds).size < 2:
        raise UsageError(str(path), "has one fold only", "use --protocol pairs, or number more folds")
    return _size_doubted(opened)


def _size_doubted(opened: OpenedSet) -> OpenedSet:
    """The set with a warning where its first image is of a size that aligned faces do not have."""
    images = opened.data.images if isinstance(opened.data, VerificationSet) else opened.data
    try:
        doubt = size_doubt(*images.read(0).shape[:2])
    except DataError:
        return opened  # it is refused by name when its turn comes
    return opened if doubt is None else replace(opened, warnings=(*opened.warnings, f"{opened.name}: {doubt}"))


def identity_set(name: str, source: IdentitySource, protocol: str = "auto", warnings: Sequence[str] = ()) -> OpenedSet:
    """Images with identities, every pair of which is compared.

    Args:
        name: What reports call it.
        source: The images.
        protocol: ``auto`` or ``all-pairs``.
        warnings: What opening them gave.

    Raises:
        InputError: No genuine pair, no impostor pair, or too many.
        UsageError: Another protocol.
    """
    if protocol not in ("auto", "all-pairs"):
        raise UsageError(name, f"holds identities, and {protocol} needs pairs", "use --protocol all-pairs")
    _require_countable(name, source.labels)
    return OpenedSet(name, "all-pairs", source, tuple(warnings))


def evaluate_set(embedder: Embedder, opened: OpenedSet, settings: EvalSettings) -> dict[str, Any]:
    """Embed a set with a model and measure it; as :func:`evaluate_resolutions`, its images as they are."""
    return next(evaluate_resolutions(embedder, opened, settings, [FULL]))


def evaluate_resolutions(
    embedder: Embedder,
    opened: OpenedSet,
    settings: EvalSettings,
    modes: Sequence[Resolution],
    *,
    progress: Progress | None = None,
    poll: Poll | None = None,
) -> Iterator[dict[str, Any]]:
    """Embed a set with a model at every resolution wanted, once each, and measure it in every mode.

    Args:
        embedder: The model.
        opened: From :func:`open_set` or :func:`identity_set`.
        settings: How.
        modes: Which resolutions are compared with which.
        progress: Told how many images are done.
        poll: Called between batches; may raise to stop.

    Yields:
        One entry of ``results`` in the JSON of ``facekd eval`` a mode.

    Raises:
        DataError: An image that cannot be read, is of a size that is not allowed, or smaller than it is to be brought
            down to; none is ever left out.
        NonFiniteError: An embedding that is zero or not finite.
    """
    data = opened.data
    source = data.images if isinstance(data, VerificationSet) else data
    embed = partial(_embed_at, embedder, source, opened.name, settings, progress=progress, poll=poll)
    seen: dict[int | None, np.ndarray] = {}
    for mode in modes:
        began = time.perf_counter()
        for side in (mode.probe, mode.gallery):
            if side not in seen:
                seen[side] = embed(side)
        embedded = time.perf_counter()
        if isinstance(data, VerificationSet):
            scored = _score_pairs(seen[mode.probe], seen[mode.gallery], data, settings)
        else:
            scored = _score_all_pairs(seen[mode.probe], seen[mode.gallery], data.labels, settings)
        head = {"model": embedder.name, "model_digest": embedder.digest, "set": opened.name}
        how = {"protocol": opened.protocol, "flip": settings.flip, "resolution": mode.as_dict()}
        yield {**head, **how, **_figures(scored, settings, began, embedded)}


def _embed_at(
    embedder: Embedder,
    source: ImageSource | IdentitySource,
    where: str,
    settings: EvalSettings,
    side: int | None,
    *,
    progress: Progress | None,
    poll: Poll | None,
) -> np.ndarray:
    """Embeddings of every image, brought down to ``side`` pixels where that is given."""
    whole = source.read if settings.allow_resize else fitting(source, embedder.preprocessing.size, where)
    read = whole if side is None else reader_at(whole, source.sample_name, side)
    batch, flip = settings.batch_size, settings.flip
    found = embed_images(embedder, read, len(source), batch_size=batch, flip=flip, progress=progress, poll=poll)
    require_usable(found, embedder.name, source.sample_name)
    return found


def evaluate_stored(stored: StoredEmbeddings, name: str, settings: EvalSettings) -> dict[str, Any]:
    """All pairs of stored embeddings; as :func:`evaluate_set`, with ``flip`` as the file says or None.

    Raises:
        InputError: No genuine pair, no impostor pair, or too many.
    """
    _require_countable(name, stored.labels)
    began = time.perf_counter()
    scored = _score_all_pairs(stored.embeddings, stored.embeddings, stored.labels, settings)
    head = {"model": stored.model, "model_digest": stored.model_digest, "set": name, "protocol": "all-pairs"}
    return {**head, "flip": stored.flip, "resolution": None, **_figures(scored, settings, began, began)}


def _require_countable(name: str, labels: np.ndarray) -> None:
    genuine, impostor = count_pairs(labels)
    if not impostor:
        raise InputError(name, "0 impostor pairs: FPR is not defined", "add images of other people")
    if not genuine:
        raise InputError(name, "0 genuine pairs: TPR is not defined", "add a second image of some people")
    if genuine + impostor > MOST_PAIRS:
        what = f"{len(labels):,} images make {genuine + impostor:,} pairs"
        raise InputError(name, what, f"at most {MOST_PAIRS:,}: evaluate fewer images")


def _score_pairs(probe: np.ndarray, gallery: np.ndarray, data: VerificationSet, settings: EvalSettings) -> _Scored:
    scores, distances = pair_scores(probe, data.pairs, gallery=gallery)
    genuine = torch.from_numpy(np.asarray(data.genuine, dtype=bool))
    positive, negative = scores[genuine], scores[~genuine]
    subjects = None
    if data.subjects is not None:
        people = data.subjects[data.pairs]
        subjects = people[data.genuine], people[~data.genuine]

    def intervals(fprs: Sequence[float]) -> list[Interval]:
        replicates, seed = settings.bootstrap, settings.seed
        return bootstrap_pairs(positive, negative, subjects, fprs, replicates=replicates, seed=seed)

    folded = np.unique(data.folds).size > 1
    accuracy = kfold_distances(distances, data.genuine, data.folds) if folded else None
    return _Scored(positive, negative, accuracy, intervals)


def _score_all_pairs(probe: np.ndarray, gallery: np.ndarray, labels: np.ndarray, settings: EvalSettings) -> _Scored:
    pairs = all_pair_scores(probe, labels, gallery=gallery)

    def intervals(fprs: Sequence[float]) -> list[Interval]:
        return bootstrap_all_pairs(pairs, fprs, replicates=settings.bootstrap, seed=settings.seed)

    return _Scored(pairs.genuine, pairs.impostor, None, intervals)


def _figures(scored: _Scored, settings: EvalSettings, began: float, embedded: float) -> dict[str, Any]:
    """Counts and figures of a result, in the order of the JSON."""
    genuine, impostor = ascending(scored.genuine), ascending(scored.impostor)
    points, refused = operating_points(genuine, impostor, settings.fprs)
    fprs = [point.fpr for point in points]
    intervals = [list(found) for found in scored.intervals(fprs)] if settings.bootstrap else [None] * len(points)
    accuracy = scored.accuracy
    figures = {
        "pairs": genuine.numel() + impostor.numel(),
        "genuine": genuine.numel(),
        "impostor": impostor.numel(),
        "failed_images": 0,
        "accuracy": accuracy and {"mean": accuracy.mean, "std": accuracy.std, "threshold": accuracy.threshold},
        "auc": auc(genuine, impostor),
        "eer": asdict(eer(genuine, impostor)),
        "tpr_at_fpr": [
            {
                "fpr": point.fpr,
                "tpr": point.tpr,
                "threshold": point.threshold,
                "attained_fpr": point.attained_fpr,
                "false_accepts": point.false_accepts,
                "impostors": point.impostors,
                "ci95": interval,
                "nearest_fpr_tpr": point.nearest_fpr_tpr,
            }
            for point, interval in zip(points, intervals, strict=True)
        ],
        "refused": [asdict(entry) for entry in refused],
    }
    seconds = {"embed": round(embedded - began, 3), "score": round(time.perf_counter() - embedded, 3)}
    return {**figures, "seconds": seconds}
