"""Images with identities: a folder of folders, or a list."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Protocol

import numpy as np

from facekd.data.images import decode, read_bytes, shown
from facekd.data.lists import ImageRoot, read_rows, refuse_missing, relative_path
from facekd.errors import InputError

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp")


class IdentitySource(Protocol):
    """Images that each belong to one identity.

    Attributes:
        names: Identity names, sorted; the label of an identity is its place in this list.
        labels: int64 (N,), the label of each image.
        digest: sha256 that changes when images are added, removed, moved or resized on disk.
    """

    names: list[str]
    labels: np.ndarray
    digest: str

    def __len__(self) -> int: ...

    def read(self, index: int) -> np.ndarray:
        """Image ``index``, uint8 RGB (height, width, 3)."""

    def sample_name(self, index: int) -> str:
        """Name of image ``index`` for messages and exports."""


class ImageFolder:
    """Images laid out as ``root/IDENTITY/IMAGE``.

    Folders and files are taken in sorted order, so labels do not depend on the disk. Names starting with a dot are
    left alone, and so are files beside the identities. Files within an identity that are no images are left out and
    counted in ``warnings``, which holds what a user should know. The digest
    covers relative paths, byte counts and identities, not the content of the images.

    Args:
        root: The folder.

    Raises:
        InputError: Missing or empty root, fewer than two identities, an identity without images, folders within
            identities, or a link that loops or leads out of the root.
    """

    def __init__(self, root: Path) -> None:
        self._root = ImageRoot(Path(root))
        self._paths: list[str] = []
        self.names: list[str] = []
        self.warnings: list[str] = []
        labels: list[int] = []
        empty, others, sizes = [], [], []
        for name, is_folder in _entries(self._root, ""):
            if not is_folder:
                continue
            found, rest = _images_of(self._root, name)
            others += rest
            if not found:
                empty.append(name)
            for relative, size in found:
                self._paths.append(relative)
                sizes.append(size)
                labels.append(len(self.names))
            self.names.append(name)
        _refuse_empty(shown(root), self.names, empty)
        if others:
            self.warnings.append(f"{shown(root)}: {len(others)} files are no images and left out: {_first(others)}")
        self.warnings += case_collisions(shown(root), self.names)
        self.labels = np.array(labels, np.int64)
        self.digest = _digest(zip(self._paths, sizes, (self.names[label] for label in labels), strict=True))

    def __len__(self) -> int:
        return len(self._paths)

    def read(self, index: int) -> np.ndarray:
        """Image ``index``, uint8 RGB (height, width, 3).

        Raises:
            DataError: The file is gone or does not decode.
        """
        return _read(self._root, self._paths[index])

    def sample_name(self, index: int) -> str:
        """Path of image ``index`` relative to the root."""
        return self._paths[index]


class ImageList:
    """Images named by a CSV or TSV file with the columns ``path`` and ``identity``; further columns are allowed.

    Images keep the order of the list. The digest is the one the same files have as an ``ImageFolder``.

    Args:
        path: The list; UTF-8, comma or tab separated.
        root: Folder the paths are relative to; the list's own folder when None.

    Raises:
        InputError: The header lacks a column, a row is malformed, a path is unsafe, listed twice or missing on disk
            (all checked here), or there are fewer than two identities.
    """

    def __init__(self, path: Path, root: Path | None = None) -> None:
        path = Path(path)
        self._root = ImageRoot(Path(root) if root is not None else path.parent)
        rows, self.warnings = read_rows(path)
        sizes, identities, missing = [], [], []
        first_line: dict[str, int] = {}
        for line, relative, identity in _listed(path, rows):
            where = f"{shown(path)}:{line}"
            if relative in first_line:
                raise InputError(where, f"'{shown(relative)}' is listed on line {first_line[relative]} already")
            first_line[relative] = line
            size = self._root.size(relative, where)
            if size is None:
                missing.append((line, relative))
            sizes.append(size or 0)
            identities.append(identity)
        refuse_missing(path, missing, self._root)
        self._paths = list(first_line)
        self.names = sorted(set(identities))
        _refuse_empty(shown(path), self.names, [])
        self.warnings += case_collisions(shown(path), self.names)
        label_of = {name: label for label, name in enumerate(self.names)}
        self.labels = np.array([label_of[identity] for identity in identities], np.int64)
        self.digest = _digest(zip(self._paths, sizes, identities, strict=True))

    def __len__(self) -> int:
        return len(self._paths)

    def read(self, index: int) -> np.ndarray:
        """Image ``index``, uint8 RGB (height, width, 3).

        Raises:
            DataError: The file is gone or does not decode.
        """
        return _read(self._root, self._paths[index])

    def sample_name(self, index: int) -> str:
        """Path of image ``index`` as listed."""
        return self._paths[index]


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


def _read(root: ImageRoot, relative: str) -> np.ndarray:
    path = root.join(relative)
    return decode(read_bytes(path), shown(path))


def _entries(root: ImageRoot, folder: str) -> list[tuple[str, bool]]:
    where = shown(root.join(folder))
    try:
        with os.scandir(root.join(folder)) as found:
            listed = sorted((entry for entry in found if not entry.name.startswith(".")), key=lambda entry: entry.name)
            for entry in listed:
                if entry.is_symlink():
                    os.stat(entry.path)
                    root.require_inside(os.path.join(folder, entry.name), where)
            return [(entry.name, entry.is_dir()) for entry in listed]
    except OSError as error:
        raise InputError(shown(error.filename or where), f"cannot be read: {error.strerror}") from None


def _images_of(root: ImageRoot, identity: str) -> tuple[list[tuple[str, int]], list[str]]:
    images, others = [], []
    for name, is_folder in _entries(root, identity):
        relative = f"{identity}/{name}"
        if is_folder:
            where = shown(root.join(relative))
            raise InputError(where, "is a folder inside an identity", "lay images out as ROOT/IDENTITY/IMAGE")
        if name.lower().endswith(IMAGE_SUFFIXES):
            images.append((relative, root.size(relative, shown(root.join(relative))) or 0))
        else:
            others.append(relative)
    return images, others


def _listed(path: Path, rows: Sequence[tuple[int, list[str]]]) -> Iterable[tuple[int, str, str]]:
    header_line, header = rows[0]
    columns = [field.strip().lower() for field in header]
    absent = [name for name in ("path", "identity") if columns.count(name) != 1]
    if absent:
        what = f"the header '{shown(','.join(header))}' lacks {' and '.join(absent)}"
        raise InputError(f"{shown(path)}:{header_line}", what, "the first line must be path,identity")
    if len(rows) == 1:
        raise InputError(shown(path), "holds a header and no rows")
    path_column, identity_column = columns.index("path"), columns.index("identity")
    for line, fields in rows[1:]:
        where = f"{shown(path)}:{line}"
        if len(fields) != len(columns):
            raise InputError(where, f"{len(fields)} fields instead of {len(columns)}: '{shown(','.join(fields), 80)}'")
        identity = fields[identity_column].strip()
        if not identity:
            raise InputError(where, "the identity is empty")
        yield line, relative_path(fields[path_column], where), identity


def _refuse_empty(where: str, names: Sequence[str], empty: Sequence[str]) -> None:
    if not names:
        raise InputError(where, "holds no identities", "lay images out as ROOT/IDENTITY/IMAGE")
    if empty:
        raise InputError(where, f"{len(empty)} identities without images: {_first(empty)}", "remove the empty folders")
    if len(names) == 1:
        raise InputError(where, f"only one identity, '{shown(names[0])}'", "give at least two")


def _first(names: Sequence[str], most: int = 3) -> str:
    listed = ", ".join(f"'{shown(name)}'" for name in names[:most])
    return f"{listed} and {len(names) - most} more" if len(names) > most else listed


def _digest(samples: Iterable[tuple[str, int, str]]) -> str:
    digest = hashlib.sha256()
    for relative, size, identity in sorted(samples):
        for part in (os.fsencode(relative), str(size).encode(), os.fsencode(identity)):
            digest.update(len(part).to_bytes(4, "little") + part)
    return digest.hexdigest()
