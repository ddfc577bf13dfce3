"""Decodes every image of a set and compares their checksums with those kept beside it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from facekd.data.checksums import Checksum, Difference, checksum, compare, read_checksums, side_car, write_checksums
from facekd.data.identities import first_few
from facekd.data.image_headers import has_alpha
from facekd.data.images import decode, shown
from facekd.engine.progress import Progress
from facekd.engine.sets.image_sets import ImageSet
from facekd.engine.signals import Poll
from facekd.errors import DataError
from facekd.files import write_atomic


@dataclass(frozen=True)
class Check:
    """How a check that found nothing wrong ended.

    Attributes:
        side_car: Where the checksums lie.
        compared: Whether the images were compared with earlier checksums.
        written: Whether the checksums were written now; False too where the folder cannot be written to.
        transparent: Images with an alpha channel, which decoding drops.
    """

    side_car: Path
    compared: bool
    written: bool
    transparent: int


@dataclass
class _Seen:
    """What was met on the way: how many images do not decode, the first refusal, and how many are transparent."""

    broken: int = 0
    first: str = ""
    transparent: int = 0

    def add(self, error: DataError) -> None:
        self.broken += 1
        self.first = self.first or error.lines[0]


def check(
    images: ImageSet, *, write: bool = False, progress: Progress | None = None, poll: Poll | None = None
) -> Check:
    """Decode every image and compare its checksum with the one kept; without a side-car, write it where that can be.

    Args:
        images: The set.
        write: Take the images for right and replace the side-car instead of comparing.
        progress: Told about each image.
        poll: Called before each image; may raise to stop, which writes nothing.

    Raises:
        DataError: Images are broken (names the first, and how many), or changed, are missing or new since the
            checksums were written (names the first three of each). Nothing is written.
        InputError: The side-car is damaged itself.
        DeviceError: It cannot be written.
    """
    place, seen = side_car(images.path), _Seen()
    entries = _checked(images, seen, progress, poll)
    if place.exists() and not write:
        difference = compare(read_checksums(place), entries)
        _refuse_broken(images, seen)
        _refuse_changed(images, place, difference)
        return Check(place, compared=True, written=False, transparent=seen.transparent)
    if not write and not os.access(place.parent, os.W_OK):
        for _ in entries:
            pass
        _refuse_broken(images, seen)
        return Check(place, compared=False, written=False, transparent=seen.transparent)

    def fill(temporary: Path) -> None:
        write_checksums(temporary, entries)
        _refuse_broken(images, seen)

    write_atomic(place, fill)
    return Check(place, compared=False, written=True, transparent=seen.transparent)


def _checked(images: ImageSet, seen: _Seen, progress: Progress | None, poll: Poll | None) -> Iterator[Checksum]:
    for index in range(images.count):
        if poll is not None:
            poll()
        name = images.name(index)
        try:
            data = images.encoded(index)
        except DataError as error:
            seen.add(error)
            continue
        try:
            decode(data, shown(name))
            seen.transparent += has_alpha(data)
        except DataError as error:
            seen.add(error)
        yield checksum(name, data)
        if progress is not None:
            progress("check", index + 1, images.count)


def _refuse_broken(images: ImageSet, seen: _Seen) -> None:
    if seen.broken:
        what = f"{seen.broken} of {images.count} images broken, first {seen.first}"
        raise DataError(shown(images.path), what, "restore or remove them; facekd data inspect lists them")


def _refuse_changed(images: ImageSet, place: Path, difference: Difference) -> None:
    kinds = (("changed", difference.changed), ("missing", difference.missing), ("new", difference.new))
    told = [f"{len(names)} {kind}: {first_few(names)}" for kind, names in kinds if names]
    if told:
        what = f"not what {place.name} says: {'; '.join(told)}"
        raise DataError(shown(images.path), what, "restore them, or accept this state with --write")
