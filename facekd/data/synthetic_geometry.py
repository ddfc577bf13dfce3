"""The shape of a synthetic head: its relief, how pose moves it, and where it lands in the crop.

Face coordinates are template pixels: x to the image right, y down, z towards the camera, with (56, 72, 0) the
pivot. A frontal neutral face lies in the crop as it lies in face coordinates. As in a real pipeline, the turned face
is brought back to the ArcFace template by the similarity that best fits its five landmarks.
"""

from __future__ import annotations

import cmath
import math
from dataclasses import dataclass
from functools import lru_cache

import cv2
import numpy as np

from facekd.data.align import best_similarity
from facekd.data.synthetic_capture import Expression, Pose
from facekd.data.synthetic_identity import Identity

SIZE = 112
TEMPLATE = np.array([[38.29, 51.70], [73.53, 51.50], [56.03, 71.74], [41.55, 92.37], [70.73, 92.20]])
PIVOT = np.array([56.0, 72.0])
ORIGIN = -12.0
SPAN = 136.0
RELIEF = 68
"""Side of the relief map, which covers [ORIGIN, ORIGIN + SPAN) of the face plane on both axes."""

_STEP = SPAN / RELIEF
_GRID = ORIGIN + _STEP * (np.arange(RELIEF, dtype=np.float32) + 0.5)
_COARSE = 44


@lru_cache(maxsize=1)
def _skull() -> np.ndarray:
    """The smooth head without features: a hyperboloid, so no slope exceeds 0.9 and pose never folds it."""
    x, y = _GRID - PIVOT[0], _GRID - PIVOT[1] + 6.0
    across = -0.95 * (np.sqrt(x * x + 34.0**2) - 34.0)
    down = -0.6 * (np.sqrt(y * y + 42.0**2) - 42.0)
    return (down[:, None] + across[None, :]).astype(np.float32)


def bumps(rows: np.ndarray) -> np.ndarray:
    """A sum of axis-aligned Gaussians on the relief grid.

    Args:
        rows: (n, 5): x, y, width, height (standard deviations in pixels) and peak value.

    Returns:
        (68, 68) float32.

    Example:
        >>> field = bumps(np.array([[57.0, 73.0, 5.0, 5.0, 2.0]]))
        >>> field.shape, float(field.max())
        ((68, 68), 2.0)
    """
    rows = rows.astype(np.float32)
    across = np.exp(-0.5 * ((_GRID[None] - rows[:, :1]) / rows[:, 2:3]) ** 2)
    down = np.exp(-0.5 * ((_GRID[None] - rows[:, 1:2]) / rows[:, 3:4]) ** 2)
    return (down * rows[:, 4:]).T @ across


def relief(who: Identity, look: Expression) -> np.ndarray:
    """Height of the face towards the camera, in pixels.

    Args:
        who: Sets nose, brow ridge, sockets, cheekbones, lips and chin.
        look: A smile lifts the cheeks.

    Returns:
        (68, 68) float32 on the relief grid.
    """
    head, eyes, nose, mouth = who.head, who.eyes, who.nose, who.mouth
    tip, smile = nose.tip_y, max(0.0, look.smile)
    ridge_x, cheek_y = eyes.spacing - 2.0, head.cheek_y + 6.0
    rows = [(56.0, tip - 1.0, nose.tip_size, 5.4, nose.tip_depth),
            (56.0, tip - 9.0, nose.bridge, 7.0, nose.bridge_depth + 0.35 * nose.hump),
            (56.0, tip - 19.0, nose.bridge + 0.6, 6.0, 0.6 * nose.bridge_depth),
            (56.0, mouth.y - 1.0, 9.0, 5.0, 2.6),
            (56.0, mouth.y + mouth.lower + 4.5, 8.0, 2.2, -1.4),
            (56.0, head.chin_y - 7.0, 8.0, 5.0, head.chin_depth),
            (56.0, 30.0, 26.0, 12.0, 2.0)]  # fmt: skip
    for side in (-1.0, 1.0):
        rows += [(56 + side * eyes.spacing, eyes.y + 0.5, 8.0, 4.6, -eyes.socket),
                 (56 + side * eyes.spacing, eyes.y, 6.0, 3.4, 0.55 * eyes.socket),
                 (56 + side * ridge_x, eyes.y - 8.5, 9.0, 3.0, head.brow_ridge),
                 (56 + side * 0.62 * nose.width, tip + 0.8, 3.0, 3.0, nose.wing),
                 (56 + side * 25.0, cheek_y, 8.5, 7.0, head.cheekbone + 2.2 * smile)]  # fmt: skip
    return _skull() + bumps(np.array(rows))


