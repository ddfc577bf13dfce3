"""Draws what grows on a synthetic face and what covers it: hair, beard, glasses, masks, hands, caps."""

from __future__ import annotations

import numpy as np

from facekd.data.synthetic_capture import Expression, Scene
from facekd.data.synthetic_features import mouth_corners, outline
from facekd.data.synthetic_identity import Identity
from facekd.data.synthetic_paint import Canvas, ellipse, mirror, mix, smooth

_FRONT = np.array([-1.0, -0.9, -0.66, -0.33, 0.0, 0.33, 0.66, 0.9, 1.0])
_OUTER = np.array([[1.02, 40.0], [1.06, 20.0], [0.98, 2.0], [0.7, -12.0]])
_LENGTHS = {"long": 118.0, "wavy": 108.0, "fringe": 92.0, "afro": 74.0}


def draw_back_hair(canvas: Canvas, who: Identity, scene: Scene) -> None:
    """Shoulders, and the hair that lies behind the head."""
    cloth = np.array([[-20.0, 130.0], [2.0, 121.0], [34.0, 116.0], [78.0, 116.0], [110.0, 121.0], [132.0, 130.0]])
    canvas.fill(cloth, scene.cloth, "cloth")
    style, hair, change = who.hair_style, who.hair, scene.hair_change
    if style not in _LENGTHS:
        return
    bottom = _LENGTHS[style] + 12.0 * (hair.length - 0.5) + 3.0 * change[0]
    wide = who.head.cheek + 4.0 + 9.0 * hair.volume + 1.5 * change[1] + (8.0 if style == "afro" else 0.0)
    right = np.array(
        [[0.6 * wide, -12.0], [wide, 22.0], [1.05 * wide, 56.0], [wide, bottom - 12], [0.8 * wide, bottom]]
    )
    if style in ("wavy", "afro"):
        right = smooth(right, False, 3)
        right[:, 0] += 2.2 * np.sin(np.arange(len(right)) * 2.3 + 6.0 * hair.side)
    right = right + (56.0, 0.0)
    canvas.fill(smooth(np.vstack([right, mirror(right)])), 0.72 * who.hair_rgb, "hair")
    for k, share in ((0.84, 0.86), (0.93, 0.6)):
        strand = (right - (56.0, 0.0)) * (k, 1.0) + (56.0, 0.0)
        for line in (strand, mirror(strand)):
            canvas.stroke(smooth(line, False, 3), share * who.hair_rgb, 1.6)


def _hairline(who: Identity, scene: Scene) -> np.ndarray:
    """The lower edge of the front hair from one sideburn to the other, (9, 2) control points."""
    hair, style = who.hair, who.hair_style
    half = who.head.cheek + who.head.temple
    centre = hair.line + 1.2 * scene.hair_change[2]
    u = _FRONT
    y = centre + hair.peak * (1 - 3 * u**2) * (np.abs(u) < 0.7)
    if style == "receding":
        y = centre - 4.0 - 9.0 * np.exp(-(((np.abs(u) - 0.62) / 0.22) ** 2))
    elif style == "side":
        lean = np.sign(hair.side) * u
        y = centre + 10.0 * np.clip(lean + 0.25, 0, 1) - 4.0 * np.exp(-(((lean + 0.35) / 0.2) ** 2))
    elif style == "fringe":
        y = 28.0 + 8.0 * (hair.length - 0.5) + 1.5 * scene.hair_change[3] + 2.0 * np.sin(9.0 * u + 5.0 * hair.side)
    elif style in ("long", "wavy"):
        y = centre - 6.0 + 30.0 * np.abs(u - 0.3 * hair.side) ** 1.6
    elif style == "afro":
        y = centre + 5.0 * u**2 + 1.2 * np.sin(11.0 * u)
    ends = {"buzz": 46.0, "receding": 48.0, "fringe": 66.0, "long": 84.0, "wavy": 80.0}.get(style, 52.0)
    ends += 8.0 * (hair.length - 0.5)
    y = np.where(np.abs(u) > 0.95, ends, np.where(np.abs(u) > 0.85, 0.5 * (ends + np.maximum(y, 20.0)), y))
    inner = np.where(np.abs(u) > 0.95, 0.985, np.abs(u) * 0.99)
    return np.array((56 + np.sign(u) * inner * half, y)).T


