"""Photographs that belong to nobody yet: a folder of images without identities."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from facekd.data.identities import IdentitySource, first_few, samples_digest
from facekd.data.image_folder import IMAGE_SUFFIXES
from facekd.data.images import shown
from facekd.data.lists import FileImages, ImageRoot, visible_entries
from facekd.data.open_source import IDENTITY_SUFFIXES, open_identities
from facekd.errors import InputError


class PhotographFolder:
    """The images that lie in one folder, in sorted order; an `IdentitySource` whose only identity has no name.

    Args:
        root: The folder; names starting with a dot are left alone, files that are no images are counted in
            ``warnings``.

    Raises:
        InputError: The folder cannot be read, holds no images, or a link leads out of it.
    """

    def __init__(self, root: Path) -> None:
        opened = ImageRoot(Path(root))
        files = [entry.name for entry in visible_entries(Path(root)) if not entry.is_dir()]
        paths = [name for name in files if name.lower().endswith(IMAGE_SUFFIXES)]
        others = [name for name in files if not name.lower().endswith(IMAGE_SUFFIXES)]
        if not paths:
            raise InputError(shown(root), "holds no images")
        sizes = [opened.size(name, shown(opened.join(name))) or 0 for name in paths]
        self._files = FileImages(opened, tuple(paths))
        self.names = [""]
        self.labels = np.zeros(len(paths), np.int64)
        self.warnings: list[str] = []
        if others:
            self.warnings.append(f"{shown(root)}: {len(others)} files are no images and left out: {first_few(others)}")
        self.digest = samples_digest(zip(paths, sizes, [""] * len(paths), strict=True))

    def __len__(self) -> int:
        return len(self._files)

    def encoded(self, index: int) -> bytes:
        """The file of image ``index``; raises `DataError` where it is gone."""
        return self._files.encoded(index)

    def read(self, index: int) -> np.ndarray:
        """Image ``index``, uint8 RGB (height, width, 3); raises `DataError` where it is gone or does not decode."""
        return self._files.read(index)

    def sample_name(self, index: int) -> str:
        """File name of image ``index``."""
        return self._files.sample_name(index)


def open_photographs(path: Path, images: Path | None = None) -> IdentitySource:
    """Open images to be aligned: a folder with images and neither folders nor packs in it, or a source of identities.

    Args:
        path: The folder, list or pack.
        images: Root of the paths in a list.

    Raises:
        InputError: Nothing is there, or it cannot be used as what it is.
    """
    if path.is_dir():
        entries = visible_entries(path)
        suffixes = {entry.suffix.lower() for entry in entries}
        packed = suffixes.intersection(IDENTITY_SUFFIXES)
        if suffixes.intersection(IMAGE_SUFFIXES) and not packed and not any(entry.is_dir() for entry in entries):
            return PhotographFolder(path)
    return open_identities(path, images)
