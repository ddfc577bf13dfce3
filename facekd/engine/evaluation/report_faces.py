"""The faces behind the hardest pairs and probes of a set, as the model saw them."""

from __future__ import annotations

import base64
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache

import numpy as np

from facekd.data.ijb import AlignedCrops, aligned_side
from facekd.data.images import encode_jpeg, resize, shown
from facekd.data.resolution import reader_at
from facekd.engine.evaluation.curves import Evaluated
from facekd.engine.evaluation.evaluation_sets import OpenedSet
from facekd.engine.evaluation.plots import plain
from facekd.engine.evaluation.template_sets import TemplateSet
from facekd.errors import DataError
from facekd.metrics.measured import HardPair, HardProbe
from facekd.metrics.roc import OperatingPoint

QUALITY = 88


@dataclass(frozen=True)
class Faces:
    """What the images of a set are called, and the pictures themselves where there are any.

    Attributes:
        name: Of image or template i.
        read: Image i, or one of template i, brought down to a side in pixels, or as it is where that is None; None of
            a template without an image that can be read.
    """

    name: Callable[[int], str]
    read: Callable[[int, int | None], np.ndarray | None] | None = None


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
        remark: At which operating points it is decided wrongly; of a search, how the probe's mate ranks.
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
    source = opened.images

    def read(index: int, side: int | None) -> np.ndarray:
        whole = source.read if side is None else reader_at(source.read, source.sample_name, side)
        return resize(whole(index), size)

    return Faces(source.sample_name, read)


def faces_of_templates(opened: TemplateSet, size: tuple[int, int], *, count_failures: bool) -> Faces:
    """A face for each template: of its images the one the detector was surest of.

    Args:
        opened: The set.
        size: (height, width) the model takes.
        count_failures: Pass over images that cannot be read, as they were when templates were made.
    """
    members, crops = opened.members, opened.images
    images = replace(crops, size=aligned_side(size)) if isinstance(crops, AlignedCrops) else crops
    surest = np.lexsort((-members.detector, members.rows))
    ends = np.searchsorted(members.rows[surest], np.arange(len(members.ids) + 1))

    @cache
    def chosen(template: int) -> tuple[int, np.ndarray] | None:
        for image in surest[ends[template] : ends[template + 1]].tolist():
            try:
                return image, resize(images.read(image), size)
            except DataError:
                if not count_failures:
                    raise
        return None

    def name(template: int) -> str:
        if opened.protocol == "tinyface":
            return images.sample_name(template)
        found = chosen(template)
        told = f"template {members.ids[template]}"
        return told if found is None else f"{told}: {images.sample_name(found[0])}"

    def read(template: int, side: int | None) -> np.ndarray | None:
        found = chosen(template)
        return None if found is None else found[1]

    return Faces(name, read)


def hardest_cards(evaluation: Evaluated, faces: Faces) -> tuple[list[Card], list[Card]]:
    """Cards of the impostor pairs with the highest scores and of the genuine pairs with the lowest.

    Args:
        evaluation: With details.
        faces: Of its set, at the size its model takes.
    """

    @cache
    def face(index: int, side: int | None) -> Face:
        picture = None if faces.read is None else faces.read(index, side)
        data = None if picture is None else base64.b64encode(encode_jpeg(picture, QUALITY)).decode()
        return Face(shown(faces.name(index)), data and f"data:image/jpeg;base64,{data}")

    def searched(probes: Sequence[HardProbe]) -> list[Card]:
        return [Card(face(one.probe, None), face(one.other, None), one.score, _rank_told(one.rank)) for one in probes]

    measured, found = evaluation.measured, evaluation.search_details
    if found is not None:
        return searched(found.hardest_impostor), searched(found.hardest_genuine)
    if measured is None or measured.details is None:
        return [], []
    details, points = measured.details, measured.points
    mode = evaluation.result["resolution"] or {"probe": None, "gallery": None}

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


def _rank_told(rank: int) -> str:
    return f"its mate at rank {rank}" if rank else "without a mate"


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
