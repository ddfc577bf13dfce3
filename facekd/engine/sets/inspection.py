"""What a set of images holds: counts, sizes, damage and doubles, found by decoding every image once."""

from __future__ import annotations

import csv
import hashlib
import io
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from facekd.data.image_headers import has_alpha
from facekd.data.images import decode, shown
from facekd.engine.progress import Progress
from facekd.engine.sets.image_sets import ImageSet
from facekd.engine.signals import Poll
from facekd.errors import DataError
from facekd.files import write_atomic

MOST_KEPT = 1000
"""Pairs of doubles that are remembered by name; all are counted."""

_DIGEST_BYTES = 16


@dataclass(frozen=True)
class Doubles:
    """Images whose stored bytes an earlier image has.

    Attributes:
        count: All of them.
        within: Those whose first holder shows the same identity.
        across: Those whose first holder shows another one.
        pairs: For up to `MOST_KEPT` of ``across``: the first holder and the double.
    """

    count: int = 0
    within: int = 0
    across: int = 0
    pairs: list[tuple[str, str]] = field(default_factory=list)


@dataclass(frozen=True)
class Inspection:
    """What was found.

    Attributes:
        format: As in :class:`~facekd.engine.sets.image_sets.ImageSet`.
        images: Images stored, the broken ones among them.
        identities: Names, by label; empty where unknown.
        per_identity: int64 (identities,), images of each.
        broken: Images that do not decode: name and refusal.
        sizes: How many images have which (height, width).
        doubles: Images stored more than once.
        warnings: What opening the set gave.
        transparent: Images with an alpha channel, which decoding drops.
    """

    format: str
    images: int
    identities: list[str]
    per_identity: np.ndarray
    broken: list[tuple[str, str]]
    sizes: Counter[tuple[int, int]]
    doubles: Doubles
    warnings: list[str]
    transparent: int = 0

    def report(self) -> dict[str, object]:
        """The figures as ``facekd data inspect --json`` writes them; unknown ones are null."""
        low, median, high = self.spread() or (None, None, None)
        return {
            "format": self.format,
            "images": self.images,
            "identities": len(self.identities),
            "broken": len(self.broken),
            "duplicates": self.doubles.count,
            "size": list(next(iter(self.sizes))) if len(self.sizes) == 1 else None,
            "images_per_identity": {"min": low, "median": median, "max": high},
        }

    def spread(self) -> tuple[int, float, int] | None:
        """Fewest, median and most images of an identity; None where identities are unknown."""
        counts = self.per_identity
        return (int(counts.min()), float(np.median(counts)), int(counts.max())) if len(counts) else None

    def singles(self) -> list[str]:
        """Identities with one image."""
        return [self.identities[label] for label in np.flatnonzero(self.per_identity == 1)]

    def histogram(self) -> list[tuple[int, int, int]]:
        """How many identities have how many images: (fewest, most, identities), in bins that double."""
        counts = self.per_identity[self.per_identity > 0]
        if not len(counts):
            return []
        bins = np.bincount(np.floor(np.log2(counts)).astype(np.int64))
        return [(2**k, 2 ** (k + 1) - 1, int(number)) for k, number in enumerate(bins)]


def inspect(images: ImageSet, *, progress: Progress | None = None, poll: Poll | None = None) -> Inspection:
    """Decode every image of a set and count what there is.

    One image is in memory at a time, 16 bytes for each that was seen, and a line for each that is broken.
    """
    digests = np.zeros(images.count, f"S{_DIGEST_BYTES}")
    sizes: Counter[tuple[int, int]] = Counter()
    broken: list[tuple[str, str]] = []
    transparent = 0
    for index in range(images.count):
        if poll is not None:
            poll()
        try:
            data = images.encoded(index)
            digests[index] = hashlib.blake2b(data, digest_size=_DIGEST_BYTES).digest()
            height, width = decode(data, shown(images.name(index))).shape[:2]
            sizes[height, width] += 1
            transparent += has_alpha(data)
        except DataError as error:
            broken.append((images.name(index), error.lines[0]))
        if progress is not None:
            progress("inspect", index + 1, images.count)
    labels = np.empty(0, np.int64) if images.labels is None else images.labels
    return Inspection(
        images.format,
        images.count,
        images.identities,
        np.bincount(labels, minlength=len(images.identities)),
        broken,
        sizes,
        _doubles(images, digests),
        images.warnings,
        transparent,
    )


def write_broken(found: Inspection, path: Path) -> None:
    """Write the broken images as CSV, ``path,reason``: the form that a recipe's ``data.leave_out.file`` takes.

    Raises:
        DeviceError: The file cannot be written.
    """
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([("path", "reason"), *found.broken])
    data = text.getvalue().encode(errors="surrogateescape")
    write_atomic(path, lambda temporary: temporary.write_bytes(data))


def _doubles(images: ImageSet, digests: np.ndarray) -> Doubles:
    """Doubles by digest; an image that could not be read at all has none and is no double."""
    _, first, inverse = np.unique(digests, return_index=True, return_inverse=True)
    holder = first[inverse.reshape(-1)]
    found = np.flatnonzero((holder != np.arange(images.count)) & (digests != b""))
    if images.labels is None:
        return Doubles(len(found))
    across = found[images.labels[holder[found]] != images.labels[found]]
    pairs = [(images.name(int(holder[index])), images.name(int(index))) for index in across[:MOST_KEPT]]
    return Doubles(len(found), len(found) - len(across), len(across), pairs)