def slopes(height: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Derivative of a relief along x and y, pixels per pixel, by Sobel differences."""
    scale = 1.0 / (8.0 * _STEP)
    return cv2.Sobel(height, cv2.CV_32F, 1, 0, scale=scale), cv2.Sobel(height, cv2.CV_32F, 0, 1, scale=scale)


def height_at(height: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Relief under each of (n, 2) face points, interpolated; the rim is continued outwards.

    Example:
        >>> height_at(np.full((68, 68), 3.0, np.float32), np.array([[56.0, 72.0], [-99.0, 0.0]])).tolist()
        [3.0, 3.0]
    """
    cells = ((points - (ORIGIN + 0.5 * _STEP)) / _STEP).astype(np.float32)
    return _remap(height, cells[:, :1], cells[:, 1:])[:, 0]


@dataclass(frozen=True)
class Projection:
    """Face to crop: ``crop = plane @ (x, y) + depth * z + shift`` with (x, y) relative to the pivot."""

    plane: np.ndarray
    depth: np.ndarray
    shift: np.ndarray
    rotation: np.ndarray

    def points(self, points: np.ndarray, z: np.ndarray) -> np.ndarray:
        """Crop position of (n, 2) face points at height (n,)."""
        return (points - PIVOT) @ self.plane.T + z[:, None] * self.depth + self.shift


def _rotation(pose: Pose) -> np.ndarray:
    yaw, pitch = math.radians(pose.yaw), math.radians(pose.pitch)
    right, far, down, up = math.cos(yaw), math.sin(yaw), math.cos(pitch), math.sin(pitch)
    return np.array([[right, 0.0, far], [-up * far, down, up * right], [-down * far, -up, down * right]])


def project(height: np.ndarray, landmarks: np.ndarray, pose: Pose) -> Projection:
    """Turn the head, then align it to the template by its landmarks, then misplace the crop.

    Args:
        height: Relief map, (68, 68).
        landmarks: (5, 2) face points in the template's order.
        pose: Positive yaw turns the nose to the image right, positive pitch turns it down, positive roll is
            clockwise in the image and stays after alignment.

    Returns:
        The map from the face to the 112x112 crop.
    """
    rotation = _rotation(pose)
    z = height_at(height, landmarks)
    turned = (landmarks - PIVOT) @ rotation[:2, :2].T + z[:, None] * rotation[:2, 2]
    a, b = best_similarity(turned, TEMPLATE)
    extra = cmath.rect(pose.zoom, math.radians(pose.roll))
    centre = complex(*PIVOT)
    a, b = a * extra, (b - centre) * extra + centre + complex(*pose.shift)
    matrix = np.array([[a.real, -a.imag], [a.imag, a.real]])
    return Projection(matrix @ rotation[:2, :2], matrix @ rotation[:2, 2], np.array([b.real, b.imag]), rotation)


def _remap(height: np.ndarray, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    return cv2.remap(height, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)


def inverse_map(height: np.ndarray, projection: Projection) -> tuple[np.ndarray, np.ndarray]:
    """What each crop pixel sees of the face: the projection inverted by fixed-point steps on the relief.

    Args:
        height: Relief map, (68, 68).
        projection: Of this relief.

    Returns:
        Places x and y in cells of the relief map, each (112, 112) float32.
    """
    inverse = np.linalg.inv(projection.plane)
    start = (PIVOT - inverse @ projection.shift - (ORIGIN + 0.5 * _STEP)) / _STEP
    per_pixel, slide = inverse / _STEP, inverse @ projection.depth / _STEP
    line = (np.arange(_COARSE) + 0.5) * (SIZE / _COARSE) - 0.5
    flat_x, flat_y = (
        (k[0] * line + (k[1] * line + s)[:, None]).astype(np.float32) for k, s in zip(per_pixel, start, strict=True)
    )
    slide_x, slide_y = (np.float32(s) for s in slide)
    x, y = flat_x, flat_y
    for _ in range(5):
        z = _remap(height, x, y)
        x, y = flat_x - z * slide_x, flat_y - z * slide_y
    full = (SIZE, SIZE)
    return cv2.resize(x, full, interpolation=cv2.INTER_LINEAR), cv2.resize(y, full, interpolation=cv2.INTER_LINEAR)


def rescale_cells(cells: np.ndarray, side: int) -> np.ndarray:
    """Places in the relief map as places in a map of ``side`` cells over the same square.

    Example:
        >>> rescale_cells(np.array([-0.5, 0.5]), 136).tolist()
        [-0.5, 1.5]
    """
    ratio = side / RELIEF
    return cells * ratio + (0.5 * ratio - 0.5)
