"""TinyFace's test of identification: probes searched among their mates and many distractors.

``Testing_Set/`` holds ``Probe/``, ``Gallery_Match/`` and ``Gallery_Distractor/``. The number before the first ``_`` of
a probe's or a match's name is whom it shows; distractors show nobody who is searched for. The names say what the
``.mat`` lists beside them say, which are not read.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from facekd.data.identities import samples_digest
from facekd.data.images import shown
from facekd.data.lists import FileImages, ImageRoot, visible_entries
from facekd.errors import InputError

PARTS = ("Probe", "Gallery_Match", "Gallery_Distractor")
PUBLISHED = (3_728, 4_443, 153_428)
"""Images of the three parts as published."""

NOBODY = -100
SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp")
_NUMBERED = re.compile(r"([0-9]{1,18})_.*")


@dataclass(frozen=True)
class TinyFace:
    """An opened folder.

    Attributes:
        name: What reports call it.
        images: Probes, then matches, then distractors.
        subjects: int64 (n,), whom each shows; `NOBODY` for distractors.
        probes: How many of the first images are probes.
        digest: SHA-256 over names and sizes.
        warnings: What a user should know and nothing refuses.
    """

    name: str
    images: FileImages = field(repr=False)
    subjects: np.ndarray = field(repr=False)
    probes: int
    digest: str
    warnings: tuple[str, ...] = ()


def is_tinyface(path: Path) -> bool:
    """Whether a folder, or its ``Testing_Set``, is laid out like TinyFace's test."""
    return _root(path) is not None


def open_tinyface(path: Path) -> TinyFace:
    """Open TinyFace's test of identification.

    Args:
        path: The folder with the three parts, or the one above it.

    Raises:
        InputError: Another layout, a part without images, a file that is no image by its name, a probe or match whose
            name does not begin with a number and ``_``, or a probe without mate; names the file.
    """
    root = _root(path)
    if root is None:
        raise InputError(shown(path), "is no TinyFace folder", f"it holds {', '.join(PARTS)}, or Testing_Set with them")
    listed = [[entry.name for entry in visible_entries(root / part)] for part in PARTS]
    paths, subjects = [], []
    for part, names in zip(PARTS, listed, strict=True):
        if not names:
            raise InputError(shown(root / part), "holds no images")
        for name in names:
            where = shown(root / part / name)
            if not name.lower().endswith(SUFFIXES):
                raise InputError(where, "is no image by its name", f"known: {' '.join(SUFFIXES)}")
            numbered = _NUMBERED.fullmatch(name)
            if part != PARTS[2] and numbered is None:
                raise InputError(where, "does not begin with a number and '_'", "name it IDENTITY_NUMBER.jpg")
            paths.append(f"{part}/{name}")
            subjects.append(int(numbered[1]) if numbered and part != PARTS[2] else NOBODY)
    probes, people = len(listed[0]), np.array(subjects, np.int64)
    mateless = np.flatnonzero(~np.isin(people[:probes], people[probes:]))
    if mateless.size:
        what = f"{mateless.size} probes have no mate in {PARTS[1]}"
        raise InputError(shown(root), f"{what}, the first {paths[mateless[0]]}", "is a part of the set missing?")
    images = FileImages(ImageRoot(root), tuple(paths))
    sizes = [images.root.size(name, shown(images.root.join(name))) or 0 for name in paths]
    digest = samples_digest(zip(paths, sizes, map(str, subjects), strict=True))
    counts = tuple(len(names) for names in listed)
    told = "{:,} probes, {:,} matches, {:,} distractors"
    differs = f"{shown(root)}: {told.format(*counts)}; TinyFace has {told.format(*PUBLISHED)}"
    return TinyFace(path.name, images, people, probes, digest, (differs,) if counts != PUBLISHED else ())


def _root(path: Path) -> Path | None:
    folders = (path, path / "Testing_Set")
    return next((folder for folder in folders if all((folder / part).is_dir() for part in PARTS)), None)
