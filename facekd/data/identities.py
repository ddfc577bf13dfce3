"""Images that each belong to one identity: what every source of them offers, and what all of them check."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Sequence
from typing import Protocol

import numpy as np

from facekd.data.images import shown
from facekd.errors import InputError


class IdentitySource(Protocol):
    """Images that each belong to one identity.

    Attributes:
        names: Identity names in label order: the label of an identity is its place in this list.
        labels: int64 (N,), the label of each image.
        digest: sha256 that changes when images are added, removed, moved or relabelled.
        warnings: What a user should know and nothing refuses.
    """

    names: list[str]
    labels: np.ndarray
    digest: str
    warnings: list[str]

    def __len__(self) -> int: ...

    def encoded(self, index: int) -> bytes:
        """Image ``index`` as stored: the bytes of a JPEG, PNG, BMP or WebP file."""

    def read(self, index: int) -> np.ndarray:
        """Image ``index``, uint8 RGB (height, width, 3)."""

    def sample_name(self, index: int) -> str:
        """Name of image ``index`` for messages and exports."""


def case_collisions(where: str, names: Sequence[str]) -> list[str]:
    """A warning for every pair of names that a case-insensitive disk would take for one.

    Example:
        >>> case_collisions("faces", ["Ann", "ann", "bob"])
        ["faces: identities 'Ann' and 'ann' differ in case only"]
    """
    seen: dict[str, str] = {}
    found = []
    for name in names:
        other = seen.setdefault(name.casefold(), name)
        if other != name:
            found.append(f"{where}: identities '{shown(other)}' and '{shown(name)}' differ in case only")
    return found


def refuse_unusable(where: str, names: Sequence[str], empty: Sequence[str] = ()) -> None:
    """Refuse identities that nothing can be learned from.

    Args:
        where: Name of the source, for messages.
        names: Its identities.
        empty: Those of them without images.

    Raises:
        InputError: No identity, one without images, or a single one.
    """
    if not names:
        raise InputError(where, "holds no identities", "lay images out as ROOT/IDENTITY/IMAGE")
    if empty:
        raise InputError(
            where, f"{len(empty)} identities without images: {first_few(empty)}", "remove the empty folders"
        )
    if len(names) == 1:
        raise InputError(where, f"only one identity, '{shown(names[0])}'", "give at least two")


def first_few(names: Sequence[str], most: int = 3) -> str:
    """The first names, quoted, and how many more there are.

    Example:
        >>> first_few(["a", "b", "c", "d", "e"])
        "'a', 'b', 'c' and 2 more"
    """
    listed = ", ".join(f"'{shown(name)}'" for name in names[:most])
    return f"{listed} and {len(names) - most} more" if len(names) > most else listed


def samples_digest(samples: Iterable[tuple[str, int, str]]) -> str:
    """sha256 over (name, byte count, identity) of every image, whatever their order.

    Example:
        >>> samples_digest([("a.png", 3, "ann"), ("b.png", 4, "bob")])[:8]
        '42760ac0'
    """
    digest = hashlib.sha256()
    for relative, size, identity in sorted(samples):
        for part in (os.fsencode(relative), str(size).encode(), os.fsencode(identity)):
            digest.update(len(part).to_bytes(4, "little") + part)
    return digest.hexdigest()
