"""Bringing faces onto the ArcFace template: five landmarks, one similarity, one bilinear warp.

Landmarks are in image order, so "left" is the left of the picture: left eye, right eye, nose, left and right mouth
corner. Coordinates are pixels with the middle of the first pixel at (0, 0), x to the right and y down.
"""

from __future__ import annotations

import cv2
import numpy as np

from facekd.errors import DataError, InputError, UsageError

POINTS = ("left_eye", "right_eye", "nose", "mouth_left", "mouth_right")
TEMPLATE = np.array(
    [[38.2946, 51.6963], [73.5318, 51.5014], [56.0252, 71.7366], [41.5493, 92.3655], [70.7299, 92.2041]]
)
"""Where `POINTS` lie in a 112x112 crop (Deng et al., "ArcFace", CVPR 2019, arXiv 1801.07698); read only."""
TEMPLATE.flags.writeable = False

ALIGNER_VERSION = 1
"""Changes whenever the same image and landmarks give another crop."""

OPENCV_VERSION = cv2.__version__
MAX_SIZE = 1024
MOST_SIDE = 32766
LEAST_LIKENESS = 0.5
FAR_OUTSIDE = 0.25
"""How far beyond the border a landmark may lie, as a share of the longer side of the image."""

_EYES, _NOSE, _MOUTH = (slice(36, 42), slice(42, 48)), 30, (48, 54)


def template(size: int) -> np.ndarray:
    """The template of square crops of ``size`` pixels.

    Multiples of 112 scale the 112x112 template; other multiples of 128 scale it by size/128 and move it right by
    8 * size/128, which is InsightFace's convention.

    Returns:
        float64 (5, 2).

    Raises:
        UsageError: Another size, or one over 1024.

    Example:
        >>> template(224)[0].round(4).tolist(), template(128)[0].round(4).tolist()
        ([76.5892, 103.3926], [46.2946, 51.6963])
    """
    if not 1 <= size <= MAX_SIZE or (size % 112 and size % 128):
        raise UsageError("size", f"there is no template of {size} pixels", f"multiples of 112 or 128, up to {MAX_SIZE}")
    if size % 112 == 0:
        return TEMPLATE * (size / 112)
    return (TEMPLATE + (8.0, 0.0)) * (size / 128)


def size_doubt(height: int, width: int) -> str | None:
    """Why images of this size are hardly aligned faces, or None: those are square and of a size with a template.

    Example:
        >>> size_doubt(112, 112), size_doubt(256, 256)
        (None, None)
        >>> size_doubt(250, 250)
        'the images are 250x250 pixels, no size of aligned faces; facekd data align lays faces onto the template'
    """
    if _cut(height, width) is not None:
        return None
    fix = "facekd data align lays faces onto the template"
    return f"the images are {width}x{height} pixels, no size of aligned faces; {fix}"


def fits(height: int, width: int, size: tuple[int, int]) -> bool:
    """Whether an image shows the cut of a face that a model takes, at its size or another.

    Args:
        height: Of the image.
        width: Of the image.
        size: (height, width) the model takes; one without a template may be of any cut.

    Example:
        >>> fits(112, 112, (112, 112)), fits(224, 224, (112, 112)), fits(112, 112, (64, 64))
        (True, True, True)
        >>> fits(250, 250, (112, 112)), fits(128, 128, (112, 112)), fits(250, 250, (250, 250))
        (False, False, True)
    """
    if (height, width) == size:
        return True
    cut, wanted = _cut(height, width), _cut(*size)
    return cut is not None and wanted in (None, cut)


def _cut(height: int, width: int) -> int | None:
    """The side of the template that images of this size have, 112 or 128."""
    square = height == width <= MAX_SIZE
    return next((side for side in (112, 128) if square and width % side == 0), None)


def likeness(landmarks: np.ndarray) -> float:
    """How well a similarity can lay landmarks onto the template: 1 perfectly, 0 not at all.

    The absolute correlation of the two shapes as complex numbers; turning, scaling and moving do not change it. A full
    profile keeps 0.78; a face whose left and right were swapped has 0.23.

    Args:
        landmarks: (5, 2), not all equal.

    Example:
        >>> round(likeness(3.0 * TEMPLATE[:, ::-1] * (1, -1) + 5), 6), round(likeness(TEMPLATE * (-1, 1)), 2)
        (1.0, 0.23)
    """
    points, target = ((shape - shape.mean(axis=0)) @ (1, 1j) for shape in (np.asarray(landmarks, float), TEMPLATE))
    return float(abs(np.vdot(points, target)) / np.sqrt(np.vdot(points, points).real * np.vdot(target, target).real))


def landmark_problem(landmarks: np.ndarray, height: int, width: int) -> str | None:
    """Why five landmarks cannot be those of a face in an image of this size, or None.

    Args:
        landmarks: (5, 2).
        height: Of the image, in pixels.
        width: Of the image, in pixels.

    Example:
        >>> landmark_problem(TEMPLATE, 112, 112), landmark_problem(TEMPLATE + 500, 112, 112)
        (None, 'point 1, (538.3, 551.7), is far outside the image of 112x112 pixels')
        >>> landmark_problem(np.full((5, 2), 9.0), 112, 112)
        'all landmarks lie within one pixel'
    """
    landmarks = np.asarray(landmarks, np.float64)
    if landmarks.shape != (5, 2) or not np.isfinite(landmarks).all():
        return "the landmarks are not five finite points"
    slack = FAR_OUTSIDE * max(height, width)
    inside = (landmarks >= -slack) & (landmarks <= np.array([width, height]) - 1 + slack)
    if not inside.all():
        first = int(np.flatnonzero(~inside.all(axis=1))[0])
        x, y = landmarks[first]
        return f"point {first + 1}, ({x:.1f}, {y:.1f}), is far outside the image of {width}x{height} pixels"
    if np.ptp(landmarks, axis=0).max() < 1.0:
        return "all landmarks lie within one pixel"
    if likeness(landmarks) < LEAST_LIKENESS:
        return "the points do not lie like a face: is their order left eye, right eye, nose, left and right of mouth?"
    return None


