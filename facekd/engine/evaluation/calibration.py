"""What a shipped model needs to decide: thresholds at false positive rates, and probabilities by score."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from facekd import __version__
from facekd.data.verification import VerificationSet
from facekd.engine.evaluation.evaluation_sets import OpenedSet
from facekd.engine.evaluation.figures import EvalSettings, measure_all_pairs, measure_pairs, refusals
from facekd.engine.evaluation.seeing import see_set
from facekd.engine.progress import Progress
from facekd.engine.signals import Poll
from facekd.errors import InputError
from facekd.metrics.all_pairs import all_pair_scores, count_pairs, impostor_subjects
from facekd.metrics.calibration import KNOTS, Calibration, calibrate, distance_of, percent_of
from facekd.metrics.measured import Measured
from facekd.metrics.verification import pair_scores
from facekd.models.embedder import Embedder, TorchEmbedder
from facekd.models.onnx_file import METADATA_PREFIX
from facekd.models.onnx_model import OnnxEmbedder

FITTED_PAIRS = 2_000_000
"""Probabilities are fitted to all pairs of as many people, drawn at random, as make up to so many impostor pairs."""


@dataclass(frozen=True)
class Calibrated:
    """Thresholds and probabilities of one model on one set.

    Attributes:
        measured: Operating points with their intervals.
        line: Probabilities.
        fitted: Genuine and impostor pairs the probabilities were fitted to.
        subjects_known: Whether the intervals resample people.
    """

    measured: Measured
    line: Calibration
    fitted: tuple[int, int]
    subjects_known: bool


def calibrate_model(
    embedder: Embedder,
    opened: OpenedSet,
    settings: EvalSettings,
    *,
    replicates: int = 200,
    progress: Progress | None = None,
    poll: Poll | None = None,
) -> Calibrated:
    """Embed a set once, find the thresholds and fit the probabilities.

    Args:
        embedder: The model.
        opened: Pairs, or images with identities.
        settings: The FPRs, and how to embed.
        replicates: Samples of people behind the interval of the probabilities.
        progress: Told how many images are done.
        poll: Called between batches; may raise to stop.

    Raises:
        DataError: As :func:`facekd.engine.evaluation.evaluator.evaluate_set`.
        NonFiniteError: As there.
    """
    found, data = see_set(embedder, opened, settings, progress=progress, poll=poll).embeddings, opened.data
    if isinstance(data, VerificationSet):
        measured = measure_pairs(found, found, data, settings)
        scores = pair_scores(found, data.pairs)[0].numpy()
        genuine = np.asarray(data.genuine, dtype=bool)
        people = None if data.subjects is None else data.subjects[data.pairs]
        subjects = None if people is None else (people[genuine], people[~genuine])
        sides = scores[genuine], scores[~genuine]
    else:
        measured = measure_all_pairs(found, found, data.labels, settings)
        chosen = some_people(data.labels, FITTED_PAIRS, settings.seed)
        pairs = all_pair_scores(found[chosen], data.labels[chosen])
        own = pairs.genuine_subjects.numpy()
        others = impostor_subjects(pairs, torch.arange(pairs.impostor.numel())).numpy()
        subjects = np.stack([own, own], axis=1), others
        sides = pairs.genuine.numpy(), pairs.impostor.numpy()
    line = calibrate(*sides, subjects, replicates=replicates, seed=settings.seed)
    return Calibrated(measured, line, (sides[0].size, sides[1].size), subjects is not None)


def some_people(labels: np.ndarray, impostors: int, seed: int = 0) -> np.ndarray:
    """Which images belong to as many people, in a random order, as make at most so many impostor pairs; at least two.

    Args:
        labels: (n,) who each image shows.
        impostors: The most impostor pairs.
        seed: Of the order.

    Returns:
        (n,) True for the images of these people; all of them where all pairs are few enough.

    Example:
        >>> [int(some_people(np.array([1, 1, 2, 2, 3, 3]), most).sum()) for most in (4, 12)]
        [4, 6]
    """
    if count_pairs(labels)[1] <= impostors:
        return np.ones(len(labels), bool)
    people, place, sizes = np.unique(labels, return_inverse=True, return_counts=True)
    order = np.random.default_rng(seed).permutation(people.size)
    order = order[np.argsort(sizes[order] < 2, kind="stable")]  # whoever has a genuine pair comes first
    images = sizes[order].cumsum()
    same = (sizes[order] ** 2).cumsum()
    fits = int(np.searchsorted((images**2 - same) // 2, impostors, side="right"))
    kept = np.zeros(people.size, bool)
    kept[order[: max(2, fits)]] = True
    return kept[place]


def calibration_record(
    embedder: Embedder, opened: OpenedSet, found: Calibrated, settings: EvalSettings
) -> dict[str, Any]:
    """What is written beside the model."""
    measured, line = found.measured, found.line
    intervals = measured.intervals or (None,) * len(measured.points)
    columns = (KNOTS, line.probability(KNOTS), line.low, line.high)
    steps = (line.isotonic(KNOTS), line.isotonic_low, line.isotonic_high)
    return {
        "facekd": __version__,
        "model": embedder.name,
        "model_digest": embedder.digest,
        "set": opened.name,
        "set_digest": opened.data.digest,
        "flip": settings.flip,
        "thresholds": [
            {
                "fpr": point.fpr,
                "cosine": point.threshold,
                "distance": distance_of(point.threshold),
                "percent": percent_of(point.threshold),
                "tpr": point.tpr,
                "ci95": interval and list(interval),
                "false_accepts": point.false_accepts,
                "impostors": point.impostors,
                "supported": point.supported,
            }
            for point, interval in zip(measured.points, intervals, strict=True)
        ],
        "refused": refusals(measured.refused),
        "probability": {
            "prior": 0.5,
            "slope": line.slope,
            "intercept": line.intercept,
            "genuine": found.fitted[0],
            "impostor": found.fitted[1],
            "resampled": "people" if found.subjects_known else "pairs",
            "knots": [
                {
                    "cosine": knot,
                    "logistic": chance,
                    "ci95": [low, high],
                    "isotonic": step,
                    "isotonic_ci95": [least, most],
                }
                for knot, chance, low, high, step, least, most in zip(
                    *(column.tolist() for column in (*columns, *steps)), strict=True
                )
            ],
        },
    }


def calibration_place(model: Path) -> Path:
    """Where the calibration of a model is kept: in its run folder, or beside its file.

    Example:
        >>> calibration_place(Path("models/r50.onnx")).as_posix()
        'models/r50.onnx.calibration.json'
    """
    return model / "calibration.json" if model.is_dir() else model.with_name(f"{model.name}.calibration.json")


def with_calibration(embedder: TorchEmbedder | OnnxEmbedder, model: Path) -> TorchEmbedder | OnnxEmbedder:
    """The model with what was kept beside it among the facts that an export carries.

    Args:
        embedder: The model; what an ONNX file holds itself gives way.
        model: Its run folder or file.

    Raises:
        InputError: What is kept there cannot be read, or belongs to another model.
    """
    place = calibration_place(model)
    if not place.is_file():
        return embedder
    try:
        record = json.loads(place.read_text(encoding="utf-8"))
        odds = {key: record["probability"][key] for key in ("prior", "slope", "intercept")}
        kept = {key: record[key] for key in ("set", "set_digest", "flip", "thresholds")} | {"probability": odds}
        whose = record["model_digest"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(str(place), f"cannot be read: {error!r}", "calibrate again, or delete it") from None
    if whose != embedder.digest:
        raise InputError(str(place), "is of another model", "calibrate again, or delete it")
    key = "calibration" if isinstance(embedder, TorchEmbedder) else f"{METADATA_PREFIX}calibration"
    return replace(embedder, metadata={**embedder.metadata, key: json.dumps(kept, sort_keys=True)})
