"""Images named by a table of paths and identities."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from facekd.data.identities import case_collisions, refuse_unusable, samples_digest
from facekd.data.images import shown
from facekd.data.lists import FileImages, ImageRoot, read_rows, refuse_missing, relative_path
from facekd.data.parquet_rows import read_parquet_rows
from facekd.errors import InputError


class ImageList:
    """Images named by a CSV, TSV or Parquet file with the columns ``path`` and ``identity``, and others if need be.

    Images keep the order of the list. The digest is the one the same files have as an ``ImageFolder``.

    Args:
        path: The list: ``.parquet``, or anything else for UTF-8 text, comma or tab separated. Messages give the line,
            or the row of a Parquet file, counted from 1.
        root: Folder the paths are relative to; the list's own folder when None.

    Raises:
        InputError: The header lacks a column, a row is malformed, a path is unsafe, listed twice or missing on disk
            (all checked here), or there are fewer than two identities.
    """

    def __init__(self, path: Path, root: Path | None = None) -> None:
        path = Path(path)
        opened = ImageRoot(Path(root) if root is not None else path.parent)
        self.warnings: list[str] = []
        if path.suffix.lower() == ".parquet":
            rows = read_parquet_rows(path, ("path", "identity"))
        else:
            rows, self.warnings = read_rows(path)
        sizes, identities, missing = [], [], []
        first_line: dict[str, int] = {}
        for line, relative, identity in _listed(path, rows):
            where = f"{shown(path)}:{line}"
            if relative in first_line:
                raise InputError(where, f"'{shown(relative)}' is listed on line {first_line[relative]} already")
            first_line[relative] = line
            size = opened.size(relative, where)
            if size is None:
                missing.append((line, relative))
            sizes.append(size or 0)
            identities.append(identity)
        refuse_missing(path, missing, opened)
        self._files = FileImages(opened, tuple(first_line))
        self.names = sorted(set(identities))
        refuse_unusable(shown(path), self.names)
        self.warnings += case_collisions(shown(path), self.names)
        label_of = {name: label for label, name in enumerate(self.names)}
        self.labels = np.array([label_of[identity] for identity in identities], np.int64)
        self.digest = samples_digest(zip(first_line, sizes, identities, strict=True))

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