def five_points(points: np.ndarray) -> np.ndarray:
    """Five landmarks of five or 68 (iBUG order): eyes are the means of their six points, the nose its tip.

    Args:
        points: (5, 2) or (68, 2).

    Returns:
        float64 (5, 2).

    Raises:
        InputError: Another number of points.

    Example:
        >>> line = np.stack([np.arange(68.0), np.zeros(68)], axis=1)
        >>> five_points(line)[:, 0].tolist()
        [38.5, 44.5, 30.0, 48.0, 54.0]
    """
    points = np.asarray(points, np.float64)
    if points.shape == (5, 2):
        return points
    if points.shape != (68, 2):
        raise InputError("landmarks", f"{len(points)} points", "give 5 or 68")
    eyes = [points[eye].mean(axis=0) for eye in _EYES]
    return np.stack([*eyes, points[_NOSE], *points[list(_MOUTH)]])


def best_similarity(source: np.ndarray, target: np.ndarray) -> tuple[complex, complex]:
    """The similarity (no mirror) that maps ``source`` nearest to ``target`` in least squares.

    Points are complex numbers, so the map is ``z -> a z + b`` with closed form a = <s, t> / <s, s> about the means.

    Args:
        source: (n, 2) points, not all equal.
        target: (n, 2) points.

    Returns:
        a (rotation and scale) and b (shift).

    Example:
        >>> square = np.array([[0.0, 0.0], [2.0, 0.0], [2.0, 2.0], [0.0, 2.0]])
        >>> best_similarity(square, 2.0 * square + 1.0)
        ((2+0j), (1+1j))
    """
    s, t = (np.ascontiguousarray(points, np.float64).view(np.complex128)[:, 0] for points in (source, target))
    s_mean, t_mean = complex(s.sum()) / len(s), complex(t.sum()) / len(t)
    centred = s - s_mean
    a = complex(np.vdot(centred, t - t_mean)) / float(np.vdot(centred, centred).real)
    return a, t_mean - a * s_mean


def similarity(landmarks: np.ndarray, size: int = 112) -> np.ndarray:
    """The similarity, without mirroring, that lays landmarks nearest to the template in least squares.

    Args:
        landmarks: (5, 2) in pixels of the image.
        size: Side of the crop.

    Returns:
        float64 (2, 3): crop = matrix[:, :2] @ image point + matrix[:, 2].

    Raises:
        InputError: The landmarks are all equal or not finite.
        UsageError: There is no template of this size.

    Example:
        >>> np.abs(similarity(2.0 * TEMPLATE + 10.0)).round(6).tolist()
        [[0.5, 0.0, 5.0], [0.0, 0.5, 5.0]]
    """
    target = template(size)
    landmarks = np.asarray(landmarks, np.float64)
    if not np.isfinite(landmarks).all() or not np.ptp(landmarks, axis=0).max() > 0:
        raise InputError("landmarks", "are all one point or not finite", "five points of a face are needed")
    a, b = best_similarity(landmarks, target)
    return np.array([[a.real, -a.imag, b.real], [a.imag, a.real, b.imag]])


def warp(image: np.ndarray, landmarks: np.ndarray, size: int = 112) -> np.ndarray:
    """The aligned crop of a face: bilinear, black where the image ends.

    Args:
        image: uint8 (height, width, 3).
        landmarks: (5, 2) in pixels of the image.
        size: Side of the crop.

    Returns:
        uint8 (size, size, 3).

    Raises:
        DataError: The image is wider or higher than OpenCV can warp.
        InputError: The landmarks are all equal or not finite.
        UsageError: There is no template of this size.

    Example:
        >>> image = np.arange(112 * 112 * 3, dtype=np.uint8).reshape(112, 112, 3)
        >>> np.array_equal(warp(image, TEMPLATE), image)
        True
    """
    return warp_affine(image, similarity(landmarks, size), size)


def warp_affine(image: np.ndarray, matrix: np.ndarray, size: int, border: int = cv2.BORDER_CONSTANT) -> np.ndarray:
    """A square of ``size`` pixels, bilinear: its point p shows the image's point q where p = matrix applied to q.

    Args:
        image: uint8 (height, width, 3).
        matrix: (2, 3).
        size: Side of the square.
        border: OpenCV's name of what lies outside the image; black unless told.

    Raises:
        DataError: The image is wider or higher than OpenCV can warp.
    """
    if max(image.shape[:2]) > MOST_SIDE:
        raise DataError("image", f"{image.shape[1]}x{image.shape[0]} pixels cannot be warped", f"at most {MOST_SIDE}")
    return cv2.warpAffine(image, matrix, (size, size), flags=cv2.INTER_LINEAR, borderMode=border)