def draw_front_hair(canvas: Canvas, who: Identity, scene: Scene) -> None:
    """The hair above the forehead, with a few strands."""
    style, change = who.hair_style, scene.hair_change
    if style == "bald":
        return
    colour = mix(who.skin_rgb, who.hair_rgb, 0.62) if style == "buzz" else who.hair_rgb
    edge = smooth(_hairline(who, scene), False, 4)
    grow = 0.5 if style == "buzz" else 2.0 + 4.0 * who.hair.volume + 0.8 * change[4]
    half = _OUTER * (who.head.cheek + who.head.temple + grow, 1.0) + (56.0, 0.0)
    crown = smooth(np.vstack([half, [[56.0, -24.0]], mirror(half)]), False, 3)
    canvas.fill(np.vstack([edge, crown]), colour, "hair")
    if style == "buzz":
        return
    middle = edge[5:-5]
    phase = np.arange(len(middle)) * (0.6 + 0.6 * who.hair.volume) + change[5]
    for gain, rises in ((0.88, (5.4, 13.0)), (1.12, (2.4, 9.0))):
        wave = 0.9 * np.sin(phase + np.array(rises)[:, None])
        strands = middle - np.stack([0.6 * wave, wave + np.array(rises)[:, None]], axis=2)
        canvas.stroke(strands, gain * who.hair_rgb + 5.0 * (gain > 1), 1.0)


def draw_beard(canvas: Canvas, who: Identity, look: Expression) -> None:
    """Moustache, goatee or full beard; stubble is part of the complexion."""
    kind, mouth, (width, corner_y) = who.beard, who.mouth, mouth_corners(who, look)
    colour = mix(who.skin_rgb, 0.9 * who.hair_rgb, 0.8)
    top = who.nose.tip_y + who.nose.base + 2.0
    if kind == "full":
        edge = outline(who.head, grow=0.8, jaw_drop=4.5 * look.open_mouth)
        lower = edge[(edge[:, 1] > 72.0)]
        start = int(np.argmax(lower[:, 0]))
        lower = np.roll(lower, -start, axis=0)
        inner = np.array([[-0.8 * who.head.cheek, 80.0], [-width - 6, corner_y - 6], [-4.0, top], [4.0, top],
                          [width + 6, corner_y - 6], [0.8 * who.head.cheek, 80.0]]) + (56.0, 0.0)  # fmt: skip
        canvas.fill(np.vstack([lower, inner]), colour, "beard")
    if kind == "goatee":
        base = who.head.chin_y + 4.5 * look.open_mouth
        ring = np.array(
            [
                [0.0, top + 1],
                [width + 1.5, corner_y - 3],
                [width + 0.5, corner_y + 7],
                [0.7 * width, base - 2],
                [0.0, base + 1],
            ]
        )
        half = ring + (56.0, 0.0)
        canvas.fill(smooth(np.vstack([half, mirror(half[1:-1])])), colour, "beard")
    if kind == "moustache":
        low = mouth.y - mouth.upper - 0.4
        half = np.array(
            [[0.0, top + 0.5], [0.7 * width, top + 2.5], [width + 2.5, corner_y], [0.6 * width, low + 0.6], [0.0, low]]
        )
        half = half + (56.0, 0.0)
        canvas.fill(smooth(np.vstack([half, mirror(half[1:-1])])), colour, "beard")
    if kind in ("full", "goatee") and look.open_mouth < 0.3:
        canvas.fill(ellipse(56.0, mouth.y + mouth.lower + 4.6, 6.0, 1.4), mix(colour, who.skin_rgb, 0.35), "beard")


def _lens(who: Identity, side: float, size: np.ndarray) -> np.ndarray:
    shape = ellipse(0.0, 0.0, 1.0, 1.0)
    shape = np.sign(shape) * np.abs(shape) ** (1.0 - 0.55 * size[2])
    return shape * (9.5 + 3.2 * size[0], 6.2 + 3.8 * size[1]) + (56 + side * (who.eyes.spacing + 0.8), who.eyes.y + 1.0)


