"""Names of numbered classes: the file ``classes.txt``, where the name of label k stands on line k, from 0."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from facekd.data.identities import case_collisions, first_few
from facekd.data.images import shown
from facekd.data.stored_file import StoredFile
from facekd.errors import InputError

CLASSES_NAME = "classes.txt"
MAX_CLASSES_BYTES = 2**30


def read_classes(path: Path) -> list[str]:
    """The names of a ``classes.txt``; bytes that are no UTF-8 are kept as they are.

    Raises:
        InputError: Unreadable, too large, an empty line, or a name that stands there twice; names the line.
    """
    name, file = shown(path), StoredFile(path)
    if file.size > MAX_CLASSES_BYTES:
        raise InputError(name, f"{file.size} bytes is too large", f"at most {MAX_CLASSES_BYTES}")
    text = file.read(0, file.size).decode("utf-8", "surrogateescape")
    names = [line.removesuffix("\r") for line in text.removesuffix("\n").split("\n")]
    first: dict[str, int] = {}
    for number, found in enumerate(names, 1):
        if not found:
            raise InputError(f"{name}:{number}", "an empty line", "the name of label k stands on line k+1")
        if first.setdefault(found, number) != number:
            raise InputError(f"{name}:{number}", f"'{shown(found)}' is on line {first[found]} already")
    return names


def classes_text(names: Sequence[str]) -> bytes:
    """The content of a ``classes.txt``.

    Raises:
        InputError: A name that is empty, holds a line break, or is there twice.

    Example:
        >>> classes_text(["ann", "bob"])
        b'ann\\nbob\\n'
    """
    bad = [name for name in names if not name or "\n" in name or name.endswith("\r")]
    if bad:
        raise InputError(CLASSES_NAME, f"cannot hold the identities {first_few(bad)}", "rename them")
    if len(set(names)) < len(names):
        twice = sorted({name for name in names if names.count(name) > 1})
        raise InputError(CLASSES_NAME, f"the identities {first_few(twice)} are there twice", "rename them")
    return "".join(f"{name}\n" for name in names).encode("utf-8", "surrogateescape")


def named_labels(where: str, numbers: np.ndarray, folder: Path) -> tuple[list[str], np.ndarray, list[str]]:
    """Names and gapless labels of class numbers, in numeric order.

    Args:
        where: Name of the data, for messages.
        numbers: int64 (N,), the class of each image, 0 or more.
        folder: Where a ``classes.txt`` may lie; without one a class is called by its number.

    Returns:
        The names of the classes that occur, the place of each image's class among them, and warnings.

    Raises:
        InputError: A ``classes.txt`` that is damaged or names fewer classes than there are.
    """
    found, labels = np.unique(numbers, return_inverse=True)
    path = folder / CLASSES_NAME
    if not path.is_file():
        return [str(number) for number in found.tolist()], labels.astype(np.int64), []
    listed = read_classes(path)
    if int(found[-1]) >= len(listed):
        what = f"names {len(listed)} classes, and {where} holds label {found[-1]}"
        raise InputError(shown(path), what, "restore it, or remove it to call classes by their number")
    names = [listed[number] for number in found.tolist()]
    return names, labels.astype(np.int64), case_collisions(where, names)
