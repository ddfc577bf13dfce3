"""A small IJB folder of drawn faces, for tests: templates of several media, pairs, galleries and probes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from facekd.data.align import TEMPLATE
from facekd.data.images import encode_png

LISTS = {
    "faces": "face_tid_mid.txt",
    "points": "name_5pts_score.txt",
    "pairs": "template_pair_label.txt",
    "G1": "1N_gallery_G1.csv",
    "G2": "1N_gallery_G2.csv",
    "probes": "1N_probe_mixed.csv",
}
SUBJECTS = 24
SIDE = 140
HEADER = "TEMPLATE_ID,SUBJECT_ID,FILENAME,SIGHTING_ID"


@dataclass
class Layout:
    """Lines of each list and what each image shows; a test may change the lines before they are written.

    Attributes:
        lines: By the keys of `LISTS`.
        images: Subject and number of each image.
        templates: Ids of all templates.
        subjects: Subject of each template.
    """

    lines: dict[str, list[str]] = field(default_factory=lambda: {name: [] for name in LISTS})
    images: dict[str, tuple[int, int]] = field(default_factory=dict)
    templates: list[int] = field(default_factory=list)
    subjects: list[int] = field(default_factory=list)


def layout(seed: int = 0, per_subject: int = 3) -> Layout:
    """One gallery template and two probe templates a subject; subjects take turns in the two galleries.

    A template has a still and a video of one to three frames. Template and subject ids are neither dense nor sorted.
    """
    rng = np.random.default_rng(seed)
    made = Layout()
    ids = rng.permutation(np.r_[np.arange(1, SUBJECTS * per_subject), 10**12]) * 7 + 5
    for number, template in enumerate(ids.tolist()):
        subject = number % SUBJECTS
        made.templates.append(template)
        made.subjects.append(100 + 3 * subject)
        for medium, frames in ((10 * number, 1), (10 * number + 3, int(rng.integers(1, 4)))):
            for _ in range(frames):
                name = f"{len(made.images) + 1}.png"
                made.images[name] = (subject, len(made.images))
                made.lines["faces"].append(f"{name} {template} {medium}")
                points = " ".join(f"{value:.3f}" for value in (TEMPLATE + 14 + rng.normal(0, 1, (5, 2))).ravel())
                made.lines["points"].append(f"{name} {points} {rng.uniform(0.5, 1):.4f}")
        part = ("G1", "G2")[subject % 2] if number < SUBJECTS else "probes"
        made.lines[part] += [f"{template},{100 + 3 * subject},a.png,{k}" for k in range(2)]
    for part in ("G1", "G2", "probes"):
        made.lines[part].insert(0, HEADER)
    gallery, probes = range(SUBJECTS), range(SUBJECTS, len(made.templates))
    for one in gallery:
        for other in probes:
            label = int(made.subjects[one] == made.subjects[other])
            made.lines["pairs"].append(f"{made.templates[one]} {made.templates[other]} {label}")
    return made


def draw(subject: int, number: int) -> np.ndarray:
    """A coarse pattern a subject, with noise; aligned at the middle of the picture."""
    base = np.random.default_rng([1, subject]).integers(60, 196, (7, 7, 3)).astype(float)
    noise = np.random.default_rng([2, subject, number]).normal(0, 70, (7, 7, 3))
    picture = np.full((SIDE, SIDE, 3), 90, np.uint8)
    picture[14:126, 14:126] = np.clip(np.kron(base + noise, np.ones((16, 16, 1))), 0, 255).astype(np.uint8)
    return picture


def write_ijb(folder: Path, change: Callable[[Layout], None] | None = None, kind: str = "ijbc") -> Layout:
    """Write a folder after a test has changed what it will say."""
    made = layout()
    if change:
        change(made)
    (folder / "loose_crop").mkdir(parents=True)
    (folder / "meta").mkdir()
    for name, (subject, number) in made.images.items():
        (folder / "loose_crop" / name).write_bytes(encode_png(draw(subject, number)))
    for name, lines in made.lines.items():
        told = LISTS[name] if kind == "ijbc" else LISTS[name].replace("_G", "_S")
        (folder / "meta" / f"{kind}_{told}").write_text("".join(f"{line}\n" for line in lines))
    return made
