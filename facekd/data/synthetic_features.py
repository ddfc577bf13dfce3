"""Draws the parts of a synthetic face: skin, ears, eyes, brows, nose, mouth."""

from __future__ import annotations

import cv2
import numpy as np

from facekd.data.synthetic_capture import Expression
from facekd.data.synthetic_geometry import RELIEF, bumps
from facekd.data.synthetic_identity import Head, Identity
from facekd.data.synthetic_paint import CIRCLE, Canvas, ellipse, mirror, mix, pair, smooth

_DARK = (46.0, 22.0, 20.0)
_ALONG = np.linspace(-1.0, 1.0, 11)
_BOW = np.maximum(0.0, 1.0 - _ALONG**2)
_BROW_END = np.where(_ALONG < -0.95, 0.6, 1.0)
_UPPER_BOW, _LOWER_BOW, _FOLD_BOW, _BAG_BOW = _BOW**0.75, _BOW**0.85, _BOW**0.6, _BOW**0.7


def mouth_corners(who: Identity, look: Expression) -> tuple[float, float]:
    """Half width of the mouth and height of its corners under an expression."""
    width = who.mouth.width * (1.0 + 0.13 * look.smile - 0.12 * look.open_mouth)
    return width, who.mouth.y + who.mouth.corners - 2.4 * look.smile + 1.6 * look.open_mouth


def landmarks(who: Identity, look: Expression) -> np.ndarray:
    """The five ArcFace points in face coordinates, (5, 2): eyes, nose tip, mouth corners, image left first."""
    eyes, (width, corner_y) = who.eyes, mouth_corners(who, look)
    return np.array([[56 - eyes.spacing, eyes.y], [56 + eyes.spacing, eyes.y], [56.0, who.nose.tip_y],
                     [56 - width, corner_y], [56 + width, corner_y]])  # fmt: skip


def outline(head: Head, grow: float = 0.0, jaw_drop: float = 0.0) -> np.ndarray:
    """The closed outline of the face, optionally grown outwards and with the jaw dropped."""
    cheek, temple, jaw = head.cheek + grow, head.cheek + head.temple + grow, head.jaw + grow
    chin_y = head.chin_y + jaw_drop + 0.6 * grow
    right = np.array([[0.62 * cheek, -8.0 - grow], [temple - 3, 14.0], [temple, 36.0], [cheek, head.cheek_y],
                      [0.55 * cheek + 0.45 * jaw + 1.2, 0.5 * (head.cheek_y + head.jaw_y) + 2],
                      [jaw, head.jaw_y + 0.6 * jaw_drop], [0.5 * (jaw + head.chin) + 1, chin_y - 6.5],
                      [head.chin, chin_y - 0.8]])  # fmt: skip
    half = right + (56.0, 0.0)
    points = np.vstack([half, [[56.0, chin_y]], mirror(half), [[56.0, -18.0 - grow]]])
    points[:, 0] += head.asymmetry * np.sin(points[:, 1] / 18.0)
    return smooth(points, steps=4)


def draw_skin(canvas: Canvas, who: Identity, look: Expression) -> None:
    """Neck, ears and the face with its freckles, moles and wrinkles."""
    head, skin = who.head, who.skin_rgb
    neck = np.array([[-0.78, 84.0], [-0.82, 130.0], [0.82, 130.0], [0.78, 84.0]]) * (head.jaw, 1.0) + (56.0, 0.0)
    canvas.fill(neck, 0.68 * skin, "neck")
    ear = CIRCLE * (head.ear, 9.5) + (head.cheek + 0.5, head.ear_y)
    canvas.fill(pair(ear[:, 0], ear[:, 1]), 0.9 * skin, "ear")
    hollow = CIRCLE * (0.5 * head.ear, 6.0) + (head.cheek + 1.5, head.ear_y)
    canvas.fill(pair(hollow[:, 0], hollow[:, 1]), 0.72 * skin)
    canvas.fill(outline(head, jaw_drop=4.5 * look.open_mouth), skin, "skin")
    canvas.dots(who.speckle, mix(skin, np.array([0.62, 0.5, 0.42]) * skin, 0.55))
    for x, y, radius, darkness in who.moles.tolist():
        canvas.fill(ellipse(x, y, radius, radius)[::2], skin * (0.8 - 0.75 * darkness))
    _wrinkles(canvas, who, look)


