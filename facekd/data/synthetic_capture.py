"""How a synthetic face was photographed: the nuisance of one sample.

`NUISANCE` is the one place that sets how hard the data are.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from facekd.data.synthetic_identity import HAIR_RAMP, HAIR_STYLES, Identity, generator, ramp

OCCLUDERS = ("none", "mask", "hand", "bar", "cap", "sunglasses")


@dataclass(frozen=True)
class Nuisance:
    """Strength of everything that changes between two photographs of one person.

    Angles are standard deviations in degrees, ``*_limit`` their cut; ``jitter`` is the standard deviation of the
    crop's misplacement in pixels; ``directional`` is the largest share of directed light; ``white_balance``,
    ``exposure`` and ``contrast`` are log-scale spreads; ``blur`` and ``noise`` are the scales of exponential laws
    (pixels, grey levels). ``restyle_odds``, ``shave_odds`` and ``dye_odds`` are how often hair style, beard and hair
    colour are not the usual ones.
    """

    yaw: float = 16.0
    yaw_limit: float = 35.0
    pitch: float = 8.0
    pitch_limit: float = 20.0
    roll: float = 4.0
    roll_limit: float = 12.0
    jitter: float = 1.0
    zoom: float = 0.03
    expression: float = 1.0
    directional: float = 0.75
    white_balance: float = 0.12
    exposure: float = 0.2
    contrast: float = 0.2
    restyle_odds: float = 0.3
    shave_odds: float = 0.3
    dye_odds: float = 0.12
    occluder_odds: float = 0.14
    blur: float = 0.6
    blur_limit: float = 3.0
    low_resolution_odds: float = 0.35
    lowest_resolution: float = 24.0
    noise: float = 5.0
    noise_limit: float = 24.0
    jpeg_lowest: int = 25


NUISANCE = Nuisance()


@dataclass(frozen=True)
class Pose:
    """Angles in degrees and the misplacement of the crop."""

    yaw: float
    pitch: float
    roll: float
    shift: tuple[float, float]
    zoom: float


@dataclass(frozen=True)
class Expression:
    """What the face is doing, each about -1..1 with 0 at rest."""

    smile: float
    open_mouth: float
    brow_raise: float
    eye_open: float
    gaze: tuple[float, float]
    frown: float


@dataclass(frozen=True)
class Light:
    """Direction (towards the light, unit), ambient and directional RGB, and the camera's response."""

    direction: np.ndarray
    ambient: np.ndarray
    directional: np.ndarray
    gain: np.ndarray
    contrast: float
    saturation: float


@dataclass(frozen=True)
class Scene:
    """What is around and on the face in this sample."""

    background: np.ndarray
    cloth: np.ndarray
    hair_style: str
    hair_rgb: np.ndarray
    beard: str
    glasses: bool
    occluder: str
    dice: np.ndarray
    hair_change: np.ndarray
    makeup: float


@dataclass(frozen=True)
class Sensor:
    """Loss in the camera: Gaussian sigma in pixels, effective side in pixels, noise in grey levels, JPEG quality."""

    blur: float
    resolution: float
    noise: float
    jpeg: int
    dice: np.ndarray


@dataclass(frozen=True)
class Capture:
    """One photograph."""

    pose: Pose
    expression: Expression
    light: Light
    scene: Scene
    sensor: Sensor


def _clip(value: float, limit: float) -> float:
    return min(max(value, -limit), limit)


def _pose(normal: list[float], n: Nuisance) -> Pose:
    return Pose(
        yaw=_clip(n.yaw * normal[0], n.yaw_limit),
        pitch=_clip(n.pitch * normal[1], n.pitch_limit),
        roll=_clip(n.roll * normal[2], n.roll_limit),
        shift=(_clip(n.jitter * normal[3], 3 * n.jitter), _clip(n.jitter * normal[4], 3 * n.jitter)),
        zoom=1.0 + _clip(n.zoom * normal[5], 3 * n.zoom),
    )


def _expression(normal: list[float], dice: list[float], n: Nuisance) -> Expression:
    strength = n.expression
    return Expression(
        smile=_clip(strength * (0.25 + 0.5 * normal[0]), 1.0),
        open_mouth=max(0.0, strength * (dice[0] - 0.55) / 0.45) * dice[1],
        brow_raise=_clip(strength * 0.5 * normal[1], 1.2),
        eye_open=_clip(strength * (0.35 * normal[2] - (1.0 if dice[2] < 0.04 else 0.0)), 1.0),
        gaze=(_clip(0.6 * normal[3], 1.2), _clip(0.35 * normal[4], 0.8)),
        frown=max(0.0, strength * 0.45 * normal[5]),
    )


