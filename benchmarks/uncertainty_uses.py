"""What an uncertainty beside each embedding buys: turning away, telling pairs apart, comparing, fusing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmarks.degraded_faces import spearman
from benchmarks.uncertainty import LENGTH, log_variance_of
from facekd.engine.embed import StoredEmbeddings
from facekd.metrics.roc import operating_points
from facekd.metrics.sureness import error_versus_reject, pair_uncertainty, quality_rates, unsure_images
from facekd.metrics.uncertainty import fuse_templates, harmonic_mean_variance, mutual_likelihood, uncertainty_spread
from facekd.metrics.verification import unit

FPRS = (1e-2, 1e-3, 1e-4)
JUDGED = 1e-3
REJECTED = (0.0, 0.05, 0.1, 0.2, 0.3)
TEMPLATE = 3
"""Images of a template."""
RANDOM = 100
"""Random orders whose mean curve is shown."""


def all_pairs(labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Every pair of rows, (p, 2), and whether it is of one person.

    Example:
        >>> pairs, genuine = all_pairs(np.array([4, 7, 4]))
        >>> pairs.tolist(), genuine.tolist()
        ([[0, 1], [0, 2], [1, 2]], [False, True, False])
    """
    pairs = np.stack(np.triu_indices(len(labels), 1), axis=1)
    return pairs, labels[pairs[:, 0]] == labels[pairs[:, 1]]


def cosines(embeddings: Tensor | np.ndarray, pairs: np.ndarray) -> np.ndarray:
    """The cosine of each pair of rows."""
    rows = unit(embeddings)
    return (rows @ rows.T).numpy()[pairs[:, 0], pairs[:, 1]]


def tprs(scores: np.ndarray, genuine: np.ndarray) -> list[dict[str, float]]:
    """TPR at each FPR that the impostors can show, as a row of a table has it."""
    found, _ = operating_points(scores[genuine], scores[~genuine], FPRS)
    return [{"fpr": p.fpr, "tpr": p.tpr, "threshold": p.threshold, "impostors": p.impostors} for p in found]


def threshold_at(points: Sequence[Mapping[str, float]], fpr: float) -> float:
    """The threshold of the point at an FPR."""
    return next(point["threshold"] for point in points if point["fpr"] == fpr)


def reject_curves(scores: np.ndarray, orders: Mapping[str, np.ndarray], threshold: float) -> dict[str, list[float]]:
    """FNMR at a threshold as genuine pairs are turned away, by each order and, as ``random``, by none.

    Args:
        scores: (p,) of genuine pairs.
        orders: (p,) how unsure each pair is, by name.
        threshold: Lowest accepted score.
    """
    curves = {
        name: error_versus_reject(scores, order, threshold=threshold, fractions=REJECTED)
        for name, order in orders.items()
    }
    rng = np.random.default_rng(0)
    drawn = [
        error_versus_reject(scores, rng.permutation(len(scores)), threshold=threshold, fractions=REJECTED)
        for _ in range(RANDOM)
    ]
    return {**curves, "random": np.mean(drawn, axis=0).tolist()}


def kept_tprs(
    scores: np.ndarray, genuine: np.ndarray, pairs: np.ndarray, orders: Mapping[str, np.ndarray]
) -> dict[str, list[float]]:
    """TPR at the judged FPR of the images that stay, its threshold set anew, by each order and, as ``random``, by none.

    Args:
        scores: (p,) of all pairs.
        genuine: (p,) whether each is of one person.
        pairs: (p, 2) rows of the images.
        orders: (n,) how unsure each image is, by name.
    """
    found = {}
    count = len(next(iter(orders.values())))
    for name, order in {**orders, "random": np.random.default_rng(0).permutation(count)}.items():
        left = np.argsort(np.argsort(-order, kind="stable"))
        curve = []
        for share in REJECTED:
            kept = (left[pairs] >= int(share * count)).all(axis=1)
            (point,), _ = operating_points(scores[kept & genuine], scores[kept & ~genuine], [JUDGED])
            curve.append(point.tpr)
        found[name] = curve
    return found


