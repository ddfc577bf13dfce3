"""Faces made worse by known steps, and how far a figure of each image ranks them by it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from facekd.data.images import encode_png
from facekd.data.resolution import at_resolution
from facekd.data.synthetic import render_face
from facekd.data.synthetic_capture import Sensor, draw_capture
from facekd.data.synthetic_degrade import degrade
from facekd.data.synthetic_identity import draw_identity
from facekd.data.synthetic_render import photograph

BLURS = (0.0, 1.0, 2.0, 3.0, 5.0, 8.0)
"""Sigma in pixels of a face of 112."""
SIDES = (112, 64, 40, 24, 14, 8)
"""Pixels a side."""
STRENGTHS = {"blur": len(BLURS), "resolution": len(SIDES)}
FIRST_UNSEEN = 1_000_000
"""The first person to measure on; students and heads are trained on people before."""


def blurred(image: np.ndarray, sigma: float) -> np.ndarray:
    """The image out of focus by ``sigma`` pixels, and stored as a JPEG of quality 95 whatever ``sigma`` is."""
    sensor = Sensor(blur=sigma, resolution=float(len(image)), noise=0.0, jpeg=95, dice=np.zeros(3))
    return degrade(image.astype(np.float32), sensor)


WORSE: Mapping[str, Callable[[np.ndarray, int], np.ndarray]] = {
    "blur": lambda image, level: blurred(image, BLURS[level]),
    "resolution": lambda image, level: at_resolution(image, SIDES[level]),
}


def perfect_face(identity: int, sample: int) -> np.ndarray:
    """A drawn face with all its pixels and in focus; noise and JPEG as they were drawn."""
    who = draw_identity(0, identity)
    capture = draw_capture(who, 0, identity, sample)
    return degrade(photograph(who, capture)[0], replace(capture.sensor, blur=0.0, resolution=112.0))


def drawn_face(identity: int, sample: int) -> np.ndarray:
    """A drawn face as its camera took it."""
    return render_face(0, identity, sample).image


CAMERAS: Mapping[str, Callable[[int, int], np.ndarray]] = {"perfect": perfect_face, "drawn": drawn_face}
"""Camera -> its face of (identity, sample). The drawn one blurs and loses pixels itself, of which no level tells."""


def draw_series(out: Path, camera: str, people: int, samples: int) -> None:
    """Write every unseen person's images at every strength, ``PERSON/SAMPLE-KIND-LEVEL.png``; whole or not at all."""
    if out.exists():
        return
    partial = out.with_name(out.name + ".partial")
    for identity in range(FIRST_UNSEEN, FIRST_UNSEEN + people):
        folder = partial / str(identity)
        folder.mkdir(parents=True, exist_ok=True)
        for sample in range(samples):
            face = CAMERAS[camera](identity, sample)
            for kind, levels in STRENGTHS.items():
                for level in range(levels):
                    place = folder / f"{sample:02d}-{kind}-{level}.png"
                    place.write_bytes(encode_png(WORSE[kind](face, level)))
    partial.rename(out)


def ranks(values: np.ndarray) -> np.ndarray:
    """Place of each value from 1; equal values share the mean of their places.

    Example:
        >>> ranks(np.array([5.0, 1.0, 5.0, 9.0])).tolist()
        [2.5, 1.0, 2.5, 4.0]
    """
    _, where, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    return (last - (counts - 1) / 2)[where]


def spearman(one: np.ndarray, other: np.ndarray) -> float:
    """Rank correlation, the Pearson correlation of :func:`ranks`; 0 where one side is all equal.

    Example:
        >>> spearman(np.array([1.0, 2.0, 3.0]), np.array([10.0, 30.0, 20.0]))
        0.5
    """
    x, y = ranks(one) - (len(one) + 1) / 2, ranks(other) - (len(other) + 1) / 2
    size = float(np.sqrt((x * x).sum() * (y * y).sum()))
    return float((x * y).sum()) / size if size else 0.0


def correlations(names: Sequence[str], uncertainty: np.ndarray) -> dict[str, dict[str, float]]:
    """Rank correlation with strength, over all people, and as the mean over the series of single images.

    Args:
        names: What `draw_series` called the images, ``PERSON/SAMPLE-KIND-LEVEL.png``.
        uncertainty: (n,) of the images.

    Returns:
        ``pooled``, ``milder`` (pooled, less the heaviest level of each kind) and ``per_image``, each for ``blur``,
        ``resolution`` and ``both``; of both, strength is the level.
    """
    told = [Path(name).stem.split("-") for name in names]
    image = np.array([f"{Path(name).parent.name}/{sample}" for name, (sample, _, _) in zip(names, told, strict=True)])
    kinds, levels = np.array([kind for _, kind, _ in told]), np.array([float(level) for _, _, level in told])
    pooled, milder, single = {}, {}, {}
    for kind in (*STRENGTHS, "both"):
        chosen = (kinds == kind) | (kind == "both")
        pooled[kind] = spearman(uncertainty[chosen], levels[chosen])
        rest = chosen & (levels < np.array([STRENGTHS[one] - 1 for one in kinds]))
        milder[kind] = spearman(uncertainty[rest], levels[rest])
        series = [chosen & (image == one) for one in np.unique(image)]
        single[kind] = float(np.mean([spearman(uncertainty[rows], levels[rows]) for rows in series]))
    return {"pooled": pooled, "milder": milder, "per_image": single}
