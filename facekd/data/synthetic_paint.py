"""A canvas over the face plane: anti-aliased colour with coverage, and a class for each pixel."""

from __future__ import annotations

from functools import lru_cache

import cv2
import numpy as np

from facekd.data.synthetic_geometry import ORIGIN, SPAN

CANVAS = 136
"""Side of the canvas in pixels, which covers the face plane of `synthetic_geometry`."""

PARSING = ("background", "skin", "brow", "eye", "nose", "mouth", "hair", "beard", "ear", "neck", "cloth", "glasses",
           "occluder")  # fmt: skip
"""Names of the parsing classes; a class is its place in this tuple."""
CLASS = {name: number for number, name in enumerate(PARSING)}

_SCALE = CANVAS / SPAN
_FINE = 4
_UNIT = _SCALE * (1 << _FINE)
_START = (-ORIGIN * _SCALE - 0.5) * (1 << _FINE) + 0.5
_TURN = np.linspace(0.0, 2 * np.pi, 20, endpoint=False)
CIRCLE = np.stack([np.cos(_TURN), np.sin(_TURN)], axis=1)


@lru_cache(maxsize=64)
def _spline(count: int, closed: bool, steps: int) -> np.ndarray:
    """The matrix that takes ``count`` points to a Catmull-Rom curve through them."""
    t = np.arange(steps)[:, None] / steps
    weights = 0.5 * np.hstack([-t + 2 * t**2 - t**3, 2 - 5 * t**2 + 3 * t**3, t + 4 * t**2 - 3 * t**3, -(t**2) + t**3])
    segments = count if closed else count - 1
    matrix = np.zeros((segments * steps + (not closed), count))
    for k in range(segments):
        for j in range(4):
            at = (k + j - 1) % count if closed else min(max(k + j - 1, 0), count - 1)
            matrix[k * steps : (k + 1) * steps, at] += weights[:, j]
    if not closed:
        matrix[-1, -1] = 1.0
    return matrix


def smooth(points: np.ndarray, closed: bool = True, steps: int = 5) -> np.ndarray:
    """A Catmull-Rom curve through points, ``steps`` positions a segment.

    Args:
        points: (n, 2), n >= 2.
        closed: Whether the last point is joined to the first.
        steps: Positions per segment.

    Returns:
        (n * steps, 2) when closed, ((n - 1) * steps + 1, 2) when open; the points themselves are among them.

    Example:
        >>> smooth(np.array([[0.0, 0.0], [1.0, 0.0], [2.0, 0.0]]), closed=False, steps=2)[:, 0].tolist()
        [0.0, 0.4375, 1.0, 1.5625, 2.0]
    """
    return _spline(len(points), closed, steps) @ points


def ellipse(x: float, y: float, width: float, height: float) -> np.ndarray:
    """(20, 2) points of an upright ellipse with half axes ``width`` and ``height``."""
    return CIRCLE * (width, height) + (x, y)


def pair(out: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Both sides of the face from distances to its midline: (2, n, 2), image left first.

    Example:
        >>> pair(np.array([10.0]), np.array([5.0])).tolist()
        [[[46.0, 5.0]], [[66.0, 5.0]]]
    """
    both = np.empty((2, len(out), 2))
    both[0, :, 0], both[1, :, 0], both[..., 1] = 56.0 - out, 56.0 + out, y
    return both


def mirror(points: np.ndarray) -> np.ndarray:
    """The points reflected at the face's midline, in reverse order so that halves join up."""
    return (points * (-1.0, 1.0) + (112.0, 0.0))[::-1]


def mix(one: np.ndarray, other: np.ndarray | tuple[float, float, float], share: float) -> np.ndarray:
    """``one`` moved by ``share`` (0..1) towards ``other``.

    Example:
        >>> mix(np.array([0.0, 0.0, 0.0]), (100.0, 50.0, 10.0), 0.1).tolist()
        [10.0, 5.0, 1.0]
    """
    return one + share * (np.asarray(other) - one)


class Canvas:
    """Pixels with coverage (RGBA, colour already multiplied by alpha) and a class map, drawn to by face coordinates."""

    def __init__(self) -> None:
        self.pixels = np.zeros((CANVAS, CANVAS, 4), np.uint8)
        self.labels = np.zeros((CANVAS, CANVAS), np.uint8)

    def fill(self, points: np.ndarray, rgb: np.ndarray, label: str | None = None) -> None:
        """Fill a polygon (n, 2), or disjoint ones (k, n, 2), with a colour, and with a class unless that is None."""
        fixed = _fixed(points)
        cv2.fillPoly(self.pixels, fixed, _colour(rgb), cv2.LINE_AA, _FINE)
        if label is not None:
            cv2.fillPoly(self.labels, fixed, CLASS[label], cv2.LINE_8, _FINE)

    def stroke(self, points: np.ndarray, rgb: np.ndarray, width: float, label: str | None = None) -> None:
        """Draw an open line (n, 2), or several (k, n, 2), ``width`` pixels of the crop wide."""
        fixed, thick = _fixed(points), max(1, round(width * _SCALE))
        cv2.polylines(self.pixels, fixed, False, _colour(rgb), thick, cv2.LINE_AA, _FINE)
        if label is not None:
            cv2.polylines(self.labels, fixed, False, CLASS[label], thick, cv2.LINE_8, _FINE)

    def dots(self, places: np.ndarray, rgb: np.ndarray) -> None:
        """Draw small discs of one colour, each x, y, radius in (n, 3); classes stay."""
        if len(places):
            rims = places[:, None, :2] + places[:, None, 2:] * CIRCLE[None, ::4]
            cv2.fillPoly(self.pixels, _fixed(rims), _colour(rgb), cv2.LINE_AA, _FINE)

    def mark(self, points: np.ndarray, label: str) -> None:
        """Give a polygon a class; its colours stay."""
        cv2.fillPoly(self.labels, _fixed(points), CLASS[label], cv2.LINE_8, _FINE)


def _fixed(points: np.ndarray) -> list[np.ndarray]:
    """Lines on the canvas with four fractional bits, as OpenCV's drawing functions take them."""
    fixed = (points * _UNIT + _START).astype(np.int32)
    return list(fixed) if fixed.ndim == 3 else [fixed]


def _colour(rgb: np.ndarray) -> tuple[float, ...]:
    """An opaque OpenCV colour; values outside 0..255 are cut by OpenCV."""
    return (*rgb.tolist(), 255.0)