def draw_glasses(canvas: Canvas, who: Identity, scene: Scene) -> None:
    """The identity's own glasses, or dark ones when the scene says so."""
    dark = scene.occluder == "sunglasses"
    size = scene.dice[:4] if dark else who.glasses_shape
    frame = np.array([28.0, 26.0, 28.0]) if size[3] < 0.6 else 40 + 150 * np.array([size[0], size[2], size[1]])
    thick = 2.6 if dark else 0.8 + 1.0 * size[2]
    for side in (-1.0, 1.0):
        lens = _lens(who, side, size)
        if dark:
            canvas.fill(lens, 22 + 40 * scene.dice[4:7], "glasses")
        canvas.stroke(np.vstack([lens, lens[:1]]), frame, thick, "glasses")
        if scene.dice[7] < 0.6:
            glint = lens.mean(axis=0) + np.array([[-5.0, 1.5], [-1.0, -3.5]]) + 3 * (scene.dice[8] - 0.5)
            canvas.stroke(glint, np.full(3, 205.0), 1.0, "glasses")
        arm = np.array(
            [
                [lens[:, 0].max() if side > 0 else lens[:, 0].min(), who.eyes.y],
                [56 + side * (who.head.cheek + 2), who.eyes.y + 1],
            ]
        )
        canvas.stroke(arm, frame, thick, "glasses")
    reach = who.eyes.spacing + 0.8 - (9.5 + 3.2 * size[0])
    bridge = smooth(np.array([[-reach, 0.0], [0.0, -1.6], [reach, 0.0]]) + (56.0, who.eyes.y), False)
    canvas.stroke(bridge, frame, thick, "glasses")


def draw_occluder(canvas: Canvas, who: Identity, scene: Scene) -> None:
    """What hides part of the face in this sample: a mask, a hand, an object or a cap."""
    dice, colour, head = scene.dice, 25 + 225 * scene.dice[4:7], who.head
    if scene.occluder == "mask":
        top = who.nose.tip_y - 8.0 + 6 * dice[0]
        half = np.array(
            [
                [0.0, top - 2],
                [14.0, top + 1.5],
                [head.cheek + 1, top + 7],
                [head.jaw + 2, head.jaw_y],
                [head.chin + 4, head.chin_y + 2],
            ]
        )
        half = half + (56.0, 0.0)
        canvas.fill(smooth(np.vstack([half, mirror(half[1:])])), colour, "occluder")
        for y in (top + 13, top + 20, top + 27):
            fold = smooth(np.array([[30.0, y - 1], [56.0, y + 1.5], [82.0, y - 1]]), False)
            canvas.stroke(fold, 0.85 * colour, 0.8)
    elif scene.occluder == "hand":
        side, y = (1.0 if dice[0] < 0.5 else -1.0), 72.0 + 34 * dice[1]
        for k in range(4):
            start = np.array([56 + side * 74, y + 22 + 7.2 * k])
            tip = np.array([56 + side * (14 + 14 * dice[2] + 3.0 * abs(k - 1.2)), y + 7.2 * k])
            canvas.stroke(np.stack([start, tip]), (0.72 + 0.07 * k) * who.skin_rgb, 7.4, "occluder")
    elif scene.occluder == "bar":
        centre, angle = np.array([20 + 72 * dice[0], 30 + 70 * dice[1]]), np.pi * dice[2]
        along, across = np.array([np.cos(angle), np.sin(angle)]), np.array([-np.sin(angle), np.cos(angle)])
        corners = [
            s * (14 + 40 * dice[3]) * along + t * (4 + 9 * dice[7]) * across
            for s, t in ((-1, -1), (1, -1), (1, 1), (-1, 1))
        ]
        canvas.fill(centre + np.array(corners), colour, "occluder")
    elif scene.occluder == "cap":
        y = 20.0 + 12 * dice[0]
        half = np.array(
            [[0.0, y + 3.0], [0.7 * head.cheek, y + 1.5], [head.cheek + 5, y - 3], [head.cheek + 3, -14.0]]
        ) + (56.0, 0.0)
        canvas.fill(np.vstack([half, mirror(half[1:])]), colour, "occluder")
        canvas.stroke(smooth(np.vstack([mirror(half[1:3]), half[:3]]), False), 0.6 * colour, 2.0)