def quality_groups(
    scores: np.ndarray, genuine: np.ndarray, pairs: np.ndarray, uncertainty: np.ndarray, threshold: float
) -> list[dict[str, Any]]:
    """TPR and FPR at one threshold for pairs of two surer images, of one, and of none; surer than the median."""
    counts, values = unsure_images(uncertainty, pairs), torch.from_numpy(scores)
    sides = [(values[chosen], counts[chosen]) for chosen in (torch.from_numpy(genuine), torch.from_numpy(~genuine))]
    return [asdict(rates) for rates in quality_rates(*sides, threshold=threshold)]


def templates_of(labels: np.ndarray, size: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Disjoint templates of ``size`` images of a person each, as many as its images give.

    Args:
        labels: (n,) person of each image.
        size: Images of a template.
        seed: Of the order in which a person's images are dealt.

    Returns:
        Rows of the images, (templates * size,), and the person of each template, (templates,).

    Example:
        >>> rows, people = templates_of(np.array([3, 3, 3, 8, 8]), 2)
        >>> len(rows), people.tolist(), sorted(rows[2:].tolist())
        (4, [3, 8], [3, 4])
    """
    rng, rows, people = np.random.default_rng(seed), [], []
    for person in np.unique(labels):
        dealt = rng.permutation(np.flatnonzero(labels == person))
        count = len(dealt) // size
        rows.append(dealt[: count * size])
        people += [person] * count
    return np.concatenate(rows), np.array(people)


def fused_scores(embeddings: np.ndarray, log_variance: np.ndarray, labels: np.ndarray) -> dict[str, Any]:
    """Templates compared by the cosine of plain means, and of means weighted by 1 / sigma^2."""
    rows, people = templates_of(labels, TEMPLATE)
    where = np.repeat(np.arange(len(people)), TEMPLATE)
    pairs, genuine = all_pairs(people)
    found = {}
    for name, variance in (("plain mean", np.zeros((len(rows), 1))), ("weighted by 1 / sigma^2", log_variance[rows])):
        fused, _ = fuse_templates(embeddings[rows], variance, where)
        found[name] = tprs(cosines(fused, pairs), genuine)
    size = {"images": TEMPLATE, "templates": len(people), "genuine": int(genuine.sum())}
    return {**size, "impostor": int((~genuine).sum()), "tpr_at_fpr": found}


def figures(stored: StoredEmbeddings, sigmas: np.ndarray) -> dict[str, Any]:
    """All that one head's uncertainty is good for, on blurred images.

    Args:
        stored: Embeddings and log variances of the images.
        sigmas: (n,) how far each was blurred.
    """
    log_variance = log_variance_of(stored)
    uncertainty = harmonic_mean_variance(log_variance).numpy()
    length = -np.linalg.norm(stored.embeddings, axis=1)
    told = {"uncertainty": uncertainty, "true strength": sigmas, LENGTH: length}
    pairs, genuine = all_pairs(stored.labels)
    scores = cosines(stored.embeddings, pairs)
    by_cosine = tprs(scores, genuine)
    threshold = threshold_at(by_cosine, JUDGED)
    orders = {name: pair_uncertainty(values, pairs[genuine]).numpy() for name, values in told.items()}
    likelihood = mutual_likelihood(stored.embeddings, log_variance, pairs, block=1024).numpy()
    return {
        "images": len(sigmas),
        "genuine": int(genuine.sum()),
        "impostor": int((~genuine).sum()),
        "spread": uncertainty_spread(log_variance),
        "correlation": {"uncertainty": spearman(uncertainty, sigmas), LENGTH: spearman(length, sigmas)},
        "fnmr": reject_curves(scores[genuine], orders, threshold),
        "kept_tpr": kept_tprs(scores, genuine, pairs, told),
        "groups": quality_groups(scores, genuine, pairs, uncertainty, threshold),
        "scores": {"cosine": by_cosine, "mutual likelihood": tprs(likelihood, genuine)},
        "templates": fused_scores(stored.embeddings, log_variance, stored.labels),
    }
