"""An IJB folder of photographs of real people: loose crops, landmarks and scores of a detector, templates, lists.

The photographs of a list are aligned faces and were taken one by one. Each is laid loose again: made smaller or larger,
turned, moved and set on gray. A person's photographs are dealt out to media: a still is mostly larger, and three or
fewer small ones make a video. What the detector finds in the loose crops is all that the lists say of where faces are.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import cycle
from pathlib import Path
from typing import Any

import numpy as np

from facekd.data.align import warp_affine
from facekd.data.identities import IdentitySource
from facekd.data.images import decode, encode_jpeg, resize
from facekd.engine.sets.landmark_finding import detected_landmarks
from facekd.errors import DataError

GALLERIES = ("G1", "G2")
PROBES = "probes"
FILES = {"G1": "ijbc_1N_gallery_G1.csv", "G2": "ijbc_1N_gallery_G2.csv", PROBES: "ijbc_1N_probe_mixed.csv"}
FACES, POINTS, PAIRS = "ijbc_face_tid_mid.txt", "ijbc_name_5pts_score.txt", "ijbc_template_pair_label.txt"
CROPS, META = "loose_crop", "meta"
STILL, VIDEO = 1, 3
"""Images of a medium."""
SCALES = {STILL: (0.3, 1.4), VIDEO: (0.2, 0.4)}
"""Size of a face of a still and of a video, by what it has in the list."""
MOST_OF_A_PROBE = STILL + VIDEO
TURN, SHIFT, ROOM = 20.0, 0.15, 2.0
"""Largest turn in degrees; largest shift and side of a crop, in sides of the face."""
GRAY, QUALITY = 120, 92
HEADER = "TEMPLATE_ID,SUBJECT_ID,FILENAME,SIGHTING_ID"


@dataclass(frozen=True)
class Template:
    """Images of one person.

    Attributes:
        number: Its id.
        subject: Id of the person.
        part: ``G1``, ``G2`` or ``probes``.
        media: The images of each medium.
    """

    number: int
    subject: int
    part: str
    media: tuple[tuple[int, ...], ...]


@dataclass(frozen=True)
class Shot:
    """A loose crop as the lists tell of it.

    Attributes:
        name: Its file.
        template: What it is part of.
        medium: Id of the still or video.
        landmarks: (5, 2) by the detector.
        score: Of the detector.
    """

    name: str
    template: Template
    medium: int
    landmarks: np.ndarray
    score: float


def media_of(images: Sequence[int]) -> tuple[tuple[int, ...], ...]:
    """A still and a video by turns, until the images are used up.

    Example:
        >>> media_of([7, 3, 5, 1, 9, 2])
        ((7,), (3, 5, 1), (9,), (2,))
    """
    media, rest, sizes = [], tuple(images), cycle((STILL, VIDEO))
    while rest:
        size = next(sizes)
        media.append(rest[:size])
        rest = rest[size:]
    return tuple(media)


def planned(people: Mapping[str, Sequence[int]], seed: int) -> list[Template]:
    """Whose images make which template.

    Half of a person's images are a template of one of two galleries, in turns, and the others probes of at most four
    images. Of people with one image two in four are in a gallery and two are probes without a mate.

    Args:
        people: Images of each.
        seed: Of the order of each person's images, and of the ids.

    Example:
        >>> found = planned({"ann": [0, 1, 2], "bob": [3]}, 0)
        >>> [(one.part, len(one.media)) for one in found]
        [('G1', 2), ('probes', 1), ('G1', 1)]
    """
    rng = np.random.default_rng(seed)
    several, alone = cycle(GALLERIES), cycle((*GALLERIES, PROBES, PROBES))
    parts: list[tuple[int, str, list[int]]] = []
    for subject, name in enumerate(sorted(people)):
        images = rng.permutation(people[name]).tolist()
        half = (len(images) + 1) // 2
        parts.append((subject, next(several) if len(images) > 1 else next(alone), images[:half]))
        rest = images[half:]
        parts += [(subject, PROBES, rest[at : at + MOST_OF_A_PROBE]) for at in range(0, len(rest), MOST_OF_A_PROBE)]
    numbers, subjects = (rng.permutation(count) * 7 + 5 for count in (len(parts), len(people)))
    return [
        Template(int(number), int(subjects[subject]), part, media_of(images))
        for number, (subject, part, images) in zip(numbers, parts, strict=True)
    ]


def laid_loose(face: np.ndarray, scales: tuple[float, float], rng: np.random.Generator) -> np.ndarray:
    """An aligned face of another size, turned and moved, on gray.

    Args:
        face: uint8 (side, side, 3).
        scales: Smallest and largest size, by what it has.
        rng: Draws size, turn and shift.
    """
    side = round(len(face) * rng.uniform(*scales))
    small, room = resize(face, (side, side)), round(ROOM * side)
    angle = math.radians(rng.uniform(-TURN, TURN))
    turn = np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
    middle = (room - 1) / 2 + rng.uniform(-SHIFT, SHIFT, 2) * side
    matrix = np.column_stack([turn, middle - turn @ np.full(2, (side - 1) / 2)])
    inside = warp_affine(np.full_like(small, 255), matrix, room) / 255
    return (inside * warp_affine(small, matrix, room) + (1 - inside) * GRAY).round().astype(np.uint8)


def chosen(source: IdentitySource, people: int | None) -> dict[str, list[int]]:
    """Images of each person; of so many people, evenly spaced in the order of their names, or of all."""
    owned: dict[str, list[int]] = {}
    for index, label in enumerate(source.labels.tolist()):
        owned.setdefault(source.names[label], []).append(index)
    names = sorted(owned)
    count = people or len(names)
    return {names[at * len(names) // count]: owned[names[at * len(names) // count]] for at in range(count)}


def build(source: IdentitySource, detector: Path, out: Path, seed: int, people: int | None) -> dict[str, Any]:
    """Write the folder; it is whole or not there.

    Args:
        source: Aligned faces of people.
        detector: File of the detector.
        out: The folder to write.
        seed: Of all that is drawn.
        people: How many; all where None.

    Returns:
        What it holds, counted.
    """
    partial = out.with_name(out.name + ".partial")
    for folder in (CROPS, META):
        (partial / folder).mkdir(parents=True, exist_ok=True)
    finder, unseen, media = detected_landmarks(detector, "center"), 0, 0
    shots: list[Shot] = []
    for template in planned(chosen(source, people), seed):
        for place, medium in enumerate(template.media):
            media += 1
            for index in medium:
                rng = np.random.default_rng([seed, index])
                crop = laid_loose(source.read(index), SCALES[VIDEO if place % 2 else STILL], rng)
                name, data = f"{len(shots) + 1}.jpg", encode_jpeg(crop, QUALITY)
                try:
                    found = finder.find(name, decode(data, name))
                except DataError:
                    unseen += 1
                    continue
                (partial / CROPS / name).write_bytes(data)
                shots.append(Shot(name, template, media, found.landmarks, float(found.score or 0.0)))
    counts = write_lists(shots, partial / META)
    partial.rename(out)
    return {**counts, "unseen_by_the_detector": unseen}


def write_lists(shots: Sequence[Shot], meta: Path) -> dict[str, Any]:
    """Write what an IJB folder says of its images; every gallery template is compared with every probe.

    Returns:
        Images, people, templates and pairs, counted; and the range of the detector's scores.
    """
    lines: dict[str, list[str]] = {FACES: [], POINTS: [], **{file: [HEADER] for file in FILES.values()}}
    for shot in shots:
        template = shot.template
        points = " ".join(f"{value:.3f}" for value in shot.landmarks.ravel())
        lines[FACES].append(f"{shot.name} {template.number} {shot.medium}")
        lines[POINTS].append(f"{shot.name} {points} {shot.score:.4f}")
        lines[FILES[template.part]].append(f"{template.number},{template.subject},{shot.name},{shot.medium}")
    seen = list({shot.template.number: shot.template for shot in shots}.values())
    probes = [template for template in seen if template.part == PROBES]
    lines[PAIRS] = [
        f"{one.number} {probe.number} {int(one.subject == probe.subject)}"
        for one in seen
        if one.part in GALLERIES
        for probe in probes
    ]
    for file, told in lines.items():
        (meta / file).write_text("".join(f"{line}\n" for line in told))
    frames = Counter((shot.template.number, shot.medium) for shot in shots)
    media = Counter(template for template, _ in frames)
    scores = [shot.score for shot in shots]
    return {
        "images": len(shots),
        "people": len({template.subject for template in seen}),
        "media": len(frames),
        "media_of_several_images": sum(count > 1 for count in frames.values()),
        "templates": {part: sum(one.part == part for one in seen) for part in FILES},
        "templates_of_several_media": sum(count > 1 for count in media.values()),
        "pairs": len(lines[PAIRS]),
        "detector_scores": [min(scores), float(np.median(scores)), max(scores)],
    }
