"""One door to every layout of images with identities."""

from __future__ import annotations

from pathlib import Path

from facekd.data.identities import IdentitySource
from facekd.data.image_folder import ImageFolder
from facekd.data.image_list import ImageList
from facekd.data.images import shown
from facekd.errors import InputError


def open_identities(path: Path, images: Path | None = None) -> IdentitySource:
    """Open images with identities, whatever they are stored in.

    Args:
        path: A folder of identity folders, or a list (``.csv`` or ``.tsv`` with the columns path and identity).
        images: Root of the paths in a list, its own folder when None; without meaning for anything else.

    Raises:
        InputError: Nothing is there, or it cannot be used as what it is.
    """
    path = Path(path)
    if path.is_dir():
        return ImageFolder(path)
    if not path.exists():
        raise InputError(shown(path), "no such file or folder", "check the path")
    return ImageList(path, images)
