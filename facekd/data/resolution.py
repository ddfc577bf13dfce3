"""Images of less resolution than they are stored at: brought down and up again, always by the same resampler."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np

from facekd.data.images import shown
from facekd.errors import DataError

RESOLUTION_STREAM = 5  # first word of the seed of a resolution


@dataclass(frozen=True)
class ResolutionSettings:
    """Which resolutions training images are brought down to.

    Attributes:
        sides: Longer sides in pixels, each as likely as any other; empty leaves every image as it is.
        share: Share of the images that are brought down.
    """

    sides: tuple[int, ...] = ()
    share: float = 1.0


AT_FULL_RESOLUTION = ResolutionSettings()


def at_resolution(image: np.ndarray, side: int) -> np.ndarray:
    """The image as if it had been taken with ``side`` pixels, at the size it has.

    Brought down by averaging over pixel areas, which leaves no alias, and up again by bicubic interpolation (OpenCV's
    INTER_AREA and INTER_CUBIC): figures at low resolution move with the resampler, so there is this one.

    Args:
        image: uint8 (height, width, 3).
        side: The longer side in pixels, at least 1 and at most that of the image; equal to it changes nothing.

    Returns:
        uint8 of the same shape; the image itself where nothing changes.

    Raises:
        ValueError: ``side`` is not positive or larger than the image's.

    Example:
        >>> image = np.zeros((8, 8, 3), np.uint8)
        >>> image[:, ::2] = 200
        >>> at_resolution(image, 8) is image, np.unique(at_resolution(image, 4)).tolist()
        (True, [100])
    """
    height, width = image.shape[:2]
    longer = max(height, width)
    if not 1 <= side <= longer:
        raise ValueError(f"side is {side}, expected 1 to {longer}, the longer side of the image")
    if side == longer:
        return image
    small = (max(1, round(width * side / longer)), max(1, round(height * side / longer)))
    lowered = cv2.resize(image, small, interpolation=cv2.INTER_AREA)
    return cv2.resize(lowered, (width, height), interpolation=cv2.INTER_CUBIC)


def drawn_resolution(settings: ResolutionSettings, seed: int, epoch: int, index: int) -> int | None:
    """The side an image is brought down to in an epoch, or None: a function of its arguments alone.

    Example:
        >>> both = ResolutionSettings((28, 14), 0.5)
        >>> sorted({drawn_resolution(both, 0, epoch, 7) or 112 for epoch in range(50)})
        [14, 28, 112]
        >>> drawn_resolution(ResolutionSettings(), 0, 0, 7) is None
        True
    """
    if not settings.sides:
        return None
    draw = np.random.default_rng([RESOLUTION_STREAM, seed, epoch, index])
    if draw.random() >= settings.share:
        return None
    return settings.sides[int(draw.integers(len(settings.sides)))]


def reader_at(read: Callable[[int], np.ndarray], name: Callable[[int], str], side: int) -> Callable[[int], np.ndarray]:
    """How to read images at a resolution.

    Args:
        read: Gives image i, uint8 RGB (height, width, 3).
        name: What image i is called.
        side: What they are brought down to, by :func:`at_resolution`.

    Returns:
        Gives image i brought down; raises `DataError`, which names it, where it is smaller than ``side``.
    """

    def lowered(index: int) -> np.ndarray:
        image = read(index)
        height, width = image.shape[:2]
        if side > max(height, width):
            what = f"{width}x{height} pixels cannot be brought down to {side}"
            raise DataError(shown(name(index)), what, "leave that resolution out")
        return at_resolution(image, side)

    return lowered
