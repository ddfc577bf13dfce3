"""The file ``property`` beside a ``.rec``: how many classes, the size of the images, and perhaps how many there are."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from facekd.data.images import shown
from facekd.data.lists import read_text
from facekd.errors import InputError

PROPERTY_NAME = "property"


@dataclass(frozen=True)
class Property:
    """What a ``property`` file says.

    Attributes:
        classes: Number of identities.
        height: Of the images, in pixels.
        width: Of the images, in pixels.
        count: Number of images, where it says so.
    """

    classes: int
    height: int
    width: int
    count: int | None


def read_property(path: Path) -> Property:
    """Read a ``property`` file: ``classes,height,width`` and perhaps, on a second line, how many images there are.

    Raises:
        InputError: The first line is not that.
    """
    lines = [line.strip() for line in read_text(path)[0].strip().split("\n")]
    fields = [field.strip() for field in lines[0].split(",")]
    if len(fields) < 3 or not all(field.isdecimal() and len(field) < 10 for field in fields[:3]):
        raise InputError(
            f"{shown(path)}:1", f"'{shown(lines[0], 60)}' is not CLASSES,HEIGHT,WIDTH", "mend or remove it"
        )
    counted = len(lines) > 1 and lines[1].isdecimal() and len(lines[1]) < 16
    classes, height, width = (int(field) for field in fields[:3])
    return Property(classes, height, width, int(lines[1]) if counted else None)


def compare_property(path: Path, name: str, keys: np.ndarray, numbers: np.ndarray) -> list[str]:
    """Hold the images of a ``.rec`` against its property file.

    Args:
        path: The property file, which need not exist.
        name: Name of the ``.rec``.
        keys: Of the images.
        numbers: The class of each.

    Returns:
        Warnings of counts that differ.

    Raises:
        InputError: The file is malformed, or a class is beyond those it states; names the record.
    """
    if not path.is_file():
        return []
    stated, where = read_property(path), shown(path)
    beyond = np.flatnonzero(numbers >= stated.classes)
    if len(beyond):
        what = f"label {numbers[beyond[0]]}, and {where} says {stated.classes} classes"
        raise InputError(f"{name}: record {keys[beyond[0]]}", what, "restore the one that is wrong")
    found = len(np.unique(numbers))
    warnings = []
    if found != stated.classes:
        warnings.append(f"{where}: says {stated.classes:,} classes, and {found:,} have images")
    if stated.count is not None and stated.count != len(numbers):
        warnings.append(f"{where}: says {stated.count:,} images, and there are {len(numbers):,}")
    return warnings
