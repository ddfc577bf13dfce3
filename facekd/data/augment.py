"""Augmentation: a pure function of an image, a random generator and settings."""

from __future__ import annotations

import math
from dataclasses import dataclass

import cv2
import numpy as np

LUMA = (0.299, 0.587, 0.114)
MOST_REDUCTION = 4.0
BLUR_SIGMA = (0.4, 2.0)
ERASED_SIDE = (0.1, 0.4)
MEAN_SHARE = (0.3, 0.7)
SEAM = (0.4, 0.67)
_DRAWS = 18


@dataclass(frozen=True)
class AugmentSettings:
    """How much of each augmentation; the fields are those of the recipe's ``data.augment``.

    Attributes:
        flip: Probability of mirroring left to right.
        shift: Largest shift per axis, as a fraction of the side.
        scale: Largest relative change of scale (0.1: from 0.9 to 1.1).
        rotate: Largest rotation either way, in degrees.
        color: Strength: brightness, contrast and saturation are each multiplied by a factor in 1 +- ``color``.
        grayscale: Probability of removing color.
        blur: Probability of a Gaussian blur of sigma 0.4 to 2 pixels.
        downscale: Probability of losing resolution, down to a quarter of the side.
        erase: Probability of covering a rectangle, each side 0.1 to 0.4 of the image's, with one random color.
        mix: Probability of blending with another person's image: a virtual face that belongs to nobody.
    """

    flip: float = 0.5
    shift: float = 0.0
    scale: float = 0.0
    rotate: float = 0.0
    color: float = 0.0
    grayscale: float = 0.0
    blur: float = 0.0
    downscale: float = 0.0
    erase: float = 0.0
    mix: float = 0.0


def augment(image: np.ndarray, rng: np.random.Generator, settings: AugmentSettings) -> tuple[np.ndarray, bool]:
    """Change an image at random.

    The same number of values is drawn whatever the settings, and the flip is the first: with one generator state the
    flip does not depend on the other settings. Geometry (shift, scale, rotation) is one bilinear warp whose outside
    mirrors the image; color and gray are one affine map of RGB. Order: flip, warp, color, downscale, blur, erase.

    Args:
        image: uint8 (height, width, 3), RGB; not changed.
        rng: Seeded by the caller from run seed, epoch and sample index, so that any worker draws the same.
        settings: What to do and how much.

    Returns:
        A contiguous uint8 image of the same shape, and whether it was mirrored.

    Example:
        >>> image = np.arange(8 * 8 * 3, dtype=np.uint8).reshape(8, 8, 3)
        >>> mirrored, flipped = augment(image, np.random.default_rng(0), AugmentSettings(flip=1.0))
        >>> flipped, np.array_equal(mirrored, image[:, ::-1])
        (True, True)
    """
    draws = rng.random(_DRAWS)
    flipped = bool(draws[0] < settings.flip)
    result = cv2.flip(image, 1) if flipped else image
    if settings.shift or settings.scale or settings.rotate:
        result = _warp(result, draws[1:5], settings)
    gray = draws[5] < settings.grayscale
    if settings.color or gray:
        result = _recolor(result, draws[6:9], settings.color, gray)
    if draws[9] < settings.downscale:
        result = _lose_resolution(result, 1 + draws[10] * (MOST_REDUCTION - 1))
    if draws[11] < settings.blur:
        low, high = BLUR_SIGMA
        result = cv2.GaussianBlur(result, (0, 0), low + draws[12] * (high - low), borderType=cv2.BORDER_REFLECT_101)
    if draws[13] < settings.erase:
        result = _erase(result, draws[14:18], rng.integers(0, 256, 3, dtype=np.uint8))
    return (image.copy() if result is image else result), flipped


def blend(image: np.ndarray, other: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A virtual face of two aligned ones: half of the time their weighted mean, else the upper part of one on the
    lower part of the other.

    Aligned crops have eyes, nose and mouth in the same places, so both forms read as faces. Drawn: which form, the
    share of ``image`` in the mean (0.3 to 0.7), and the height of the seam (0.4 to 0.67 of the image).

    Args:
        image: uint8 (height, width, 3).
        other: The same shape.
        rng: Seeded by the caller.

    Example:
        >>> black, white = np.zeros((10, 10, 3), np.uint8), np.full((10, 10, 3), 255, np.uint8)
        >>> mixed = blend(black, white, np.random.default_rng(0))
        >>> bool(0 < mixed.mean() < 255)
        True
    """
    form, share, seam, upper = rng.random(4)
    if form < 0.5:
        low, high = MEAN_SHARE
        part = low + share * (high - low)
        return cv2.addWeighted(image, part, other, 1 - part, 0.0)
    low, high = SEAM
    row = round(image.shape[0] * (low + seam * (high - low)))
    top, bottom = (image, other) if upper < 0.5 else (other, image)
    return np.concatenate([top[:row], bottom[row:]])


def color_map(brightness: float, contrast: float, saturation: float, middle: float) -> np.ndarray:
    """The 3x4 affine map of RGB for three factors, in the order saturation, contrast, brightness.

    Saturation mixes each color with its luma, contrast stretches about ``middle``, brightness multiplies.

    Example:
        >>> color_map(2.0, 1.0, 1.0, 128.0) @ [10, 20, 30, 1]
        array([20., 40., 60.])
        >>> color_map(1.0, 0.0, 1.0, 128.0) @ [10, 20, 30, 1]
        array([128., 128., 128.])
    """
    matrix = saturation * np.eye(3) + (1 - saturation) * np.outer(np.ones(3), LUMA)
    offset = np.full((3, 1), brightness * (1 - contrast) * middle)
    return np.hstack([brightness * contrast * matrix, offset])


def _warp(image: np.ndarray, draws: np.ndarray, settings: AugmentSettings) -> np.ndarray:
    height, width = image.shape[:2]
    signed = 2 * draws - 1
    angle = math.radians(settings.rotate * signed[0])
    factor = 1 + settings.scale * signed[1]
    cosine, sine = factor * math.cos(angle), factor * math.sin(angle)
    x, y = (width - 1) / 2, (height - 1) / 2
    right, down = settings.shift * signed[2] * width, settings.shift * signed[3] * height
    matrix = np.array(
        [[cosine, sine, x + right - cosine * x - sine * y], [-sine, cosine, y + down + sine * x - cosine * y]]
    )
    return cv2.warpAffine(image, matrix, (width, height), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT_101)


def _recolor(image: np.ndarray, draws: np.ndarray, strength: float, gray: bool) -> np.ndarray:
    brightness, contrast, saturation = 1 + strength * (2 * draws - 1)
    middle = float(np.dot(cv2.mean(image)[:3], LUMA))
    return cv2.transform(image, color_map(brightness, contrast, 0.0 if gray else saturation, middle))


def _lose_resolution(image: np.ndarray, reduction: float) -> np.ndarray:
    height, width = image.shape[:2]
    small = (max(1, round(width / reduction)), max(1, round(height / reduction)))
    return cv2.resize(cv2.resize(image, small, interpolation=cv2.INTER_AREA), (width, height))


def _erase(image: np.ndarray, draws: np.ndarray, color: np.ndarray) -> np.ndarray:
    low, high = ERASED_SIDE
    height, width = image.shape[:2]
    tall = max(1, round(height * (low + draws[0] * (high - low))))
    wide = max(1, round(width * (low + draws[1] * (high - low))))
    top, left = int(draws[2] * (height - tall + 1)), int(draws[3] * (width - wide + 1))
    result = image.copy()
    result[top : top + tall, left : left + wide] = color
    return result
