"""One view of every stored set of images, whatever holds them: what the verbs of ``facekd data`` work on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from facekd.data.bin_format import stored_bin
from facekd.data.identities import IdentitySource
from facekd.data.image_folder import ImageFolder
from facekd.data.image_list import ImageList
from facekd.data.images import shown
from facekd.data.open_source import open_identities
from facekd.data.record_source import RecordSource
from facekd.data.tar_source import TarSource
from facekd.data.verification import VerificationSet, open_verification_set, sniff_list
from facekd.errors import InputError
from facekd.files import file_digest

SOURCE_FORMATS = {ImageFolder: "folder", ImageList: "list", RecordSource: "record", TarSource: "tar"}
"""Kind of an identity source -> its name in a recipe's ``data.source``."""


@dataclass(frozen=True)
class ImageSet:
    """Stored images with names, and who they show where that is known.

    Attributes:
        path: Where the set is.
        format: ``folder``, ``list``, ``record``, ``tar``, ``bin``, ``lfw-pairs`` or ``pairs``.
        count: Images stored.
        encoded: The bytes of an image as stored, by its number; raises `DataError` where a record is damaged.
        name: What an image is called, by its number.
        labels: int64 (count,), who is shown; None where the set does not say.
        identities: Names, by label; empty where unknown.
        digest: sha256 that changes with the set.
        warnings: What a user should know and nothing refuses.
    """

    path: Path
    format: str
    count: int
    encoded: Callable[[int], bytes]
    name: Callable[[int], str]
    labels: np.ndarray | None
    identities: list[str]
    digest: str
    warnings: list[str]

    @property
    def is_verification(self) -> bool:
        """Whether the images come in pairs to be compared."""
        return self.format in ("bin", "lfw-pairs", "pairs")


def open_image_set(path: Path, images: Path | None = None) -> ImageSet:
    """Open a data set or a verification set to look at its images one by one.

    A ``.bin`` counts every image it stores, two a pair, and may hold what is no image; the images of a pairs list are
    those it names, each once. Either may lack genuine or impostor pairs.

    Args:
        path: Identity folder, list, ``.rec``, ``.tar``, folder of these, ``.bin``, LFW pairs ``.txt`` or pairs table.
        images: Root of the paths in a list; its own folder when None.

    Raises:
        InputError: Nothing is there, it cannot be opened as what it is, or ``images`` is given without a list.
    """
    path = Path(path)
    suffix = path.suffix.lower()
    if images is not None and suffix not in (".txt", ".csv", ".tsv", ".parquet"):
        raise InputError(shown(images), "an image root has no meaning for this set", "leave --images out")
    if holds_pairs(path):
        if suffix == ".bin":
            return _stored_bin(path)
        found = open_verification_set(path, images=images, both_kinds=False)
        return _verification(path, "lfw-pairs" if suffix == ".txt" else "pairs", found)
    return identity_image_set(path, open_identities(path, images))


def holds_pairs(path: Path) -> bool:
    """Whether a file is a verification set: a ``.bin``, LFW pairs ``.txt``, or a table without identities.

    Raises:
        InputError: A table that cannot be read.
    """
    suffix = path.suffix.lower()
    if path.is_dir() or not path.exists():
        return False
    return suffix in (".bin", ".txt") or (suffix in (".csv", ".tsv") and sniff_list(path) == "pairs")


def identity_image_set(path: Path, source: IdentitySource) -> ImageSet:
    """The view of images with identities."""
    kind = next(name for kind, name in SOURCE_FORMATS.items() if isinstance(source, kind))
    names = (source.encoded, source.sample_name)
    return ImageSet(path, kind, len(source), *names, source.labels, source.names, source.digest, source.warnings)


def _stored_bin(path: Path) -> ImageSet:
    images, _ = stored_bin(path)
    return ImageSet(path, "bin", len(images), images.__getitem__, "image {}".format, None, [], file_digest(path), [])


def _verification(path: Path, kind: str, found: VerificationSet) -> ImageSet:
    folders = [found.images.sample_name(index).rpartition("/")[0] for index in range(len(found.images))]
    names = [] if found.subjects is None else sorted(set(folders))
    images = found.images
    return ImageSet(
        path, kind, len(images), images.encoded, images.sample_name, found.subjects, names, found.digest, found.warnings
    )
