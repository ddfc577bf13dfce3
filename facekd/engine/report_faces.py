"""The faces behind the hardest pairs of a set, as the model saw them."""

from __future__ import annotations

import base64
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np

from facekd.data.images import encode_jpeg, resize, shown
from facekd.data.resolution import reader_at
from facekd.data.verification import VerificationSet
from facekd.engine.curves import Evaluated
from facekd.engine.evaluation_sets import OpenedSet
from facekd.engine.plots import plain
from facekd.metrics.measured import HardPair
from facekd.metrics.roc import OperatingPoint

QUALITY = 88


@dataclass(frozen=True)
class Faces:
    """What the images of a set are called, and the pictures themselves where there are any.

    Attributes:
        name: Of image i.
        read: Image i brought down to a side in pixels, or as it is where that is None.
    """

    name: Callable[[int], str]
    read: Callable[[int, int | None], np.ndarray] | None = None


@dataclass(frozen=True)
class Face:
    """One picture of a card.

    Attributes:
        name: Of the image.
        uri: ``data:`` address of a JPEG; None where there is no picture.
    """

    name: str
    uri: str | None


@dataclass(frozen=True)
class Card:
    """A hard pair as it is shown.

    Attributes:
        first: Its first image, the probe.
        second: Its second.
        score: Cosine.
        remark: At which operating points it is decided wrongly.
    """

    first: Face
    second: Face
    score: float
    remark: str


def faces_of_set(opened: OpenedSet, size: tuple[int, int]) -> Faces:
    """The faces of a set.

    Args:
        opened: The set.
        size: (height, width) the model takes.
    """
    source = opened.data.images if isinstance(opened.data, VerificationSet) else opened.data

    def read(index: int, side: int | None) -> np.ndarray:
        whole = source.read if side is None else reader_at(source.read, source.sample_name, side)
        return resize(whole(index), size)

    return Faces(source.sample_name, read)


def hardest_cards(evaluation: Evaluated, faces: Faces) -> tuple[list[Card], list[Card]]:
    """Cards of the impostor pairs with the highest scores and of the genuine pairs with the lowest.

    Args:
        evaluation: With details.
        faces: Of its set, at the size its model takes.
    """
    measured = evaluation.measured
    if measured is None or measured.details is None:
        return [], []
    details, points = measured.details, measured.points
    mode = evaluation.result["resolution"] or {"probe": None, "gallery": None}

    @cache
    def face(index: int, side: int | None) -> Face:
        picture = None if faces.read is None else faces.read(index, side)
        data = None if picture is None else base64.b64encode(encode_jpeg(picture, QUALITY)).decode()
        return Face(shown(faces.name(index)), data and f"data:image/jpeg;base64,{data}")

    def cards(pairs: Sequence[HardPair], genuine: bool) -> list[Card]:
        return [
            Card(
                face(pair.first, mode["probe"]),
                face(pair.second, mode["gallery"]),
                pair.score,
                _remark(pair.score, points, genuine),
            )
            for pair in pairs
        ]

    return cards(details.hardest_impostor, False), cards(details.hardest_genuine, True)


def _remark(score: float, points: Sequence[OperatingPoint], genuine: bool) -> str:
    """At which operating points a pair of this score is decided wrongly."""
    wrong = [point.fpr for point in points if (score < point.threshold) == genuine]
    if not points:
        return ""
    if not wrong:
        return "right at every point"
    if len(wrong) == len(points):
        return "missed at every point" if genuine else "let in at every point"
    return f"missed from FPR {plain(max(wrong))} down" if genuine else f"let in from FPR {plain(min(wrong))} up"