def complexion(who: Identity, makeup: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Factors on red, green and blue over the face plane: texture, shade in the hollows, blush, stubble.

    Returns:
        Three (68, 68) float32 maps around 1, on the relief grid.
    """
    eyes, nose, mouth, skin = who.eyes, who.nose, who.mouth, who.skin
    shade = [(56.0, nose.tip_y + 5.0, nose.width, 1.8, -0.2), (56.0, mouth.y + mouth.lower + 3.2, 7.0, 1.6, -0.12),
             (56.0, nose.tip_y + 10.0, 1.4, 4.0, -0.06 * mouth.philtrum)]  # fmt: skip
    red = [(56.0, nose.tip_y, nose.width, 4.0, 0.05 + 0.04 * skin.redness)]
    for side in (-1.0, 1.0):
        x = 56 + side * eyes.spacing
        shade += [(x - side * 6.0, eyes.y - 2.0, 4.0, 5.0, -0.14), (x, eyes.y - 4.5, 8.0, 2.6, -0.05 - 0.25 * makeup),
                  (x, eyes.y + 6.0, 6.0, 1.8, -0.16 * eyes.bags)]  # fmt: skip
        red.append((56 + side * 25.0, 74.0, 9.0, 7.0, 0.06 + 0.07 * skin.blush + 0.2 * makeup))
        if who.beard != "none":
            shade.append((56 + side * 24.0, 94.0, 9.0, 10.0, -0.22))
    if who.beard != "none":
        shade += [(56.0, 104.0, 14.0, 7.0, -0.3), (56.0, mouth.y - 6.5, 11.0, 2.4, -0.3)]
    slow = cv2.resize(who.texture, (RELIEF, RELIEF), interpolation=cv2.INTER_CUBIC)
    grey = 1.0 + bumps(np.array(shade)) + 0.035 * skin.mottle * slow
    flush = bumps(np.array(red)) + 0.02 * skin.mottle * slow.T
    return grey + 0.5 * flush, grey - 0.7 * flush, grey - 0.5 * flush


def _wrinkles(canvas: Canvas, who: Identity, look: Expression) -> None:
    age, skin, (width, corner_y) = who.skin.age, who.skin_rgb, mouth_corners(who, look)
    fold = min(0.32, 0.08 + 0.2 * max(0.0, age) + 0.12 * max(0.0, look.smile))
    near, far = who.nose.width + 1.0, width + 3.5
    top, bottom = who.nose.tip_y + 0.5, corner_y - 1.0
    line = smooth(np.array([(near, top), (0.5 * (near + far) + 1.5, 0.5 * (top + bottom) - 1), (far, bottom)]), False)
    canvas.stroke(pair(line[:, 0], line[:, 1]), mix(skin, _DARK, fold), 0.8)
    if age <= 0.35:
        return
    faint = mix(skin, _DARK, 0.3 * age)
    across = smooth(np.array([(38.0, 1.0), (48.0, -0.5), (56.0, 0.0), (66.0, -0.8), (75.0, 1.0)]), False)
    levels = 34.0 - 5.0 * np.arange(1 + int(4 * (age - 0.35)))
    canvas.stroke(across + np.stack([0 * levels, levels], axis=1)[:, None], faint, 0.8)
    for bend in (-1.0, 1.0):
        out, y = who.eyes.spacing, who.eyes.y
        canvas.stroke(pair(np.array([out + 11, out + 15]), np.array([y + bend, y + 2.4 * bend])), faint, 0.8)


def draw_eyes(canvas: Canvas, who: Identity, look: Expression, makeup: float) -> None:
    """Both eyes: white, iris cut by the lids, pupil, glint, lashes, crease, bag."""
    eyes = who.eyes
    wide = 1.0 + 0.4 * look.eye_open - 0.18 * max(0.0, look.smile)
    lift = wide if look.eye_open > -0.6 else 0.1
    skin, lash = who.skin_rgb, mix(0.35 * who.skin_rgb, (18.0, 14.0, 14.0), eyes.lashes)
    out, base = eyes.spacing + eyes.width * _ALONG, eyes.y + 0.4 - eyes.tilt * _ALONG
    upper = base - eyes.opening * lift * _UPPER_BOW * (1 + eyes.peak * _ALONG)
    lower = base + eyes.lower * min(1.0, lift) * _LOWER_BOW
    lids = pair(out, upper), pair(out, lower)
    white = mix(np.array([226.0, 222.0, 218.0]), skin, 0.18)
    canvas.fill(np.concatenate([lids[0], lids[1][:, ::-1]], axis=1), white, "eye")
    if lift > 0.3:
        _irises(canvas, who, look.gaze, (upper, lower))
        glint = pair(np.full(1, eyes.spacing), np.full(1, eyes.y + look.gaze[1] - 1.8))
        canvas.fill(glint + (1.8 * look.gaze[0] + 1.2, 0.0) + 0.8 * CIRCLE[::3], np.full(3, 240.0))
    weight = 0.6 + min(1.0, lift) * (0.9 * eyes.lashes + 1.2 * makeup)
    canvas.fill(np.concatenate([lids[0], lids[0][:, ::-1] - (0.0, weight)], axis=1), lash, "eye")
    canvas.stroke(lids[1], mix(skin, lash, 0.45), 0.8)
    fold = base - (eyes.opening * max(lift, 0.6) + eyes.crease) * _FOLD_BOW - 0.3
    canvas.stroke(pair(out, fold)[:, 1:-1], mix(skin, _DARK, 0.38), 0.8)
    bag = base + (eyes.lower + 3.2) * _BAG_BOW
    canvas.stroke(pair(out, bag)[:, 2:-2], mix(skin, _DARK, 0.08 + 0.2 * eyes.bags), 0.8)


def _irises(canvas: Canvas, who: Identity, gaze: tuple[float, float], lids: tuple[np.ndarray, np.ndarray]) -> None:
    """Ring, iris and pupil of both eyes, cut at the lids, which are heights along the eye."""
    eyes = who.eyes
    centres = pair(np.full(1, eyes.spacing), np.full(1, eyes.y - 0.5 + gaze[1]))
    for share, colour in ((1.0, 0.45 * who.iris_rgb), (0.8, who.iris_rgb), (0.42, np.full(3, 12.0))):
        discs = centres + share * eyes.iris * CIRCLE + (1.8 * gaze[0], 0.0)
        along = (discs[..., 0] - centres[..., 0]) * (np.array([[-1.0], [1.0]]) / eyes.width)
        upper, lower = (np.interp(along, _ALONG, lid) for lid in lids)
        discs[..., 1] = np.minimum(np.maximum(discs[..., 1], upper), lower)
        canvas.fill(discs, colour)


def draw_brows(canvas: Canvas, who: Identity, look: Expression) -> None:
    """Both eyebrows, as tapered strips."""
    brows, eyes = who.brows, who.eyes
    inner = 0.5 * (1.0 - _ALONG)
    out = eyes.spacing + brows.shift + brows.length * _ALONG - 1.6 * look.frown * inner
    y = eyes.y - brows.height - 2.4 * look.brow_raise + 2.2 * look.frown * inner
    y = y - brows.arch * (1 - (_ALONG - 0.3) ** 2) - brows.tilt * _ALONG
    half = 0.5 * brows.thickness * (1 - brows.taper * (1.0 - inner) ** 1.5) * _BROW_END
    strips = pair(np.concatenate([out, out[::-1]]), np.concatenate([y - half, (y + half)[::-1]]))
    colour = mix(who.skin_rgb, 0.8 * who.hair_rgb, brows.density)
    for strip in strips:
        canvas.fill(strip, colour, "brow")


def draw_nose(canvas: Canvas, who: Identity) -> None:
    """Nostrils, wings and the shadow under the tip; the bridge comes out of the shading."""
    nose, skin = who.nose, who.skin_rgb
    top, bottom = nose.tip_y - 17.0, nose.tip_y + nose.base
    half = np.array([[nose.bridge, top], [nose.bridge + 0.8, nose.tip_y - 8], [nose.width, nose.tip_y],
                     [0.9 * nose.width, bottom - 1.2]]) + (56.0, 0.0)  # fmt: skip
    canvas.mark(np.vstack([half, [[56.0, bottom + 1]], mirror(half)]), "nose")
    wing = np.array([(0.82 * nose.width, nose.tip_y - 2.6), (nose.width, nose.tip_y + 0.4),
                     (0.88 * nose.width, bottom - 1.6), (0.6 * nose.width, bottom - 1.4)])  # fmt: skip
    wing = smooth(wing, False, 4)
    third, rim = 0.3 * nose.width, bottom - 0.5
    base = np.array([(56 - third, rim), (56.0, rim + 1.1), (56 + third, rim)])
    canvas.stroke(smooth(base, False), mix(skin, _DARK, 0.34), 0.8)
    canvas.stroke(pair(wing[:, 0], wing[:, 1]), mix(skin, _DARK, 0.36), 0.8)
    hole = CIRCLE * (0.22 * nose.width, nose.nostril) + (0.48 * nose.width, bottom - 1.5)
    canvas.fill(pair(hole[:, 0], hole[:, 1]), mix(0.5 * skin, _DARK, 0.4))


def draw_mouth(canvas: Canvas, who: Identity, look: Expression, makeup: float) -> None:
    """Lips, the line between them, and teeth and cavity when the mouth opens."""
    mouth, (width, corner_y) = who.mouth, mouth_corners(who, look)
    lip = mix(who.lip_rgb, (170.0, 28.0, 48.0), min(0.8, 1.6 * makeup))
    sag = 0.9 * max(0.0, look.smile)
    gap = 7.5 * look.open_mouth + 1.7 * max(0.0, look.smile - 0.45)
    middle = mouth.y + 0.4 * gap + sag
    high, low = middle - gap / 2, middle + gap / 2
    slim = 1.0 - 0.22 * max(0.0, look.smile)
    upper, lower = slim * mouth.upper, slim * mouth.lower
    left, right = np.array([56 - width, corner_y]), np.array([56 + width, corner_y])
    crest = np.array([[-0.5 * width, high - 0.72 * upper], [-0.16 * width, high - upper - 0.35 * mouth.bow],
                      [0.0, high - upper + 0.55 * mouth.bow]]) + (56.0, 0.0)  # fmt: skip
    keel = np.array([[0.58 * width, low + 0.72 * lower], [0.0, low + lower]]) + (56.0, 0.0)
    rim = np.vstack([left, crest, mirror(crest[:2]), right, keel, mirror(keel[:1])])
    canvas.fill(smooth(rim), mix(lip, (255.0, 200.0, 190.0), 0.06), "mouth")
    over = np.array([[-0.45 * width, high - 0.1], [0.0, high + 0.25]]) + (56.0, 0.0)
    under = np.array([[-0.45 * width, low], [0.0, low + 0.2]]) + (56.0, 0.0)
    top = smooth(np.vstack([left, over, mirror(over[:1]), right]), False)
    bottom = smooth(np.vstack([left, under, mirror(under[:1]), right]), False)
    shadow = smooth(np.vstack([left, crest, mirror(crest[:2]), right]), False)
    canvas.fill(np.vstack([shadow, top[::-1]]), 0.84 * lip)
    if gap > 0.6:
        canvas.fill(np.vstack([top, bottom[::-1]]), np.array([52.0, 18.0, 20.0]))
        teeth = np.clip(0.55 * gap, 0.5, 2.8)
        canvas.fill(
            np.vstack([top[2:-2], np.minimum(top[2:-2] + (0, teeth), bottom[2:-2])[::-1]]),
            np.array([228.0, 222.0, 208.0]),
        )
    canvas.stroke(top, mix(0.5 * lip, _DARK, 0.5), 0.8, "mouth")
