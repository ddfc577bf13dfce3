"""Images laid out as a folder of identity folders."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np

from facekd.data.identities import case_collisions, first_few, refuse_unusable, samples_digest
from facekd.data.images import shown
from facekd.data.lists import FileImages, ImageRoot
from facekd.errors import InputError

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp")


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
        opened = ImageRoot(Path(root))
        paths: list[str] = []
        self.names: list[str] = []
        self.warnings: list[str] = []
        labels: list[int] = []
        empty, others, sizes = [], [], []
        for name, is_folder in _entries(opened, ""):
            if not is_folder:
                continue
            found, rest = _images_of(opened, name)
            others += rest
            if not found:
                empty.append(name)
            for relative, size in found:
                paths.append(relative)
                sizes.append(size)
                labels.append(len(self.names))
            self.names.append(name)
        refuse_unusable(shown(root), self.names, empty)
        if others:
            self.warnings.append(f"{shown(root)}: {len(others)} files are no images and left out: {first_few(others)}")
        self.warnings += case_collisions(shown(root), self.names)
        self._files = FileImages(opened, tuple(paths))
        self.labels = np.array(labels, np.int64)
        self.digest = samples_digest(zip(paths, sizes, (self.names[label] for label in labels), strict=True))

    def __len__(self) -> int:
        return len(self._files)

    def encoded(self, index: int) -> bytes:
        """The file of image ``index``; raises `DataError` where it is gone."""
        return self._files.encoded(index)

    def read(self, index: int) -> np.ndarray:
        """Image ``index``, uint8 RGB (height, width, 3); raises `DataError` where it is gone or does not decode."""
        return self._files.read(index)

    def sample_name(self, index: int) -> str:
        """Path of image ``index`` relative to the root."""
        return self._files.sample_name(index)


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
