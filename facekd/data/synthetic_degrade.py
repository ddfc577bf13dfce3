"""The camera's losses on a synthetic face: blur, lost resolution, noise, JPEG."""

from __future__ import annotations

import math
from functools import lru_cache

import cv2
import numpy as np

from facekd.data.images import decode, encode_jpeg
from facekd.data.synthetic_capture import Sensor
from facekd.data.synthetic_identity import generator

_TILE = 512


@lru_cache(maxsize=1)
def _noise_tile() -> np.ndarray:
    """One fixed tile of unit normal noise; cut at random places it is far cheaper than fresh numbers.

    Drawn in double precision: freeing that larger array also stops glibc from handing the pages of every image back
    to the system and faulting them in again, a quarter of the time of a face in a process that allocates little else.
    """
    return generator(3).standard_normal((_TILE, _TILE, 3)).astype(np.float32)


def _noise(height: int, width: int, dice: np.ndarray) -> np.ndarray:
    """A (height, width, 3) cut of the tile, negated by chance; sides up to 512."""
    top, left = int(dice[0] * (_TILE - height)), int(dice[1] * (_TILE - width))
    cut = _noise_tile()[top : top + height, left : left + width]
    return cut if dice[2] < 0.5 else -cut


def degrade(image: np.ndarray, sensor: Sensor) -> np.ndarray:
    """Blur, shrink and enlarge, add noise, round, and store as JPEG and read back.

    Noise grows a little with brightness, as shot noise does; ``sensor.noise`` is its deviation at mid grey.

    Args:
        image: RGB (H, W, 3) float32, black 0 and white 255, sides at most 512.
        sensor: Strengths; ``blur`` 0, ``resolution`` H and ``noise`` 0 leave the pixels to the JPEG alone.

    Returns:
        RGB (H, W, 3) uint8.

    Example:
        >>> flat = np.full((112, 112, 3), 90, np.float32)
        >>> out = degrade(flat, Sensor(blur=2.0, resolution=56.0, noise=0.0, jpeg=95, dice=np.zeros(3)))
        >>> out.shape, int(out.min()), int(out.max())
        ((112, 112, 3), 90, 90)
    """
    height, width = image.shape[:2]
    if sensor.blur > 0.15:
        side = 2 * math.ceil(3.0 * sensor.blur) + 1
        image = cv2.GaussianBlur(image, (side, side), sensor.blur)
    if sensor.resolution < height:
        small = (max(1, round(width * sensor.resolution / height)), max(1, round(sensor.resolution)))
        image = cv2.resize(image, small, interpolation=cv2.INTER_AREA)
        image = cv2.resize(image, (width, height), interpolation=cv2.INTER_LINEAR)
    grain = image * np.float32(0.3 / 128 * sensor.noise) + np.float32(0.7 * sensor.noise)
    grain *= _noise(height, width, sensor.dice)
    pixels = cv2.add(image, grain, dtype=cv2.CV_8U)
    return decode(encode_jpeg(pixels, sensor.jpeg), "synthetic face")
