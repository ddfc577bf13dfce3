"""Puts a synthetic photograph together: paints the face, turns it, lights it and sets it before a background."""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache

import cv2
import numpy as np

from facekd.data import synthetic_features as features
from facekd.data import synthetic_geometry as geometry
from facekd.data import synthetic_hair as hair
from facekd.data.synthetic_capture import Capture, Light
from facekd.data.synthetic_geometry import SIZE
from facekd.data.synthetic_identity import Identity
from facekd.data.synthetic_paint import CANVAS, Canvas

_GREY = np.array([0.299, 0.587, 0.114])
_MIDDLE = 118.0
_RELIEF_GAIN = np.float32(1.5)
"""Slopes are made steeper for shading alone: the relief itself is kept flat enough for pose to be invertible."""


def paint(who: Identity, capture: Capture) -> Canvas:
    """The face seen from the front under flat light, back to front.

    Args:
        who: The identity.
        capture: Expression and scene are used.

    Returns:
        A canvas with colours and classes.
    """
    canvas, look, scene = Canvas(), capture.expression, capture.scene
    hair.draw_back_hair(canvas, who, scene)
    features.draw_skin(canvas, who, look)
    hair.draw_beard(canvas, who, look)
    features.draw_mouth(canvas, who, look, scene.makeup)
    features.draw_nose(canvas, who)
    features.draw_eyes(canvas, who, look, scene.makeup)
    features.draw_brows(canvas, who, look)
    hair.draw_front_hair(canvas, who, scene)
    if scene.glasses or scene.occluder == "sunglasses":
        hair.draw_glasses(canvas, who, scene)
    hair.draw_occluder(canvas, who, scene)
    return canvas


def shade(height: np.ndarray, rotation: np.ndarray, light: Light) -> tuple[np.ndarray, np.ndarray]:
    """How much directional light the relief reflects, and how much of it glossily.

    Args:
        height: Relief map, (68, 68).
        rotation: 3x3, of the head; the light stays where it is.
        light: Direction is used.

    Returns:
        Lambert term with a soft terminator and Blinn gloss, each (68, 68) in 0..1.
    """
    across, down = geometry.slopes(height)
    x, y, z = (light.direction @ rotation).astype(np.float32)
    across, down = across * _RELIEF_GAIN, down * _RELIEF_GAIN
    length = np.sqrt(1.0 + across * across + down * down)
    lambert = (z - (x * across + y * down)) / length
    half = light.direction @ rotation + rotation[2]
    half = (half / np.linalg.norm(half)).astype(np.float32)
    gloss = np.maximum(0.0, (half[2] - (half[0] * across + half[1] * down)) / length)
    for _ in range(4):
        gloss *= gloss
    return np.maximum(0.0, 0.18 + 0.82 * lambert), gloss


@lru_cache(maxsize=1)
def _vignette() -> np.ndarray:
    line = np.linspace(-1.0, 1.0, SIZE, dtype=np.float32)
    return 1.0 - 0.06 * (line[:, None] ** 2 + line[None] ** 2)


@lru_cache(maxsize=1)
def _spread() -> np.ndarray:
    """The (112, 5) matrix that spreads five values along a line smoothly."""
    return cv2.resize(np.eye(5, dtype=np.float32), (5, SIZE), interpolation=cv2.INTER_CUBIC)


def _response(light: Light) -> np.ndarray:
    """White balance, exposure, saturation and contrast of the camera as one (3, 4) affine map of RGB."""
    mixing = light.saturation * np.eye(3) + (1.0 - light.saturation) * _GREY
    matrix = light.contrast * mixing * light.gain
    return np.column_stack([matrix, np.full(3, _MIDDLE * (1.0 - light.contrast))])


def _illumination(who: Identity, capture: Capture, height: np.ndarray, rotation: np.ndarray) -> np.ndarray:
    """Factor on red, green and blue, and gloss, over the face plane: (68, 68, 4) float32."""
    light = capture.light
    lambert, gloss = shade(height, rotation, light)
    tones = features.complexion(who, capture.scene.makeup)
    planes = [tone * (a + d * lambert) for tone, a, d in zip(tones, light.ambient, light.directional, strict=True)]
    return cv2.merge([*planes, gloss * np.float32(140.0 * who.skin.gloss)])


def _remap(source: np.ndarray, places: tuple[np.ndarray, np.ndarray], how: int) -> np.ndarray:
    return cv2.remap(source, *places, how, borderMode=cv2.BORDER_REPLICATE)


def photograph(who: Identity, capture: Capture) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """One face before the sensor: sharp, noiseless, on the 0..255 scale.

    Args:
        who: The identity.
        capture: The circumstances; its sensor is left out.

    Returns:
        RGB (112, 112, 3) float32 with black 0 and white 255 but not cut there, landmarks (5, 2) float32, and classes
        (112, 112) uint8.
    """
    look, light, scene = capture.expression, capture.light, capture.scene
    who = replace(who, hair_style=scene.hair_style, hair_rgb=scene.hair_rgb, beard=scene.beard)
    canvas, height, points = paint(who, capture), geometry.relief(who, look), features.landmarks(who, look)
    projection = geometry.project(height, points, capture.pose)
    cells = geometry.inverse_map(height, projection)
    on_canvas = (geometry.rescale_cells(cells[0], CANVAS), geometry.rescale_cells(cells[1], CANVAS))
    colour = cv2.split(_remap(canvas.pixels, on_canvas, cv2.INTER_LINEAR))
    labels = _remap(canvas.labels, on_canvas, cv2.INTER_NEAREST)
    lit = cv2.split(_remap(_illumination(who, capture, height, projection.rotation), cells, cv2.INTER_LINEAR))
    alpha = colour[3] * np.float32(1 / 255)
    gloss, clear, spread, planes = lit[3] * alpha, 1.0 - alpha, _spread(), []
    for c in range(3):
        behind = spread @ scene.background[..., c] @ spread.T
        planes.append((colour[c] * lit[c] + gloss * light.directional[c] + clear * behind) * _vignette())
    image = cv2.transform(cv2.merge(planes), _response(light))
    where = projection.points(points, geometry.height_at(height, points))
    return image, where.astype(np.float32), labels