def _light(normal: list[float], dice: list[float], n: Nuisance) -> Light:
    azimuth, elevation = 1.1 * _clip(normal[0], 1.6), 0.45 + 0.4 * _clip(normal[1], 2.0)
    level = math.cos(elevation)
    share = n.directional * (0.25 + 0.75 * dice[0])
    warm, green = normal[2] * n.white_balance, 0.3 * normal[3] * n.white_balance
    exposure = math.exp(_clip(n.exposure * normal[5], 2.2 * n.exposure))
    own = math.exp(0.6 * n.white_balance * normal[4])
    return Light(
        direction=np.array([math.sin(azimuth) * level, -math.sin(elevation), math.cos(azimuth) * level]),
        ambient=np.array([1.0 / own, 1.0, own], np.float32) * np.float32(1.0 - 0.8 * share),
        directional=np.array([own, 1.0, 1.0 / own], np.float32) * np.float32(1.1 * share),
        gain=exposure * np.array([math.exp(warm), math.exp(green), math.exp(green - warm)]),
        contrast=math.exp(_clip(n.contrast * normal[6], 2 * n.contrast)),
        saturation=0.55 + 0.75 * dice[1] if dice[2] > 0.05 else 0.0,
    )


def _scene(normal: np.ndarray, dice: np.ndarray, who: Identity, n: Nuisance) -> Scene:
    """Of 111 normal and 24 uniform numbers."""
    covered, cover, spectacles, makeup, level, style, beard, dye, colour = dice[:9].tolist()
    occluder = OCCLUDERS[1 + int(cover * (len(OCCLUDERS) - 1))] if covered < n.occluder_odds else "none"
    pattern = normal[11:].reshape(5, 5, 4)
    background = 0.15 + 0.7 * level + 0.12 * normal[8:11] + 0.16 * pattern[..., :1] + 0.09 * pattern[..., 1:]
    restyled = HAIR_STYLES[int(style / n.restyle_odds * len(HAIR_STYLES))] if style < n.restyle_odds else None
    return Scene(
        background=255 * np.minimum(np.maximum(background, 0.02), 0.98).astype(np.float32),
        cloth=20 + 215 * dice[9:12],
        hair_style=restyled or who.hair_style,
        hair_rgb=ramp(HAIR_RAMP, colour) if dye < n.dye_odds else who.hair_rgb,
        beard="none" if beard < n.shave_odds else who.beard,
        glasses=spectacles < who.glasses_odds and occluder != "sunglasses",
        occluder=occluder,
        dice=dice[12:],
        hair_change=normal[:8],
        makeup=max(0.0, makeup - 0.6) if who.beard == "none" else 0.0,
    )


def _sensor(dice: list[float], n: Nuisance) -> Sensor:
    blur = min(-n.blur * math.log1p(-dice[0]), n.blur_limit)
    lost = dice[1] < n.low_resolution_odds
    resolution = n.lowest_resolution + (112.0 - n.lowest_resolution) * dice[2] if lost else 112.0
    return Sensor(
        blur=blur,
        resolution=float(round(resolution)),
        noise=min(-n.noise * math.log1p(-dice[3]), n.noise_limit),
        jpeg=int(n.jpeg_lowest + (96 - n.jpeg_lowest) * dice[4] ** 0.6),
        dice=np.array(dice[5:]),
    )


def draw_capture(who: Identity, seed: int, identity: int, sample: int) -> Capture:
    """The circumstances of one photograph, the same in any process.

    Args:
        who: The identity's latent; only its habits (glasses, beard) are looked at.
        seed: Names the population.
        identity: Names the person.
        sample: Names the photograph, 0 or more.

    Returns:
        Pose, expression, light, scene and sensor.

    Example:
        >>> from facekd.data.synthetic_identity import draw_identity
        >>> a, b = (draw_capture(draw_identity(0, 3), 0, 3, 7) for _ in range(2))
        >>> a.pose == b.pose
        True
    """
    rng = generator(2, seed, identity, sample)
    normals, dices = rng.standard_normal(130), rng.random(38)
    normal, dice = normals[:19].tolist(), dices[:14].tolist()
    return Capture(
        pose=_pose(normal[:6], NUISANCE),
        expression=_expression(normal[6:12], dice[:3], NUISANCE),
        light=_light(normal[12:19], dice[3:6], NUISANCE),
        scene=_scene(normals[19:], dices[14:], who, NUISANCE),
        sensor=_sensor(dice[6:14], NUISANCE),
    )
