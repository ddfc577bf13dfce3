"""One door to every layout of images with identities."""

from __future__ import annotations

from pathlib import Path

from facekd.data.identities import IdentitySource
from facekd.data.image_folder import ImageFolder
from facekd.data.image_list import ImageList
from facekd.data.images import shown
from facekd.data.lists import visible_entries
from facekd.data.record_source import RecordSource
from facekd.data.tar_source import TarSource
from facekd.errors import InputError

LIST_SUFFIXES = (".csv", ".tsv", ".parquet")
IDENTITY_SUFFIXES = (".rec", ".idx", ".tar", ".parquet")
"""Of files that hold images with identities and never pairs."""

_UNREAD = {
    ".mdb": "an LMDB database",
    ".lmdb": "an LMDB database",
    ".zip": "a zip archive",
    ".gz": "compressed",
    ".tgz": "compressed",
    ".bz2": "compressed",
    ".xz": "compressed",
    ".zst": "compressed",
}


def open_identities(path: Path, images: Path | None = None) -> IdentitySource:
    """Open images with identities, whatever they are stored in.

    Args:
        path: A ``.rec``, or a folder with ``train.rec`` or one other; a ``.tar``, or a folder of them; a folder of
            identity folders; or a list with the columns path and identity (``.csv``, ``.tsv`` or ``.parquet``).
        images: Root of the paths in a list, its own folder when None; without meaning for anything else.

    Raises:
        InputError: Nothing is there, it is none of these, it could be several, or it cannot be used as what it is.
    """
    path = Path(path)
    if path.is_dir():
        return _open_folder(path)
    suffix = path.suffix.lower()
    if not path.exists():
        raise InputError(shown(path), "no such file or folder", "check the path")
    if suffix in (".rec", ".idx"):
        return RecordSource(path)
    if suffix == ".tar":
        return TarSource(path)
    if suffix in LIST_SUFFIXES:
        return ImageList(path, images)
    known = ".rec, .tar, .csv, .tsv, .parquet or a folder"
    if suffix in _UNREAD:
        raise InputError(shown(path), f"is {_UNREAD[suffix]}, which is not read", f"unpack it first: give {known}")
    raise InputError(shown(path), "holds no identities that can be read", f"give {known}")


def _open_folder(path: Path) -> IdentitySource:
    entries = visible_entries(path)
    suffixes = {entry.suffix.lower() for entry in entries if not entry.is_dir()}
    folders = any(entry.is_dir() for entry in entries)
    if ".rec" in suffixes or (".idx" in suffixes and not folders):
        return RecordSource(path)
    if ".tar" in suffixes and folders:
        raise InputError(shown(path), "holds folders and .tar files", "name the one that is meant")
    if ".tar" in suffixes:
        return TarSource(path)
    if ".mdb" in suffixes and not folders:
        raise InputError(shown(path), "is an LMDB database, which is not read", "export its images to a folder or .rec")
    return ImageFolder(path)
