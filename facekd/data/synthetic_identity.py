"""Who a synthetic face is: the latent that every sample of one identity shares.

Each group below is a set of shape or colour parameters in template pixels (the 112x112 ArcFace crop) or in 0..1,
with the range it is drawn from. The groups are drawn in a fixed order from one counter-based generator seeded with
``[seed, identity]`` and a tag (SeedSequence pads with zeros, so bare ``[s, i]`` and ``[s, i, 0]`` would coincide);
any identity can be made alone and always comes out the same.
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from functools import lru_cache
from typing import Any, TypeVar

import numpy as np

HAIR_STYLES = ("bald", "buzz", "short", "side", "fringe", "long", "wavy", "afro", "receding")
BEARDS = ("none", "stubble", "moustache", "goatee", "full")

_SKIN_RAMP = np.array([[246, 214, 196], [229, 184, 156], [204, 154, 121], [164, 114, 82], [118, 78, 56], [80, 53, 42]])
HAIR_RAMP = np.array([[22, 19, 20], [46, 33, 28], [82, 55, 38], [122, 84, 54], [168, 128, 82], [206, 172, 118]])
_IRIS_RAMP = np.array([[44, 28, 20], [78, 50, 30], [112, 82, 46], [98, 108, 72], [92, 122, 134], [112, 146, 176]])
_STYLE_ODDS = np.cumsum([0.07, 0.11, 0.2, 0.15, 0.1, 0.13, 0.09, 0.07])
_BEARD_ODDS = np.cumsum([0.45, 0.2, 0.1, 0.1])

Group = TypeVar("Group")


def _in(low: float, high: float) -> Any:
    return field(metadata={"range": (low, high)})


@dataclass(frozen=True)
class Head:
    """Outline of the face: half widths and heights in pixels."""

    cheek: float = _in(38.5, 46.0)
    cheek_y: float = _in(56.0, 68.0)
    temple: float = _in(-4.0, 2.0)
    jaw: float = _in(27.0, 38.0)
    jaw_y: float = _in(90.0, 98.0)
    chin: float = _in(7.0, 17.0)
    chin_y: float = _in(109.0, 118.0)
    asymmetry: float = _in(-1.2, 1.2)
    cheekbone: float = _in(0.0, 4.5)
    chin_depth: float = _in(0.5, 5.0)
    brow_ridge: float = _in(0.0, 3.0)
    ear: float = _in(2.5, 6.5)
    ear_y: float = _in(55.0, 63.0)


@dataclass(frozen=True)
class Eyes:
    """Both eyes; ``spacing`` is half the distance between their centres."""

    spacing: float = _in(15.9, 19.3)
    y: float = _in(49.9, 53.3)
    width: float = _in(7.0, 9.8)
    opening: float = _in(2.5, 4.7)
    lower: float = _in(1.6, 2.9)
    tilt: float = _in(-1.8, 1.9)
    peak: float = _in(-0.3, 0.3)
    iris: float = _in(3.1, 4.2)
    crease: float = _in(0.8, 3.8)
    lashes: float = _in(0.3, 1.0)
    bags: float = _in(0.0, 1.0)
    socket: float = _in(1.0, 4.5)


@dataclass(frozen=True)
class Brows:
    """Eyebrows, placed above the eye centre."""

    height: float = _in(7.5, 12.5)
    thickness: float = _in(1.1, 3.8)
    arch: float = _in(-0.6, 3.4)
    tilt: float = _in(-2.2, 2.2)
    length: float = _in(9.5, 13.0)
    shift: float = _in(-2.2, 2.0)
    taper: float = _in(0.25, 0.9)
    density: float = _in(0.45, 0.95)


@dataclass(frozen=True)
class Nose:
    """Nose: widths and heights in pixels, ``*_depth`` towards the camera."""

    tip_y: float = _in(68.6, 74.8)
    width: float = _in(6.4, 11.2)
    bridge: float = _in(3.2, 5.4)
    bridge_depth: float = _in(2.0, 5.5)
    tip_depth: float = _in(5.0, 9.5)
    tip_size: float = _in(4.6, 6.8)
    hump: float = _in(-1.8, 3.0)
    nostril: float = _in(0.6, 1.5)
    wing: float = _in(0.8, 3.0)
    base: float = _in(3.4, 6.6)


@dataclass(frozen=True)
class Mouth:
    """Lips at rest; ``width`` is half the distance between the corners."""

    width: float = _in(12.0, 17.4)
    y: float = _in(89.8, 95.0)
    upper: float = _in(1.3, 4.6)
    lower: float = _in(2.3, 6.2)
    bow: float = _in(0.0, 2.0)
    corners: float = _in(-1.9, 0.9)
    colour: float = _in(0.1, 0.9)
    philtrum: float = _in(0.0, 1.0)


@dataclass(frozen=True)
class Skin:
    """Skin colour position on the ramp, its hue, age and surface."""

    tone: float = _in(0.0, 1.0)
    redness: float = _in(-1.0, 1.0)
    age: float = _in(-0.3, 1.0)
    freckles: float = _in(-1.6, 1.0)
    gloss: float = _in(0.05, 0.4)
    blush: float = _in(0.0, 1.0)
    mottle: float = _in(0.25, 1.0)


@dataclass(frozen=True)
class Hair:
    """Hair; ``shade`` runs along the ramp from black to blond and couples to the skin tone."""

    shade: float = _in(0.0, 1.0)
    grey: float = _in(-1.4, 0.9)
    red: float = _in(-0.6, 0.6)
    line: float = _in(4.0, 20.0)
    peak: float = _in(-3.5, 4.0)
    side: float = _in(-1.0, 1.0)
    volume: float = _in(0.0, 1.0)
    length: float = _in(0.0, 1.0)


@dataclass(frozen=True)
class Identity:
    """Everything the samples of one identity have in common.

    ``moles`` is (n, 4): x, y, radius, darkness. ``texture`` is an (11, 11) field of slow skin variation and
    ``speckle`` an (n, 3) set of freckles: x, y, radius. Colours are RGB on the 0..255 scale.
    """

    head: Head
    eyes: Eyes
    brows: Brows
    nose: Nose
    mouth: Mouth
    skin: Skin
    hair: Hair
    hair_style: str
    beard: str
    glasses_odds: float
    glasses_shape: np.ndarray
    moles: np.ndarray
    speckle: np.ndarray
    texture: np.ndarray
    skin_rgb: np.ndarray
    hair_rgb: np.ndarray
    iris_rgb: np.ndarray
    lip_rgb: np.ndarray


def generator(*words: int) -> np.random.Generator:
    """A counter-based generator that depends on ``words`` (each below 2**32) alone.

    Example:
        >>> int(generator(0, 1).integers(1000)) == int(generator(0, 1).integers(1000))
        True
    """
    return np.random.Generator(np.random.Philox(np.random.SeedSequence(words)))


def ramp(colours: np.ndarray, position: float) -> np.ndarray:
    """The colour at ``position`` (0..1) along a row of colours, linearly.

    Example:
        >>> ramp(np.array([[0, 0, 0], [100, 50, 10]]), 0.5).tolist()
        [50.0, 25.0, 5.0]
    """
    place = min(max(position, 0.0), 1.0) * (len(colours) - 1)
    low = min(int(place), len(colours) - 2)
    return colours[low] + (place - low) * (colours[low + 1] - colours[low])


@lru_cache(maxsize=16)
def _bounds(group: type) -> tuple[np.ndarray, np.ndarray]:
    low, high = np.array([f.metadata["range"] for f in fields(group)]).T  # type: ignore[arg-type]
    return low, high - low


def _draw(group: type[Group], rng: np.random.Generator) -> Group:
    """A group with every field between its bounds, the middle more likely than the ends."""
    low, width = _bounds(group)  # type: ignore[arg-type]
    first, second = rng.random((2, len(low)))
    mixed = np.where(second < 0.4, 0.5 * first + 1.25 * second, first)
    return group(*(low + width * mixed).tolist())


def _hair_colour(hair: Hair, tone: float) -> np.ndarray:
    """Hair colour: dark skin goes with dark hair more often; grey and red shift it."""
    base = ramp(HAIR_RAMP, hair.shade**1.4 * (1.0 - 0.75 * tone))
    base = base + max(0.0, hair.red - 0.3) * np.array([90.0, 10.0, -20.0]) * (1 - tone)
    grey = max(0.0, hair.grey)
    return base * (1 - grey) + grey * np.array([168.0, 166.0, 164.0])


def _moles(rng: np.random.Generator) -> np.ndarray:
    spots = rng.random((5, 4))
    count = int(spots[0, 0] * 8.0) - 3
    place = np.array([22.0, 30.0, 0.45, 0.1]) + spots * np.array([68.0, 76.0, 0.6, 0.5])
    return place[: max(count, 0)]


@lru_cache(maxsize=1024)
def draw_identity(seed: int, identity: int) -> Identity:
    """The latent of one identity, the same in any process.

    Args:
        seed: Names the population, 0 or more.
        identity: Names the person in it, 0 or more.

    Returns:
        The latent; it is kept for the next sample of this identity, so its arrays cannot be written to.

    Example:
        >>> draw_identity(0, 5).eyes == draw_identity(0, 5).eyes
        True
        >>> draw_identity(0, 5).eyes == draw_identity(0, 6).eyes
        False
    """
    rng = generator(1, seed, identity)
    head, eyes, brows, nose = _draw(Head, rng), _draw(Eyes, rng), _draw(Brows, rng), _draw(Nose, rng)
    mouth, skin, hair = _draw(Mouth, rng), _draw(Skin, rng), _draw(Hair, rng)
    style = HAIR_STYLES[int(np.searchsorted(_STYLE_ODDS, rng.random()))]
    bearded = style not in ("long", "wavy", "fringe") and rng.random() < 0.6
    beard = BEARDS[int(np.searchsorted(_BEARD_ODDS, rng.random()))] if bearded else "none"
    moles, texture = _moles(rng), rng.standard_normal((11, 11)).astype(np.float32)
    freckles = np.column_stack([24 + 64 * rng.random(60), 54 + 26 * rng.random(60), 0.3 + 0.4 * rng.random(60)])
    habit, glasses_shape, iris = rng.random(), rng.random(4), rng.random()
    hue = np.array([9.0, -4.0, -7.0]) * skin.redness
    skin_rgb = ramp(_SKIN_RAMP, skin.tone) + hue
    lip = skin_rgb * np.array([0.9, 0.62, 0.62]) + mouth.colour * np.array([22.0, -12.0, -4.0])
    who = Identity(
        head=head, eyes=eyes, brows=brows, nose=nose, mouth=mouth, skin=skin, hair=hair, hair_style=style, beard=beard,
        glasses_odds=0.6 if habit < 0.22 else 0.06, glasses_shape=glasses_shape, moles=moles,
        speckle=freckles[: int(60 * max(0.0, skin.freckles) * (1 - 0.6 * skin.tone))], texture=texture,
        skin_rgb=np.clip(skin_rgb, 30, 250), hair_rgb=np.clip(_hair_colour(hair, skin.tone), 12, 235),
        iris_rgb=ramp(_IRIS_RAMP, iris * (1.0 - 0.7 * skin.tone)), lip_rgb=np.clip(lip, 30, 240),
    )  # fmt: skip
    for array in vars(who).values():
        if isinstance(array, np.ndarray):
            array.setflags(write=False)
    return who
