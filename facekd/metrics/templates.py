"""Templates: several images of a person made into one embedding, and the scores of listed pairs of them.

The rule of IJB-B and IJB-C as the field computes it. Of an image come e and e', the raw embedding and that of its
mirror. Its vector v is e + e' (or e), kept as long as it is or brought to length one, and multiplied with the score of
the face detector or not. A template is the sum, over its media (a video, or a still), of the mean of v over the images
of the medium, brought to length one. So a video of a thousand frames weighs what one still does.

Papers: Whitelam et al., "IARPA Janus Benchmark-B Face Dataset", CVPRW 2017; Maze et al., "IARPA Janus Benchmark-C:
Face Dataset and Protocol", ICB 2018. What is done with lengths, scores and mirrors differs between published figures,
so all of it is said.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product

import numpy as np
import torch
from torch import Tensor

NORMS = ("keep", "unit")
GALLERY_ROWS = 4096


@dataclass(frozen=True)
class Aggregation:
    """How the images of a template become one embedding.

    Attributes:
        norm: ``keep`` leaves the length of an image's vector, a measure of quality, as it is; ``unit`` divides it out.
        det: Multiply with the score of the face detector.
        flip: Add the embedding of the mirrored image.

    Example:
        >>> Aggregation(norm="unit").told
        'norm unit, det on, flip on'
    """

    norm: str = "keep"
    det: bool = True
    flip: bool = True

    @property
    def told(self) -> str:
        """The three choices in words."""
        det, flip = ("on" if chosen else "off" for chosen in (self.det, self.flip))
        return f"norm {self.norm}, det {det}, flip {flip}"


AGGREGATIONS = tuple(Aggregation(norm, det, flip) for norm, det, flip in product(NORMS, (True, False), (True, False)))
"""All eight, the usual one first."""


@dataclass(frozen=True)
class Membership:
    """Which template and which medium of it each image belongs to.

    Attributes:
        ids: (t,) the templates, ascending; a template's row is its place here.
        rows: (n,) row of each image's template.
        media: (n,) number of each image's medium; media of two templates are never the same.
        detector: (n,) float64, score of the face detector for each image.

    Example:
        >>> found = membership(np.array([9, 4, 9]), np.array([7, 7, 7]), np.ones(3))
        >>> found.ids.tolist(), found.rows.tolist(), found.media.tolist()
        ([4, 9], [1, 0, 1], [1, 0, 1])
    """

    ids: np.ndarray
    rows: np.ndarray
    media: np.ndarray
    detector: np.ndarray


def membership(templates: np.ndarray, media: np.ndarray, detector: np.ndarray) -> Membership:
    """Number templates and media without gaps, in memory that the largest number has no part in.

    Args:
        templates: (n,) integers, the template of each image.
        media: (n,) integers, its medium; the same number in two templates means two media.
        detector: (n,) scores of the face detector, finite and not negative.

    Raises:
        ValueError: Shapes that differ, or a score that is negative or not finite.

    Example:
        >>> membership(np.array([10**12, 5]), np.array([1, 1]), np.array([0.5, 1.0])).rows.tolist()
        [1, 0]
    """
    if not templates.shape == media.shape == detector.shape or templates.ndim != 1:
        raise ValueError(f"shapes differ: {templates.shape} templates, {media.shape} media, {detector.shape} scores")
    scores = np.asarray(detector, np.float64)
    if not (np.isfinite(scores) & (scores >= 0)).all():
        raise ValueError("a detector score is negative or not finite")
    ids, rows = np.unique(templates, return_inverse=True)
    numbers, medium = np.unique(media, return_inverse=True)
    own = np.unique(rows * len(numbers) + medium, return_inverse=True)[1]
    return Membership(ids, rows, own, scores)


def aggregate_templates(
    views: np.ndarray, members: Membership, how: Aggregation, *, usable: np.ndarray | None = None, block: int = 4096
) -> Tensor:
    """The embedding of every template.

    Sums are float64; memory beyond the result is twice the result and ``block`` images.

    Args:
        views: (n, 2, dim) raw embeddings of every image and of its mirror; may be memory-mapped.
        members: Who belongs where.
        how: What is done with lengths, detector scores and mirrors.
        usable: (n,) False for images that have no embedding; means are taken over the others. All when None. A
            template without one of its images may be a better one than it is with it: see :func:`spoiled_templates`.
        block: Images worked on at a time.

    Returns:
        float32 (t, dim) of length one. A row is zero where a template failed: none of its images is usable, or all
        weigh nothing.

    Raises:
        ValueError: Shapes that do not fit, or a usable image whose embedding is not finite.

    Example:
        >>> views = np.array([[[3.0, 0.0], [1.0, 0.0]], [[0.0, 2.0], [0.0, 2.0]]])
        >>> one = membership(np.array([1, 1]), np.array([1, 2]), np.array([1.0, 0.75]))
        >>> [round(value, 4) for value in aggregate_templates(views, one, Aggregation())[0].tolist()]  # (4, 3) / 5
        [0.8, 0.6]
    """
    count = len(members.rows)
    if views.ndim != 3 or views.shape[:2] != (count, 2):
        raise ValueError(f"embeddings of shape {views.shape} for {count} images with two views each")
    kept = np.ones(count, bool) if usable is None else np.asarray(usable, bool)
    in_medium = np.bincount(members.media, weights=kept)[members.media]
    weights = np.where(kept, (members.detector if how.det else 1.0) / np.maximum(in_medium, 1), 0.0)
    rows, factors = torch.from_numpy(members.rows), torch.from_numpy(weights)
    total = torch.zeros(len(members.ids), views.shape[2], dtype=torch.float64)
    for start in range(0, count, block):
        stop = min(start + block, count)
        part = np.asarray(views[start:stop], np.float64)
        vectors = torch.from_numpy(part.sum(axis=1) if how.flip else part[:, 0])
        vectors[torch.from_numpy(~kept[start:stop])] = 0.0
        if not bool(torch.isfinite(vectors).all()):
            raise ValueError(f"images {start} to {stop - 1}: an embedding is not finite")
        if how.norm == "unit":
            vectors = _unit_or_zero(vectors)
        total.index_add_(0, rows[start:stop], vectors * factors[start:stop, None])
    return _unit_or_zero(total).float()


def spoiled_templates(members: Membership, usable: np.ndarray) -> np.ndarray:
    """Which templates hold an image that failed.

    Such a template counts as failed whole. Made of its other images it may be better than it would be with the one
    that is missing, so that a failure could raise a figure.

    Args:
        members: Who belongs where.
        usable: (n,) False for images that have no embedding.

    Returns:
        (t,) bool.

    Example:
        >>> one = membership(np.array([4, 4, 9]), np.arange(3), np.ones(3))
        >>> spoiled_templates(one, np.array([True, False, True])).tolist()
        [True, False]
    """
    spoiled = np.zeros(len(members.ids), bool)
    spoiled[members.rows[~usable]] = True
    return spoiled


def template_pair_scores(templates: Tensor, left: np.ndarray, right: np.ndarray, *, block: int = 2048) -> Tensor:
    """Cosine of listed pairs of templates, gathered and multiplied block by block.

    Args:
        templates: (t, dim) float32 from :func:`aggregate_templates`: length one, or zero where a template failed.
        left: (p,) row of the first template of each pair, int32 or int64.
        right: (p,) row of the second.
        block: Pairs worked on at a time: memory beyond the result is two blocks of embeddings.

    Returns:
        float32 (p,) in [-1, 1]; NaN where a template failed. What that counts as, :mod:`facekd.metrics.failures` says.

    Raises:
        ValueError: Pairs of two lengths, or rows that are not there.

    Example:
        >>> rows = torch.tensor([[1.0, 0.0], [0.6, 0.8], [0.0, 0.0]])
        >>> template_pair_scores(rows, np.array([0, 0]), np.array([1, 2])).tolist()
        [0.6000000238418579, nan]
    """
    if left.shape != right.shape or left.ndim != 1:
        raise ValueError(f"{left.shape} first and {right.shape} second templates")
    for side in (left, right):
        if side.size and not (side.min() >= 0 and side.max() < len(templates)):
            raise ValueError(f"rows {side.min()} to {side.max()} of {len(templates)} templates")
    failed = ~templates.any(dim=1)
    some_failed = bool(failed.any())
    scores = torch.empty(len(left), dtype=torch.float32, device=templates.device)
    for start in range(0, len(left), block):
        pair = [torch.from_numpy(side[start : start + block]).to(templates.device) for side in (left, right)]
        first, second = (templates.index_select(0, rows) for rows in pair)
        found = torch.sum(first.mul_(second), dim=1, out=scores[start : start + block])
        if some_failed:
            found[failed[pair[0]] | failed[pair[1]]] = torch.nan
    return scores.clamp_(-1.0, 1.0)


def gallery_scores(probes: Tensor, gallery: Tensor, absent: Tensor) -> Tensor:
    """Cosine of every probe with every template of a gallery: float64 products rounded to float32, so that equal
    templates tie.

    Args:
        probes: (p, dim) of length one, or zero where a template failed.
        gallery: (g, dim), likewise.
        absent: (g,) which templates of the gallery failed.

    Returns:
        float32 (p, g) in [-1, 1]; NaN where a template failed.

    Example:
        >>> rows = torch.tensor([[1.0, 0.0], [0.6, 0.8], [0.0, 0.0]])
        >>> gallery_scores(rows[:1], rows, torch.tensor([False, False, True])).tolist()
        [[1.0, 0.6000000238418579, nan]]
    """
    wide = probes.double()
    scores = torch.empty(len(probes), len(gallery), dtype=torch.float32, device=probes.device)
    for start in range(0, len(gallery), GALLERY_ROWS):
        scores[:, start : start + GALLERY_ROWS] = wide @ gallery[start : start + GALLERY_ROWS].double().T
    scores.clamp_(-1.0, 1.0)
    scores[:, absent] = torch.nan
    scores[~probes.any(dim=1)] = torch.nan
    return scores


def _unit_or_zero(vectors: Tensor) -> Tensor:
    length = torch.linalg.vector_norm(vectors, dim=1, keepdim=True)
    return vectors / torch.where(length > 0, length, 1.0)
