"""Does an exported file compute what its model computes? Figures and limits."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

MAX_RELATIVE = 1e-4
"""Largest difference allowed in float32, as a fraction of the largest magnitude in the model's embeddings."""
MIN_COSINE = 1 - 1e-6
"""Smallest cosine allowed there between an embedding of the file and the model's embedding of the same image."""


@dataclass(frozen=True)
class Limits:
    """How far the embeddings of a file may be from those of its model.

    Attributes:
        max_relative: Largest difference, as a fraction of the largest magnitude in the model's embeddings.
        min_cosine: Smallest cosine between the two embeddings of an image.
        mean_cosine: Smallest mean of these cosines over all images.
    """

    max_relative: float
    min_cosine: float
    mean_cosine: float


LIMITS = {
    "fp32": Limits(MAX_RELATIVE, MIN_COSINE, MIN_COSINE),
    "fp16": Limits(5e-2, 1 - 5e-4, 1 - 5e-4),
    "int8": Limits(0.5, 0.9, 0.98),
}
"""By precision. float16 keeps 11 bits, which some fifty layers make about one in a thousand. What int8 costs is told by
the mean cosine: 0.995 where what hurts stays in float, 0.86 to 0.97 where everything became integers; whether the rest
matters is told by measuring the file on pairs."""


@dataclass(frozen=True)
class Parity:
    """How far one runtime's embeddings of one batch are from the model's.

    Args:
        runtime: ``onnxruntime`` or ``opencv``.
        batch: Images in the batch.
        max_abs: Largest absolute difference of any embedding value.
        max_relative: The same as a fraction of the largest magnitude in the model's embeddings.
        min_cosine: Smallest cosine between the two embeddings of an image.
        mean_cosine: Mean of these cosines.
    """

    runtime: str
    batch: int
    max_abs: float
    max_relative: float
    min_cosine: float
    mean_cosine: float

    @property
    def passed(self) -> bool:
        """Within the limits of float32; a NaN is never within a limit."""
        return self.within(LIMITS["fp32"])

    def within(self, limits: Limits) -> bool:
        """Whether difference and smallest cosine keep their limits; a NaN never does."""
        return self.max_relative <= limits.max_relative and self.min_cosine >= limits.min_cosine


def compare(runtime: str, expected: np.ndarray, actual: np.ndarray) -> Parity:
    """Largest difference, smallest and mean cosine between two sets of embeddings, in float64.

    Args:
        runtime: Who computed ``actual``.
        expected: (batch, dim) embeddings of the model.
        actual: Embeddings of the file; any other shape counts as not equal at all.

    Example:
        >>> compare("x", np.array([[0.0, 4.0]]), np.array([[3.0, 4.0]]))
        Parity(runtime='x', batch=1, max_abs=3.0, max_relative=0.75, min_cosine=0.8, mean_cosine=0.8)
    """
    nan = float("nan")
    if actual.shape != expected.shape or not (np.isfinite(actual).all() and np.isfinite(expected).all()):
        return Parity(runtime, len(expected), nan, nan, nan, nan)
    a, b = expected.astype(np.float64), actual.astype(np.float64)
    max_abs, largest = float(np.abs(a - b).max()), float(np.abs(a).max())
    norms = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    if not norms.all():
        return Parity(runtime, len(expected), max_abs, nan, nan, nan)
    cosine = np.minimum((a * b).sum(axis=1) / norms, 1.0)
    return Parity(runtime, len(expected), max_abs, max_abs / largest, float(cosine.min()), float(cosine.mean()))


def probe_images(count: int, size: tuple[int, int], *, seed: int = 0) -> np.ndarray:
    """Smooth coloured images with a little noise, the same on every machine.

    Random 6x6 grids stretched bilinearly: like photographs they have most energy at low frequencies, and their three
    channels differ, so a swapped channel order shows.

    Args:
        count: How many images.
        size: (height, width) in pixels.
        seed: Another seed, other images.

    Returns:
        uint8 (count, 3, height, width) RGB.

    Example:
        >>> images = probe_images(2, (64, 48))
        >>> images.shape, images.dtype, bool((images == probe_images(2, (64, 48))).all())
        ((2, 3, 64, 48), dtype('uint8'), True)
    """
    rng = np.random.default_rng(seed)
    grids = rng.integers(0, 256, (count, 3, 6, 6)).astype(np.float64)
    rows, columns = (_stretch(length) for length in size)
    images = rows @ grids @ columns.T + rng.integers(-8, 9, (count, 3, *size))
    return np.clip(np.rint(images), 0, 255).astype(np.uint8)


def _stretch(length: int) -> np.ndarray:
    """The (length, 6) matrix that interpolates 6 values linearly at ``length`` places."""
    places = np.linspace(0, 5, length)
    return np.stack([np.interp(places, np.arange(6), unit) for unit in np.eye(6)], axis=1)
